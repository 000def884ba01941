"""Inner maps of Stable Diffusion's UNet for a noised latent of the photo.

Windows, noise and maps as in "A Tale of Two Features" (Zhang et al., NeurIPS 2023); single maps
and ensembles as in DIFT (Tang et al., NeurIPS 2023).
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from sdcorr import models
from sdcorr.backbones._diffusion_parts import channels_of, load_unet, load_vae, noising
from sdcorr.backbones._taps import read_layers
from sdcorr.backbones._text import Prompts
from sdcorr.backbones._windows import cut_windows, merge_windows, window_starts
from sdcorr.errors import BadRecipe
from sdcorr.models import Checkpoint
from sdcorr.preprocess import fit
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap, Image, Weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

CELL = 64  # px of the coarsest map: on multiples of it, windows share their cells


@dataclass(frozen=True)
class StableDiffusion:
    """Maps of a diffusers ``UNet2DConditionModel``, Stable Diffusion 1.x or 2.x.

    Args:
        model: hub id or local folder in diffusers' layout.
        revision: branch, tag or commit; None is what this machine has, else the newest.
        size: side of the square canvas in pixels, a multiple of 64.
        fit: ``"letterbox"`` or ``"stretch"``.
        window: side of the windows that cut up the canvas, each its own pass; None is one pass
            over the whole canvas.
        overlap: pixels that neighbouring windows share, where their maps are averaged; of no
            meaning without windows.
        latent: ``"mean"`` of the VAE's posterior, or a seeded ``"sample"``.
        step: diffusion timestep t; 0 is the cleanest.
        seed: of the noise, drawn afresh for each photo, on the CPU, at the size of one window's
            latent, and shared by all windows. With ``"sample"``, each member of the ensemble
            draws the posterior's noise first.
        ensemble: number of noise draws whose maps are averaged.
        prompt: text prompt; ``{category}`` stands for the photo's category.
        prompt_without_category: prompt for photos without one; None requires a category.
        layers: UNet layers to read, dotted names of diffusers.

    Raises:
        BadRecipe: a field is out of range or contradicts another.
    """

    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: str | None = None
    size: int = 960
    fit: Literal["letterbox", "stretch"] = "letterbox"
    window: int | None = 512
    overlap: int = 64
    latent: Literal["mean", "sample"] = "mean"
    step: int = 100
    seed: int = 42
    ensemble: int = 1
    prompt: str = "a photo of {category}"
    prompt_without_category: str | None = ""
    layers: tuple[str, ...] = (
        "up_blocks.0.resnets.1",  # layer 2 of sd-dino, 1/64
        "up_blocks.1.attentions.1",  # layer 5, 1/32
        "up_blocks.2.attentions.1",  # layer 8, 1/16
    )

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise BadRecipe(f"stable_diffusion: {problem}")

    @property
    def maps(self) -> tuple[str, ...]:
        """One map for each layer."""
        return self.layers

    @property
    def starts(self) -> tuple[int, ...]:
        """Left (and top) edges of the windows on the canvas, in pixels."""
        return window_starts(self.size, self.window or self.size, self.overlap)

    def weights(self) -> Weights:
        """VAE, UNet, text encoder, tokenizer, scheduler; never the safety checker."""
        return Weights(
            self.model,
            self.revision,
            required=(
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors",
                "text_encoder/config.json",
                "text_encoder/model.safetensors",
                "tokenizer/tokenizer_config.json",
                "scheduler/scheduler_config.json",
            ),
            one_of=(
                ("tokenizer/vocab.json", "tokenizer/merges.txt"),
                ("tokenizer/tokenizer.json",),
            ),
            optional=("tokenizer/special_tokens_map.json",),
        )

    def prompt_for(self, category: str | None) -> str:
        """The prompt for a photo; raises BadRecipe where a category is required."""
        if category is not None:
            return self.prompt.format(category=category)
        if "category" not in _template_fields(self.prompt):
            return self.prompt
        if self.prompt_without_category is None:
            raise BadRecipe(
                f"the prompt {self.prompt!r} needs a category: name it with --category "
                "(in Python: category=...)"
            )
        return self.prompt_without_category

    def build(self, runtime: Runtime) -> StableDiffusionBackbone:
        """Load all but the text encoder's weights and the VAE's decoder."""
        checkpoint = models.resolve(self.weights())
        signal, noise = noising(checkpoint, self.step)
        unet, vae = load_unet(checkpoint, runtime), load_vae(checkpoint, runtime)
        width = int(unet.config.cross_attention_dim)
        prompts = Prompts(checkpoint, runtime, width)
        channels = channels_of(unet, self.layers, runtime, width)
        return StableDiffusionBackbone(
            self, runtime, checkpoint, unet, vae, prompts, signal, noise, channels
        )


@dataclass(frozen=True, eq=False)
class StableDiffusionBackbone:
    """A loaded Stable Diffusion without its decoder."""

    config: StableDiffusion
    runtime: Runtime
    checkpoint: Checkpoint
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    prompts: Prompts
    signal: float  # sqrt(abar) at the step
    noise: float  # sqrt(1 - abar) at the step
    channels: Mapping[str, int]

    @property
    def revisions(self) -> Mapping[str, str]:
        """Revision of the checkpoint."""
        return {self.checkpoint.model: self.checkpoint.revision}

    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """The maps of each photo; windows are batched, photos come one by one."""
        return tuple(self._extract(image) for image in images)

    @torch.no_grad()
    def _extract(self, image: Image) -> dict[str, FeatureMap]:
        config = self.config
        window = config.window or config.size
        prompt = self.prompts.encode(config.prompt_for(image.category))  # (1, T, D)
        canvas = fit(image, config.size, config.fit)
        pixels = torch.from_numpy(canvas.pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
        windows = cut_windows(pixels, config.starts, window)  # (B, 3, window, window)
        maps = {}
        for name, values in self._maps(windows, prompt).items():
            merged = merge_windows(values, config.starts, window, config.size)  # (C, h, w)
            cell = config.size / merged.shape[-1]
            grid = canvas.grid((merged.shape[1], merged.shape[2]), cell)
            maps[name] = FeatureMap(name, merged, grid)
        return maps

    def _maps(self, windows: Tensor, prompt: Tensor) -> dict[str, Tensor]:
        """Mean map of the ensemble for each window: ``(B, C, h, w)`` by layer."""
        members = [self._pass(latents, prompt) for latents in self._noised(windows)]
        return {
            name: torch.stack([member[name] for member in members]).mean(dim=0)
            for name in self.config.layers
        }

    def _pass(self, latents: Tensor, prompt: Tensor) -> dict[str, Tensor]:
        """Maps of ``(B, 4, n, n)`` noised latents, in batches of the runtime's size."""
        moved = latents.to(self.runtime.device, self.runtime.dtype)
        parts = [
            read_layers(self.unet, self.config.layers, partial(self._run, part, prompt))
            for part in moved.split(self.runtime.batch)
        ]
        # float32 from here on: windows and members are averaged
        return {
            name: torch.cat([part[name].float() for part in parts]) for name in self.config.layers
        }

    def _run(self, latents: Tensor, prompt: Tensor) -> object:
        text = prompt.expand(len(latents), -1, -1)
        return self.unet(latents, self.config.step, encoder_hidden_states=text)

    def _noised(self, windows: Tensor) -> Iterator[Tensor]:
        """Noised latents of all windows, ``(B, 4, n, n)``, once for each member."""
        mean, std = self._posterior(windows)
        generator = torch.Generator().manual_seed(self.config.seed)
        scale = self.vae.config.scaling_factor
        for _ in range(self.config.ensemble):
            latents = mean
            if self.config.latent == "sample":
                latents = mean + std * torch.randn(1, *mean.shape[1:], generator=generator)
            noise = torch.randn(1, *mean.shape[1:], generator=generator)
            yield self.signal * scale * latents + self.noise * noise

    def _posterior(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each window's latent, float32, on the CPU.

        One by one: the VAE works at full resolution, and needs by far the most memory.
        """
        means, stds = [], []
        for window in windows.to(self.runtime.device, self.runtime.dtype).split(1):
            posterior = self.vae.encode(window).latent_dist
            means.append(posterior.mean.float().cpu())
            stds.append(posterior.std.float().cpu())
        return torch.cat(means), torch.cat(stds)


def _template_fields(prompt: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(prompt) if name is not None}


def _problems(config: StableDiffusion) -> Iterator[str]:
    """What is wrong with the fields, in words."""
    window = config.window or config.size
    for name, value in (("size", config.size), ("window", window)):
        if value < CELL or value % CELL:
            yield f"{name} must be a multiple of {CELL} px, got {value}"
    if window > config.size:
        yield f"window {window} is larger than size {config.size}"
    if config.window and not (0 <= config.overlap < window and config.overlap % CELL == 0):
        yield f"overlap must be a multiple of {CELL} px below {window}, got {config.overlap}"
    if config.ensemble < 1:
        yield f"ensemble must be at least 1, got {config.ensemble}"
    if not config.layers or len(set(config.layers)) < len(config.layers):
        yield f"layers must be at least one, each once, got {config.layers}"
    try:
        config.prompt.format(category="")
    except (KeyError, IndexError):
        yield f"the prompt may name {{category}} only, got {config.prompt!r}"
    except ValueError as error:
        yield f"the prompt {config.prompt!r} is no template: {error}"


PLUGIN = StableDiffusion
