"""Inner maps of a latent diffusion model's UNet: what Stable Diffusion, XL and CleanDIFT share."""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from sdcorr import models
from sdcorr.backbones._taps import read_layers
from sdcorr.backbones._windows import cut_windows, merge_windows, window_starts
from sdcorr.errors import BadRecipe
from sdcorr.fields import check, reads_category
from sdcorr.models import Checkpoint
from sdcorr.plugins import name_of
from sdcorr.preprocess import LARGEST, fit
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap, Image

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

CELL = 64  # px of the coarsest map: on multiples of it, windows share their cells


@dataclass(frozen=True)
class DiffusionConfig(ABC):
    """Fields of every latent diffusion model.

    Args:
        model: hub id or local folder in diffusers' layout.
        revision: branch, tag or commit; None is what this machine has, else the newest.
        size: side of the square canvas in pixels, a multiple of 64.
        fit: ``"letterbox"`` or ``"stretch"``.
        resample: Pillow's filter for the resize.
        window: side of the windows that cut up the canvas, each its own pass; None is one pass
            over the whole canvas.
        overlap: pixels that neighbouring windows share, where their maps are averaged; of no
            meaning without windows.
        latent: ``"mean"`` of the VAE's posterior, or a seeded ``"sample"``.
        step: diffusion timestep t.
        seed: of all noise, drawn afresh for each photo, on the CPU, at the size of one window's
            latent, and shared by all windows.
        prompt: text prompt; ``{category}`` stands for the photo's category.
        prompt_without_category: prompt for photos without one; None requires a category.
        layers: UNet layers to read, dotted names of diffusers.

    Raises:
        BadRecipe: a field is out of range or contradicts another.
    """

    model: str
    revision: str | None
    size: int
    fit: Literal["letterbox", "stretch"]
    resample: Literal["lanczos", "bicubic"]
    window: int | None
    overlap: int
    latent: Literal["mean", "sample"]
    step: float
    seed: int
    prompt: str
    prompt_without_category: str | None
    layers: tuple[str, ...]

    def __post_init__(self) -> None:
        check(self)
        for problem in self.problems():
            raise BadRecipe(f"{name_of(self)}: {problem}")

    @property
    def maps(self) -> tuple[str, ...]:
        """One map for each layer."""
        return self.layers

    @property
    def starts(self) -> tuple[int, ...]:
        """Left (and top) edges of the windows on the canvas, in pixels."""
        window = self.size if self.window is None else self.window
        return window_starts(self.size, window, self.overlap)

    def prompt_for(self, category: str | None) -> str:
        """The prompt for a photo; raises BadRecipe where a category is required."""
        if category is not None:
            return self.prompt.format(category=category)
        if not reads_category(self):
            return self.prompt.format()  # doubled braces become single ones
        if self.prompt_without_category is None:
            raise BadRecipe(
                f"the prompt {self.prompt!r} needs a category: name it with --category "
                "(in Python: category=...)"
            )
        return self.prompt_without_category

    def problems(self) -> Iterator[str]:
        """What is wrong with the fields, in words."""
        window = self.size if self.window is None else self.window
        for name, value in (("size", self.size), ("window", window)):
            if value < CELL or value % CELL:
                yield f"{name} must be a multiple of {CELL} px, got {value}"
        if self.size > LARGEST:
            yield f"size must be at most {LARGEST} px, got {self.size}"
        if window > self.size:
            yield f"window {window} is larger than size {self.size}"
        if self.window and not (0 <= self.overlap < window and self.overlap % CELL == 0):
            yield f"overlap must be a multiple of {CELL} px below {window}, got {self.overlap}"
        if not self.layers or len(set(self.layers)) < len(self.layers):
            yield f"layers must be at least one, each once, got {self.layers}"
        try:
            named = [field[1:] for field in string.Formatter().parse(self.prompt)]
        except ValueError as error:
            yield f"the prompt {self.prompt!r} is no template: {error}"
            return
        if any(field not in ((None, None, None), ("category", "", None)) for field in named):
            yield f"the prompt may name {{category}} only, got {self.prompt!r}"
        if "{category}" in (self.prompt_without_category or ""):
            yield "prompt_without_category must not name {category}"


@dataclass(frozen=True)
class NoisedConfig(DiffusionConfig):
    """Fields of one whose UNet reads a noised latent.

    Args: those of ``DiffusionConfig``, of which
        step: a whole number; 0 is the cleanest.
        seed: with ``latent="sample"``, each member of the ensemble draws the posterior's noise
            first.
        ensemble: number of noise draws whose maps are averaged.
    """

    step: int
    ensemble: int = 1

    def problems(self) -> Iterator[str]:
        """What is wrong with the fields, in words."""
        yield from super().problems()
        if self.ensemble < 1:
            yield f"ensemble must be at least 1, got {self.ensemble}"


