"""Cosine nearest neighbour among the target's cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sdcorr.geometry import Grid
from sdcorr.types import Matches, Similarity

TILE = 2**24  # similarities held at once: 64 MB
ELSEWHERE = 2  # cells; the margin compares with the best place farther away than this


@dataclass(frozen=True)
class Nearest:
    """The centre of the most similar target cell.

    Args:
        inside_only: match only cells that lie on the photo; the papers also allow padding.
        mutual: mark a match False unless the target cell's own nearest cell is the one that
            holds the source point.
        sample: read the source ``"bilinear"`` at the exact point, or at the centre of its
            ``"cell"``.
    """

    inside_only: bool = True
    mutual: bool = False
    sample: Literal["bilinear", "cell"] = "bilinear"

    def __call__(self, similarity: Similarity, points: Tensor) -> Matches:
        """Matches of ``(N, 2)`` source pixels.

        A match is rejected (``matched`` False) where no cell has a similarity above 0, as for a
        flat place. The margin compares with the best allowed cell more than two cells away, in
        rows or columns. Ties go to the first cell, row by row.
        """
        step = max(1, TILE // (similarity.target.shape[0] * similarity.target.shape[1]))
        tiles = [self._match(similarity, tile) for tile in points.split(step)]
        target, score, margin, peak, cycle, mutual = map(torch.cat, zip(*tiles, strict=True))
        matched = score > 0  # a flat place is similar to nothing, and so matches nothing
        if self.mutual:
            matched &= mutual
        return Matches(points, target, score, margin, cycle, peak, matched)

    def _match(self, similarity: Similarity, points: Tensor) -> tuple[Tensor, ...]:
        start = points
        if self.sample == "cell":
            start = similarity.source.centers()[similarity.source.cell_of(points)]
        rows = self._allowed_rows(similarity, start)  # (N, h*w)
        score, cell = best_cells(rows)
        target = similarity.target.centers()[cell.cpu()]
        # points that fall into one target cell share its way back
        cells, which = cell.cpu().unique(return_inverse=True)
        swapped = similarity.swap()
        _, back = best_cells(self._allowed_rows(swapped, similarity.target.centers()[cells]))
        home = back.cpu()[which]
        cycle = (similarity.source.centers()[home] - points).norm(dim=1)
        return (
            similarity.target.image.clamp(target),
            score.cpu(),
            (score - best_elsewhere(rows, cell, similarity.target)).cpu(),
            (score - mean_of_allowed(rows)).cpu(),
            cycle,
            home == similarity.source.cell_of(points),
        )

    def _allowed_rows(self, similarity: Similarity, points: Tensor) -> Tensor:
        rows = similarity.rows(points)
        if not self.inside_only:
            return rows
        return rows.masked_fill(~similarity.target.inside().to(rows.device), -torch.inf)


def best_cells(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Highest similarity of each row ``(N, h*w)`` and its cell, the first of equals: ``(N,)``."""
    cell = rows.argmax(dim=1)  # argmax, not max, promises the first
    return rows.gather(1, cell[:, None])[:, 0], cell


def best_elsewhere(rows: Tensor, cell: Tensor, grid: Grid) -> Tensor:
    """Highest similarity more than two cells away from ``cell``: ``(N,)``, -inf where none."""
    height, width = grid.shape
    down = torch.arange(height, device=rows.device) - (cell // width)[:, None]  # (N, h)
    along = torch.arange(width, device=rows.device) - (cell % width)[:, None]  # (N, w)
    near = (down.abs() <= ELSEWHERE)[:, :, None] & (along.abs() <= ELSEWHERE)[:, None, :]
    return rows.masked_fill(near.flatten(1), -torch.inf).amax(dim=1)


def mean_of_allowed(rows: Tensor) -> Tensor:
    """Mean similarity of each row over the cells that are not excluded by -inf: ``(N,)``."""
    allowed = torch.isfinite(rows)
    return rows.masked_fill(~allowed, 0).sum(dim=1) / allowed.sum(dim=1)


PLUGIN = Nearest
