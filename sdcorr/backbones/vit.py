"""Plain ViTs: DINO v1 (Caron et al., 2021), supervised ones (Dosovitskiy et al., 2021).

Finer stride, facets and saliency as in "Deep ViT Features as Dense Visual Descriptors" (Amir et
al., 2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sdcorr.backbones._checkpoint import load_part
from sdcorr.backbones._positions import resize_positions, set_positions
from sdcorr.backbones._taps import read_layers
from sdcorr.backbones._transformer import (
    Transformer,
    TransformerBackbone,
    TransformerConfig,
    check_type,
    patch_of,
)
from sdcorr.geometry import Grid
from sdcorr.runtime import Runtime

SALIENCY = "saliency"


@dataclass(frozen=True)
class Vit(TransformerConfig):
    """Patch tokens, or a facet, of one block of a ViT, and where the photo is salient.

    Args: those of ``TransformerConfig``, of which
        positions: how the table of position embeddings is brought to the canvas' grid:
            ``"original"`` as in Meta's code of DINO, ``"transformers"`` as in transformers.
        saliency: 0-based heads of the last block; the mean of their attention from CLS, brought
            to 0..1 over the photo, makes a map of one channel, ``saliency``. Empty for none.
    """

    model: str = "facebook/dino-vits8"
    revision: str | None = None
    size: int = 224
    fit: Literal["letterbox", "stretch", "shorter"] = "letterbox"
    block: int = 11
    positions: Literal["original", "transformers"] = "original"
    saliency: tuple[int, ...] = ()

    @property
    def maps(self) -> tuple[str, ...]:
        """One map, called as the facet; and ``saliency`` where heads are named."""
        return (self.facet, SALIENCY) if self.saliency else (self.facet,)

    def load(self, folder: Path, runtime: Runtime) -> Transformer:
        """The model without pooler, with positions as asked for."""
        from transformers import ViTModel

        check_type(folder, ("vit",))
        model = load_part(ViTModel, folder, "", runtime.dtype, add_pooling_layer=False)
        patch = patch_of(model.config, folder)
        resize = partial(resize_positions, how=self.positions)
        set_positions(model.embeddings, patch, self.stride, resize)
        run = partial(model, interpolate_pos_encoding=True)
        return Transformer(model, run, model.layernorm, patch, special=1)

    def build(self, runtime: Runtime) -> VitBackbone:
        """Load the checkpoint; see ``BackboneConfig.build``."""
        return VitBackbone(*self.parts(runtime))

    def last_block(self, transformer: Transformer) -> int:
        """The last block that is read; saliency is that of the model's last."""
        return len(transformer.blocks) - 1 if self.saliency else self.block

    def problems(self, transformer: Transformer) -> Iterator[str]:
        """What is wrong with the fields for this model, in words."""
        yield from super().problems(transformer)
        heads = transformer.config.num_attention_heads
        if not set(self.saliency) <= set(range(heads)):
            yield f"saliency must name heads in 0..{heads - 1}, got {self.saliency}"


@dataclass(frozen=True, eq=False)
class VitBackbone(TransformerBackbone):
    """A loaded ViT."""

    config: Vit

    @property
    def channels(self) -> Mapping[str, int]:
        """Width of the tokens; one of the saliency."""
        return {name: super(VitBackbone, self).channels.get(name, 1) for name in self.config.maps}

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """One value per patch, ``(B, h*w, C)``, by map; inputs ``(B, 3, H, W)``."""
        if not self.config.saliency:
            return super().read(inputs)
        vit, config = self.transformer, self.config
        last = len(vit.blocks) - 1
        facet, query, key = (
            vit.layer(config.block, config.facet), vit.layer(last, "query"), vit.layer(last, "key"),
        )  # fmt: skip
        layers = tuple(dict.fromkeys((facet, query, key)))
        outputs = read_layers(vit.model, layers, lambda: vit.run(inputs))
        hidden = vit.norm(outputs[facet]) if config.norm else outputs[facet]
        attention = cls_attention(outputs[query], outputs[key], vit.config.num_attention_heads)
        salient = attention[:, list(config.saliency), vit.special :].mean(dim=1)  # (B, h*w)
        return {config.facet: hidden[:, vit.special :], SALIENCY: salient[:, :, None]}

    def finish(self, name: str, values: Tensor, grid: Grid) -> Tensor:
        """Values of one photo's patches ``(h*w, C)`` as ``(C, h, w)``; saliency in 0..1."""
        if name == SALIENCY:
            values = to_unit_range(values, grid.inside().to(values.device))
        return super().finish(name, values, grid)


def cls_attention(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Attention of the first token to all, by head.

    Args:
        query: ``(B, T, C)``, heads side by side.
        key: ``(B, T, C)``.
        heads: how many.

    Returns:
        ``(B, heads, T)`` float32, each row sums to 1.
    """
    first = query[:, 0].float().unflatten(-1, (heads, -1))  # (B, heads, D)
    keys = key.float().unflatten(-1, (heads, -1))  # (B, T, heads, D)
    logits: Tensor = torch.einsum("bhd,bthd->bht", first, keys) / first.shape[-1] ** 0.5
    return logits.softmax(dim=-1)


def to_unit_range(values: Tensor, inside: Tensor) -> Tensor:
    """Values ``(h*w, 1)`` with the least of the photo's cells at 0 and the greatest at 1.

    Where all are equal, all become 1: nothing is more salient than the rest. Padding may lie
    outside 0..1.
    """
    low, high = values[inside].min(), values[inside].max()
    if not high > low:
        return torch.ones_like(values)
    scaled: Tensor = (values - low) / (high - low)
    return scaled


PLUGIN = Vit
