"""Dense flow: every cell of the source matched, and checked by the way back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.geometry import Grid, Size
from sdcorr.similarities import allowed_cells
from sdcorr.types import FeatureMap, Matcher, Similarity

AT_ONCE = 2**20  # pixels: bounds the memory that a large photo takes


@dataclass(frozen=True, eq=False)
class Flow:
    """Where each cell of the source lies in the target.

    Args:
        grid: the source's cells, ``(h, w)``.
        target: ``(h, w, 2)`` float64, (x, y) pixels of the target.
        cycle_error: ``(h, w)`` float64, pixels of the source between a cell's centre and where its
            match leads back to.
        consistent: ``(h, w)`` bool: the matcher accepts the match, and the cycle error is within
            the tolerance. False for cells on padding or outside the mask.
    """

    grid: Grid
    target: Tensor
    cycle_error: Tensor
    consistent: Tensor

    @property
    def moves(self) -> FeatureMap:
        """The way in x and y from each cell to its match, in pixels: to be read between cells."""
        moved = self.target - places(self.grid).reshape(self.target.shape)
        return FeatureMap("flow", moved.permute(2, 0, 1), self.grid)

    def per_pixel(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The flow at each pixel of the source photo.

        Returns:
            Target (x, y) minus source (x, y), ``(H, W, 2)`` in pixels, bilinear between cells, as
            in a ``.flo`` file; and ``(H, W)``, where the nearest cell is consistent: both ways
            agree at its centre. Next to a tear, a pixel may lie between two places.
        """
        flow = np.empty((*self.grid.image, 2), np.float32)
        sure = np.empty(self.grid.image, np.bool_)
        moves, consistent = self.moves, self.consistent.flatten()
        for rows, pixels in bands(self.grid.image):
            flow[rows] = moves.sample(pixels).reshape(flow[rows].shape).numpy()
            nearest = consistent[self.grid.cell_of(pixels)]
            sure[rows] = nearest.reshape(sure[rows].shape).numpy()
        return flow, sure


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
    """Match the centre of every cell of the source, with a forward-backward check.

    Args:
        matcher: any.
        similarity: of the two photos.
        within: tolerance of the cycle error, share of the source photo's longer side.

    Raises:
        BadRecipe: the tolerance is negative.
    """
    grid = similarity.source
    if not within >= 0:
        raise BadRecipe(f"flow: expected a tolerance of at least 0, got {within}")
    matches = matcher(similarity, places(grid))
    near = matches.cycle_error <= within * max(grid.image)
    consistent = matches.matched & near & allowed_cells(similarity.swap())
    shape = grid.shape
    return Flow(
        grid,
        matches.target.reshape(*shape, 2),
        matches.cycle_error.reshape(shape),
        consistent.reshape(shape),
    )
