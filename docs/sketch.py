"""What the drawings of the documentation are made of: axes, marks, and files of few colours."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sdcorr import Image
from sdcorr.geometry import Grid
from sdcorr.types import Similarity
from sdcorr.viz import COLOURS

ORANGE, SKY, GREEN, _, BLUE, RED, PINK = COLOURS
INK, GREY = "#222222", "#777777"
LINES = (ORANGE, SKY, GREEN, BLUE, RED, PINK, INK, GREY)
WIDTH, DPI = 8.0, 110  # inches and dots: 880 px
COLOURS_KEPT = 160  # of photos, in a file
MARGIN = 12  # px left below a drawing
LOOK = {"font.size": 9.5, "axes.titlesize": 9.5, "axes.labelsize": 9.5}


def heat(axis: Axes, similarity: Similarity, target: Image, point: torch.Tensor) -> None:
    """Similarity of a point ``(1, 2)`` over the target photo, from the median up."""
    grid, row = similarity.target, similarity.rows(point)[0]
    axis.imshow(faded(target, 0.2), extent=grid.image.extent)
    inside = row[grid.inside()]
    axis.imshow(
        row.reshape(grid.shape).numpy(), extent=grid.extent, cmap="cividis", alpha=0.65,
        vmin=inside.median().item(), vmax=inside.max().item(), interpolation="nearest",
    )  # fmt: skip
    limits(axis, grid.image.extent)


def cells(axis: Axes, grid: Grid) -> None:
    """Lines between the cells; a dot at each centre that lies on the photo, a cross elsewhere."""
    left, right, bottom, top = grid.extent
    (height, width), (sx, sy) = grid.shape, grid.stride
    axis.vlines([left + sx * n for n in range(width + 1)], top, bottom, color=BLUE, linewidth=0.9)
    axis.hlines([top + sy * n for n in range(height + 1)], left, right, color=BLUE, linewidth=0.9)
    centres, inside = grid.centers(), grid.inside()
    axis.plot(*centres[inside].T, "o", color=BLUE, markersize=5, markeredgecolor="white")
    axis.plot(*centres[~inside].T, "x", color="white", markersize=6, markeredgewidth=1.8)


def new_figure(height: float, rows: int, columns: int, **grid: Any) -> tuple[Figure, Any]:
    """A white page with rows and columns of axes, at the top of their places."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots(rows, columns, gridspec_kw=grid)
    for axis in np.atleast_1d(axes).flat:
        axis.set_anchor("N")  # titles in one line
    return figure, axes


def faded(image: Image, white: float) -> npt.NDArray[np.uint8]:
    """The photo, mixed with white, 0 to 1."""
    return np.round(image.pixels * (1 - white) + 255 * white).astype(np.uint8)


def shrunk(
    image: Image, size: tuple[int, int], box: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    """A part of the photo at another size (width, height)."""
    return np.asarray(PIL.Image.fromarray(image.pixels).resize(size, box=box))


def box(axis: Axes, extent: Sequence[float], **how: Any) -> None:
    """A frame; extent as (left, right, bottom, top)."""
    left, right, bottom, top = extent
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, zorder=5, **how))


def limits(axis: Axes, extent: Sequence[float], margin: float = 0) -> None:
    """Show this extent."""
    left, right, bottom, top = extent
    axis.set(xlim=(left - margin, right + margin), ylim=(bottom + margin, top - margin))


def dot(axis: Axes, place: Sequence[float], hollow: bool = False) -> None:
    """A place, or with a ring another one."""
    face = "none" if hollow else RED
    axis.plot(*place, "o", markersize=11, markerfacecolor="none", markeredgecolor="white",
              markeredgewidth=4)  # fmt: skip
    axis.plot(*place, "o", markersize=10, markerfacecolor=face, markeredgecolor=RED,
              markeredgewidth=2)  # fmt: skip


def note(axis: Axes, text: str, place: Sequence[float], at: Sequence[float]) -> None:
    """Words with a line to a place."""
    axis.annotate(
        text, place, xytext=at, color=INK, zorder=6,
        arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 1.2},
        bbox={"facecolor": "white", "edgecolor": GREY, "alpha": 0.92, "boxstyle": "round,pad=0.25"},
    )  # fmt: skip


def label(axis: Axes, text: str, at: Sequence[float], colour: str) -> None:
    """Words in a frame."""
    axis.text(
        *at, text, ha="center", va="center", color=INK,
        bbox={"facecolor": "white", "edgecolor": colour, "linewidth": 1.5, "alpha": 0.9},
    )  # fmt: skip


def rgb(colour: str) -> tuple[float, ...]:
    """Red, green and blue, 0 to 1, of #RRGGBB."""
    return tuple(int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))


def bare(axis: Axes) -> None:
    """No ticks: what matters is in the picture."""
    axis.set_xticks([])
    axis.set_yticks([])


def few_colours(draw: Callable[[], Figure]) -> PIL.Image.Image:
    """The drawing in few colours, which keeps the file small; those of the lines as they are."""
    buffer = io.BytesIO()
    with rc_context(LOOK):
        draw().savefig(buffer, format="png")
    drawn = PIL.Image.open(buffer).convert("RGB")
    inked = np.flatnonzero((np.asarray(drawn) < 255).any(axis=(1, 2)))
    drawn = drawn.crop((0, 0, drawn.width, min(drawn.height, inked[-1] + MARGIN)))
    most = drawn.quantize(COLOURS_KEPT, PIL.Image.Quantize.MEDIANCUT).getpalette() or []
    kept = [round(255 * level) for colour in LINES for level in rgb(colour)]
    palette = PIL.Image.new("P", (1, 1))
    palette.putpalette([*most, *kept])
    reduced = drawn.quantize(palette=palette, dither=PIL.Image.Dither.NONE)
    colours = np.reshape(reduced.getpalette(), (-1, 3)).copy()
    colours[reduced.getpixel((0, drawn.height - 1))] = 255  # Pillow takes a near colour for white
    reduced.putpalette(colours.flatten().tolist())
    return reduced
