"""Matching by votes: what looks alike and moves as its neighbours do, and as the whole object.

Hough matching (Cho et al., CVPR 2015; Min et al., "Hyperpixel Flow", ICCV 2019, section 4.2)
multiplies the similarity of a match by the votes of all matches of the same offset. Here a match
of cells (i, j) gets the votes of every (i', j') that agrees with it on an offset, for a scale q:

    votes(i, j) = sum over i', j' of  w(i', j') near(i' - i, j' - j) agree(j' - j - q (i' - i))

first those of its neighbours, then those of all. ``near`` and ``agree`` are Gaussians, products of
a vertical and a horizontal part; so the sum over all pairs of matches is two products with small
matrices, exact, without bins for offsets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.fields import check
from sdcorr.geometry import Grid
from sdcorr.matchers._rows import (
    TILE,
    Places,
    allowed_rows,
    best_cells,
    best_elsewhere,
    expected_place,
    match_in_tiles,
    mean_of_allowed,
)
from sdcorr.matchers._votes import coarse, pool, read, support
from sdcorr.similarities import allowed_cells
from sdcorr.types import Matches, Similarity

MOST = 1000.0  # of any number; what is farther from 1 overflows
LEAST = 1e-30  # of votes; their logarithm is taken


@dataclass(frozen=True)
class Hough:
    """The place with the most evidence: similarity, times the votes of matches that agree.

    Args:
        temperature: a match of cells weighs ``softmax(similarity / temperature)``: the geometric
            mean of that over the target's cells and that over the source's.
        scales: q, the object's size in the target by that in the source, in cells; each is tried
            for each match. Taken with their inverses they treat both photos alike.
        near: how far neighbours reach, standard deviation in cells, the mean of both photos'.
        agree: tolerance of a vote, standard deviation in cells, likewise (geometric mean).
        local_power: evidence has the neighbours' votes to this power; 0 leaves them out.
        overall_power: likewise the votes of all.
        cells: at most so many along a side take part in voting, 2 to 64; a finer map votes by
            blocks, and is matched at its own cells.
        window: cells along a side of the window around the best cell, an odd number; its mean
            place is the match.
        sharpness: in that mean, a cell weighs its evidence to this power.
        inside_only: match only cells that lie on the photo.

    Raises:
        BadRecipe: a field is out of range.
    """

    temperature: float = 0.1
    scales: tuple[float, ...] = (0.7, 1.0, 1 / 0.7)
    near: float = 4.0
    agree: float = 1.0
    local_power: float = 2.0
    overall_power: float = 1.0
    cells: int = 32
    window: int = 5
    sharpness: float = 4.0
    inside_only: bool = True

    def __post_init__(self) -> None:
        check(self)
        fields = (self.temperature, self.near, self.agree, self.sharpness, *self.scales)
        if not all(1 / MOST <= value <= MOST for value in fields):
            raise BadRecipe(
                f"hough: temperature, near, agree, sharpness and scales must be {1 / MOST:g} to "
                f"{MOST:g}, got {self}"
            )
        if not 1 <= len(self.scales) <= 16:
            raise BadRecipe(f"hough: expected 1 to 16 scales, got {len(self.scales)}")
        if not (0 <= self.local_power <= MOST and 0 <= self.overall_power <= MOST):
            raise BadRecipe(f"hough: powers must be 0 to {MOST:g}, got {self}")
        if not 2 <= self.cells <= 64 or self.window < 1 or self.window % 2 == 0:
            raise BadRecipe(
                f"hough: cells must be 2 to 64 and window odd and positive, got {self.cells} and "
                f"{self.window}"
            )

    def __call__(self, similarity: Similarity, points: Tensor) -> Matches:
        """Matches of ``(N, 2)`` source pixels.

        The score is the similarity of the best cell. Margin and peak are of evidence, as a share
        of the best, and so from 0 to 1: 1 minus that of the best cell more than two cells away
        (1 where there is none), and 1 minus the mean over all allowed cells. A match is rejected
        (``matched`` False) where no cell has a similarity above 0.
        """
        return match_in_tiles(self._find, self.prepare(similarity), points, mutual=False)

    def prepare(self, similarity: Similarity) -> Evidence:
        """Count the votes, which all points share; what comes of it can be matched instead."""
        if isinstance(similarity, Evidence):
            return similarity
        swapped = similarity.swap()
        source, target = (coarse(grid, self.cells) for grid in (similarity.source, swapped.source))
        takes_part = self._takes_part(swapped, source)
        tiles = self._tiles(similarity, source.centers()[takes_part])
        there = target.centers()[self._takes_part(similarity, target)]
        over_source = _log_sums(tiles())
        over_target = _log_sums(self._tiles(swapped, there)())
        pooled = torch.cat(
            [pool(_shares(rows, over_source), similarity.target, target) for rows in tiles()]
        )  # (some, H, W)
        weights = pooled.new_zeros(len(takes_part), *target.shape)
        weights[takes_part.to(weights.device)] = pooled
        votes = self._votes(weights.unflatten(0, source.shape))
        return Evidence(
            similarity, source, target, votes, over_source, over_target, self.temperature
        )

    def _find(self, evidence: Similarity, points: Tensor) -> Places:
        assert isinstance(evidence, Evidence)
        similarity = allowed_rows(evidence.similarity, points, self.inside_only)  # (N, h*w)
        rows = evidence.of(similarity, points)
        best, cell = best_cells(rows)
        shares = (rows - best[:, None]).exp()
        return Places(
            expected_place(rows, cell, evidence.target, self.window // 2, 1 / self.sharpness),
            similarity.gather(1, cell[:, None])[:, 0],
            1 - best_elsewhere(shares, cell, evidence.target).clamp(min=0),
            1 - mean_of_allowed(shares.masked_fill(rows == -torch.inf, -torch.inf)),
            found=similarity.amax(dim=1) > 0,
        )

    def _tiles(self, similarity: Similarity, centers: Tensor) -> Callable[[], Iterable[Tensor]]:
        """Similarities of source pixels ``(N, 2)`` by temperature, in tiles ``(some, h*w)``.

        Of one tile they are kept, of several computed anew for each call, in bounded memory.
        """
        step = max(1, TILE // math.prod(similarity.target.shape))

        def compute() -> Iterator[Tensor]:
            for some in centers.split(step):
                yield allowed_rows(similarity, some, self.inside_only) / self.temperature

        if len(centers) > step:
            return compute
        once = list(compute())
        return lambda: once

    def _takes_part(self, similarity: Similarity, blocks: Grid) -> Tensor:
        """Blocks of target cells ``(h*w,)`` bool that hold one that may be matched."""
        cells = allowed_cells(similarity, self.inside_only)
        return pool(cells[None].float(), similarity.target, blocks)[0].flatten() > 0

    def _votes(self, weights: Tensor) -> Tensor:
        """Votes for each match of coarse cells, ``(h, w, H, W)``, at most 1."""
        near = self._supported([weights] * len(self.scales), self.near, self.local_power)
        every = self._supported([weights * one for one in near], math.inf, self.overall_power)
        votes = torch.stack([one * other for one, other in zip(near, every, strict=True)])
        best: Tensor = votes.amax(dim=0)
        return best / best.max().clamp(min=LEAST)

    def _supported(self, weights: list[Tensor], near: float, power: float) -> list[Tensor]:
        """Votes to a power at each scale, as shares of the most at any."""
        if power == 0:
            return [torch.ones_like(one) for one in weights]
        found = [
            support(one, scale, near, self.agree)
            for one, scale in zip(weights, self.scales, strict=True)
        ]
        most = torch.stack([one.max() for one in found]).max().clamp(min=LEAST)
        return [(one / most) ** power for one in found]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Similarity of two photos and the votes on it.

    Args:
        similarity: of the two photos.
        coarse_source: the source's cells as they voted, ``(h, w)``.
        coarse_target: the target's, ``(H, W)``.
        votes: ``(h, w, H, W)``, 0 to 1.
        over_source: what normalises the similarities over the source, for each target cell.
        over_target: likewise for each source cell.
        temperature: of the matcher.
    """

    similarity: Similarity
    coarse_source: Grid
    coarse_target: Grid
    votes: Tensor
    over_source: Tensor
    over_target: Tensor
    temperature: float

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
        """Logarithm of the evidence for each target cell ``(N, h*w)``, up to a constant."""
        return self.of(self.similarity.rows(points), points)

    def of(self, similarity: Tensor, points: Tensor) -> Tensor:
        """As ``rows``, of the similarities ``(N, h*w)`` of ``(N, 2)`` source pixels."""
        return similarity / self.temperature - self.over_source / 2 + self._votes_of(points).log()

    def swap(self) -> Evidence:
        """The same votes seen from the target."""
        return Evidence(
            self.similarity.swap(), self.coarse_target, self.coarse_source,
            self.votes.permute(2, 3, 0, 1), self.over_target, self.over_source, self.temperature,
        )  # fmt: skip

    def _votes_of(self, points: Tensor) -> Tensor:
        """Votes ``(N, h*w)`` for matches of points with target cells, between coarse cells."""
        h, w, height, width = self.votes.shape
        by_target = self.votes.permute(2, 3, 0, 1).reshape(-1, h, w)
        rows = read(by_target, self.coarse_source, self.source, points).T  # (N, H*W)
        if self.coarse_target.shape != self.target.shape:
            maps = rows.unflatten(1, (height, width))
            rows = read(maps, self.coarse_target, self.target, self.target.centers())
        return rows.clamp(min=LEAST)


def _log_sums(tiles: Iterable[Tensor]) -> Tensor:
    """Logarithm of the sum over all rows of their exponentials ``(h*w,)``; 0 where all are 0."""
    sums = torch.stack([rows.logsumexp(dim=0) for rows in tiles]).logsumexp(dim=0)
    return sums.masked_fill(~sums.isfinite(), 0)  # of cells that may not be matched


def _shares(rows: Tensor, over_source: Tensor) -> Tensor:
    """Geometric mean of the softmax of rows ``(N, h*w)`` and that of columns."""
    over_target = rows.logsumexp(dim=1, keepdim=True)
    return (rows - (over_target + over_source) / 2).exp()


PLUGIN = Hough
