"""Published rows beside the numbers of these runs, each by the rule of its row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sdcorr.hits import Rule
from sdcorr.published import MEANS, PublishedRow, categories_of, pairs_of, published_rows
from sdcorr.report._blocks import Block, Heading, Table, Text
from sdcorr.report._numbers import shares_at
from sdcorr.report._recipes import other_recipe
from sdcorr.report._runs import Run
from sdcorr.report._tables import percent
from sdcorr.scores import score

SIGNS = {True: "<", False: "<=", None: "not stated"}
NONE = "not measured"


def published(runs: Sequence[Run]) -> Iterator[Block]:
    """The rows of the runs' data set; ours where a run uses the recipe that a row names."""
    every = [row for row in published_rows() if row.dataset == runs[0].dataset["name"]]
    rows = [row for row in every if _is_part(row, runs[0])]
    if not every:
        return
    yield Heading("Published")
    if all(run.drawn for run in runs):
        yield Text(
            f"These pairs are drawn. Published rows are of the real {runs[0].dataset['name']}, so "
            "none stands here."
        )
        return
    if not rows:
        parts = {f"{name} {value}" for row in every for name, value in row.part.items()}
        yield Text(f"The published rows are of another part: {', '.join(sorted(parts))}.")
        return
    yield Text(
        "What others published, and ours by the rule of each row: its mean, its alphas, its side "
        "and its sign (<= where that is not stated), whatever the rule above. Numbers are percent, "
        "one for each alpha. Remarks in parentheses say where ours is not the same measurement. "
        f"Ours always comes from a run of this report; where none fits, it is {NONE}."
    )
    sources = list(dict.fromkeys((row.source, row.note) for row in rows))
    yield Table(
        "Published rows, and ours",
        ("method", "mean", "alpha", "published", "ours", "sign", "source"),
        tuple(
            (
                f"{row.method} (supervised)" if row.supervised else row.method,
                MEANS[mean],
                _join(f"{alpha:g}" for alpha in row.numbers[mean]),
                _join(map(str, row.numbers[mean].values())),
                _ours(row, mean, runs),
                SIGNS[row.strict],
                str(sources.index((row.source, row.note)) + 1),
            )
            for row in rows
            for mean in row.numbers
        ),
        texts=7,
    )
    lines = ((str(number), *words) for number, words in enumerate(sources, start=1))
    yield Table("Sources of the published rows", ("", "source", "note"), tuple(lines), texts=3)
    yield from _categories([row for row in rows if row.categories], runs)


def _is_part(row: PublishedRow, run: Run) -> bool:
    """Whether row and run are of one part; a data set without such a field has only that one."""
    return all(run.dataset.get(name, value) == value for name, value in row.part.items())


def _join(words: Iterator[str]) -> str:
    return " / ".join(words)


def _users(row: PublishedRow, runs: Sequence[Run]) -> list[Run]:
    """Runs on real pairs that use the row's recipe and can be measured by its side."""
    return [
        run
        for run in runs
        if run.recipe == row.recipe and not run.drawn and (_sides(run, row.threshold) > 0).all()
    ]


def _sides(run: Run, threshold: str) -> Any:
    """Sides of the pairs; none of dense flow, whose one side is always there."""
    return getattr(run.records, "sides", {}).get(threshold, np.empty(0))


def _ours(row: PublishedRow, mean: str, runs: Sequence[Run]) -> str:
    alphas = tuple(row.numbers[mean])
    found = []
    for run in _users(row, runs):
        shares = shares_at(run.records, _rule(row, alphas), alphas)
        kinds = ("image", "point") if mean == "unstated" else (mean,)
        shown = [_join(map(percent, getattr(shares, kind))) for kind in kinds]
        if mean == "unstated":
            shown = [f"{MEANS[kind]} {one}" for kind, one in zip(kinds, shown, strict=True)]
        found.append(f"{run.label}: {'; '.join(shown)}{_remarked(row, run)}")
    return "; ".join(found) or NONE


def _rule(row: PublishedRow, alphas: tuple[float, ...]) -> Rule:
    return Rule(alphas, row.threshold, strict=bool(row.strict))


def _remarked(row: PublishedRow, run: Run) -> str:
    found = list(remarks(row, run))
    return f" ({', '.join(found)})" if found else ""


def remarks(row: PublishedRow, run: Run) -> Iterator[str]:
    """In what a run that uses a row's recipe is another measurement, besides the row's note."""
    pairs, expected = len(run.records.pairs), pairs_of(row.dataset)
    if expected is None:
        yield f"{pairs} pairs of a list of our own"
    elif pairs != expected:
        yield f"{pairs} of {expected} pairs"
    known = categories_of(row.dataset)
    if known and (strange := set(run.records.categories) - known):
        yield f"other categories, such as {min(strange)}"
    if "crowd" in run.dataset and run.dataset["crowd"] is None:
        yield "no list of crowds"
    if run.dataset.get("only"):
        yield f"only {', '.join(run.dataset['only'])}"
    if run.about.get("told_category") is False:
        yield "the category not told"
    if run.about.get("symmetric"):
        yield "with lists of left and right"
    yield from other_recipe(run)


def _categories(rows: Sequence[PublishedRow], runs: Sequence[Run]) -> Iterator[Block]:
    """Published and ours by category, a column for each method, and for each run that uses it."""
    columns: list[tuple[str, Mapping[str, str]]] = []
    kinds = set()
    for row in rows:
        assert row.categories is not None
        alpha, mean = row.categories.alpha, row.categories.mean
        kinds.add(f"PCK@{alpha:g} {MEANS[mean]}")
        columns.append((row.method, {k: str(v) for k, v in row.categories.values.items()}))
        for run in _users(row, runs):
            ours = score(run.records, _rule(row, (alpha,)), 0).categories
            values = {one.name: percent(getattr(one, mean)[0].value) for one in ours}
            columns.append((f"ours, {run.label}{_remarked(row, run)}", values))
    if not columns:
        return
    names = sorted({name for _, values in columns for name in values})
    yield Table(
        f"Published by category, {', '.join(sorted(kinds))}",
        ("category", *(head for head, _ in columns)),
        tuple((name, *(values.get(name, "-") for _, values in columns)) for name in names),
        folded=True,
    )
