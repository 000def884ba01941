"""Vision transformers and DINO v1's matching written out slowly, for comparison.

Nothing of sdcorr is used here, nor are the models of transformers: weights are read from the file
by the names that the hub has. One photo at a time, float64, row by row.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Weights = dict[str, Tensor]


# -- checkpoints on disk -----------------------------------------------------------------------


def rewrite(
    source: Path, folder: Path, change: Callable[[Weights], Weights] = dict, **config: Any
) -> Path:
    """A copy of a checkpoint with other weights, and with these fields of its config."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        shutil.copy(file, folder)
    tensors = change(load_file(source / "model.safetensors"))
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    fields = json.loads((source / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def with_bias(*names: str) -> list[str]:
    """Weight and bias of each."""
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def randomise(tensors: Weights, seed: int = 2) -> Weights:
    """Weights of which each counts: no bias of zero, no scale of one, attention not even."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: torch.Size) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        if "token" in name or "position" in name:
            return 0.5 * noise
        if len(shape) > 1:
            looks = any(part in name for part in ("query", "key", "q_proj", "k_proj"))
            return (1.6 if looks else 1.0) * noise / math.sqrt(shape[1:].numel())
        if name.endswith("bias"):
            return 0.3 * noise
        return (0.4 if "lambda" in name else 1.0) + 0.2 * noise

    return {name: draw(name, tensors[name].shape) for name in sorted(tensors)}


# -- photo to canvas ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Canvas:
    """What the model sees, and where the photo is on it."""

    pixels: np.ndarray  # (H, W, 3) uint8
    photo: tuple[int, int]  # height and width
    content: tuple[int, int]
    corner: tuple[int, int] = (0, 0)  # (x, y)

    def to_photo(self, x: float, y: float) -> tuple[float, float]:
        """Canvas pixels, counted from the edge, as photo pixels counted from a pixel's centre."""
        (height, width), (inner_height, inner_width) = self.photo, self.content
        left, top = self.corner
        return (x - left) * width / inner_width - 0.5, (y - top) * height / inner_height - 0.5


def letterbox(photo: np.ndarray, size: int) -> Canvas:
    """As sd-dino: longer side to ``size``, shorter rounded, in the middle of a black square."""
    height, width, _ = photo.shape
    if width >= height:
        inner = (int(np.around(size * height / width)), size)
    else:
        inner = (size, int(np.around(size * width / height)))
    resized = np.asarray(PIL.Image.fromarray(photo).resize(inner[::-1], PIL.Image.LANCZOS))
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    pixels = np.zeros((size, size, 3), np.uint8)
    for row in range(inner[0]):
        pixels[top + row, left : left + inner[1]] = resized[row]
    return Canvas(pixels, (height, width), inner, (left, top))


def shorter(photo: np.ndarray, size: int) -> Canvas:
    """As torchvision's Resize: shorter side to ``size``, longer one ``int()``, no crop."""
    height, width, _ = photo.shape
    if width <= height:
        inner = (int(size * height / width), size)
    else:
        inner = (size, int(size * width / height))
    resized = PIL.Image.fromarray(photo).resize(inner[::-1], PIL.Image.LANCZOS)
    return Canvas(np.asarray(resized), (height, width), inner)


def lanczos(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """Lanczos with three lobes, stretched when it shrinks; 8 bits after either pass."""

    def window(distance: float) -> float:
        return float(np.sinc(distance) * np.sinc(distance / 3)) if abs(distance) < 3 else 0.0

    across = spread_weights(width, photo.shape[1], window, 3)
    down = spread_weights(height, photo.shape[0], window, 3)
    values = torch.from_numpy(photo.copy()).double()
    values = torch.einsum("xj,ijc->ixc", across, values).round().clamp(0, 255)
    return torch.einsum("yi,ixc->yxc", down, values).round().clamp(0, 255).numpy()


def spread_weights(side: int, stored: int, kernel: Callable[[float], float], reach: int) -> Tensor:
    """One axis of a resize ``(side, stored)`` whose kernel grows where it shrinks the input."""
    weights = torch.zeros(side, stored, dtype=torch.float64)
    ratio = stored / side
    stretch = max(ratio, 1.0)
    for out in range(side):
        centre = (out + 0.5) * ratio
        for place in range(stored):
            distance = (place + 0.5 - centre) / stretch
            if abs(distance) < reach:
                weights[out, place] = kernel(distance)
        weights[out] /= weights[out].sum()  # nothing lies beyond the edge
    return weights


def normalise(canvas: Canvas, mean: Any = MEAN, std: Any = STD) -> Tensor:
    """``(3, H, W)``: pixels in 0..1, padding like content."""
    pixels = torch.from_numpy(canvas.pixels.copy()).double() / 255
    return torch.stack([(pixels[:, :, c] - mean[c]) / std[c] for c in range(3)])


# -- position tables ---------------------------------------------------------------------------


def cubic(distance: float, a: float) -> float:
    """Keys' cubic convolution kernel."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def bicubic_weights(side: int, stored: int, scale: float) -> Tensor:
    """One axis of torch's bicubic resize ``(side, stored)``; the edge is repeated."""
    weights = torch.zeros(side, stored, dtype=torch.float64)
    for out in range(side):
        place = (out + 0.5) / scale - 0.5
        first = math.floor(place)
        for tap in range(first - 1, first + 3):
            weights[out, min(max(tap, 0), stored - 1)] += cubic(place - tap, -0.75)
    return weights


def resize_table(table: Tensor, shape: tuple[int, int], how: str) -> Tensor:
    """A table ``(1 + n*n, C)`` for ``(h, w)`` patches: ``original``, ``transformers`` or
    ``antialiased``, which is torch's, with a = -0.5 and weights that sum to one.
    """
    stored = math.isqrt(len(table) - 1)
    if shape == (stored, stored):
        return table

    def axis(side: int) -> Tensor:
        if how == "antialiased":
            return spread_weights(side, stored, lambda distance: cubic(distance, -0.5), 2)
        return bicubic_weights(side, stored, (side + (0.1 if how == "original" else 0)) / stored)

    square = table[1:].reshape(stored, stored, -1)
    resized = torch.einsum("yi,xj,ijc->yxc", axis(shape[0]), axis(shape[1]), square)
    return torch.cat([table[:1], resized.flatten(0, 1)])


def angles(place: tuple[float, float], channels: int, theta: float) -> list[float]:
    """DINOv3's angles of one patch at (y, x), each -1 to 1 over the canvas: by channel of a head.

    A quarter of the channels turn with y, the next with x, by rising period; then both again.
    """
    quarter = channels // 4
    found = []
    for channel in range(channels):
        number = channel % (channels // 2)
        period = theta ** (2 * (number % quarter) / (channels // 2))
        found.append(2 * math.pi * place[number // quarter] / period)
    return found


def rotate(rows: Tensor, turns: Tensor) -> Tensor:
    """Each pair of channels c and c + D/2 of ``(N, D)`` turned by its angle."""
    half = rows.shape[1] // 2
    first, second = rows[:, :half], rows[:, half:]
    cosine, sine = turns.cos(), turns.sin()
    return torch.cat(
        [
            first * cosine[:, :half] - second * sine[:, :half],
            second * cosine[:, half:] + first * sine[:, half:],
        ],
        dim=1,
    )


# -- the transformer ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """Where a family keeps its weights in the file."""

    patches: str
    block: str  # before the number
    before: str
    after: str
    query: str
    key: str
    value: str
    out: str
    widen: str
    narrow: str
    norm: str


_OLD = "attention.attention"
_DINOV2 = Names(
    "embeddings.patch_embeddings.projection", "encoder.layer", "norm1", "norm2", f"{_OLD}.query",
    f"{_OLD}.key", f"{_OLD}.value", "attention.output.dense", "mlp.fc1", "mlp.fc2", "layernorm",
)  # fmt: skip
NAMES = {
    "dinov2": _DINOV2,
    "dinov2_with_registers": _DINOV2,
    "dinov3_vit": Names(
        "embeddings.patch_embeddings", "layer", "norm1", "norm2", "attention.q_proj",
        "attention.k_proj", "attention.v_proj", "attention.o_proj", "mlp.up_proj", "mlp.down_proj",
        "norm",
    ),
    "vit": Names(
        "embeddings.patch_embeddings.projection", "encoder.layer", "layernorm_before",
        "layernorm_after", f"{_OLD}.query", f"{_OLD}.key", f"{_OLD}.value",
        "attention.output.dense", "intermediate.dense", "output.dense", "layernorm",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Stages:
    """All that a forward pass puts out, by block; rows are CLS, registers, patches."""

    shape: tuple[int, int]  # rows and columns of patches
    special: int
    token: list[Tensor] = field(default_factory=list)  # (T, C)
    query: list[Tensor] = field(default_factory=list)
    key: list[Tensor] = field(default_factory=list)
    value: list[Tensor] = field(default_factory=list)
    from_cls: list[Tensor] = field(default_factory=list)  # (heads, T) attention

    def cells(self, rows: Tensor) -> Tensor:
        """Rows of the patches as a map ``(C, h, w)``."""
        return rows[self.special :].T.reshape(-1, *self.shape)


class Model:
    """A checkpoint folder."""

    def __init__(self, folder: Path, changed: Weights | None = None) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "model.safetensors") | (changed or {})
        self.weights = {name: value.double() for name, value in tensors.items()}
        self.names = NAMES[self.config["model_type"]]
        self.patch: int = self.config["patch_size"]
        self.heads: int = self.config["num_attention_heads"]

    def linear(self, name: str, rows: Tensor) -> Tensor:
        out = rows @ self.weights[f"{name}.weight"].T
        return out + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else out

    def norm(self, rows: Tensor, name: str = "") -> Tensor:
        """LayerNorm, by default the final one."""
        name = name or self.names.norm
        centred = rows - rows.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        unit = centred / (variance + self.config["layer_norm_eps"]).sqrt()
        return unit * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def shape(self, canvas: Tensor, stride: int) -> tuple[int, int]:
        _, height, width = canvas.shape
        rows = len(range(0, height - self.patch + 1, stride))
        return rows, len(range(0, width - self.patch + 1, stride))

    def embed(self, canvas: Tensor, stride: int, positions: str) -> Tensor:
        """CLS, registers and patches, with their positions: ``(T, C)``."""
        rows, columns = self.shape(canvas, stride)
        kernel = self.weights[f"{self.names.patches}.weight"].flatten(1)  # (C, 3 * patch**2)
        patches = []
        for row in range(rows):
            for column in range(columns):
                y, x = row * stride, column * stride
                window = canvas[:, y : y + self.patch, x : x + self.patch]
                patches.append(kernel @ window.flatten())
        embedded = torch.stack(patches) + self.weights[f"{self.names.patches}.bias"]
        embedded = torch.cat([self.weights["embeddings.cls_token"][0], embedded])
        if "embeddings.position_embeddings" in self.weights:
            table = self.weights["embeddings.position_embeddings"][0]
            embedded = embedded + resize_table(table, (rows, columns), positions)
        if "embeddings.register_tokens" in self.weights:  # they have no position
            registers = self.weights["embeddings.register_tokens"][0]
            embedded = torch.cat([embedded[:1], registers, embedded[1:]])
        return embedded

    def turns(self, canvas: Tensor, stride: int) -> Tensor | None:
        """Rotary angles of each patch ``(h*w, D)``, where the model has them."""
        if "rope_theta" not in self.config:
            return None
        rows, columns = self.shape(canvas, stride)
        _, height, width = canvas.shape
        channels = self.config["hidden_size"] // self.heads
        found = []
        for row in range(rows):
            for column in range(columns):
                y = 2 * (row * stride + self.patch / 2) / height - 1
                x = 2 * (column * stride + self.patch / 2) / width - 1
                found.append(angles((y, x), channels, self.config["rope_theta"]))
        return torch.tensor(found, dtype=torch.float64)

    def attend(self, stages: Stages, turns: Tensor | None) -> Tensor:
        """Softmax attention of the last projections, head by head: ``(T, C)``."""
        query, key, value = stages.query[-1], stages.key[-1], stages.value[-1]
        channels = query.shape[1] // self.heads
        heads, from_cls = [], []
        for head in range(self.heads):
            own = slice(head * channels, (head + 1) * channels)
            q, k = query[:, own], key[:, own]
            if turns is not None:
                q, k = (
                    torch.cat([one[: stages.special], rotate(one[stages.special :], turns)])
                    for one in (q, k)
                )
            weights = ((q @ k.T) / math.sqrt(channels)).exp()
            weights = weights / weights.sum(dim=1, keepdim=True)
            heads.append(weights @ value[:, own])
            from_cls.append(weights[0])
        stages.from_cls.append(torch.stack(from_cls))
        return torch.cat(heads, dim=1)

    def mlp(self, block: str, rows: Tensor) -> Tensor:
        if f"{block}.mlp.weights_in.weight" in self.weights:  # DINOv2 giant
            gate, inner = self.linear(f"{block}.mlp.weights_in", rows).chunk(2, dim=1)
            return self.linear(f"{block}.mlp.weights_out", gate * gate.sigmoid() * inner)
        inner = self.linear(f"{block}.{self.names.widen}", rows)
        if f"{block}.mlp.gate_proj.weight" in self.weights:  # DINOv3 huge
            gate = self.linear(f"{block}.mlp.gate_proj", rows)
            return self.linear(f"{block}.{self.names.narrow}", gate * gate.sigmoid() * inner)
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        return self.linear(f"{block}.{self.names.narrow}", inner)

    def scale(self, name: str, rows: Tensor) -> Tensor:
        return rows * self.weights[name] if name in self.weights else rows

    def run(self, canvas: Tensor, stride: int | None = None, positions: str = "") -> Stages:
        """Every stage for ``(3, H, W)``; ``positions`` as ``resize_table`` knows them."""
        stride = stride or self.patch
        hidden = self.embed(canvas, stride, positions)
        shape, turns = self.shape(canvas, stride), self.turns(canvas, stride)
        stages = Stages(shape, special=len(hidden) - shape[0] * shape[1])
        for number in range(self.config["num_hidden_layers"]):
            block = f"{self.names.block}.{number}"
            rows = self.norm(hidden, f"{block}.{self.names.before}")
            stages.query.append(self.linear(f"{block}.{self.names.query}", rows))
            stages.key.append(self.linear(f"{block}.{self.names.key}", rows))
            stages.value.append(self.linear(f"{block}.{self.names.value}", rows))
            attended = self.linear(f"{block}.{self.names.out}", self.attend(stages, turns))
            hidden = hidden + self.scale(f"{block}.layer_scale1.lambda1", attended)
            rows = self.norm(hidden, f"{block}.{self.names.after}")
            hidden = hidden + self.scale(f"{block}.layer_scale2.lambda1", self.mlp(block, rows))
            stages.token.append(hidden)
        return stages


# -- descriptors and matches -------------------------------------------------------------------


def centres(canvas: Canvas, shape: tuple[int, int], patch: int, stride: int) -> Tensor:
    """Photo pixels of each patch's centre, ``stride * k + patch / 2`` on the canvas: (h*w, 2)."""
    places = [
        canvas.to_photo(column * stride + patch / 2, row * stride + patch / 2)
        for row in range(shape[0])
        for column in range(shape[1])
    ]
    return torch.tensor(places, dtype=torch.float64)


def saliency(stages: Stages, heads: tuple[int, ...] = (0, 2, 4, 5)) -> Tensor:
    """Mean attention from CLS in the last block, least 0 and greatest 1: ``(h*w,)``."""
    looks = sum(stages.from_cls[-1][head, stages.special :] for head in heads) / len(heads)
    return (looks - looks.min()) / (looks.max() - looks.min())


def log_bins(values: Tensor) -> Tensor:
    """``(C, h, w)`` to ``(17 * C, h, w)``, cell by cell, in the order of the original."""
    _, height, width = values.shape

    def pooled(row: int, column: int, size: int) -> Tensor:
        reach = size // 2
        near = [
            values[:, y, x]
            for y in range(row - reach, row + reach + 1)
            for x in range(column - reach, column + reach + 1)
            if 0 <= y < height and 0 <= x < width
        ]
        return torch.stack(near).mean(dim=0)

    out = values.new_zeros(17 * len(values), height, width)
    for row in range(height):
        for column in range(width):
            bins = []
            for size in (1, 3):
                for y in (row - size, row, row + size):
                    for x in (column - size, column, column + size):
                        if (y, x) == (row, column) and size > 1:
                            continue
                        y_on, x_on = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                        bins.append(pooled(y_on, x_on, size))
            out[:, row, column] = torch.cat(bins)
    return out


def inside(canvas: Canvas, places: Tensor) -> list[bool]:
    """Whether each centre ``(h*w, 2)`` lies on the photo."""
    height, width = canvas.photo
    return [-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5 for x, y in places.tolist()]


def to_cell(
    canvas: Canvas, point: tuple[float, float], patch: int, stride: int
) -> tuple[float, float]:
    """Row and column, between cells, of a photo pixel (x, y)."""
    (height, width), (inner_height, inner_width) = canvas.photo, canvas.content
    x = (point[0] + 0.5) * inner_width / width + canvas.corner[0]
    y = (point[1] + 0.5) * inner_height / height + canvas.corner[1]
    return (y - patch / 2) / stride, (x - patch / 2) / stride


def confine(
    place: tuple[float, float], allowed: list[bool], shape: tuple[int, int]
) -> tuple[float, float]:
    """The nearest place between the outermost allowed cells' centres, (row, column)."""
    cells = [index for index, on_photo in enumerate(allowed) if on_photo]
    rows, columns = {cell // shape[1] for cell in cells}, {cell % shape[1] for cell in cells}
    return (
        min(max(place[0], min(rows)), max(rows)),
        min(max(place[1], min(columns)), max(columns)),
    )


def read(values: Tensor, row: float, column: float) -> Tensor:
    """Bilinear value ``(C,)`` of unit cells ``(C, h, w)`` at a place between their centres."""
    _, height, width = values.shape
    top, left = min(int(row), height - 1), min(int(column), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = row - top, column - left
    return (
        (1 - down) * (1 - along) * values[:, top, left]
        + (1 - down) * along * values[:, top, right]
        + down * (1 - along) * values[:, bottom, left]
        + down * along * values[:, bottom, right]
    )


def unit_cells(values: Tensor) -> Tensor:
    """Each cell of ``(C, h, w)`` divided by its length."""
    return values / values.square().sum(dim=0).sqrt()


def cosines(query: Tensor, cells: Tensor) -> list[float]:
    """Cosine of one descriptor to each cell of ``(C, h, w)``, row by row."""
    return [
        float(query @ cell / (query.square().sum() * cell.square().sum()).sqrt())
        for cell in cells.flatten(1).T
    ]


def best(values: list[float], allowed: list[bool]) -> int:
    """Index of the greatest allowed value, the first of equals."""
    found = -1
    for index, value in enumerate(values):
        if allowed[index] and (found < 0 or value > values[found]):
            found = index
    return found


def best_buddies(similarity: Tensor, first: list[bool], second: list[bool]) -> set[tuple[int, int]]:
    """As the original chooses them: nearest to each other among ALL cells, and both salient."""
    there, back = similarity.argmax(dim=1).tolist(), similarity.argmax(dim=0).tolist()
    return {
        (cell, there[cell])
        for cell in range(len(there))
        if back[there[cell]] == cell and first[cell] and second[there[cell]]
    }
