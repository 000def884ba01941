"""The same position in the target: the baseline that looks at no photo."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdcorr.types import Matches, Similarity


@dataclass(frozen=True)
class SamePosition:
    """Each point at its own (x, y) in pixels, which may lie beyond a smaller target."""

    def __call__(self, similarity: Similarity, points: Tensor) -> Matches:
        """Matches of ``(N, 2)`` source pixels; the similarity is not read.

        Score, margin and peak are 0, and so is the cycle error: the way back is the same way.
        """
        nothing = torch.zeros(len(points))
        every = torch.ones(len(points), dtype=torch.bool)
        return Matches(points, points, nothing, nothing, nothing.double(), nothing, every)


PLUGIN = SamePosition
