"""Inner maps of a latent diffusion model's UNet: what Stable Diffusion, XL and CleanDIFT share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdcorr import models
from sdcorr.ahead import ahead
from sdcorr.backbones._taps import read_layers
from sdcorr.backbones._windows import cut_windows, merge_windows
from sdcorr.models import Checkpoint
from sdcorr.preprocess import Canvas, fit
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap, Image

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel


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

    @torch.no_grad()
    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """The maps of each photo; windows share forward passes, also those of several photos."""
        batch, config = self.runtime.batch, self.config
        to_canvas = partial(fit, size=config.size, how=config.fit, resample=config.resample)
        maps: list[dict[str, FeatureMap]] = []
        with closing(ahead(to_canvas, images, depth=batch)) as canvases:
            for start in range(0, len(images), batch):
                some = images[start : start + batch]
                maps += self._extract(some, list(islice(canvases, len(some))))
        return tuple(maps)

    def _extract(
        self, images: Sequence[Image], canvases: Sequence[Canvas]
    ) -> Iterator[dict[str, FeatureMap]]:
        config = self.config
        window, each = config.window or config.size, len(config.starts) ** 2
        prompts = (config.prompt_for(image.category) for image in images)
        conditions = [one for prompt in prompts for one in [self.condition(prompt)] * each]
        windows = torch.cat(
            [cut_windows(_to_signed(canvas), config.starts, window) for canvas in canvases]
        )  # (B, 3, window, window)
        parts = {name: maps.split(each) for name, maps in self._maps(windows, conditions).items()}
        for index, canvas in enumerate(canvases):
            yield {name: self._merge(name, values[index], canvas) for name, values in parts.items()}

    def _merge(self, name: str, values: Tensor, canvas: Canvas) -> FeatureMap:
        """The map of a photo from those of its windows."""
        config = self.config
        window = config.window or config.size
        merged = merge_windows(values, config.starts, window, config.size)  # (C, h, w)
        cell = config.size / merged.shape[-1]
        return FeatureMap(name, merged, canvas.grid((merged.shape[1], merged.shape[2]), cell))

    def _maps(self, windows: Tensor, conditions: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Mean map of the ensemble for each window: ``(B, C, h, w)`` by layer."""
        total: dict[str, Tensor] = {}
        count = 0
        for latents in self.members(*self._posterior(windows)):
            count += 1
            for name, values in self._pass(latents, conditions).items():
                total[name] = total[name] + values if name in total else values
        return {name: values / count for name, values in total.items()}

    def _pass(self, latents: Tensor, conditions: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Maps of latents ``(B, 4, n, n)``, in batches of the runtime's size."""
        moved = latents.to(self.runtime.device, self.runtime.dtype)
        layers, batch = self.config.layers, self.runtime.batch
        parts = []
        with self.altered():
            for start in range(0, len(moved), batch):
                some = slice(start, start + batch)
                run = partial(self._run, moved[some], conditions[some])
                parts.append(read_layers(self.unet, layers, run))
        # float32 from here on: windows and members are averaged
        return {name: torch.cat([part[name].float() for part in parts]) for name in layers}

    def _run(self, latents: Tensor, conditions: Sequence[Mapping[str, Any]]) -> object:
        return self.unet(latents, self.config.step, **stacked(conditions))

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


def stacked(conditions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Arguments for several latents from those for one each: ``(1, ...)``, also in dicts."""
    first, *_ = conditions
    return {
        name: stacked([one[name] for one in conditions])
        if isinstance(value, Mapping)
        else torch.cat([one[name] for one in conditions])
        for name, value in first.items()
    }


def _to_signed(canvas: Canvas) -> Tensor:
    """Pixels ``(3, S, S)`` float32 in -1 to 1, as the VAE takes them."""
    return torch.from_numpy(canvas.pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
