"""The parts of a checkpoint in diffusers' layout, loaded and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sdcorr.backbones._checkpoint import load_over, load_part, read_config
from sdcorr.backbones._taps import let_go_unread
from sdcorr.backbones._text import Prompts
from sdcorr.errors import BadCheckpoint, BadRecipe
from sdcorr.models import Checkpoint
from sdcorr.runtime import Runtime

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel

SMALLEST = 8  # latent cells a side: one cell of the UNet's coarsest map
UNET = ("unet/config.json", "unet/diffusion_pytorch_model.safetensors")
VAE = ("vae/config.json", "vae/diffusion_pytorch_model.safetensors")
SCHEDULER = ("scheduler/scheduler_config.json",)


def noising(checkpoint: Checkpoint, step: int) -> tuple[float, float]:
    """``sqrt(abar)`` and ``sqrt(1 - abar)`` at the step, from the scheduler's betas."""
    from diffusers import DDPMScheduler

    config = read_config(checkpoint.path, SCHEDULER[0])
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
    if missing := [name for name in names if name not in config]:
        raise BadCheckpoint(f"{checkpoint.path}/scheduler lacks {', '.join(missing)}")
    steps = config["num_train_timesteps"]
    if not isinstance(steps, int) or step not in range(steps):
        raise BadRecipe(f"step must be in 0..{steps} (exclusive), got {step}")
    more = ("trained_betas", "rescale_betas_zero_snr")
    try:
        scheduler = DDPMScheduler(
            **{name: config[name] for name in (*names, *more) if name in config}
        )
        kept = scheduler.alphas_cumprod[step].item()
        return kept**0.5, (1 - kept) ** 0.5
    except Exception as error:  # a wrong value in the config raises nearly anything
        raise BadCheckpoint(f"{checkpoint.path}/scheduler cannot be used: {error}") from error


def load_unet(
    checkpoint: Checkpoint, runtime: Runtime, conditions: str | None, weights: Path | None = None
) -> UNet2DConditionModel:
    """The UNet of a text-to-image model.

    Args:
        checkpoint: in diffusers' layout.
        runtime: where it goes.
        conditions: what it takes besides text, as in ``addition_embed_type`` of its config.
        weights: safetensors that stand in for the checkpoint's own.
    """
    from diffusers import UNet2DConditionModel

    config = read_config(checkpoint.path, UNET[0])
    if config.get("in_channels") != 4 or config.get("addition_embed_type") != conditions:
        kind = "Stable Diffusion XL" if conditions else "Stable Diffusion 1.x or 2.x"
        raise BadCheckpoint(f"{checkpoint.path}/unet is no text-to-image UNet of {kind}")
    if weights is None:
        unet = load_part(UNet2DConditionModel, checkpoint.path, "unet", runtime.dtype)
    else:
        unet = load_over(UNet2DConditionModel, config, weights, runtime.dtype)
    return unet.to(runtime.device, memory_format=torch.channels_last)


def load_vae(checkpoint: Checkpoint, runtime: Runtime, dtype: torch.dtype) -> AutoencoderKL:
    """The VAE without its decoder."""
    from diffusers import AutoencoderKL

    decoding = ("decoder.", "post_quant_conv.")
    vae = load_part(AutoencoderKL, checkpoint.path, "vae", dtype, unused=decoding)
    if not isinstance(vae.config.scaling_factor, float) or not vae.config.scaling_factor > 0:
        raise BadCheckpoint(f"{checkpoint.path}/vae/config.json: scaling_factor must be positive")
    del vae.decoder, vae.post_quant_conv
    return vae.to(runtime.device, memory_format=torch.channels_last)


def load_rest(
    checkpoint: Checkpoint, runtime: Runtime, unet: UNet2DConditionModel, layers: Sequence[str]
) -> tuple[AutoencoderKL, dict[str, int], Prompts]:
    """VAE, channels of the layers and prompts, for a UNet that takes text and nothing else."""
    width = int(unet.config.cross_attention_dim)
    prompts = Prompts(checkpoint, runtime, width)
    blanks = {"encoder_hidden_states": blank(runtime, 1, width)}
    channels = channels_of(unet, layers, runtime, blanks)
    return load_vae(checkpoint, runtime, runtime.dtype), channels, prompts


@torch.no_grad()
def channels_of(
    unet: UNet2DConditionModel,
    layers: Sequence[str],
    runtime: Runtime,
    condition: Mapping[str, Any],
) -> dict[str, int]:
    """Channels of each layer, by a pass over the smallest latent; unknown layers show here.

    The weights that the pass does not reach are let go.
    """
    latents = torch.zeros(1, 4, SMALLEST, SMALLEST, device=runtime.device, dtype=runtime.dtype)
    run: Callable[[], object] = lambda: unet(latents, 0, **condition)  # noqa: E731
    outputs = let_go_unread(unet, layers, run)
    for name, output in outputs.items():
        if output.dim() != 4:
            raise BadRecipe(f"layer {name!r} makes no map, but {output.dim()}-D")
    return {name: output.shape[1] for name, output in outputs.items()}


def blank(runtime: Runtime, *shape: int) -> torch.Tensor:
    """Zeros in place of a condition, where only shapes are asked for."""
    return torch.zeros(1, *shape, device=runtime.device, dtype=runtime.dtype)
