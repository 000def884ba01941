"""PCK of a run's records: overall, by category, difficulty and keypoint, and of two runs.

Numbers are shares, 0 to 1; see ``metrics`` for what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from sdcorr.columns import on_common_pairs
from sdcorr.errors import BadScore
from sdcorr.flow_records import FlowRecords
from sdcorr.hits import (
    AnyRecords,
    Rule,
    correct_keypoints,
    hits_of,
    same_annotation,
)
from sdcorr.metrics import (
    FEWEST,
    Bools,
    Floats,
    Sample,
    bootstrap,
    interval,
    per_image,
    per_point,
)
from sdcorr.records import Records

REPLICATES = 1000
VARIED = 0.9  # share of pairs whose category must have images enough for an interval of all
# of difficulty, in the order of tables
LEVELS = (
    "easy", "medium", "hard", "none", "source", "target", "both", "unflipped", "flipped", "",
)  # fmt: skip

_Contrast = Callable[[Floats], Floats]


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


def score(records: AnyRecords, rule: Rule, replicates: int = REPLICATES) -> Scores:
    """PCK with bootstrap intervals that resample images within category.

    Args:
        records: of a run; of dense flow, every annotated pixel counts as a keypoint does.
        rule: when a keypoint is correct.
        replicates: bootstrap draws; 0 gives no intervals.

    Raises:
        BadScore: the threshold cannot be taken from these records.
    """
    return _scores(records, rule, _sample(records, *hits_of(records, rule)), replicates, _itself)


def compare(
    first: AnyRecords, second: AnyRecords, rule: Rule, replicates: int = REPLICATES
) -> Scores:
    """PCK of the first run minus that of the second, on the pairs that both have.

    Both are resampled by the same draws, so intervals are those of the paired difference.

    Raises:
        BadScore: they have no pair in common, or annotate one differently.
    """
    one, other = on_common_pairs(first, second)
    found = [hits_of(records, rule) for records in (one, other)]
    if not same_annotation(one, other, rule):
        raise BadScore("the two runs annotate the same pairs differently; compare runs on one data")
    both = np.hstack([hits for hits, _ in found])  # (P, 2A)
    return _scores(one, rule, _sample(one, both, found[0][1]), replicates, _difference)


def mean_errors(records: FlowRecords, replicates: int = REPLICATES) -> dict[str, Value]:
    """Average end-point error, AEPE, of dense flow: mean over pairs, in pixels of the target.

    By category, then under ``all`` of all pairs and under ``macro`` the mean of the categories,
    with intervals as ``score`` gives them.
    """
    return _mean_errors(records, records.epe[:, None], replicates, _itself)


def compare_errors(
    first: FlowRecords, second: FlowRecords, replicates: int = REPLICATES
) -> dict[str, Value]:
    """AEPE of the first run minus that of the second, see ``mean_errors`` and ``compare``."""
    one, other = on_common_pairs(first, second)
    both = np.column_stack([one.epe, other.epe])
    return _mean_errors(one, both, replicates, _difference)


def _mean_errors(
    records: FlowRecords, errors: Floats, replicates: int, contrast: _Contrast
) -> dict[str, Value]:
    """A mean over pairs is PCK per image of pairs of one keypoint, whose hit is the error."""
    sample = _sample(records, errors, np.ones(len(records.pairs)))
    found = _scores(records, Rule((1,), "image"), sample, replicates, contrast)
    return {row.name: row.image[0] for row in (*found.categories, found.overall, found.macro)}


def by_difficulty(records: AnyRecords, rule: Rule) -> dict[str, tuple[Row, ...]]:
    """PCK of the pairs at each level of each kind of difficulty, without intervals."""
    sample = _sample(records, *hits_of(records, rule))
    return {
        kind: tuple(
            _row(level, sample, levels == level, _itself)
            for level in sorted(set(levels.tolist()), key=_place_of)
        )
        for kind, levels in records.difficulty.items()
    }


def _place_of(level: str) -> tuple[int, str]:
    """Place of a level in tables; those of other data sets' kinds come last, by name."""
    return (LEVELS.index(level) if level in LEVELS else len(LEVELS), level)


def by_keypoint(records: Records, rule: Rule) -> tuple[Row, ...]:
    """PCK per point of each part, named ``category/id``, without intervals."""
    is_correct = correct_keypoints(records, rule)
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


def _sample(records: AnyRecords, hits: Floats, counts: Floats) -> Sample:
    return Sample(hits, counts, records.category, records.source, records.target)


def _scores(
    records: AnyRecords, rule: Rule, sample: Sample, replicates: int, contrast: _Contrast
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


def _natural(name: str) -> tuple[int, str]:
    """Order of keypoint ids: 2 before 10."""
    return (int(name) if name.isdecimal() else 0, name)
