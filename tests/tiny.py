"""Checkpoints with random weights: the real depth and block layout, only narrow.

Every layer name that a recipe uses exists in them, and they load by the code that users run.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sdcorr.backbones._diffusion_config import DiffusionConfig
from sdcorr.backbones._freeu import FreeU
from sdcorr.backbones._transformer import TransformerConfig
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.recipe import Recipe

SHA = "0123456789abcdef0123456789abcdef01234567"
WORDS = ("a", "photo", "of", "cat", "dog", "object")
WIDTH = 32  # of the text and the cross-attention


Parts = dict[str, Any]  # models by subfolder, "" for the folder itself


def dinov2_parts(registers: bool = False, **changes: Any) -> Parts:
    """A DINOv2 of twelve blocks, 24 channels, with its 37x37 position table."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 12}
    sizes |= {"image_size": 518, "patch_size": 14, "mlp_ratio": 2} | changes
    if registers:
        config = Dinov2WithRegistersConfig(**sizes, num_register_tokens=4)
        model = Dinov2WithRegistersModel(config)
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    with torch.no_grad():  # random tables, so that positions matter
        model.embeddings.position_embeddings.normal_(std=0.2)
        for layer in model.encoder.layer:
            layer.layer_scale1.lambda1.fill_(1.0)
            layer.layer_scale2.lambda1.fill_(1.0)
    return {"": model}


def dinov3_parts(**changes: Any) -> Parts:
    """A DINOv3 ViT of twelve blocks, 32 channels, four registers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 12}
    sizes |= {"intermediate_size": 64, "num_register_tokens": 4, "layerscale_value": 0.5} | changes
    return {"": DINOv3ViTModel(DINOv3ViTConfig(**sizes))}


def vit_parts(**changes: Any) -> Parts:
    """A DINO v1 of twelve blocks, six heads of four channels, patch 8, a 28x28 table."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 12}
    sizes |= {"intermediate_size": 48, "patch_size": 8, "image_size": 224} | changes
    model = ViTModel(ViTConfig(**sizes), add_pooling_layer=False)
    with torch.no_grad():  # random tables, so that positions matter; sharper than at birth
        model.embeddings.position_embeddings.normal_(std=0.2)
        for layer in model.layers:
            layer.attention.q_proj.weight.normal_(std=0.5)
            layer.attention.k_proj.weight.normal_(std=0.5)
    return {"": model}


def stable_diffusion_parts(
    vae: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **unet_changes: Any
) -> Parts:
    """A Stable Diffusion 1.x whose UNet has the real blocks, 32 to 64 channels wide.

    ``vae``, ``text`` and the rest change fields of the three configs.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = {
        "sample_size": 64,
        "block_out_channels": (32, 32, 64, 64),
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 8,
        "attention_head_dim": 8,
    } | unet_changes
    autoencoder = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 512,
    } | (vae or {})
    return {
        "unet": UNet2DConditionModel(**unet),
        "vae": AutoencoderKL(**autoencoder),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**_text(text))),
    }


def stable_diffusion_2_parts(**changes: Any) -> Parts:
    """A Stable Diffusion 2.x: linear projections, heads by block."""
    more = {"use_linear_projection": True, "attention_head_dim": (4, 4, 8, 8)}
    return stable_diffusion_parts(**(more | changes))


def stable_diffusion_xl_parts(second: dict[str, Any] | None = None, **changes: Any) -> Parts:
    """A Stable Diffusion XL: three blocks, two text encoders, added conditions."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    unet = {
        "sample_size": 128,
        "block_out_channels": (32, 32, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (4, 4, 8),
        "use_linear_projection": True,
        "cross_attention_dim": WIDTH + 48,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 40 + 6 * 8,
        "vae": {"scaling_factor": 0.13025, "force_upcast": True, "sample_size": 1024},
    }
    parts = stable_diffusion_parts(**(unet | changes))
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 3, "projection_dim": 40, "hidden_act": "gelu"}
    config = CLIPTextConfig(**_text(sizes | (second or {})))
    return parts | {"text_encoder_2": CLIPTextModelWithProjection(config)}


def _text(changes: dict[str, Any] | None) -> dict[str, Any]:
    size = len(_vocabulary())
    return {
        "vocab_size": size,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
    } | (changes or {})


def write(folder: Path, parts: Parts) -> Path:
    """Save the parts, and what a Stable Diffusion has besides."""
    for name, model in parts.items():
        model.save_pretrained(folder / name, max_shard_size="20GB")  # one file, as on the hub
        if name.startswith("text_encoder"):
            place = folder / name.replace("text_encoder", "tokenizer")
            write_tokenizer(place, model.config.vocab_size)
    if "unet" in parts:
        write_scheduler(folder / "scheduler", parts["unet"])
    return folder


