"""DINOv2 patch tokens (Oquab et al., 2023), from any checkpoint in transformers' form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdcorr import models
from sdcorr.backbones._checkpoint import load_part, read_config
from sdcorr.backbones._taps import read_layers
from sdcorr.errors import BadCheckpoint, BadRecipe
from sdcorr.preprocess import Canvas, fit
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap, Image, Weights

if TYPE_CHECKING:
    from transformers import Dinov2Model

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Dinov2:
    """Patch tokens of one block.

    Args:
        model: hub id or local folder; plain or register checkpoints, small to giant.
        revision: branch, tag or commit; None is what this machine has, else the newest.
        size: side of the square canvas in pixels, a multiple of the patch (14).
        fit: ``"letterbox"`` or ``"stretch"``.
        block: 0-based transformer block; 11 is the last one of small and base, 23 of large,
            39 of giant.
        norm: apply the final LayerNorm to the tokens; the correspondence papers do not.
        positions: how the table of position embeddings is brought to the canvas' grid:
            ``"original"`` as in Meta's code, ``"transformers"`` as in transformers. They differ
            for the plain models only, whose original scale factor is (n + 0.1) / 37.
    """

    model: str = "facebook/dinov2-base"
    revision: str | None = None
    size: int = 840
    fit: Literal["letterbox", "stretch"] = "letterbox"
    block: int = 11
    norm: bool = False
    positions: Literal["original", "transformers"] = "original"

    @property
    def maps(self) -> tuple[str, ...]:
        """One map, ``token``."""
        return ("token",)

    def weights(self) -> Weights:
        """Config and safetensors; mean and standard deviation where the checkpoint has them."""
        return Weights(
            self.model,
            self.revision,
            required=("config.json", "model.safetensors"),
            optional=("preprocessor_config.json",),
        )

    def build(self, runtime: Runtime) -> Dinov2Backbone:
        """Load the checkpoint; see ``BackboneConfig.build``."""
        checkpoint = models.resolve(self.weights())
        model = _load(checkpoint.path, runtime)
        patch, blocks = model.config.patch_size, int(model.config.num_hidden_layers)
        if not isinstance(patch, int):
            raise BadCheckpoint(f"{self.model}: patch_size must be one number, got {patch}")
        if self.size < patch or self.size % patch:
            raise BadRecipe(
                f"dinov2: size must be a multiple of the patch, {patch} px, got {self.size}"
            )
        if not 0 <= self.block < blocks:
            raise BadRecipe(
                f"dinov2: block must be in 0..{blocks - 1} for {self.model}, got {self.block}"
            )
        if self.positions == "original":
            _set_original_positions(model, self.size // patch)
        mean, std = _statistics(checkpoint.path)
        return Dinov2Backbone(self, runtime, checkpoint, model.to(runtime.device), mean, std)


@dataclass(frozen=True, eq=False)
class Dinov2Backbone:
    """A loaded DINOv2."""

    config: Dinov2
    runtime: Runtime
    checkpoint: models.Checkpoint
    model: Dinov2Model
    mean: Tensor  # (3, 1, 1)
    std: Tensor  # (3, 1, 1)

    @property
    def channels(self) -> Mapping[str, int]:
        """Width of the tokens."""
        return {"token": int(self.model.config.hidden_size)}

    @property
    def revisions(self) -> Mapping[str, str]:
        """Revision of the checkpoint."""
        return {self.checkpoint.model: self.checkpoint.revision}

    @torch.no_grad()
    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """One map of ``size / patch`` cells a side for each photo."""
        maps: list[dict[str, FeatureMap]] = []
        for start in range(0, len(images), self.runtime.batch):
            canvases = [
                fit(image, self.config.size, self.config.fit)
                for image in images[start : start + self.runtime.batch]
            ]
            tokens = self._tokens(canvases)  # (B, C, h, w)
            for canvas, values in zip(canvases, tokens, strict=True):
                grid = canvas.grid((values.shape[1], values.shape[2]), self._patch)
                maps.append({"token": FeatureMap("token", values, grid)})
        return tuple(maps)

    @property
    def _patch(self) -> int:
        return int(self.model.config.patch_size)

    def _tokens(self, canvases: Sequence[Canvas]) -> Tensor:
        pixels = torch.stack([torch.from_numpy(canvas.pixels.copy()) for canvas in canvases])
        unit = pixels.permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
        inputs = ((unit - self.mean) / self.std).to(self.runtime.device, self.runtime.dtype)
        layer = _block_name(self.model, self.config.block)
        hidden = read_layers(self.model, [layer], lambda: self.model(inputs))[layer]  # (B, T, C)
        if self.config.norm:
            hidden = self.model.layernorm(hidden)
        special = 1 + getattr(self.model.config, "num_register_tokens", 0)  # CLS and registers
        side = self.config.size // self._patch
        patches: Tensor = hidden[:, special:].mT.unflatten(-1, (side, side))
        return patches


def original_positions(table: Tensor, side: int, registers: bool) -> Tensor:
    """Position table of Meta's DINOv2 code for a square grid.

    Args:
        table: ``(1, 1 + n*n, C)``, the CLS entry first.
        side: cells a side of the wanted grid.
        registers: the register models were published without the 0.1 and with antialiasing.

    Returns:
        ``(1, 1 + side*side, C)``; bicubic with scale ``(side + 0.1) / n``, which reads the table
        at slightly other places than ``size=(side, side)`` does.
    """
    stored = round((table.shape[1] - 1) ** 0.5)
    if stored == side:
        return table
    patches = table[:, 1:].float().mT.unflatten(-1, (stored, stored))  # (1, C, n, n)
    if registers:
        resized = F.interpolate(patches, size=(side, side), mode="bicubic", antialias=True)
    else:
        scale = (side + 0.1) / stored
        resized = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1], resized.flatten(2).mT.to(table)], dim=1)


def _load(folder: Path, runtime: Runtime) -> Dinov2Model:
    from transformers import Dinov2Model, Dinov2WithRegistersModel

    kinds = {"dinov2": Dinov2Model, "dinov2_with_registers": Dinov2WithRegistersModel}
    kind = read_config(folder, "config.json").get("model_type")
    if kind not in kinds:
        raise BadCheckpoint(
            f"{folder} holds a model of type {kind!r}; expected dinov2 or dinov2_with_registers"
        )
    # the mask token is a training device: never read here, and absent from some conversions
    return load_part(kinds[kind], folder, "", runtime.dtype, unused=("embeddings.mask_token",))


def _set_original_positions(model: Dinov2Model, side: int) -> None:
    registers = model.config.model_type == "dinov2_with_registers"
    table = original_positions(model.embeddings.position_embeddings, side, registers)
    # as long as the grid, so that transformers takes it as it is
    model.embeddings.position_embeddings = nn.Parameter(table, requires_grad=False)


def _block_name(model: Dinov2Model, block: int) -> str:
    """Dotted name of a block, found by the length of the list: its name changed over versions."""
    depth = model.config.num_hidden_layers
    lists = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    return f"{lists[0]}.{block}"


def _statistics(folder: Path) -> tuple[Tensor, Tensor]:
    known = folder / "preprocessor_config.json"
    config = read_config(folder, known.name) if known.is_file() else {}
    mean = config.get("image_mean", IMAGENET_MEAN)
    std = config.get("image_std", IMAGENET_STD)
    try:
        numbers = torch.tensor([mean, std], dtype=torch.float32).reshape(2, 3, 1, 1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadCheckpoint(f"{known}: image_mean and image_std must be three numbers") from error
    if not torch.isfinite(numbers).all() or not (numbers[1] > 0).all():
        raise BadCheckpoint(f"{known}: image_mean must be finite and image_std positive")
    return numbers[0], numbers[1]


PLUGIN = Dinov2
