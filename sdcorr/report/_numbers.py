"""Numbers of a report that ``scores`` does not give: curves, single pairs, points of two runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sdcorr.columns import on_common_pairs
from sdcorr.flow_records import FlowRecords
from sdcorr.hits import AnyRecords, Rule, correct_keypoints, hits_of
from sdcorr.metrics import Floats, per_image, per_point
from sdcorr.records import Records

CURVE = tuple(step / 200 for step in range(2, 41))  # 0.01 to 0.2


class Shares(NamedTuple):
    """PCK at each alpha, 0 to 1, by both means."""

    image: tuple[float, ...]
    point: tuple[float, ...]


def shares_at(records: AnyRecords, rule: Rule, alphas: Sequence[float]) -> Shares:
    """PCK at these alphas, whatever those of the rule are."""
    hits, counts = hits_of(records, replace(rule, alphas=tuple(alphas)))
    return Shares(tuple(per_image(hits, counts).tolist()), tuple(per_point(hits, counts).tolist()))


@dataclass(frozen=True)
class Agreement:
    """How many keypoints of two runs are right at one alpha, and in which run."""

    alpha: float
    both: int
    first: int
    second: int
    neither: int


def agreements(first: Records, second: Records, rule: Rule) -> tuple[Agreement, ...]:
    """Keypoints of the pairs that both runs have, at each alpha."""
    one, other = (
        correct_keypoints(records, rule) for records in on_common_pairs(first, second)
    )  # (K, A) each
    return tuple(
        Agreement(
            alpha,
            int((right & too).sum()),
            int((right & ~too).sum()),
            int((~right & too).sum()),
            int((~right & ~too).sum()),
        )
        for alpha, right, too in zip(rule.alphas, one.T, other.T, strict=True)
    )


@dataclass(frozen=True)
class PairResult:
    """How well a pair was matched.

    Args:
        pair: its id.
        category: its category.
        right: correct keypoints, or pixels.
        points: keypoints, or pixels.
        error: their mean error, as a share of the threshold's side.
        photos: numbers of both photos, whichever is the source.
    """

    pair: str
    category: str
    right: int
    points: int
    error: float
    photos: frozenset[int]

    @property
    def share(self) -> float:
        """Correct keypoints, 0 to 1."""
        return self.right / self.points


def pair_results(records: AnyRecords, rule: Rule, alpha: float) -> dict[str, PairResult]:
    """Every pair at one alpha, by id."""
    right, counts = hits_of(records, replace(rule, alphas=(alpha,)))
    errors = _errors_by_side(records, rule)
    categories = (records.categories[index] for index in records.category)
    return {
        name: PairResult(name, category, int(hits), int(count), float(error), frozenset(photos))
        for name, category, hits, count, error, photos in zip(
            records.pairs,
            categories,
            right[:, 0],
            counts,
            errors,
            zip(records.source.tolist(), records.target.tolist(), strict=True),
            strict=True,
        )
    }


def _errors_by_side(records: AnyRecords, rule: Rule) -> Floats:
    """Each pair's mean error as a share of the side: ``(P,)``."""
    if isinstance(records, FlowRecords):
        return records.epe / records.side
    counts = np.bincount(records.pair, minlength=len(records.pairs))
    means = np.bincount(records.pair, records.error, len(records.pairs)) / counts
    return means / records.sides[rule.threshold]


def best_and_worst(
    results: dict[str, PairResult], count: int
) -> tuple[list[PairResult], list[PairResult]]:
    """Pairs by share of correct keypoints, then by error, then by id; of two photos, one pair.

    Args:
        results: of a run.
        count: of either; fewer where there are less than twice as many pairs.
    """
    order = _once(sorted(results.values(), key=lambda one: (-one.share, one.error, one.pair)))
    worst = _once(sorted(results.values(), key=lambda one: (one.share, -one.error, one.pair)))
    fewer = min(count, len(order) // 2)
    best = order[: min(count, len(order) - fewer)]
    shown = {one.photos for one in best}
    return best, [one for one in worst if one.photos not in shown][:fewer]


def _once(results: Sequence[PairResult]) -> list[PairResult]:
    """The first of those that show the same two photos."""
    found: dict[frozenset[int], PairResult] = {}
    for one in results:
        found.setdefault(one.photos, one)
    return list(found.values())


def most_unlike(
    first: dict[str, PairResult], second: dict[str, PairResult], count: int
) -> list[tuple[PairResult, PairResult]]:
    """Pairs of both runs by difference of their shares, then of their errors, then by id.

    Pairs in which both have the same share are left out; of two photos, one pair is taken.
    """
    both = [(first[name], second[name]) for name in first.keys() & second.keys()]
    unlike = [(one, other) for one, other in both if one.share != other.share]
    unlike.sort(key=lambda two: _unlike(*two))
    seen: dict[frozenset[int], tuple[PairResult, PairResult]] = {}
    for one, other in unlike:
        seen.setdefault(one.photos, (one, other))
    return list(seen.values())[:count]


def _unlike(one: PairResult, other: PairResult) -> tuple[float, float, str]:
    return (-abs(one.share - other.share), -abs(one.error - other.error), one.pair)
