"""What DINO, DINOv2, DINOv3 and plain ViT have in common: patches in, tokens or facets out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sdcorr import models
from sdcorr.ahead import ahead
from sdcorr.backbones._checkpoint import read_config
from sdcorr.backbones._positions import grid_shape
from sdcorr.backbones._taps import read_layers
from sdcorr.errors import BadCheckpoint, BadRecipe
from sdcorr.fields import check
from sdcorr.geometry import Grid
from sdcorr.plugins import name_of
from sdcorr.preprocess import LARGEST, Canvas, fit
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap, Image, Weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}


@dataclass(frozen=True)
class TransformerConfig(ABC):
    """Fields of every vision transformer.

    Args:
        model: hub id or local folder.
        revision: branch, tag or commit; None is what this machine has, else the newest.
        size: pixels of the canvas' longer side (fit ``"shorter"``: of its shorter side), a
            multiple of the patch.
        fit: see ``preprocess.fit``.
        block: 0-based transformer block.
        norm: apply the final LayerNorm to the tokens.
        facet: ``"token"`` is the output of the block; ``"key"``, ``"query"`` and ``"value"`` are
            the projections inside it, heads side by side, before any rotation.
        stride: canvas pixels between patches, a divisor of the patch; None is the patch.
    """

    model: str
    revision: str | None
    size: int
    fit: Literal["letterbox", "stretch", "shorter"]
    block: int
    norm: bool = False
    facet: Literal["token", "key", "query", "value"] = "token"
    stride: int | None = None

    def __post_init__(self) -> None:
        check(self)

    @property
    def maps(self) -> tuple[str, ...]:
        """One map, called as the facet."""
        return (self.facet,)

    def weights(self) -> tuple[Weights, ...]:
        """Config and safetensors; mean and standard deviation where the checkpoint has them."""
        required = ("config.json", "model.safetensors")
        optional = ("preprocessor_config.json",)
        return (Weights(self.model, self.revision, required, optional=optional),)

    @abstractmethod
    def load(self, folder: Path, runtime: Runtime) -> Transformer:
        """The model of the checkpoint folder."""

    def build(self, runtime: Runtime) -> TransformerBackbone:
        """Load the checkpoint; see ``BackboneConfig.build``."""
        return TransformerBackbone(*self.parts(runtime))

    def parts(self, runtime: Runtime) -> tuple[Any, ...]:
        """Fields of the backbone: the loaded model, and what it was loaded from."""
        (weights,) = self.weights()
        checkpoint = models.resolve(weights)
        transformer = self.load(checkpoint.path, runtime)
        for problem in self.problems(transformer):
            raise BadRecipe(f"{name_of(self)}: {problem}")
        transformer.end_after(self.last_block(transformer))
        transformer.model.to(runtime.device)
        return (self, runtime, checkpoint, transformer, *_statistics(checkpoint.path))

    def last_block(self, _transformer: Transformer) -> int:
        """The last block that is read."""
        return self.block

    def problems(self, transformer: Transformer) -> Iterator[str]:
        """What is wrong with the fields for this model, in words."""
        patch, depth = transformer.patch, len(transformer.blocks)
        if self.size < patch or self.size % patch:
            yield f"size must be a multiple of the patch, {patch} px, got {self.size}"
        if self.size > LARGEST:
            yield f"size must be at most {LARGEST} px, got {self.size}"
        if self.stride is not None and (self.stride < 1 or patch % self.stride):
            yield f"stride must divide the patch, {patch} px, got {self.stride}"
        if not 0 <= self.block < depth:
            yield f"block must be in 0..{depth - 1} for {self.model}, got {self.block}"
        if self.norm and self.facet != "token":
            yield f"norm is of the tokens, not of the facet {self.facet!r}; set it to false"


@dataclass(frozen=True, eq=False)
class Transformer:
    """A loaded model, and how to run and read it.

    Args:
        model: the whole model.
        run: one forward pass over ``(B, 3, H, W)``.
        norm: its final LayerNorm.
        patch: side of a patch in pixels.
        special: tokens before those of the patches, CLS and registers.
    """

    model: nn.Module
    run: Callable[[Tensor], object]
    norm: nn.Module
    patch: int
    special: int

    @property
    def config(self) -> Any:
        """The checkpoint's own config."""
        return self.model.config

    @property
    def blocks(self) -> tuple[str, ...]:
        """Dotted names of the blocks; found by their number, for the list's name has changed."""
        depth = self.config.num_hidden_layers
        lists = (
            name
            for name, module in self.model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == depth
        )
        name = next(lists)
        return tuple(f"{name}.{block}" for block in range(depth))

    def end_after(self, block: int) -> None:
        """Let go of the blocks that follow; no pass reaches them."""
        for name in self.blocks[block + 1 :]:
            self.model.set_submodule(name, nn.Identity())

    def layer(self, block: int, facet: str) -> str:
        """Dotted name of the submodule that puts out the facet."""
        name = self.blocks[block]
        return name if facet == "token" else f"{name}.attention.{PROJECTIONS[facet]}"


