"""PCK of a run's records: overall, by category, difficulty and keypoint, and of two runs.

Numbers are shares, 0 to 1; see ``metrics`` for what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from sdcorr.errors import BadScore
from sdcorr.metrics import (
    FEWEST,
    Bools,
    Floats,
    Sample,
    bootstrap,
    correct,
    hits_of_pairs,
    interval,
    per_image,
    per_point,
)
from sdcorr.records import Records

REPLICATES = 1000
VARIED = 0.9  # share of pairs whose category must have images enough for an interval of all
# of difficulty, in the order of tables
LEVELS = ("easy", "medium", "hard", "none", "source", "target", "both", "")

_Contrast = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Rule:
    """When a keypoint is correct.

    Args:
        alphas: tolerances, shares of the side.
        threshold: side of the target's ``"box"``, the box around its ``"keypoints"``, or the
            ``"image"``; always the longer one.
        strict: error ``<`` alpha times side, in place of ``<=``.

    Raises:
        BadScore: no alpha, or one outside 0..1.
    """

    alphas: tuple[float, ...]
    threshold: str
    strict: bool = False

    def __post_init__(self) -> None:
        wrong = [alpha for alpha in self.alphas if not 0 < alpha <= 1]
        if wrong or not self.alphas:
            got = f"got {wrong[0]:g}" if wrong else "got none"
            raise BadScore(f"alpha must be a share of the side, above 0 and at most 1; {got}")


@dataclass(frozen=True)
class Value:
    """A number and its 95 % interval, None where none can be given."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """PCK of some pairs.

    Args:
        name: what they have in common.
        pairs: number of pairs.
        keypoints: number of keypoints.
        image: per image, one value for each alpha; empty where pairs do not count.
        point: per point, likewise.
    """

    name: str
    pairs: int
    keypoints: int
    image: tuple[Value, ...]
    point: tuple[Value, ...]


@dataclass(frozen=True)
class Scores:
    """PCK of a run.

    Args:
        rule: when a keypoint is correct.
        images: photos that take part.
        skipped: pairs left out for photos that could not be read, in either run of two.
        overall: all pairs; without intervals where most are of categories with few images.
        macro: mean of the categories, each with equal weight.
        categories: each of them.
        draws: bootstrap draws behind the intervals, which resample images within category.
    """

    rule: Rule
    images: int
    skipped: int
    overall: Row
    macro: Row
    categories: tuple[Row, ...]
    draws: int

    def to_dict(self) -> dict[str, Any]:
        """All numbers, made for JSON."""
        return asdict(self)


def score(records: Records, rule: Rule, replicates: int = REPLICATES) -> Scores:
    """PCK with bootstrap intervals that resample images within category.

    Args:
        records: of a run.
        rule: when a keypoint is correct.
        replicates: bootstrap draws; 0 gives no intervals.

    Raises:
        BadScore: the threshold cannot be taken from these records.
    """
    sample = _sample(records, _is_correct(records, rule))
    return _scores(records, rule, sample, replicates, _itself)


def compare(first: Records, second: Records, rule: Rule, replicates: int = REPLICATES) -> Scores:
    """PCK of the first run minus that of the second, on the pairs that both have.

    Both are resampled by the same draws, so intervals are those of the paired difference.

    Raises:
        BadScore: they have no pair in common, or annotate one differently.
    """
    common = set(first.pairs) & set(second.pairs)
    if not common:
        raise BadScore("the two runs have no pair in common; compare runs on one data set")
    one, other = first.only(common), second.only(common)
    one = replace(one, skipped=first.skipped | second.skipped)
    correct_ones = [_is_correct(records, rule) for records in (one, other)]
    if not _same_keypoints(one, other, rule):
        raise BadScore("the two runs annotate the same pairs differently; compare runs on one data")
    both = np.hstack(correct_ones)  # (K, 2A)
    return _scores(one, rule, _sample(one, both), replicates, _difference)


def by_difficulty(records: Records, rule: Rule) -> dict[str, tuple[Row, ...]]:
    """PCK of the pairs at each level of each kind of difficulty, without intervals."""
    sample = _sample(records, _is_correct(records, rule))
    return {
        kind: tuple(
            _row(level, sample, levels == level, _itself)
            for level in sorted(set(levels.tolist()), key=LEVELS.index)
        )
        for kind, levels in records.difficulty.items()
    }


def by_keypoint(records: Records, rule: Rule) -> tuple[Row, ...]:
    """PCK per point of each part, named ``category/id``, without intervals."""
    is_correct = _is_correct(records, rule)
    category = records.category[records.pair]
    rows = []
    for index, name in enumerate(records.categories):
        parts = sorted(set(records.keypoint[category == index].tolist()), key=_natural)
        for part in parts:
            member = (category == index) & (records.keypoint == part)
            shares = is_correct[member].mean(axis=0).tolist()
            pairs = len(np.unique(records.pair[member]))
            values = tuple(Value(share) for share in shares)
            rows.append(Row(f"{name}/{part}", pairs, int(member.sum()), (), values))
    return tuple(rows)


def _is_correct(records: Records, rule: Rule) -> Bools:
    if rule.threshold not in records.sides:
        raise BadScore(f"threshold must be one of {', '.join(records.sides)}")
    sides = records.sides[rule.threshold]
    if np.isnan(sides).any():
        raise BadScore(
            "these pairs have no annotated object box; take the threshold from keypoints or image"
        )
    if (sides <= 0).any():
        count = int((sides <= 0).sum())
        raise BadScore(
            f"in {count} of {len(sides)} pairs the target's keypoints span no box; "
            "take the threshold from box or image"
        )
    return correct(records.error, sides[records.pair], rule.alphas, rule.strict)


def _sample(records: Records, is_correct: Bools) -> Sample:
    hits, counts = hits_of_pairs(is_correct, records.pair, len(records.pairs))
    return Sample(hits, counts, records.category, records.source, records.target)


def _scores(
    records: Records, rule: Rule, sample: Sample, replicates: int, contrast: _Contrast
) -> Scores:
    members = [records.category == index for index in range(len(records.categories))]
    overall = _row("all", sample, np.ones(len(records.pairs), dtype=bool), contrast)
    rows = [
        _row(name, sample, member, contrast)
        for name, member in zip(records.categories, members, strict=True)
    ]
    macro = replace(overall, name="macro", image=_mean(rows, "image"), point=_mean(rows, "point"))
    if replicates:
        drawn = bootstrap(sample, replicates)
        every = contrast(drawn.overall)  # (R, 4, A)
        varied = drawn.images >= FEWEST
        # a pooled number may hold a few small categories, a mean of categories none
        if varied[sample.category].mean() >= VARIED:
            overall = _with_intervals(overall, every[:, :2])
        if varied.all():
            macro = _with_intervals(macro, every[:, 2:])
        rows = [
            _with_intervals(row, contrast(drawn.categories[:, index])) if enough else row
            for index, (row, enough) in enumerate(zip(rows, varied.tolist(), strict=True))
        ]
    return Scores(
        rule, records.images, len(records.skipped), overall, macro, tuple(rows), replicates
    )


def _itself(values: Floats) -> Floats:
    return values


def _difference(values: Floats) -> Floats:
    """First half of the last axis minus the second: ``(..., 2A)`` to ``(..., A)``."""
    first, second = np.split(values, 2, axis=-1)
    gap: Floats = first - second
    return gap


def _row(name: str, sample: Sample, member: Bools, contrast: _Contrast) -> Row:
    hits, counts = sample.hits[member], sample.counts[member]
    image, point = contrast(per_image(hits, counts)), contrast(per_point(hits, counts))
    return Row(name, len(hits), int(counts.sum()), _values(image), _values(point))


def _values(numbers: Floats) -> tuple[Value, ...]:
    return tuple(map(Value, numbers.tolist()))


def _mean(rows: Sequence[Row], kind: Literal["image", "point"]) -> tuple[Value, ...]:
    return _values(np.mean([[value.value for value in getattr(row, kind)] for row in rows], axis=0))


def _with_intervals(row: Row, drawn: Floats) -> Row:
    """The row with intervals of draws ``(R, 2, A)``, per image and per point."""
    lows, highs = interval(drawn)  # (2, A)
    if np.isnan(lows).any():  # no draw left a pair
        return row
    kinds = [
        tuple(map(Value, (one.value for one in values), low.tolist(), high.tolist()))
        for values, low, high in zip((row.image, row.point), lows, highs, strict=True)
    ]
    return replace(row, image=kinds[0], point=kinds[1])


def _same_keypoints(one: Records, other: Records, rule: Rule) -> bool:
    return (
        one.categories == other.categories
        and np.array_equal(one.category, other.category)
        and np.array_equal(one.pair, other.pair)
        and np.array_equal(one.keypoint, other.keypoint)
        and np.array_equal(one.sides[rule.threshold], other.sides[rule.threshold], equal_nan=True)
    )


def _natural(name: str) -> tuple[int, str]:
    """Order of keypoint ids: 2 before 10."""
    return (int(name) if name.isdecimal() else 0, name)
