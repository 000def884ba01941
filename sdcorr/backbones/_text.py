"""Text embeddings of prompts, by the CLIP encoders of Stable Diffusion and XL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdcorr.backbones._checkpoint import load_part, read_config
from sdcorr.errors import BadCheckpoint, BadRecipe
from sdcorr.models import Checkpoint
from sdcorr.runtime import Runtime
from sdcorr.types import Weights

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

SIZES = ("vocab_size", "max_position_embeddings", "hidden_size")


def text_files(encoder: str, tokenizer: str) -> Weights:
    """Files of a text encoder and its tokenizer, which are of two forms; of no model yet."""
    return Weights(
        model="",
        revision=None,
        required=(
            f"{encoder}/config.json",
            f"{encoder}/model.safetensors",
            f"{tokenizer}/tokenizer_config.json",
        ),
        one_of=(
            (f"{tokenizer}/vocab.json", f"{tokenizer}/merges.txt"),
            (f"{tokenizer}/tokenizer.json",),
        ),
        optional=(f"{tokenizer}/special_tokens_map.json",),
    )


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
        self._encoder = _Encoder(checkpoint, runtime, "text_encoder", "tokenizer")
        _check_width(checkpoint, width, self._encoder.width)
        self._known: dict[str, Tensor] = {}

    def encode(self, prompt: str) -> Tensor:
        """Last hidden state of the prompt, padded to the full length: ``(1, T, D)``."""
        from transformers import CLIPTextModel

        if prompt not in self._known:
            output = self._encoder.run(CLIPTextModel, prompt)
            self._known[prompt] = output.last_hidden_state
        return self._known[prompt]


class PairedPrompts:
    """Embeddings by prompt of two encoders, as Stable Diffusion XL takes them.

    Args:
        checkpoint: folder in diffusers' layout.
        runtime: device and dtype of the embeddings.
        places: subfolders of encoder and tokenizer, twice.
        unet: config of the UNet.

    Raises:
        BadCheckpoint: a tokenizer and its encoder do not fit each other, or the UNet.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        runtime: Runtime,
        places: tuple[tuple[str, str], ...],
        unet: Any,
    ) -> None:
        self._first, self._second = (_Encoder(checkpoint, runtime, *place) for place in places)
        self.width = self._first.width + self._second.width
        _check_width(checkpoint, int(unet.cross_attention_dim), self.width)
        self.pooled = int(self._second.config.get("projection_dim", 0))
        taken = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim
        if taken != self.pooled:
            raise BadCheckpoint(
                f"{checkpoint.path}: the UNet takes a pooled text of width {taken}, the second "
                f"text encoder gives {self.pooled} (projection_dim); they are not of one model"
            )
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    def encode(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Last but one hidden states side by side ``(1, T, D)``, and the pooled text ``(1, P)``."""
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        if prompt not in self._known:
            first = self._first.run(CLIPTextModel, prompt)
            second = self._second.run(CLIPTextModelWithProjection, prompt)
            hidden = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
            self._known[prompt] = (hidden, second.text_embeds)
        return self._known[prompt]


class _Encoder:
    """One text encoder and its tokenizer; the encoder is loaded for each run."""

    def __init__(
        self, checkpoint: Checkpoint, runtime: Runtime, encoder: str, tokenizer: str
    ) -> None:
        self._folder = checkpoint.path
        self._runtime = runtime
        self._name = encoder
        self.config = read_config(self._folder, f"{encoder}/config.json")
        if missing := [name for name in SIZES if not isinstance(self.config.get(name), int)]:
            raise BadCheckpoint(f"{self._folder}/{encoder}/config.json lacks {missing[0]}")
        self.width: int = self.config["hidden_size"]
        self._length: int = self.config["max_position_embeddings"]
        self._tokenizer = _load_tokenizer(
            checkpoint, tokenizer, self.config["vocab_size"], self._length
        )

    @torch.no_grad()
    def run(
        self, kind: type[CLIPTextModel] | type[CLIPTextModelWithProjection], prompt: str
    ) -> Any:
        """The encoder's output for the prompt, padded to the full length."""
        tokens = self._tokenizer(prompt, padding="max_length", max_length=self._length)
        if len(tokens.input_ids) > self._length:
            raise BadRecipe(
                f"the prompt has {len(tokens.input_ids)} tokens, at most {self._length} fit: "
                f"{prompt[:60]!r}"
            )
        encoder = load_part(kind, self._folder, self._name, self._runtime.dtype)
        ids = torch.tensor([tokens.input_ids], device=self._runtime.device)
        return encoder.to(self._runtime.device)(ids, output_hidden_states=True)


def _check_width(checkpoint: Checkpoint, taken: int, given: int) -> None:
    if given != taken:
        raise BadCheckpoint(
            f"{checkpoint.path}: the UNet takes text of width {taken} (cross_attention_dim), the "
            f"text encoder gives {given} (hidden_size); they are not of one model"
        )


def _load_tokenizer(checkpoint: Checkpoint, folder: str, vocabulary: int, length: int) -> Any:
    """The tokenizer, checked: transformers makes an empty one, without a word, of no files."""
    from transformers import CLIPTokenizer

    where = checkpoint.path / folder
    try:
        tokenizer = CLIPTokenizer.from_pretrained(checkpoint.path, subfolder=folder)
    except Exception as error:  # the library underneath raises bare ones
        raise BadCheckpoint(f"{where} cannot be loaded: {error}") from error
    if len(tokenizer) != vocabulary or tokenizer.model_max_length != length:
        raise BadCheckpoint(
            f"{where} does not fit the text encoder: expected {vocabulary} tokens and length "
            f"{length}, got {len(tokenizer)} and {tokenizer.model_max_length}; are its files whole?"
        )
    return tokenizer
