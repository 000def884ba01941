"""Sections of a report; keypoints and dense flow differ in few places, each a function here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sdcorr.flow_records import FlowRecords
from sdcorr.hits import Rule
from sdcorr.records import Records
from sdcorr.report._beside import published
from sdcorr.report._blocks import Block, Heading, Section, Table, Text
from sdcorr.report._gallery import Gallery
from sdcorr.report._made import how_made
from sdcorr.report._numbers import agreements
from sdcorr.report._runs import (
    Options,
    Run,
    apart,
    grouped,
    main_alpha,
    rule_of,
    title_of,
)
from sdcorr.report._tables import (
    category_table,
    curves,
    difference,
    difficulties,
    means_table,
    percent,
    rule_words,
)
from sdcorr.scores import Value, by_keypoint, compare_errors, mean_errors, score


def sections(runs: Sequence[Run], options: Options) -> Iterator[Section]:
    """One section for runs that share pairs; in the order of their first runs."""
    firsts: list[Run] = []
    for group in grouped(runs, options):
        blocks = (*apart(group[0], firsts), *_blocks(group, options))
        yield Section(title_of(group[0]), blocks)
        firsts.append(group[0])


def _blocks(runs: Sequence[Run], options: Options) -> Iterator[Block]:
    first, *others = runs
    rule, unit = rule_of(first, options), first.records.unit
    scores = [score(run.records, rule, options.replicates) for run in runs]
    gallery = Gallery(options, rule)
    yield from how_made(runs)
    yield Heading("PCK")
    yield from rule_words(rule, scores, unit)
    yield means_table([run.label for run in runs], scores)
    yield from _end_point_errors(runs, options)
    yield from curves(runs, rule)
    yield Heading("By category")
    for run, one in zip(runs, scores, strict=True):
        yield category_table(run.label, one, unit)
    yield from _by_keypoint(runs, rule)
    yield from difficulties(runs, rule)
    for other in others:
        yield from difference(first, other, rule, options.replicates)
        yield from _points_of_both(first, other, rule)
        yield from _gap_of_errors(first, other, options)
        if options.pairs:
            yield from gallery.unlike(first, other)
    yield from published(runs)
    if options.pairs:
        yield Heading("Best and worst pairs")
        yield from gallery.best_and_worst(first)
        yield from gallery.gone()


def _by_keypoint(runs: Sequence[Run], rule: Rule) -> Iterator[Table]:
    """PCK per point of every part at one alpha; none of dense flow."""
    alpha = main_alpha(rule)
    one_alpha = Rule((alpha,), rule.threshold, rule.strict)
    found = [
        {row.name: row for row in by_keypoint(run.records, one_alpha)}
        for run in runs
        if isinstance(run.records, Records)
    ]
    if not found:
        return
    rows = []
    for name in dict.fromkeys(name for one in found for name in one):
        cells = [name]
        for one in found:
            row = one.get(name)
            cells += [str(row.keypoints), percent(row.point[0].value)] if row else ["0", "-"]
        rows.append(tuple(cells))
    heads = [head for run in runs for head in ("keypoints", run.label)]
    title = f"By keypoint: PCK@{alpha:g} per point"
    yield Table(title, ("category/keypoint", *heads), tuple(rows), folded=True)


def _points_of_both(first: Run, other: Run, rule: Rule) -> Iterator[Table]:
    """How many keypoints only one of two runs got; none of dense flow."""
    if not isinstance(first.records, Records) or not isinstance(other.records, Records):
        return
    rows = []
    for one in agreements(first.records, other.records, rule):
        counts = (one.both, one.first, one.second, one.neither)
        shares = (f"{count} ({100 * count / sum(counts):.1f} %)" for count in counts)
        rows.append((f"{one.alpha:g}", *shares))
    yield Table(
        "Which keypoints one got and the other missed",
        ("alpha", "both right", f"only {first.label}", f"only {other.label}", "neither"),
        tuple(rows),
    )


def _end_point_errors(runs: Sequence[Run], options: Options) -> Iterator[Table]:
    """Average end-point errors of dense flow; none of keypoints."""
    errors = {
        run.label: mean_errors(run.records, options.replicates)
        for run in runs
        if isinstance(run.records, FlowRecords)
    }
    if errors:
        title = "Average end-point error, pixels of the target: mean over pairs"
        yield _error_table(title, errors)


def _gap_of_errors(first: Run, other: Run, options: Options) -> Iterator[Block]:
    """One run's end-point errors minus another's; none of keypoints."""
    if not isinstance(first.records, FlowRecords) or not isinstance(other.records, FlowRecords):
        return
    gap = compare_errors(first.records, other.records, options.replicates)
    yield Text(
        "The paired difference of the average end-point error, in pixels of the target: below 0, "
        f"{first.label} is better."
    )
    gaps = {f"{first.label} minus {other.label}": gap}
    yield _error_table("Average end-point error, pixels: difference", gaps, signed=True)


def _error_table(
    title: str, errors: Mapping[str, Mapping[str, Value]], signed: bool = False
) -> Table:
    """End-point errors by category, then of all and the mean of the categories."""
    names = dict.fromkeys(name for found in errors.values() for name in found)
    rows = [
        (name, *(_pixels(found.get(name), signed) for found in errors.values())) for name in names
    ]
    return Table(title, ("category", *errors), tuple(rows))


def _pixels(value: Value | None, signed: bool) -> str:
    """An error and, in brackets, its interval, with two decimals as ``sdcorr score`` prints it."""
    if value is None:
        return "-"
    numbers = (value.value, value.low, value.high)
    shown, *interval = (
        f"{round(one, 2) + 0.0:{'+' if signed else ''}.2f}"  # no -0.00
        for one in numbers
        if one is not None
    )
    return f"{shown} [{', '.join(interval)}]" if interval else shown
