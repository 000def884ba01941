"""Window soft-argmax: a place between cells, near the most similar one.

As in GeoAware-SC (Zhang et al., CVPR 2024, section 3), whose code multiplies similarities outside
the window by 0 instead of leaving them out: with a peak below about 0.25 they pull the place away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.fields import check
from sdcorr.geometry import Grid
from sdcorr.matchers._rows import (
    Places,
    allowed_rows,
    best_cells,
    best_elsewhere,
    match_in_tiles,
    mean_of_allowed,
    window_around,
)
from sdcorr.types import Matches, Similarity


@dataclass(frozen=True)
class SoftArgmax:
    """The mean place of the cells around the most similar one, weighted by their similarity.

    Args:
        window: cells along a side of the window, an odd number; cells outside do not count.
        temperature: weights are ``softmax(similarity / temperature)``; positive.
        inside_only: match only cells that lie on the photo; the papers also allow padding.

    Raises:
        BadRecipe: a field is out of range.
    """

    window: int = 11
    temperature: float = 0.02
    inside_only: bool = True

    def __post_init__(self) -> None:
        check(self)
        if self.window < 1 or self.window % 2 == 0:
            raise BadRecipe(f"soft_argmax: window must be odd and positive, got {self.window}")
        if self.temperature <= 0:
            raise BadRecipe(f"soft_argmax: temperature must be positive, got {self.temperature}")

    def __call__(self, similarity: Similarity, points: Tensor) -> Matches:
        """Matches of ``(N, 2)`` source pixels; score, margin and peak are those of the cell."""
        return match_in_tiles(self._find, similarity, points, mutual=False)

    def _find(self, similarity: Similarity, points: Tensor) -> Places:
        rows = allowed_rows(similarity, points, self.inside_only)  # (N, h*w)
        score, cell = best_cells(rows)
        return Places(
            expected_place(rows, cell, similarity.target, self.window // 2, self.temperature),
            score,
            score - best_elsewhere(rows, cell, similarity.target),
            score - mean_of_allowed(rows),
        )


def expected_place(
    rows: Tensor, cell: Tensor, grid: Grid, reach: int, temperature: float
) -> Tensor:
    """Mean pixel of a window of cells, weighted by ``softmax(rows / temperature)`` over it.

    Args:
        rows: ``(N, h*w)`` similarities, -inf where a cell is not allowed.
        cell: ``(N,)`` the window's middle.
        grid: of the target.
        reach: rows and columns of the window on each side of the middle.
        temperature: positive.

    Returns:
        ``(N, 2)`` float64 pixels of the target, on the CPU.
    """
    outside = ~window_around(cell, grid, reach)
    logits = rows.masked_fill(outside, -torch.inf).cpu().double()
    # float64, and the peak at 0: no temperature overflows
    weights = ((logits - logits.amax(dim=1, keepdim=True)) / temperature).softmax(dim=1)
    return weights @ grid.centers()


PLUGIN = SoftArgmax
