"""Inner maps of Stable Diffusion's UNet for a noised latent of the photo.

Windows, noise and maps as in "A Tale of Two Features" (Zhang et al., NeurIPS 2023); single maps
and ensembles as in DIFT (Tang et al., NeurIPS 2023); FreeU as in GeoAware-SC (Zhang et al., CVPR
2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from sdcorr import models
from sdcorr.backbones._diffusion import NoisedBackbone
from sdcorr.backbones._diffusion_config import NoisedConfig
from sdcorr.backbones._diffusion_parts import SCHEDULER, UNET, VAE, load_rest, load_unet, noising
from sdcorr.backbones._freeu import FreeU, check_freeu, freeu
from sdcorr.backbones._text import text_files
from sdcorr.runtime import Runtime
from sdcorr.types import Weights


@dataclass(frozen=True)
class StableDiffusion(NoisedConfig):
    """Maps of a diffusers ``UNet2DConditionModel``, Stable Diffusion 1.x or 2.x.

    Args: those of ``NoisedConfig``, and
        freeu: how skip connections are reweighted, one entry per number of channels.

    Raises:
        BadRecipe: a field is out of range or contradicts another.
    """

    model: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    revision: str | None = None
    size: int = 960
    fit: Literal["letterbox", "stretch"] = "letterbox"
    resample: Literal["lanczos", "bicubic"] = "lanczos"
    window: int | None = 512
    overlap: int = 64
    latent: Literal["mean", "sample"] = "mean"
    step: int = 100
    seed: int = 42
    prompt: str = "a photo of {category}"
    prompt_without_category: str | None = ""
    layers: tuple[str, ...] = (
        "up_blocks.0.resnets.1",  # layer 2 of sd-dino, 1/64
        "up_blocks.1.attentions.1",  # layer 5, 1/32
        "up_blocks.2.attentions.1",  # layer 8, 1/16
    )
    freeu: tuple[FreeU, ...] = ()

    def weights(self) -> tuple[Weights, ...]:
        """VAE, UNet, text encoder, tokenizer, scheduler; never the safety checker."""
        text = text_files("text_encoder", "tokenizer")
        required = (*UNET, *VAE, *text.required, *SCHEDULER)
        return (Weights(self.model, self.revision, required, text.one_of, text.optional),)

    def problems(self) -> Iterator[str]:
        """What is wrong with the fields, in words."""
        yield from super().problems()
        if len({one.channels for one in self.freeu}) < len(self.freeu):
            yield f"freeu must name each number of channels once, got {self.freeu}"

    def build(self, runtime: Runtime) -> StableDiffusionBackbone:
        """Load all but the text encoder's weights and the VAE's decoder."""
        (weights,) = self.weights()
        checkpoint = models.resolve(weights)
        signal, noise = noising(checkpoint, self.step)
        unet = load_unet(checkpoint, runtime, conditions=None)
        check_freeu(unet, self.freeu)
        parts = load_rest(checkpoint, runtime, unet, self.layers)
        return StableDiffusionBackbone(self, runtime, (checkpoint,), unet, *parts, signal, noise)


@dataclass(frozen=True, eq=False)
class StableDiffusionBackbone(NoisedBackbone):
    """A loaded Stable Diffusion without its decoder."""

    config: StableDiffusion

    def altered(self) -> AbstractContextManager[None]:
        """FreeU, where the config asks for it."""
        return freeu(self.unet, self.config.freeu)


PLUGIN = StableDiffusion
