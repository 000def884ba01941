"""Blocks of numbers that runs on keypoints and on dense flow have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sdcorr.hits import Rule
from sdcorr.report._blocks import Bar, Bars, Block, Curve, Heading, Line, Table, Text
from sdcorr.report._numbers import CURVE, Shares, shares_at
from sdcorr.report._runs import Run, main_alpha
from sdcorr.scores import Row, Scores, Value, by_difficulty, compare

SHOWN = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2)  # alphas of the table below a curve
MEANS = {"image": "per image", "point": "per point"}


def rule_words(rule: Rule, scores: Sequence[Scores], unit: str) -> Iterator[Block]:
    """What is correct, and what the means are."""
    sign = "<" if rule.strict else "<="
    yield Text(
        f"Correct: error {sign} alpha x longer side of {rule.frame}, in pixels of the "
        "original photo. PCK is the percentage of correct "
        f"{unit}. Per image: mean over pairs. Per point: all {unit} together. Macro: mean of the "
        "categories, each with equal weight."
    )
    drawn = scores[0].draws
    if any(one.overall.point[0].low is not None for one in scores):
        yield Text(
            f"In brackets: 95 % interval, {drawn} bootstrap draws of images within category. A "
            "row without one has too few images for it."
        )
    elif drawn:
        yield Text("No intervals: too many categories have fewer than 5 images.")


def means_table(labels: Sequence[str], scores: Sequence[Scores]) -> Table:
    """All pairs and the macro mean, by both means, a row each for every run."""
    rows = [(label, *row) for label, one in zip(labels, scores, strict=True) for row in _means(one)]
    return Table("PCK", ("run", "mean", *_alphas(scores[0].rule)), tuple(rows), texts=2)


def difference(first: Run, other: Run, rule: Rule, replicates: int) -> Iterator[Block]:
    """One run minus another, on the pairs of both."""
    gap = compare(first.records, other.records, rule, replicates)
    yield Heading(f"{first.label} minus {other.label}")
    yield Text(
        "The paired difference in percentage points, on the "
        f"{counted(gap.overall.pairs)} that both predicted; above 0, {first.label} is "
        f"better. {_verdict(gap, main_alpha(rule))}"
    )
    yield Table("Difference", ("mean", *_alphas(gap.rule)), tuple(_means(gap, signed=True)))
    yield category_table("Difference by category", gap, first.records.unit, signed=True)


def _verdict(gap: Scores, alpha: float) -> str:
    """Whether the pairs tell the two runs apart at one alpha, per image."""
    value = gap.overall.image[gap.rule.alphas.index(alpha)]
    if value.low is None or value.high is None:
        return "There is no interval, so chance cannot be told from a difference."
    if value.low <= 0 <= value.high:
        return f"@{alpha:g} per image the interval holds 0: these pairs do not tell the two apart."
    return f"@{alpha:g} per image the interval does not hold 0."


def _means(scores: Scores, signed: bool = False) -> Iterator[tuple[str, ...]]:
    for name, values in (
        ("per image", scores.overall.image),
        ("per point", scores.overall.point),
        ("per image, macro", scores.macro.image),
        ("per point, macro", scores.macro.point),
    ):
        yield (name, *(cell(value, signed) for value in values))


def _alphas(rule: Rule) -> Iterator[str]:
    return (f"@{alpha:g}" for alpha in rule.alphas)


def category_table(title: str, scores: Scores, unit: str, signed: bool = False) -> Table:
    """A row for each category, then all and macro."""
    rows = [
        (
            row.name, str(row.pairs), str(row.keypoints),
            *(cell(value, signed) for kind in MEANS for value in getattr(row, kind)),
        )
        for row in (*scores.categories, scores.overall, scores.macro)
    ]  # fmt: skip
    return Table(title, ("category", "pairs", unit, *_heads(scores.rule)), tuple(rows))


def curves(runs: Sequence[Run], rule: Rule) -> Iterator[Block]:
    """PCK over alpha, one chart for each mean, or one for both where they are the same."""
    yield Heading("PCK over alpha")
    found = [shares_at(run.records, rule, CURVE) for run in runs]
    same = all(np.allclose(shares.image, shares.point, rtol=0, atol=1e-9) for shares in found)
    if same:
        yield _curve("per image and per point, which are the same here", runs, rule, found, "image")
    else:
        for kind, name in MEANS.items():
            yield _curve(name, runs, rule, found, kind)
    places = [CURVE.index(alpha) for alpha in SHOWN]
    yield Table(
        "PCK over alpha, in numbers",
        ("run", "mean", *(f"@{alpha:g}" for alpha in SHOWN)),
        tuple(
            (run.label, name, *(percent(getattr(shares, kind)[place]) for place in places))
            for run, shares in zip(runs, found, strict=True)
            for kind, name in MEANS.items()
        ),
        texts=2,
        folded=True,
    )


def _curve(name: str, runs: Sequence[Run], rule: Rule, found: Sequence[Shares], kind: str) -> Curve:
    lines = tuple(
        Line(run.number, run.label, getattr(shares, kind))
        for run, shares in zip(runs, found, strict=True)
    )
    highest = max(max(*shares.image, *shares.point) for shares in found)
    return Curve(f"PCK over alpha, {name}", CURVE, rule.alphas, highest, lines)


def difficulties(runs: Sequence[Run], rule: Rule) -> Iterator[Block]:
    """Bars and a table for each kind of difficulty that the pairs are marked with."""
    levels = [by_difficulty(run.records, rule) for run in runs]
    kinds = [kind for kind in levels[0] if all(kind in one for one in levels)]
    if not kinds:
        return
    alpha = main_alpha(rule)
    place = rule.alphas.index(alpha)
    yield Heading("By difficulty")
    for kind in kinds:
        rows = [
            (run, row) for run, one in zip(runs, levels, strict=True) for row in one[kind]
        ]  # by run
        names = dict.fromkeys(row.name for _, row in rows)
        groups = tuple(
            (
                name or "not marked",
                tuple(_bar(run, row, place) for run, row in rows if row.name == name),
            )
            for name in names
        )
        yield Bars(f"{kind}: PCK@{alpha:g} per image", groups)
    yield Table(
        "By difficulty, in numbers",
        ("difficulty", "run", "pairs", runs[0].records.unit, *_heads(rule)),
        tuple(
            (f"{kind}: {row.name or 'not marked'}", run.label, *_cells(row))
            for kind in kinds
            for run, one in zip(runs, levels, strict=True)
            for row in one[kind]
        ),
        texts=2,
        folded=True,
    )


def _heads(rule: Rule) -> list[str]:
    return [f"{name} @{alpha:g}" for name in MEANS.values() for alpha in rule.alphas]


def _cells(row: Row) -> list[str]:
    values = [cell(value) for kind in MEANS for value in getattr(row, kind)]
    return [str(row.pairs), str(row.keypoints), *values]


def _bar(run: Run, row: Row, place: int) -> Bar:
    return Bar(run.number, run.label, row.image[place].value, counted(row.pairs))


def counted(pairs: int) -> str:
    """How many pairs."""
    return f"{pairs} pair{'' if pairs == 1 else 's'}"


def cell(value: Value, signed: bool = False) -> str:
    """A number in percent and, in brackets, its interval."""
    if value.low is None or value.high is None:
        return percent(value.value, signed)
    low, high = percent(value.low, signed), percent(value.high, signed)
    return f"{percent(value.value, signed)} [{low}, {high}]"


def percent(share: float, signed: bool = False) -> str:
    """With two decimals, as ``sdcorr score`` prints it."""
    rounded = round(100 * share, 2) + 0.0  # no -0.00
    return f"{rounded:{'+' if signed else ''}.2f}"
