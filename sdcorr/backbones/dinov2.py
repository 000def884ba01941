"""DINOv2 patch tokens (Oquab et al., 2023), from any checkpoint in transformers' form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sdcorr.backbones._checkpoint import load_part
from sdcorr.backbones._positions import resize_positions, set_positions
from sdcorr.backbones._transformer import (
    Transformer,
    TransformerConfig,
    check_type,
    patch_of,
)
from sdcorr.runtime import Runtime

if TYPE_CHECKING:
    from transformers import Dinov2Model


@dataclass(frozen=True)
class Dinov2(TransformerConfig):
    """Patch tokens, or a facet, of one block.

    Args: those of ``TransformerConfig``, of which
        block: 11 is the last one of small and base, 23 of large, 39 of giant.
        norm: the correspondence papers do not.
        positions: how the table of position embeddings is brought to the canvas' grid:
            ``"original"`` as in Meta's code, ``"transformers"`` as in transformers. They differ
            for the plain models only, whose original scale factor is (n + 0.1) / 37.
    """

    model: str = "facebook/dinov2-base"
    revision: str | None = None
    size: int = 840
    fit: Literal["letterbox", "stretch"] = "letterbox"
    block: int = 11
    positions: Literal["original", "transformers"] = "original"

    def load(self, folder: Path, runtime: Runtime) -> Transformer:
        """The model, with positions as asked for."""
        model = _load(folder, runtime)
        patch = patch_of(model.config, folder)
        registers = getattr(model.config, "num_register_tokens", 0)
        # the register models were published with antialiasing, and without the 0.1
        how = "antialiased" if registers else self.positions
        set_positions(model.embeddings, patch, self.stride, partial(resize_positions, how=how))
        return Transformer(model, model, model.layernorm, patch, special=1 + registers)


def _load(folder: Path, runtime: Runtime) -> Dinov2Model:
    from transformers import Dinov2Model, Dinov2WithRegistersModel

    kinds = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel}
    kind = check_type(folder, tuple(kinds))
    # the mask token is a training device: never read here, and absent from some conversions
    return load_part(kinds[kind], folder, "", runtime.dtype, unused=("embeddings.mask_token",))


PLUGIN = Dinov2
