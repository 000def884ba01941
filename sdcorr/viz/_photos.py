"""Several photos, and what their descriptors show: colours, parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from sdcorr.geometry import Grid, Size
from sdcorr.segmentation import at_pixels
from sdcorr.types import Image
from sdcorr.viz._numbers import number_regions
from sdcorr.viz._photo import COLOURS, HEIGHT, WIDEST, shares_of, thin_out

ABREAST = 6  # photos
TALLEST = 80.0  # inches of the figure
GAP = 0.04  # inches between photos
GROUND = 26  # of 255, behind colours

Pixels = npt.NDArray[np.uint8]


def plot_pca(
    images: Sequence[Image], grids: Sequence[Grid], colours: Sequence[npt.NDArray[np.uint8]]
) -> Figure:
    """Photos, and below each one its descriptors as colours, on a dark ground.

    Args:
        images: up to six stand in a row; at least one.
        grids: of their cells.
        colours: ``(h, w, 4)`` uint8 RGBA each, see ``segmentation.pca_colours``.
    """
    figure, rows = _rows_of_photos(images, layers=2)
    for (above, below), image, grid, cells in zip(rows, images, grids, colours, strict=True):
        above.set_anchor("S")  # flat photos stand close to their colours
        below.set_anchor("N")
        photo = np.asarray(thin_out(image))
        painted = at_pixels(cells, grid, Size(*photo.shape[:2]))
        alpha = painted[:, :, 3:] / 255
        _show(above, image, photo)
        _show(below, image, _bytes(alpha * painted[:, :, :3] + (1 - alpha) * GROUND))
    return figure


def plot_parts(images: Sequence[Image], grids: Sequence[Grid], labels: Sequence[Tensor]) -> Figure:
    """Photos with their parts laid over: a colour, an outline and a number each.

    A number stands on each connected region of a part, on the cell that is nearest to the middle
    of the region and has room. Regions of one or two cells have none, nor those on which it would
    cover others, unless the part has no larger one in that photo. There are seven colours; numbers
    tell apart what shares one.

    Args:
        images: up to six stand in a row; at least one.
        grids: of their cells.
        labels: ``(h*w,)`` each, 1 and more in parts, 0 elsewhere, see ``segmentation.parts``.
    """
    figure, rows = _rows_of_photos(images, layers=1)
    for (axes,), image, grid, cells in zip(rows, images, grids, labels, strict=True):
        photo = np.asarray(thin_out(image))
        part = at_pixels(cells.reshape(grid.shape).numpy(), grid, Size(*photo.shape[:2]))
        _show(axes, image, _painted(photo, part))
        lines = _outline(grid, cells).tolist()
        for width, colour in ((2.6, "black"), (1.2, "white")):  # to be seen on any ground
            axes.add_collection(
                LineCollection(lines, linewidths=width, colors=colour, capstyle="round"),
                autolim=False,
            )
        number_regions(figure, axes, grid, cells)
    return figure


def _rows_of_photos(images: Sequence[Image], layers: int) -> tuple[Figure, list[tuple[Axes, ...]]]:
    """A figure with as many axes for each photo, one below the other, as there are layers."""
    shares = shares_of(images)
    abreast = math.ceil(len(images) / math.ceil(len(images) / ABREAST))  # rows of like lengths
    starts = range(0, len(images), abreast)
    rows = [range(start, min(start + abreast, len(images))) for start in starts]
    widest = max(sum(shares[index] for index in row) for row in rows)
    height = min(HEIGHT, WIDEST / widest, TALLEST / (len(rows) * layers))
    page = np.array([height * widest + GAP * len(rows[0]), len(rows) * layers * (height + GAP)])
    figure, found = Figure(figsize=(page[0], page[1]), dpi=150), []
    for number, row in enumerate(rows):
        left = GAP / 2
        for index in row:
            width, placed = height * shares[index], []
            for layer in range(number * layers, (number + 1) * layers):
                bottom = page[1] - (layer + 1) * (height + GAP) + GAP / 2
                corner, size = np.array([left, bottom]) / page, np.array([width, height]) / page
                placed.append(figure.add_axes((*corner, *size)))
            found.append(tuple(placed))
            left += width + GAP
    return figure, found


def _show(axes: Axes, image: Image, pixels: Pixels) -> None:
    axes.imshow(pixels, extent=image.size.extent)
    axes.set_axis_off()
    axes.apply_aspect()


def _painted(photo: Pixels, part: npt.NDArray[np.int64]) -> Pixels:
    """A photo ``(H, W, 3)``, grey and in the colours of its parts where it has some, ``(H, W)``."""
    colours = np.array([to_rgb(colour) for colour in COLOURS]) * 255
    grey = photo.mean(axis=2, keepdims=True)
    mixed = (grey + colours[(part - 1) % len(COLOURS)]) / 2
    return _bytes(np.where(part[:, :, None] > 0, mixed, photo))


def _outline(grid: Grid, labels: Tensor) -> Tensor:
    """Lines between cells of different labels: ``(N, 2, 2)``, two ends (x, y) each."""
    inside = grid.inside().reshape(grid.shape)
    rows, columns = inside.any(dim=1), inside.any(dim=0)
    part = labels.reshape(grid.shape)[rows][:, columns]
    x, y = grid.centers().reshape(*grid.shape, 2)[rows][:, columns].unbind(-1)
    left, right, bottom, top = grid.image.extent
    x, y = _between(x[0], left, right), _between(y[:, 0], top, bottom)
    row, column = (part[:, 1:] != part[:, :-1]).nonzero().unbind(1)
    upright = torch.stack([x[column + 1], y[row], x[column + 1], y[row + 1]], dim=1)
    row, column = (part[1:] != part[:-1]).nonzero().unbind(1)
    level = torch.stack([x[column], y[row + 1], x[column + 1], y[row + 1]], dim=1)
    return torch.cat([upright, level]).reshape(-1, 2, 2)


def _between(centers: Tensor, first: float, last: float) -> Tensor:
    """Where cells of these centres meet, and the edges of the photo."""
    return torch.cat(
        [centers.new_tensor([first]), (centers[1:] + centers[:-1]) / 2, centers.new_tensor([last])]
    )


def _bytes(values: npt.NDArray[np.float64]) -> Pixels:
    return np.rint(values).astype(np.uint8)
