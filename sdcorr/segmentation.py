"""What stands out in photos, the colours of its descriptors, and its parts.

Of several photos taken together, so that what is alike is alike from photo to photo. Cells on
padding never count. Descriptors are made unit length first; a zero one, as of a flat cell, stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.clusters import k_means
from sdcorr.colours import lab_to_rgb
from sdcorr.errors import BadImage, BadMask
from sdcorr.geometry import Grid, Size
from sdcorr.maps import principal_directions, unit
from sdcorr.types import FeatureMap

COLOURED = 3  # principal components that become colours
ROBUST = (0.02, 0.98)  # quantiles that span a component's colours; what lies beyond gets the last
DARKEST, LIGHTEST = 30.0, 85.0  # L*


@dataclass(frozen=True, eq=False)
class Components:
    """The first principal components of the foreground of several photos taken together.

    Args:
        grids: of the photos.
        foreground: ``(h*w,)`` bool of each photo.
        values: ``(F, n)`` float64 of each photo, one row per foreground cell, in their order.
        share: ``(n,)`` float64, the share that each component has of the variance, 0 to 1.
    """

    grids: tuple[Grid, ...]
    foreground: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    share: Tensor


def salient(maps: Sequence[FeatureMap]) -> list[Tensor]:
    """Foreground of several photos: what the first principal component sets apart from the border.

    The component is taken over the inside cells of all photos and split by Otsu's threshold. Its
    sign means nothing: foreground is the side that has fewer of the photos' border cells, the
    outermost ones on the photo; of two that have as many, the smaller side. After "DINOv2", Oquab
    et al., 2023, section 7.5, which thresholds the first component of patch features and takes
    the positive side.

    Args:
        maps: ``(C, h, w)`` each, with shapes of their own; at least one.

    Returns:
        ``(h*w,)`` bool each, on the CPU; at least one cell of all photos is True.

    Raises:
        BadImage: all cells are alike, so that nothing stands out.
    """
    inside = [one.grid.inside() for one in maps]
    component = torch.cat([rows[:, 0] for rows in principal(maps, count=1).values])
    threshold = _otsu(component)
    if threshold is None:
        raise BadImage(
            "nothing stands out: all cells of the photos are alike; give photos that show "
            "something, or take all cells (--whole; in Python: foreground=None)"
        )
    border = torch.cat([_border(one.grid) for one in maps])
    above = component > threshold
    sides = [(int((side & border).sum()), int(side.sum())) for side in (above, ~above)]
    chosen = above if sides[0] <= sides[1] else ~above
    return _spread(chosen, inside)


def principal(
    maps: Sequence[FeatureMap],
    foreground: Sequence[Tensor] | None = None,
    count: int = COLOURED,
) -> Components:
    """The first principal components of the foreground cells of several photos, taken together.

    The sign of a component is chosen so that the channel which counts most in it counts upwards.

    Args:
        maps: ``(C, h, w)`` each, with shapes of their own; at least one.
        foreground: ``(h*w,)`` bool each, see ``salient``; None is all cells on the photos.
        count: components; those beyond the variance are zero.

    Raises:
        BadMask: no cell is foreground.
    """
    chosen = _chosen(maps, foreground)
    rows = _rows(maps, chosen)
    grouped = [_as_map(one) for one in rows if len(one)]
    kept = min(count, grouped[0].values.shape[0])
    mean, basis = (one.cpu().double() for one in principal_directions(grouped, kept))
    strongest = basis.gather(0, basis.abs().argmax(dim=0, keepdim=True))  # (1, kept)
    basis = basis * torch.where(strongest < 0, -1.0, 1.0)
    values, total = [], 0.0
    for one in rows:
        centred = one.cpu().double() - mean
        total += centred.square().sum().item()
        values.append(F.pad(centred @ basis, (0, count - kept)))
    spread = torch.stack([one.square().sum(dim=0) for one in values]).sum(dim=0)
    share = spread / total if total > 0 else spread
    return Components(tuple(one.grid for one in maps), tuple(chosen), tuple(values), share)


def pca_colours(
    maps: Sequence[FeatureMap], foreground: Sequence[Tensor] | None = None
) -> list[npt.NDArray[np.uint8]]:
    """The first three principal components of the foreground as colours; see ``colours_of``.

    Args:
        maps: ``(C, h, w)`` each, with shapes of their own; at least one.
        foreground: ``(h*w,)`` bool each, see ``salient``; None is all cells on the photos.

    Returns:
        ``(h, w, 4)`` uint8 RGBA each; transparent outside the foreground and on padding.

    Raises:
        BadMask: no cell is foreground.
    """
    return colours_of(principal(maps, foreground))


def colours_of(components: Components) -> list[npt.NDArray[np.uint8]]:
    """Three components as colours that are alike where descriptors are alike.

    In CIELAB: the first runs from dark to light (L*), the second from blue to yellow (b*), the
    third from green to red (a*). Who cannot tell red from green loses the weakest alone. Each
    spans its range between its 2 % and its 98 % quantile, or from least to most where nearly all
    cells are alike; one without variance is neutral. b* and a* reach as far as sRGB does at an L*.

    Returns:
        ``(h, w, 4)`` uint8 RGBA each; transparent outside the foreground and on padding.
    """
    every = torch.cat(components.values).numpy()
    ends, least, most = np.quantile(every, ROBUST, axis=0), every.min(axis=0), every.max(axis=0)
    low, high = np.where(np.ptp(ends, axis=0) > (most - least) / 1000, ends, [least, most])
    middle, reach = (low + high) / 2, (high - low) / 2
    pictures = []
    for grid, cells, values in zip(
        components.grids, components.foreground, components.values, strict=True
    ):
        aside = (values.numpy() - middle) / np.where(reach > 0, reach, np.inf)
        first, second, third = np.clip(aside, -1, 1).T
        light = (LIGHTEST + DARKEST) / 2 + first * (LIGHTEST - DARKEST) / 2
        # within sRGB for all a* up to 0.6 b*; the tests look at each corner
        chroma = np.minimum(7 + 0.4 * light, 22 + 1.5 * (LIGHTEST - light))
        lab = np.stack([light, 0.6 * chroma * third, chroma * second], axis=-1)
        picture = np.zeros((cells.numel(), 4), np.uint8)
        picture[cells.numpy(), :3], picture[cells.numpy(), 3] = lab_to_rgb(lab), 255
        pictures.append(picture.reshape(*grid.shape, 4))
    return pictures


def parts(
    maps: Sequence[FeatureMap], foreground: Sequence[Tensor] | None, count: int, seed: int = 0
) -> list[Tensor]:
    """Parts that several photos have in common: k-means of the descriptors of their foreground.

    After "Deep ViT Features as Dense Visual Descriptors", Amir et al., 2022, section 4, part
    co-segmentation: clusters of the descriptors of all photos are their parts. Which photo comes
    first has no influence. Parts are numbered from the top of the photos to the bottom, by the
    mean height of their cells, as a share of the photo's.

    Args:
        maps: ``(C, h, w)`` each, with shapes of their own; at least one.
        foreground: ``(h*w,)`` bool each, see ``salient``; None is all cells on the photos.
        count: of parts, at least 1.
        seed: of the starts of k-means.

    Returns:
        ``(h*w,)`` int64 each, on the CPU: 1 to ``count``; 0 is background and padding.

    Raises:
        BadMask: no cell is foreground.
        BadRecipe: fewer foreground cells differ than there are to be parts.
    """
    chosen = _chosen(maps, foreground)
    rows = torch.cat([one.cpu() for one in _rows(maps, chosen)])
    cluster = torch.from_numpy(k_means(rows.numpy(), count, seed))
    heights = torch.cat(
        [
            one.grid.centers()[cells, 1] / one.grid.image.height
            for one, cells in zip(maps, chosen, strict=True)
        ]
    )
    height = torch.zeros(count, dtype=torch.float64).index_add_(0, cluster, heights)
    number = (height / cluster.bincount(minlength=count)).argsort(stable=True).argsort() + 1
    return _spread(number[cluster], chosen)


def at_pixels(values: npt.NDArray[Any], grid: Grid, size: Size | None = None) -> npt.NDArray[Any]:
    """What the nearest inside cell holds, at each pixel.

    Args:
        values: ``(h, w, ...)``, of each cell.
        grid: where the cells lie.
        size: of the picture to make, which shows the whole photo; None is the photo's own.

    Returns:
        ``(H, W, ...)``, of the dtype of ``values``.
    """
    size = grid.image if size is None else size
    across, down = size.width / grid.image.width, size.height / grid.image.height
    (sx, sy), (ox, oy) = grid.stride, grid.offset
    scaled = Grid(grid.shape, (sx * across, sy * down), (ox * across, oy * down), size)
    # cells lie in rows and columns: one row of pixels and one column of them tell all
    x, y = torch.arange(size.width), torch.arange(size.height)
    columns = scaled.cell_of(torch.stack([x, torch.zeros_like(x)], dim=1)) % grid.shape[1]
    rows = scaled.cell_of(torch.stack([torch.zeros_like(y), y], dim=1)) // grid.shape[1]
    pixels: npt.NDArray[Any] = values[rows.numpy()[:, None], columns.numpy()]
    return pixels


def _chosen(maps: Sequence[FeatureMap], foreground: Sequence[Tensor] | None) -> list[Tensor]:
    """Cells on the photos that count as foreground: ``(h*w,)`` bool each, on the CPU."""
    inside = [one.grid.inside() for one in maps]
    if foreground is None:
        return inside
    expected, got = [len(one) for one in inside], [tuple(one.shape) for one in foreground]
    if got != [(cells,) for cells in expected]:
        raise BadMask(f"foreground: expected one bool for each of {expected} cells, got {got}")
    chosen = [cells & wanted.cpu() for cells, wanted in zip(inside, foreground, strict=True)]
    if not any(cells.any() for cells in chosen):
        raise BadMask("the foreground holds no cell of any photo; make it larger, or take all")
    return chosen


def _rows(maps: Sequence[FeatureMap], chosen: Sequence[Tensor]) -> list[Tensor]:
    """Unit descriptors of the chosen cells of each photo, ``(F, C)``."""
    return [
        unit(one.descriptors()[cells.to(one.values.device)], dim=1)
        for one, cells in zip(maps, chosen, strict=True)
    ]


def _as_map(rows: Tensor) -> FeatureMap:
    """Cells ``(F, C)`` as a map of one row, for PCA, to which their places mean nothing."""
    grid = Grid((1, len(rows)), (1.0, 1.0), (0.0, 0.0), Size(1, len(rows)))
    return FeatureMap("foreground", rows.T[:, None], grid)


def _spread(values: Tensor, chosen: Sequence[Tensor]) -> list[Tensor]:
    """Values of the chosen cells of all photos, in order, at their cells; 0 at the others."""
    spread = [torch.zeros(len(cells), dtype=values.dtype) for cells in chosen]
    pieces = values.split([int(cells.sum()) for cells in chosen])
    for one, cells, piece in zip(spread, chosen, pieces, strict=True):
        one[cells] = piece
    return spread


def _border(grid: Grid) -> Tensor:
    """Which of the inside cells are in an outermost row or column: bool, one for each of them."""
    inside = grid.inside().reshape(grid.shape)
    border = torch.ones(
        int(inside.any(dim=1).sum()), int(inside.any(dim=0).sum()), dtype=torch.bool
    )
    border[1:-1, 1:-1] = False
    return border.flatten()


def _otsu(values: Tensor) -> float | None:
    """The value ``(N,)`` that parts the values at and below it best from those above; or None.

    "A threshold selection method from gray-level histograms", Otsu, 1979: the variance between
    both sides is largest. Exact, without a histogram. None where all are the same.
    """
    ordered = values.sort().values
    below = torch.arange(1, len(ordered), dtype=torch.float64)
    above = len(ordered) - below
    sums = ordered.cumsum(0)
    apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    between = (below * above * apart.square())[ordered[1:] > ordered[:-1]]
    if not len(between):
        return None
    return ordered[:-1][ordered[1:] > ordered[:-1]][between.argmax()].item()
