"""Text embeddings of Stable Diffusion's prompts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdcorr.backbones._checkpoint import load_part, read_config
from sdcorr.errors import BadCheckpoint, BadRecipe
from sdcorr.models import Checkpoint
from sdcorr.runtime import Runtime

SIZES = ("vocab_size", "max_position_embeddings")


class Prompts:
    """Embeddings by prompt; the text encoder is in memory only while it reads a new prompt.

    Args:
        checkpoint: folder in diffusers' layout.
        runtime: device and dtype of the embeddings.
        width: cross-attention width of the UNet.

    Raises:
        BadCheckpoint: tokenizer and text encoder do not fit each other or the UNet.
    """

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime, width: int) -> None:
        self._folder = checkpoint.path
        self._runtime = runtime
        config = read_config(self._folder, "text_encoder/config.json")
        if config.get("hidden_size") != width:
            raise BadCheckpoint(
                f"{self._folder}: the UNet takes text of width {width} (cross_attention_dim), the "
                f"text encoder gives {config.get('hidden_size')} (hidden_size); they are not of "
                "one model"
            )
        if missing := [name for name in SIZES if not isinstance(config.get(name), int)]:
            raise BadCheckpoint(f"{self._folder}/text_encoder/config.json lacks {missing[0]}")
        self._length: int = config["max_position_embeddings"]
        self._tokenizer = _load_tokenizer(checkpoint, config["vocab_size"], self._length)
        self._known: dict[str, Tensor] = {}

    def encode(self, prompt: str) -> Tensor:
        """Last hidden state of the prompt, padded to the full length: ``(1, T, D)``."""
        if prompt not in self._known:
            self._known[prompt] = self._encode(prompt)
        return self._known[prompt]

    @torch.no_grad()
    def _encode(self, prompt: str) -> Tensor:
        from transformers import CLIPTextModel

        tokens = self._tokenizer(prompt, padding="max_length", max_length=self._length)
        if len(tokens.input_ids) > self._length:
            raise BadRecipe(
                f"the prompt has {len(tokens.input_ids)} tokens, at most {self._length} fit: "
                f"{prompt!r}"
            )
        encoder = load_part(CLIPTextModel, self._folder, "text_encoder", self._runtime.dtype).to(
            self._runtime.device
        )
        ids = torch.tensor([tokens.input_ids], device=self._runtime.device)
        hidden: Tensor = encoder(ids).last_hidden_state
        return hidden


def _load_tokenizer(checkpoint: Checkpoint, vocabulary: int, length: int) -> Any:
    """The tokenizer, checked: transformers makes an empty one, without a word, of no files."""
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(checkpoint.path, subfolder="tokenizer")
    except Exception as error:  # the library underneath raises bare ones
        raise BadCheckpoint(f"{checkpoint.path}/tokenizer cannot be loaded: {error}") from error
    if len(tokenizer) != vocabulary or tokenizer.model_max_length != length:
        raise BadCheckpoint(
            f"{checkpoint.path / 'tokenizer'} does not fit the text encoder: expected "
            f"{vocabulary} tokens and length {length}, got {len(tokenizer)} and "
            f"{tokenizer.model_max_length}; are its files whole?"
        )
    return tokenizer