@dataclass(frozen=True, eq=False)
class TransformerBackbone:
    """A loaded vision transformer."""

    config: TransformerConfig
    runtime: Runtime
    checkpoint: models.Checkpoint
    transformer: Transformer
    mean: Tensor  # (3, 1, 1)
    std: Tensor  # (3, 1, 1)

    @property
    def channels(self) -> Mapping[str, int]:
        """Width of the tokens; heads together make the same width."""
        return {self.config.facet: int(self.transformer.config.hidden_size)}

    @property
    def revisions(self) -> Mapping[str, str]:
        """Revision of the checkpoint."""
        return {self.checkpoint.model: self.checkpoint.revision}

    @torch.no_grad()
    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """The maps of each photo; neighbours of one canvas size share a forward pass."""
        maps: list[dict[str, FeatureMap]] = []
        to_canvas = partial(fit, size=self.config.size, how=self.config.fit)
        with closing(ahead(to_canvas, images, depth=self.runtime.batch)) as canvases:
            for _, alike in groupby(canvases, key=lambda canvas: canvas.pixels.shape):
                while batch := list(islice(alike, self.runtime.batch)):
                    maps += self._batch(batch)
        return tuple(maps)

    def _batch(self, canvases: Sequence[Canvas]) -> Iterator[dict[str, FeatureMap]]:
        patch = self.transformer.patch
        stride = self.config.stride or patch
        shape = grid_shape(canvases[0].pixels.shape[:2], patch, stride)
        tokens = self.read(self._inputs(canvases))  # (B, h*w, C) by map
        for index, canvas in enumerate(canvases):
            grid = canvas.grid(shape, stride, inset=(patch - stride) / 2)
            yield {
                name: FeatureMap(name, self.finish(name, values[index], grid), grid)
                for name, values in tokens.items()
            }

    def _inputs(self, canvases: Sequence[Canvas]) -> Tensor:
        pixels = torch.stack([torch.from_numpy(canvas.pixels.copy()) for canvas in canvases])
        unit = pixels.permute(0, 3, 1, 2).float() / 255  # (B, 3, H, W)
        return ((unit - self.mean) / self.std).to(self.runtime.device, self.runtime.dtype)

    def read(self, inputs: Tensor) -> dict[str, Tensor]:
        """One value per patch, ``(B, h*w, C)``, by map; inputs ``(B, 3, H, W)``."""
        layer = self.transformer.layer(self.config.block, self.config.facet)
        outputs = read_layers(self.transformer.model, [layer], lambda: self.transformer.run(inputs))
        hidden = outputs[layer]  # (B, T, C)
        if self.config.norm:
            hidden = self.transformer.norm(hidden)
        return {self.config.facet: hidden[:, self.transformer.special :]}

    def finish(self, _name: str, values: Tensor, grid: Grid) -> Tensor:
        """Values of one photo's patches ``(h*w, C)`` as ``(C, h, w)``."""
        finished: Tensor = values.T.unflatten(1, grid.shape)
        return finished


def patch_of(config: Any, folder: Path) -> int:
    """Side of a patch; raises BadCheckpoint where the model reads no square photos in colour."""
    if config.num_channels != 3:
        raise BadCheckpoint(f"{folder}: num_channels must be 3, got {config.num_channels}")
    for name in ("patch_size", "image_size"):
        if not isinstance(size := getattr(config, name), int):
            raise BadCheckpoint(f"{folder}: {name} must be one number, got {size}")
    if config.hidden_size % config.num_attention_heads:
        raise BadCheckpoint(f"{folder}: hidden_size must be a multiple of num_attention_heads")
    return int(config.patch_size)


def check_type(folder: Path, known: Sequence[str]) -> str:
    """The checkpoint's model type; raises BadCheckpoint where it is none of the known ones."""
    kind = read_config(folder, "config.json").get("model_type")
    if kind not in known:
        raise BadCheckpoint(
            f"{folder} holds a model of type {kind!r}; expected {' or '.join(known)}"
        )
    return str(kind)


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
