"""Cosine nearest neighbour among the target's cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sdcorr.matchers._rows import (
    Places,
    allowed_rows,
    best_cells,
    best_elsewhere,
    match_in_tiles,
    mean_of_allowed,
)
from sdcorr.types import Matches, Similarity


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
        return match_in_tiles(self._find, similarity, points, mutual=self.mutual)

    def _find(self, similarity: Similarity, points: Tensor) -> Places:
        if self.sample == "cell":
            points = similarity.source.centers()[similarity.source.cell_of(points)]
        rows = allowed_rows(similarity, points, self.inside_only)  # (N, h*w)
        score, cell = best_cells(rows)
        return Places(
            similarity.target.centers()[cell.cpu()],
            score,
            score - best_elsewhere(rows, cell, similarity.target),
            score - mean_of_allowed(rows),
            found=score > 0,
        )


PLUGIN = Nearest