@dataclass(frozen=True, eq=False)
class DiffusionBackbone(ABC):
    """A loaded latent diffusion model without its decoder.

    Args:
        config: what defines the maps.
        runtime: on what they are computed.
        checkpoints: where the weights came from.
        unet: read at the config's layers.
        vae: encoder alone.
        channels: of each layer.
        prompts: text embeddings by prompt.
    """

    config: Any
    runtime: Runtime
    checkpoints: tuple[Checkpoint, ...]
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    channels: Mapping[str, int]
    prompts: Any

    def condition(self, prompt: str) -> Mapping[str, Any]:
        """Arguments of the UNet for one latent: the text embedding ``(1, T, D)``."""
        return {"encoder_hidden_states": self.prompts.encode(prompt)}

    @abstractmethod
    def members(self, mean: Tensor, std: Tensor) -> Iterator[Tensor]:
        """Inputs of the UNet, once for each member of an ensemble whose maps are averaged.

        Args:
            mean: of the posterior of each window's latent, ``(B, 4, n, n)`` float32, on the CPU.
            std: its standard deviation.
        """

    def altered(self) -> AbstractContextManager[None]:
        """A change of the UNet that holds during its passes; none."""
        return nullcontext()

    @property
    def revisions(self) -> Mapping[str, str]:
        """Revision of each checkpoint."""
        return models.revisions_of(self.checkpoints)

    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """The maps of each photo; windows are batched, photos come one by one."""
        return tuple(self._extract(image) for image in images)

    @torch.no_grad()
    def _extract(self, image: Image) -> dict[str, FeatureMap]:
        config = self.config
        window = config.window or config.size
        condition = self.condition(config.prompt_for(image.category))
        canvas = fit(image, config.size, config.fit, config.resample)
        pixels = torch.from_numpy(canvas.pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
        windows = cut_windows(pixels, config.starts, window)  # (B, 3, window, window)
        maps = {}
        for name, values in self._maps(windows, condition).items():
            merged = merge_windows(values, config.starts, window, config.size)  # (C, h, w)
            cell = config.size / merged.shape[-1]
            grid = canvas.grid((merged.shape[1], merged.shape[2]), cell)
            maps[name] = FeatureMap(name, merged, grid)
        return maps

    def _maps(self, windows: Tensor, condition: Mapping[str, Any]) -> dict[str, Tensor]:
        """Mean map of the ensemble for each window: ``(B, C, h, w)`` by layer."""
        total: dict[str, Tensor] = {}
        count = 0
        for latents in self.members(*self._posterior(windows)):
            count += 1
            for name, values in self._pass(latents, condition).items():
                total[name] = total[name] + values if name in total else values
        return {name: values / count for name, values in total.items()}

    def _pass(self, latents: Tensor, condition: Mapping[str, Any]) -> dict[str, Tensor]:
        """Maps of latents ``(B, 4, n, n)``, in batches of the runtime's size."""
        moved = latents.to(self.runtime.device, self.runtime.dtype)
        layers = self.config.layers
        with self.altered():
            parts = [
                read_layers(self.unet, layers, partial(self._run, part, condition))
                for part in moved.split(self.runtime.batch)
            ]
        # float32 from here on: windows and members are averaged
        return {name: torch.cat([part[name].float() for part in parts]) for name in layers}

    def _run(self, latents: Tensor, condition: Mapping[str, Any]) -> object:
        return self.unet(latents, self.config.step, **repeated(condition, len(latents)))

    def _posterior(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each window's latent, float32, on the CPU.

        One by one: the VAE works at full resolution, and needs by far the most memory.
        """
        means, stds = [], []
        for window in windows.to(self.runtime.device, self.vae.dtype).split(1):
            posterior = self.vae.encode(window).latent_dist
            means.append(posterior.mean.float().cpu())
            stds.append(posterior.std.float().cpu())
        return torch.cat(means), torch.cat(stds)

    def draw(self, mean: Tensor, std: Tensor, generator: torch.Generator) -> Tensor:
        """Scaled latents ``(B, 4, n, n)``: the posterior's mean, or a sample of it."""
        sampled = self.config.latent == "sample"
        latents = mean + std * draw_like(mean, generator) if sampled else mean
        return latents * float(self.vae.config.scaling_factor)


@dataclass(frozen=True, eq=False)
class NoisedBackbone(DiffusionBackbone):
    """One whose UNet reads a noised latent, at a step of its scheduler.

    Args:
        signal: ``sqrt(abar)`` at the step.
        noise: ``sqrt(1 - abar)``.
    """

    signal: float
    noise: float

    def members(self, mean: Tensor, std: Tensor) -> Iterator[Tensor]:
        """Noised latents of all windows, ``(B, 4, n, n)``, once for each member."""
        generator = torch.Generator().manual_seed(self.config.seed)
        for _ in range(self.config.ensemble):
            latents = self.draw(mean, std, generator)
            yield self.signal * latents + self.noise * draw_like(mean, generator)


def draw_like(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Noise ``(1, 4, n, n)`` float32 for latents ``(B, 4, n, n)``, the same for each."""
    return torch.randn(1, *latents.shape[1:], generator=generator)


def repeated(condition: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Arguments for ``count`` latents from those for one: tensors ``(1, ...)``, also in dicts."""
    return {
        name: repeated(value, count)
        if isinstance(value, Mapping)
        else value.expand(count, *value.shape[1:])
        for name, value in condition.items()
    }
