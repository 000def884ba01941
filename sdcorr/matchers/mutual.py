"""Another matcher's matches, kept only where the way back leads home."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.fields import check
from sdcorr.types import Matcher, Matches, Similarity


@dataclass(frozen=True)
class Mutual:
    """The matches of ``matcher``, marked False where the two photos disagree.

    "Best buddies" (Dekel et al., CVPR 2015) with a tolerance, of whatever matcher.

    Args:
        matcher: what finds places.
        within: cycle error allowed, share of the source photo's longer side, above 0.

    Raises:
        BadRecipe: a field is out of range.
    """

    matcher: Matcher
    within: float = 0.05

    def __post_init__(self) -> None:
        check(self)
        if self.within <= 0:
            raise BadRecipe(f"mutual: within must be positive, got {self.within}")

    def __call__(self, similarity: Similarity, points: Tensor) -> Matches:
        """Matches of ``(N, 2)`` source pixels; all but ``matched`` is as of the inner matcher."""
        found = self.matcher(similarity, points)
        home = found.cycle_error <= self.within * max(similarity.source.image)
        return replace(found, matched=found.matched & home)

    def prepare(self, similarity: Similarity) -> Similarity:
        """As the inner matcher prepares a pair, if it does."""
        return self.matcher.prepare(similarity) if hasattr(self.matcher, "prepare") else similarity


PLUGIN = Mutual
