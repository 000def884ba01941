"""The most similar pixel, read between the cells, as in DIFT (Tang et al., NeurIPS 2023).

Published: both feature maps are upsampled to the size of their photos, and the pixel with the
highest cosine wins. Here no map of the photo's size with all its channels is ever made: a product
with one vector can be upsampled after it was taken, and the length of an upsampled descriptor
follows from the products of neighbouring cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.geometry import Grid
from sdcorr.matchers._rows import (
    TILE,
    Places,
    best_cells,
    best_elsewhere,
    match_in_tiles,
    mean_of_allowed,
)
from sdcorr.types import FeatureMap, Matches, Similarity


@runtime_checkable
class OfMaps(Similarity, Protocol):
    """What this matcher needs of a similarity: the two maps that it compares."""

    @property
    def source_map(self) -> FeatureMap:
        """Descriptors of the source, of any length."""
        ...

    @property
    def target_map(self) -> FeatureMap:
        """Descriptors of the target, of any length."""
        ...


@dataclass(frozen=True)
class Pixel:
    """The target pixel whose bilinearly upsampled descriptor is most similar.

    It reads no cells on padding, so that there is no choice about them.
    """

    def __call__(self, similarity: Similarity, points: Tensor) -> Matches:
        """Matches of ``(N, 2)`` source pixels, whole pixels of the target.

        Margin and peak are as of cells, each cell with its best pixel. Ties go to the first pixel,
        row by row.

        Raises:
            BadRecipe: the similarity is none of two maps.
        """
        return match_in_tiles(self._find, self.prepare(similarity), points, mutual=False)

    def prepare(self, similarity: Similarity) -> Upsampled:
        """Take the products of neighbouring cells, which all points share.

        Raises:
            BadRecipe: the similarity is none of two maps.
        """
        if isinstance(similarity, Upsampled):
            return similarity
        if not isinstance(similarity, OfMaps):
            raise BadRecipe("pixel: this fusion has no maps to be upsampled; use another matcher")
        maps = (similarity.source_map, similarity.target_map)
        return Upsampled(similarity, *(products_of(one.values) for one in maps))

    def _find(self, similarity: Similarity, points: Tensor) -> Places:
        assert isinstance(similarity, Upsampled)
        grid, values = similarity.target, similarity.similarity.target_map.values  # (C, h, w)
        samples = _exact(similarity.similarity.source_map.sample(points))
        queries = F.normalize(samples, dim=1, eps=1e-30)  # (N, C)
        columns, lines = pixel_cells(grid)
        y = _taps(lines, grid.shape[0], queries.device)
        x = _taps(columns, grid.shape[1], queries.device)
        cells = torch.full((len(points), *grid.shape), -torch.inf, device=queries.device)
        allowed = None
        if similarity.foreground is not None:
            allowed = pixels_of(similarity.foreground, grid, y, x)
        best = torch.full((len(points),), -torch.inf, device=queries.device)
        place = points.new_zeros(len(points), 2)
        lengths = similarity.target_products.lengths(y, x)  # (H, W)
        for top, band in bands(values, queries, lengths, y, x):  # (N, b, W)
            if allowed is not None:
                band = band.masked_fill(~allowed[top : top + band.shape[1]], -torch.inf)
            score, index = best_cells(band.flatten(1))
            found = torch.stack([index % band.shape[2], top + index // band.shape[2]], dim=1)
            place = torch.where((score > best).cpu()[:, None], found.to(place), place)
            best = torch.maximum(score, best)
            rows = y.nearest[top : top + band.shape[1]]
            by_column = best_of_runs(band, x.nearest, grid.shape[1], dim=2)
            cells = torch.maximum(cells, best_of_runs(by_column, rows, grid.shape[0], dim=1))
        by_cell = cells.flatten(1)
        elsewhere = best_elsewhere(by_cell, grid.cell_of(place).to(by_cell.device), grid)
        return Places(
            place, best, best - elsewhere, best - mean_of_allowed(by_cell), found=best > 0
        )


def _exact(values: Tensor) -> Tensor:
    """In float64, which mps lacks."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def bands(
    values: Tensor, queries: Tensor, lengths: Tensor, y: Taps, x: Taps
) -> Iterator[tuple[int, Tensor]]:
    """Cosines of vectors with bilinearly upsampled descriptors, some rows of pixels at a time.

    Args:
        values: descriptors ``(C, h, w)`` of any length.
        queries: ``(N, C)`` unit vectors.
        lengths: ``(H, W)`` of the upsampled descriptors.
        y: where the rows of pixels lie among the rows of cells.
        x: likewise for columns.

    Yields:
        The first row, and cosines ``(N, b, W)``, 0 where the descriptor is zero.
    """
    # where neighbours nearly cancel, their mean has few digits left
    values, queries = _exact(values), _exact(queries)
    products = torch.einsum("nc,chw->nhw", queries, values)
    step = max(1, TILE // (max(1, len(queries)) * lengths.shape[1]))
    for top in range(0, len(lengths), step):
        some = y.rows(slice(top, top + step))
        upright = torch.lerp(products[:, some.low], products[:, some.high], some.part[:, None])
        upsampled = torch.lerp(upright[..., x.low], upright[..., x.high], x.part)  # (N, b, W)
        length = lengths[top : top + step]
        yield top, torch.where(length > 0, upsampled / length, 0).clamp(-1, 1).float()


def best_of_runs(values: Tensor, cells: Tensor, count: int, dim: int) -> Tensor:
    """Maximum along ``dim`` over the pixels of each of ``count`` cells; -inf for one without.

    Args:
        values: any shape.
        cells: cell of each pixel along ``dim``, rising.
        count: cells along ``dim``.
        dim: which becomes ``count`` long.
    """
    lengths = torch.bincount(cells, minlength=count).tolist()
    none = values.new_full(values.select(dim, 0).shape, -torch.inf)
    runs = values.split(lengths, dim)
    return torch.stack([run.amax(dim) if run.shape[dim] else none for run in runs], dim)


def pixels_of(cells: Tensor, grid: Grid, y: Taps, x: Taps) -> Tensor:
    """Pixels ``(H, W)`` bool whose nearest cell is among ``cells (h*w,)``.

    Where cells are smaller than pixels, also the pixel that holds the centre of each.
    """
    cells = cells.to(y.nearest.device)
    pixels: Tensor = cells.unflatten(0, grid.shape)[y.nearest][:, x.nearest]
    centers = grid.centers()[cells.cpu() & grid.inside()].round().long()
    height, width = grid.image
    pixels[centers[:, 1].clamp(0, height - 1), centers[:, 0].clamp(0, width - 1)] = True
    return pixels


@dataclass(frozen=True, eq=False)
class Products:
    """Inner products of neighbouring descriptors, ``(h, w)`` float64 each; see ``products_of``.

    Args:
        same: of each cell with itself.
        along: with the next one in its row.
        down: with the next one in its column.
        crossed: with that below the next one, and of the next one with that below this one, added.
    """

    same: Tensor
    along: Tensor
    down: Tensor
    crossed: Tensor

    def lengths(self, y: Taps, x: Taps) -> Tensor:
        """Length of the bilinearly upsampled descriptor at each pixel: ``(H, W)``.

        For weights (1 - a, a) of two cells u and v, ``|(1-a) u + a v|^2 = (1-a)^2 <u,u> +
        a^2 <v,v> + 2 a (1-a) <u,v>``, first down, then along.

        Args:
            y: where the rows of pixels lie among the rows of cells.
            x: likewise for columns.
        """
        a, b = y.part[:, None], x.part
        # of rows interpolated at each pixel row: each cell with itself, and with the next, (H, w)
        ends, between = ((1 - a) ** 2, a**2), a * (1 - a)
        cell = ends[0] * self.same[y.low] + ends[1] * self.same[y.high]
        cell = cell + 2 * between * self.down[y.low]
        pair = ends[0] * self.along[y.low] + ends[1] * self.along[y.high]
        pair = pair + between * self.crossed[y.low]
        squares = (1 - b) ** 2 * cell[:, x.low] + b**2 * cell[:, x.high]
        return (squares + 2 * b * (1 - b) * pair[:, x.low]).clamp(min=0).sqrt()


def products_of(values: Tensor) -> Products:
    """Of a map ``(C, h, w)``; what lies beyond its last row and column is like these."""
    values = _exact(values)
    right = torch.cat([values[:, :, 1:], values[:, :, -1:]], dim=2)
    below = torch.cat([values[:, 1:], values[:, -1:]], dim=1)
    both = torch.cat([below[:, :, 1:], below[:, :, -1:]], dim=2)
    return Products(
        (values * values).sum(0), (values * right).sum(0), (values * below).sum(0),
        (values * both + below * right).sum(0),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Upsampled:
    """A similarity of two maps, with what all points need to read it between its cells."""

    similarity: OfMaps
    source_products: Products
    target_products: Products

    @property
    def source(self) -> Grid:
        """Cells of the source photo."""
        return self.similarity.source

    @property
    def target(self) -> Grid:
        """Cells of the target photo."""
        return self.similarity.target

    @property
    def foreground(self) -> Tensor | None:
        """Target cells that may be matched."""
        return self.similarity.foreground

    def rows(self, points: Tensor) -> Tensor:
        """Cosine of ``(N, 2)`` source pixels to each target cell: ``(N, h*w)``."""
        return self.similarity.rows(points)

    def swap(self) -> Upsampled:
        """The same pair seen from the target."""
        swapped = self.similarity.swap()
        assert isinstance(swapped, OfMaps)
        return Upsampled(swapped, self.target_products, self.source_products)


@dataclass(frozen=True, eq=False)
class Taps:
    """Where pixels lie between cells, along one axis.

    Args:
        low: ``(n,)`` the cell before each pixel.
        high: ``(n,)`` the next one, or the same at the edge.
        part: ``(n,)`` weight of the next one, 0 to 1.
        nearest: ``(n,)`` the nearest cell.
    """

    low: Tensor
    high: Tensor
    part: Tensor
    nearest: Tensor

    def rows(self, which: slice) -> Taps:
        """Those of some pixels."""
        return Taps(self.low[which], self.high[which], self.part[which], self.nearest[which])


def _taps(cells: Tensor, count: int, device: torch.device) -> Taps:
    """Of cell coordinates ``(n,)`` float64 along an axis of ``count`` cells."""
    cells = cells.clamp(0, count - 1)  # rounding may leave them a hair beyond
    low, high = cells.floor(), cells.ceil()
    whole = (low.long(), high.long(), cells - low, cells.round().long())
    return Taps(*(part.to(device) for part in whole))


def pixel_cells(grid: Grid) -> tuple[Tensor, Tensor]:
    """Column of each pixel column ``(W,)`` and row of each pixel row ``(H,)``, in cells, float64.

    Pixels beyond the centres of the outermost inside cells read those.
    """
    height, width = grid.image
    along = torch.arange(max(height, width), dtype=torch.float64)
    diagonal = torch.stack([along.clamp(max=width - 1), along.clamp(max=height - 1)], dim=1)
    cells = grid.to_cells(grid.confine(diagonal))
    return cells[:width, 0], cells[:height, 1]


PLUGIN = Pixel
