"""Dense flow: every cell of both photos matched, each way the check of the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.geometry import Grid, Size
from sdcorr.similarities import allowed_cells
from sdcorr.types import FeatureMap, Matcher, Similarity

AT_ONCE = 2**20  # pixels: bounds the memory that a large photo takes
ROUNDING = 1e-3  # px: ways are kept in float32
TORN = 1 / 20  # of the target's longer side: neighbours whose ways differ more are not mixed


@dataclass(frozen=True, eq=False)
class Flow:
    """Where each cell of the source lies in the target, and each of the target's in the source.

    Args:
        grid: the source's cells, ``(h, w)``.
        target: ``(h, w, 2)`` float64, (x, y) pixels of the target.
        cycle_error: ``(h, w)`` float64, pixels of the source between a cell's centre and where its
            match leads back to.
        accepted: ``(h, w)`` bool: the matcher accepts the match. False for cells on padding or
            outside the mask.
        back: ``(2, h', w')``, the way in x and y from each of the target's cells to its match in
            the source, in pixels.
        tolerance: pixels of the source; both ways agree on what comes back so near.
    """

    grid: Grid
    target: Tensor
    cycle_error: Tensor
    accepted: Tensor
    back: FeatureMap
    tolerance: float

    @property
    def consistent(self) -> Tensor:
        """Cells on whose centre both ways agree, and whose match is accepted: ``(h, w)`` bool."""
        return self.accepted & (self.cycle_error <= self.tolerance)

    @cached_property
    def moves(self) -> FeatureMap:
        """The way in x and y from each cell to its match, in pixels: to be read between cells."""
        moved = self.target - places(self.grid).reshape(self.target.shape)
        return FeatureMap("flow", moved.permute(2, 0, 1), self.grid)

    def to_target(self, points: Tensor) -> Tensor:
        """Where points of the source lie in the target.

        Bilinear between cells. Where neighbours match far apart, more than 1/20 of the target's
        longer side, their mean is a place that none of them matches: only those count that move
        like the nearest one.

        Args:
            points: ``(N, 2)`` xy pixels of the source.

        Returns:
            ``(N, 2)`` xy pixels of the target, which may lie beyond its edge.
        """
        (height, width), moves = self.grid.shape, self.moves.descriptors()  # (h*w, 2)
        cells = self.grid.to_cells(self.grid.confine(points))
        own = moves[self.grid.cell_of(points)]
        torn = TORN * max(self.back.grid.image)
        total, weights = torch.zeros_like(points), torch.zeros_like(points[:, :1])
        for corner in itertools.product((0, 1), (0, 1)):
            around = cells.floor().long() + torch.tensor(corner)
            weight = (1 - (cells - around).abs()).prod(dim=1, keepdim=True)  # (N, 1)
            columns, rows = around[:, 0].clamp(0, width - 1), around[:, 1].clamp(0, height - 1)
            moved = moves[rows * width + columns]
            weight = weight * ((moved - own).norm(dim=1, keepdim=True) <= torn)
            total, weights = total + weight * moved, weights + weight
        return points + total / weights

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Where points of the source lie in the target, and on which of them both ways agree.

        Args:
            points: ``(N, 2)`` xy pixels of the source.

        Returns:
            ``(N, 2)`` xy pixels on the target, see ``to_target``; and ``(N,)`` bool: the match of
            the nearest cell is accepted, the place is on the target, and from there the nearest of
            the target's cells leads back to within the tolerance.
        """
        found = self.to_target(points)
        on = self.back.grid.image.clamp(found)
        returned = on + self.back.descriptors()[self.back.grid.cell_of(on)]
        near = (returned - points).norm(dim=1) <= self.tolerance + ROUNDING
        accepted = self.accepted.flatten()[self.grid.cell_of(points)]
        return on, accepted & near & ((found - on).norm(dim=1) <= ROUNDING)

    def per_pixel(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The flow at each pixel of the source photo.

        Returns:
            Target (x, y) minus source (x, y), ``(H, W, 2)`` in pixels, as in a ``.flo`` file; and
            ``(H, W)``, where both ways agree. See ``at``.
        """
        flow = np.empty((*self.grid.image, 2), np.float32)
        valid = np.empty(self.grid.image, np.bool_)
        for rows, pixels in bands(self.grid.image):
            found, agreed = self.at(pixels)
            flow[rows] = (found - pixels).reshape(flow[rows].shape).numpy()
            valid[rows] = agreed.reshape(valid[rows].shape).numpy()
        return flow, valid


def bands(photo: Size) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a photo, and the points ``(N, 2)`` of their pixels, not too many at once."""
    height, width = photo
    step = max(1, AT_ONCE // width)
    for start in range(0, height, step):
        rows = torch.arange(start, min(start + step, height))
        x, y = torch.meshgrid(torch.arange(width), rows, indexing="xy")
        yield slice(start, start + len(rows)), torch.stack([x, y], dim=-1).reshape(-1, 2).double()


def places(grid: Grid) -> Tensor:
    """Where on the photo each cell is: ``(h*w, 2)``.

    Its centre; a cell on padding has none, and takes that of the nearest cell on the photo.
    """
    return grid.image.clamp(grid.confine(grid.centers()))


def dense_flow(matcher: Matcher, similarity: Similarity, within: float) -> Flow:
    """Match the centre of every cell of both photos, for a forward-backward check.

    Args:
        matcher: any.
        similarity: of the two photos.
        within: tolerance of the check, share of the source photo's longer side.

    Raises:
        BadRecipe: the tolerance is negative.
    """
    if not within >= 0:
        raise BadRecipe(f"flow: expected a tolerance of at least 0, got {within}")
    grid, swapped = similarity.source, similarity.swap()
    matches = matcher(similarity, places(grid))
    own = places(similarity.target)
    returns = matcher(swapped, own).target - own  # (h'*w', 2)
    return Flow(
        grid,
        matches.target.reshape(*grid.shape, 2),
        matches.cycle_error.reshape(grid.shape),
        (matches.matched & allowed_cells(swapped)).reshape(grid.shape),
        FeatureMap("back", returns.T.reshape(2, *similarity.target.shape), similarity.target),
        within * max(grid.image),
    )
