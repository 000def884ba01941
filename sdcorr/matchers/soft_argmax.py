"""Window soft-argmax: a place between cells, near the most similar one.

As in GeoAware-SC (Zhang et al., CVPR 2024, section 3), whose code multiplies similarities outside
the window by 0 instead of leaving them out: with a peak below about 0.25 they pull the place away.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.fields import check
from sdcorr.matchers._rows import (
    Places,
    allowed_rows,
    best_cells,
    best_elsewhere,
    expected_place,
    match_in_tiles,
    mean_of_allowed,
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
            found=score > 0,
        )


PLUGIN = SoftArgmax
