"""Two photos joined: match points, find confident matches, take the flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from sdcorr.confidence import Calibration, check_confidence
from sdcorr.errors import BadRecipe
from sdcorr.flow import Flow, dense_flow
from sdcorr.geometry import Size
from sdcorr.masks import Mask, check_covered
from sdcorr.matchers._rows import mutual_cells
from sdcorr.preprocess import Points, read_points
from sdcorr.similarities import MeanSimilarity, allowed_cells
from sdcorr.symmetry import looks_mirrored, partners
from sdcorr.types import Encoding, Matcher, Matches, Similarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 20  # matches shown when no points are asked for
APART = 1 / 20  # of the photo's longer side, between two of them


@runtime_checkable
class Prepares(Protocol):
    """A matcher for which a part of the work is the same for all points of a pair."""

    def prepare(self, similarity: Similarity) -> Similarity:
        """That part; the matcher takes what is returned in place of the similarity."""
        ...


@dataclass(frozen=True, eq=False)
class Fused:
    """Two photos joined by a recipe's fusion. Made by ``Pipeline.fuse``."""

    source: Encoding
    target: Encoding
    similarity: Similarity = field(repr=False)
    matcher: Matcher
    calibration: Calibration | None = None
    source_mask: Mask | None = field(default=None, repr=False)

    @torch.no_grad()
    def match(
        self,
        points: Points | None = None,
        min_confidence: float | None = None,
        symmetric: Sequence[Sequence[str]] = (),
    ) -> Matches:
        """Where points of the source lie in the target.

        Args:
            points: ``(N, 2)`` xy pixels of the source photo, or a mapping of name to (x, y).
                Without points: the recipe's matches of mutual nearest cells, the most confident
                first, or, of a recipe that is not calibrated, those of the highest score; at most
                20, at least 1/20 of the photo's longer side apart in both photos.
            min_confidence: reject matches below it (``matched`` False; without points they are
                left out), 0 to 1.
            symmetric: pairs of names that left and right exchange, such as
                ``[("left eye", "right eye")]``. Where the target looks mirrored, every point is
                sought through the mirrored source, at its partner's place there; and nowhere are
                the two averaged. For recipes with ``flip``.

        Raises:
            BadPoints: points are malformed, not finite, not on the photo, or not in its mask;
                ``symmetric`` names none of them.
            BadRecipe: ``min_confidence`` of a recipe that is not calibrated, or beyond 0 to 1;
                ``symmetric`` without ``flip``.
        """
        check_confidence(self.calibration, min_confidence)
        if points is None and not symmetric:
            return self._most_confident(min_confidence)
        names, places = (None, None) if points is None else read_points(points, self.source.size)
        order = partners(names, symmetric)
        assert places is not None  # without points there are no names
        if self.source_mask is not None:
            check_covered(self.source_mask, places, names)
        if symmetric:
            found = self._match_symmetric(places, order)
        else:
            found = self.matcher(self._prepared, places)
        return self._complete(dataclasses.replace(found, names=names), min_confidence)

    @torch.no_grad()
    def flow(self, within: float = 0.05) -> Flow:
        """Dense flow from the source to the target, with a forward-backward check.

        Args:
            within: tolerance of the cycle error, share of the source photo's longer side.
        """
        return dense_flow(self.matcher, self._prepared, within)

    @torch.no_grad()
    def next_best(self, match: Matches, count: int = 4) -> tuple[Tensor, Tensor]:
        """The best places for one source point besides its match, by what the matcher reads.

        Args:
            match: one match of this pair.
            count: at most so many.

        Returns:
            Centres of target cells ``(K, 2)`` in pixels, best first, each at least 1/20 of the
            photo's longer side away from the match and from each other; and their cosine
            similarity ``(K,)``.
        """
        allowed = allowed_cells(self.similarity)
        strength = self._prepared.rows(match.source)[0].cpu().masked_fill(~allowed, -torch.inf)
        centers, apart = self.similarity.target.centers(), APART * max(self.target.size)
        near = (centers - match.target).norm(dim=1) < apart
        chosen: list[int] = []
        for _ in range(count):
            strength = strength.masked_fill(near, -torch.inf)
            best = int(strength.argmax())
            if strength[best].isinf():
                break
            chosen.append(best)
            near = (centers - centers[best]).norm(dim=1) < apart
        places = self.target.size.clamp(centers[chosen])  # a thin photo's cells reach beyond it
        return places, self.similarity.rows(match.source)[0].cpu()[chosen]

    @cached_property
    def mirrored(self) -> bool:
        """Whether the target looks like the source's mirror image; for recipes with ``flip``."""
        if not isinstance(self.similarity, MeanSimilarity):
            raise BadRecipe(
                "left and right are told apart by the mirrored photo, which this recipe does not "
                "read; add --flip (in Python: dataclasses.replace(recipe, flip=True))"
            )
        with torch.no_grad():
            return looks_mirrored(*self.similarity.parts)

    def _match_symmetric(self, places: Tensor, order: Tensor) -> Matches:
        found = self.matcher(self._prepared_one_way, places[order] if self.mirrored else places)
        return dataclasses.replace(found, source=places)

    def _complete(self, found: Matches, min_confidence: float | None) -> Matches:
        """With the photos, and a confidence where there is a calibration."""
        found = dataclasses.replace(
            found,
            source=self.source.size.clamp(found.source),  # a thin photo's cells reach beyond it
            source_image=self.source.image,
            target_image=self.target.image,
        )
        if self.calibration is None:
            return found
        confidence = self.calibration.of(found, self.source.size)
        likely = confidence >= (min_confidence or 0)
        return dataclasses.replace(found, confidence=confidence, matched=found.matched & likely)

    @cached_property
    def _prepared(self) -> Similarity:
        return self._prepare(self.similarity)

    @cached_property
    def _prepared_one_way(self) -> Similarity:
        """Of the photo, or of its mirror image if the target looks mirrored, not of both."""
        mirrored = self.mirrored
        assert isinstance(self.similarity, MeanSimilarity)
        return self._prepare(self.similarity.parts[int(mirrored)])

    def _prepare(self, similarity: Similarity) -> Similarity:
        """As the matcher wants it: what all points share is computed once."""
        if isinstance(self.matcher, Prepares):
            return self.matcher.prepare(similarity)
        return similarity

    def _most_confident(self, min_confidence: float | None) -> Matches:
        """See ``match`` without points."""
        source, target, score = mutual_cells(self.similarity)
        sizes = (self.source.size, self.target.size)
        if self.calibration is None:  # there is only the similarity to choose by
            source = source[best_apart(score, source, target, *sizes)]
        found = self._complete(self.matcher(self._prepared, source), min_confidence)
        found = found.select(found.matched)
        if found.confidence is not None:
            return found.select(best_apart(found.confidence, found.source, found.target, *sizes))
        return found.select(found.score.argsort(descending=True, stable=True))

    def plot(self, point: Sequence[float]) -> Figure:
        """A figure of one source point (x, y), in pixels, and its similarity over the target."""
        from sdcorr.viz import plot_heatmap

        return plot_heatmap(self.similarity, self.match([point]))


def best_apart(
    strength: Tensor, source: Tensor, target: Tensor, source_size: Size, target_size: Size
) -> Tensor:
    """The strongest matches that keep their distance in both photos: at most 20 indices, in order.

    Args:
        strength: ``(N,)``, larger is better; ties go to the first.
        source: ``(N, 2)`` pixels.
        target: ``(N, 2)`` pixels.
        source_size: of the photo.
        target_size: of the photo.
    """
    ends = ((source, APART * max(source_size)), (target, APART * max(target_size)))
    kept: list[int] = []
    for index in strength.argsort(descending=True, stable=True).tolist():
        near = [(one[kept] - one[index]).norm(dim=1) < apart for one, apart in ends]
        if not (near[0] | near[1]).any():
            kept.append(index)
        if len(kept) == MOST:
            break
    return torch.tensor(kept, dtype=torch.long)
