"""Inner maps of Stable Diffusion XL's UNet (Podell et al., 2023) for a noised latent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sdcorr import models
from sdcorr.backbones._checkpoint import read_config
from sdcorr.backbones._diffusion import NoisedBackbone
from sdcorr.backbones._diffusion_config import NoisedConfig
from sdcorr.backbones._diffusion_parts import (
    SCHEDULER,
    UNET,
    VAE,
    blank,
    channels_of,
    load_unet,
    load_vae,
    noising,
)
from sdcorr.backbones._text import PairedPrompts, text_files
from sdcorr.runtime import Runtime
from sdcorr.types import Weights

ENCODERS = (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"))


@dataclass(frozen=True)
class StableDiffusionXL(NoisedConfig):
    """Maps of the UNet of Stable Diffusion XL or XL-Turbo.

    The VAE runs in float32 where its config says ``force_upcast``: half precision overflows in it.
    The UNet is told that the photo was ``size`` pixels a side and is not cropped.

    Args: those of ``NoisedConfig``.

    Raises:
        BadRecipe: a field is out of range or contradicts another.
    """

    model: str = "stabilityai/stable-diffusion-xl-base-1.0"
    revision: str | None = None
    size: int = 768
    fit: Literal["letterbox", "stretch"] = "letterbox"
    resample: Literal["lanczos", "bicubic"] = "lanczos"
    window: int | None = None
    overlap: int = 64
    latent: Literal["mean", "sample"] = "mean"
    step: int = 50
    seed: int = 42
    prompt: str = "a photo of {category}"
    prompt_without_category: str | None = ""
    layers: tuple[str, ...] = ("up_blocks.0",)  # 1/16

    def weights(self) -> tuple[Weights, ...]:
        """VAE, UNet, two text encoders with their tokenizers, scheduler."""
        first, second = (text_files(*places) for places in ENCODERS)
        required = (*UNET, *VAE, *first.required, *second.required, *SCHEDULER)
        one_of = tuple(one + other for one in first.one_of for other in second.one_of)
        optional = (*first.optional, *second.optional)
        return (Weights(self.model, self.revision, required, one_of, optional),)

    def build(self, runtime: Runtime) -> StableDiffusionXLBackbone:
        """Load all but the text encoders' weights and the VAE's decoder."""
        (weights,) = self.weights()
        checkpoint = models.resolve(weights)
        signal, noise = noising(checkpoint, self.step)
        unet = load_unet(checkpoint, runtime, conditions="text_time")
        prompts = PairedPrompts(checkpoint, runtime, ENCODERS, unet.config)
        added = {"text_embeds": blank(runtime, prompts.pooled), "time_ids": blank(runtime, 6)}
        text = blank(runtime, 1, prompts.width)
        blanks = {"encoder_hidden_states": text, "added_cond_kwargs": added}
        channels = channels_of(unet, self.layers, runtime, blanks)
        upcast = read_config(checkpoint.path, VAE[0]).get("force_upcast", True)
        vae = load_vae(checkpoint, runtime, torch.float32 if upcast else runtime.dtype)
        return StableDiffusionXLBackbone(
            self, runtime, (checkpoint,), unet, vae, channels, prompts, signal, noise
        )


@dataclass(frozen=True, eq=False)
class StableDiffusionXLBackbone(NoisedBackbone):
    """A loaded Stable Diffusion XL without its decoder."""

    config: StableDiffusionXL

    def condition(self, prompt: str) -> Mapping[str, Any]:
        """Both text embeddings side by side, the pooled one, and sizes: (H, W, top, left, H, W)."""
        text, pooled = self.prompts.encode(prompt)
        side = self.config.window or self.config.size
        sizes = [side, side, 0, 0, side, side]
        time_ids = torch.tensor([sizes], device=text.device, dtype=text.dtype)
        return {
            "encoder_hidden_states": text,
            "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids},
        }


PLUGIN = StableDiffusionXL