def write_scheduler(folder: Path, unet: Any) -> None:
    """The scheduler that such a UNet is published with."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler

    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    if unet.config.addition_embed_type:
        scheduler = EulerDiscreteScheduler(**betas)
    elif unet.config.use_linear_projection:
        scheduler = DDIMScheduler(**betas, steps_offset=1, prediction_type="v_prediction")
    else:
        scheduler = PNDMScheduler(**betas, skip_prk_steps=True, steps_offset=1)
    scheduler.save_pretrained(folder)


def write_dinov2(folder: Path, registers: bool = False, **changes: Any) -> Path:
    """See ``dinov2_parts``."""
    return write(folder, dinov2_parts(registers, **changes))


def write_stable_diffusion(folder: Path, **changes: Any) -> Path:
    """See ``stable_diffusion_parts``."""
    return write(folder, stable_diffusion_parts(**changes))


def tuned(unet: Any) -> dict[str, torch.Tensor]:
    """Other weights for a UNet, in half precision, as CleanDIFT publishes them."""
    generator = torch.Generator().manual_seed(1)
    return {
        key: (value + 0.02 * torch.randn(value.shape, generator=generator)).half()
        for key, value in unet.state_dict().items()
    }


def write_cleandift(folder: Path, **parts: Parts) -> Path:
    """A file of tuned weights for each Stable Diffusion, by default for both tiny ones."""
    from safetensors.torch import save_file

    stock = parts or {"sd15": stable_diffusion_parts(), "sd21": stable_diffusion_2_parts()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, models in stock.items():
        save_file(tuned(models["unet"]), folder / f"cleandift_{name}_unet.safetensors")
    return folder


def write_all(folder: Path) -> dict[str, Path]:
    """A checkpoint for each hub id that a recipe names, by id."""
    from sdcorr.recipes import RECIPES

    makers = {
        "facebook/dinov2-with": partial(dinov2_parts, registers=True),
        "facebook/dinov2": dinov2_parts,
        "facebook/dinov3": dinov3_parts,
        "facebook/dino-vits8": vit_parts,
        "google/vit": partial(vit_parts, patch_size=16),
        "stable-diffusion-v1-5": stable_diffusion_parts,
        "sd2-community": stable_diffusion_2_parts,
        "stabilityai/sd-turbo": stable_diffusion_2_parts,
        "stabilityai/stable-diffusion-xl": stable_diffusion_xl_parts,
    }
    blocks = {
        weights.model: 1 + getattr(recipe.backbones[key.partition(".")[0]], "block", 0)
        for recipe in RECIPES.values()
        for key, weights in recipe.weights.items()
    }
    places: dict[str, Path] = {}
    for model, depth in blocks.items():
        if model == "CompVis/cleandift":
            places[model] = write_cleandift(folder / "cleandift")
            continue
        prefix = next(prefix for prefix in makers if model.startswith(prefix))
        places[model] = folder / f"{prefix}{depth}".replace("/", "-")  # one for all of one shape
        if not places[model].exists():
            deeper = {"num_hidden_layers": depth} if depth > 12 else {}
            write(places[model], makers[prefix](**deeper))
    return places


def _vocabulary(size: int = 0) -> list[str]:
    """The tokens of the words and their pieces, filled up to ``size``, the two marks last."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    whole = [f"{word}</w>" for word in WORDS]
    begun = [word[:length] for word in WORDS for length in range(2, len(word))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *begun, *whole]
    tokens = list(dict.fromkeys(tokens))
    fill = [f"<|{number}|>" for number in range(size - len(tokens) - 2)]
    return [*tokens, *fill, "<|startoftext|>", "<|endoftext|>"]


def write_tokenizer(folder: Path, size: int = 0) -> None:
    """A byte-level CLIP tokenizer in the older form, vocab.json and merges.txt."""
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces[:2] = [pieces[0] + pieces[1]]
    tokens = _vocabulary(size)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *dict.fromkeys(merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    end = "<|endoftext|>"
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": "<|startoftext|>",
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_hub_cache(home: Path, model: str, checkpoint: Path) -> Path:
    """A hub cache under ``home`` (HF_HOME) that holds the checkpoint under the real id."""
    repository = home / "hub" / f"models--{model.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / SHA).symlink_to(checkpoint.resolve())
    return repository


def shrink(recipe: Recipe) -> Recipe:
    """The recipe for tiny checkpoints: PCA to 8, canvases of some cells; all else as it is."""
    groups = []
    for group in recipe.groups:
        config: Any = group.backbone
        if isinstance(config, DiffusionConfig):  # two windows a side where the recipe has them
            sizes = {"size": 192, "window": 128} if config.window else {"size": 128}
        elif isinstance(config, TransformerConfig):
            sizes = {"size": 12 * (14 if type(config).__name__ == "Dinov2" else 16)}
        else:
            sizes = {}
        if isinstance(config, StableDiffusion) and config.freeu:  # of the tiny UNet's widths
            sizes["freeu"] = (FreeU(64, 1.2, 0.9), FreeU(32, 1.4, 0.2))
        maps = tuple(dataclasses.replace(use, pca=use.pca and 8) for use in group.maps)
        small = dataclasses.replace(config, **sizes)
        groups.append(dataclasses.replace(group, backbone=small, maps=maps))
    return dataclasses.replace(recipe, groups=tuple(groups))
