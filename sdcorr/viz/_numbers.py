"""The numbers on parts of a photo: one on each region, none over another, none cut off."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sdcorr.geometry import Grid
from sdcorr.viz._photo import label

SMALLEST = 3  # cells of a region with a number
DIGIT, HIGH, RIM = 7.0, 10.0, 1.5  # typographic points: width of a digit, height, black around it

Points = npt.NDArray[np.float64]


def number_regions(figure: Figure, axes: Axes, grid: Grid, labels: Tensor) -> None:
    """Write the number of its part on each connected region, the largest first.

    Args:
        figure: of the axes.
        axes: of the photo, laid out.
        grid: of its cells.
        labels: ``(h*w,)``, 1 and more in parts, 0 elsewhere.
    """
    to_page, page = axes.transData, 72 / figure.dpi  # pixels to points
    frame = axes.get_window_extent()
    corners = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]]) * page
    taken, named = np.zeros((0, 4)), set()  # boxes: middle x, y, width, height
    for part, cells in _regions(grid, labels):
        if part in named and len(cells) < SMALLEST:
            continue
        size = np.array([DIGIT * len(str(part)), HIGH]) + 2 * RIM
        spots = to_page.transform(cells) * page
        middles = _inside(spots, size, corners)  # (M, 2)
        gaps = (np.abs(middles[:, None] - taken[:, :2]) - (size + taken[:, 2:]) / 2).max(axis=2)
        free = (gaps >= 0).all(axis=1)
        if part in named and not free.any():
            continue
        named.add(part)
        best = int(free.argmax())  # the first that is free, else the first
        aside = middles[best] - spots[best]
        label(axes, cells[best].tolist(), to_page, str(part), (aside[0], aside[1]))
        taken = np.vstack([taken, [*middles[best], *size]])


def _regions(grid: Grid, labels: Tensor) -> list[tuple[int, Points]]:
    """Part and centres ``(M, 2)`` xy of each connected region, those near its middle first.

    Cells that share a side are connected. The largest region comes first.
    """
    from scipy import ndimage

    part = labels.reshape(grid.shape).numpy()
    centers = grid.image.clamp(grid.centers()).numpy()  # a thin photo's cells reach beyond it
    found = []
    for number in np.unique(part[part > 0]).tolist():
        region, count = ndimage.label(part == number)
        for index in range(1, count + 1):
            cells = centers[region.flatten() == index]
            away = ((cells - cells.mean(axis=0)) ** 2).sum(axis=1)
            found.append((number, cells[away.argsort(kind="stable")]))
    return sorted(found, key=lambda one: -len(one[1]))


def _inside(spots: Points, size: Points, corners: Points) -> Points:
    """Middles of boxes ``(M, 2)``, moved so that the boxes lie between two corners.

    Where there is no room for a box it stands in the middle.
    """
    low, high = corners[0] + size / 2, corners[1] - size / 2
    tight = low > high
    low, high = (
        np.where(tight, corners.mean(axis=0), low),
        np.where(tight, corners.mean(axis=0), high),
    )
    return np.clip(spots, low, high)
