"""Checkpoints with random weights: the real depth and block layout, only narrow.

Every layer name that a recipe uses exists in them, and they load by the code that users run.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from sdcorr.fusion import Group
from sdcorr.recipe import Recipe

SHA = "0123456789abcdef0123456789abcdef01234567"
WORDS = ("a", "photo", "of", "cat", "dog", "object")
WIDTH = 32  # of the text and the cross-attention


def write_dinov2(folder: Path, registers: bool = False, **changes: Any) -> Path:
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
    model.save_pretrained(folder)
    return folder


def write_stable_diffusion(
    folder: Path,
    vae: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    **unet_changes: Any,
) -> Path:
    """A Stable Diffusion 1.x whose UNet has the real blocks, 32 to 64 channels wide.

    ``vae``, ``text`` and the rest change fields of the three configs.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = {
        "sample_size": 64,
        "block_out_channels": (32, 32, 64, 64),
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 8,
        "attention_head_dim": 8,
    } | unet_changes
    UNet2DConditionModel(**unet).save_pretrained(folder / "unet")
    autoencoder = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 512,
    } | (vae or {})
    AutoencoderKL(**autoencoder).save_pretrained(folder / "vae")
    vocabulary = write_tokenizer(folder / "tokenizer")
    encoder = {
        "vocab_size": vocabulary,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    } | (text or {})
    CLIPTextModel(CLIPTextConfig(**encoder)).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")
    return folder


def write_tokenizer(folder: Path) -> int:
    """A byte-level CLIP tokenizer in the older form, vocab.json and merges.txt; its size."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append(f"{pieces[0]} {pieces[1]}")
            pieces[:2] = [pieces[0] + pieces[1]]
            tokens.append(pieces[0])
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
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
    return len(tokens)


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
        sizes = {
            "Dinov2": {"size": 12 * 14},
            "StableDiffusion": {"size": 128, "window": getattr(config, "window", None) and 128},
        }.get(type(config).__name__, {})
        if sizes.get("window"):
            sizes |= {"size": 192, "window": 128}  # two windows a side, as in the recipe
        maps = tuple(dataclasses.replace(use, pca=use.pca and 8) for use in group.maps)
        small = dataclasses.replace(config, **sizes)
        groups.append(Group(group.name, small, maps, group.weight))
    return dataclasses.replace(recipe, groups=tuple(groups))
