"""DINOv3 patch tokens (Simeoni et al., 2025); its weights are gated on the hub."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sdcorr.backbones._checkpoint import load_part
from sdcorr.backbones._positions import grid_shape
from sdcorr.backbones._transformer import (
    Transformer,
    TransformerConfig,
    check_type,
    patch_of,
)
from sdcorr.runtime import Runtime


@dataclass(frozen=True)
class Dinov3(TransformerConfig):
    """Patch tokens, or a facet, of one block of a DINOv3 ViT.

    Args: those of ``TransformerConfig``, of which
        block: 11 is the last one of small and base, 23 of large.
        norm: Meta's code does, where it hands out inner layers.
        facet: keys and queries are read before their rotation.
        stride: rotary positions are those of the patches' centres on the canvas.
    """

    model: str = "facebook/dinov3-vitb16-pretrain-lvd1689m"
    revision: str | None = None
    size: int = 768
    fit: Literal["letterbox", "stretch"] = "letterbox"
    block: int = 11
    norm: bool = True

    def load(self, folder: Path, runtime: Runtime) -> Transformer:
        """The model; with a finer stride, the rotary positions follow the patches."""
        from transformers import DINOv3ViTModel

        check_type(folder, ("dinov3_vit",))
        model = load_part(
            DINOv3ViTModel, folder, "", runtime.dtype, unused=("embeddings.mask_token",)
        )
        patch, step = patch_of(model.config, folder), self.stride
        if step is not None:
            model.embeddings.patch_embeddings.stride = (step, step)
            rope = model.rope_embeddings
            rope.forward = rotations(rope.inv_freq, patch, step)
        special = 1 + int(model.config.num_register_tokens)
        return Transformer(model, model, model.norm, patch, special)


def rotations(
    frequencies: Tensor, patch: int, stride: int
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Cosine and sine of each patch's angles, ``(h*w, D)`` each, for a canvas ``(B, 3, H, W)``.

    transformers' rotary embedding with the patches' centres ``stride`` pixels apart: positions
    run from -1 to 1 over the canvas, first y, then x, one angle per frequency, all twice.
    """

    def of_canvas(canvas: Tensor) -> tuple[Tensor, Tensor]:
        height, width = canvas.shape[-2:]
        rows, columns = grid_shape((height, width), patch, stride)
        y, x = (
            2 * (stride * torch.arange(count, device=canvas.device) + patch / 2) / side - 1
            for count, side in ((rows, height), (columns, width))
        )
        places = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)  # (h*w, 2)
        angles = 2 * math.pi * places[:, :, None] * frequencies.to(canvas.device)  # (h*w, 2, D/4)
        angles = angles.flatten(1).tile(2)  # (h*w, D)
        return angles.cos().to(canvas.dtype), angles.sin().to(canvas.dtype)

    return of_canvas


PLUGIN = Dinov3
