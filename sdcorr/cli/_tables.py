"""Matches and scores as tables of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sdcorr.hits import AnyRecords, Rule
    from sdcorr.scores import Row, Scores, Value
    from sdcorr.types import Matches

UNITS = {"keypoints": "points", "pixels": "pixels"}  # of records, as short headings
TOLD = {
    True: "the model was told the annotated category",
    False: "the model was not told the category",
    None: "the recipe does not ask for the category",
}


def print_matches(matches: Matches) -> None:
    """One line per match: name, source x y, target x y, score, confidence, and if rejected."""
    names = matches.names or tuple(str(number + 1) for number in range(len(matches)))
    width = max([4, *map(len, names)])
    sure = [""] * len(matches)
    if matches.confidence is not None:
        sure = [f"  {value:10.2f}" for value in matches.confidence.tolist()]
    heading = "  confidence" if matches.confidence is not None else ""
    click.echo(f"{'':{width}}  {'source x':>8} {'y':>8}  {'target x':>8} {'y':>8}  score{heading}")
    rows = zip(
        names, matches.source.tolist(), matches.target.tolist(), matches.score.tolist(), sure,
        matches.matched.tolist(), strict=True,
    )  # fmt: skip
    for name, (sx, sy), (tx, ty), score, likely, matched in rows:
        note = "" if matched else "  no match"
        click.echo(
            f"{name:{width}}  {sx:8.1f} {sy:8.1f}  {tx:8.1f} {ty:8.1f}  {score:.3f}{likely}{note}"
        )


def print_scores(path: Path, about: dict[str, Any], records: AnyRecords, scores: Scores) -> None:
    """All that a reader must know of the numbers, then the numbers, in percent."""
    _print_head(path, about, records)
    _print_rule(scores, records.unit)
    _print_means(scores, signed=False)
    click.echo()
    _print_rows("category", scores.categories, scores.rule, records.unit)


def print_difference(
    first: tuple[Path, dict[str, Any], AnyRecords],
    second: tuple[Path, dict[str, Any], AnyRecords],
    scores: Scores,
) -> None:
    """PCK of the first run minus the second, in percentage points."""
    _print_head(*first)
    _print_head(*second)
    click.echo(
        f"{first[0]} minus {second[0]}, on the {scores.overall.pairs} pairs that both predicted"
    )
    _print_rule(scores, first[2].unit)
    _print_means(scores, signed=True)
    click.echo()
    _print_rows("category", scores.categories, scores.rule, first[2].unit, signed=True)


def print_breakdown(title: str, rows: Sequence[Row], rule: Rule, unit: str) -> None:
    """A further table, below an empty line; ``unit`` is what is counted, as of the records."""
    click.echo()
    _print_rows(title, rows, rule, unit)


def print_errors(errors: Mapping[str, Value], signed: bool = False) -> None:
    """Average end-point errors, below an empty line."""
    click.echo()
    cells = [["AEPE", "pixels"]]
    cells += [[name, _cell(value, signed, unit=1)] for name, value in errors.items()]
    _print_cells(cells)


def _print_head(path: Path, about: dict[str, Any], records: AnyRecords) -> None:
    data, runtime = about["dataset"], about["runtime"]
    parts = [
        data["name"],
        *(data[part] for part in ("split", "layout", "protocol") if part in data),
    ]
    if drawn := data.get("drawn"):
        parts.append(f"drawn (seed {drawn.get('seed')})")
    if data.get("crowd"):
        parts.append("photos on a list of crowds left out")
    if data["only"]:
        parts.append(f"only {', '.join(data['only'])}")
    if data["limit"]:
        parts.append(f"at most {data['limit']} pairs a category (seed {data['seed']})")
    click.echo(f"{path}: recipe {about['recipe']['name']} on {', '.join(parts)}")
    click.echo(
        f"{len(records.pairs)} pairs of {records.images} images, {records.counted} {records.unit}; "
        f"{TOLD[about['told_category']]}; {runtime['device']}, {runtime['dtype']}"
    )
    if exchanged := about.get("symmetric"):
        click.echo(f"left and right exchanged by lists, where mirrored: {', '.join(exchanged)}")
    if records.skipped:
        first, *more = dict.fromkeys(records.skipped.values())
        click.echo(
            f"LEFT OUT: {len(records.skipped)} of {data['pairs']} pairs, whose photos could not be "
            f"read: {first}{f' (and {len(more)} more)' if more else ''}"
        )


def _print_rule(scores: Scores, unit: str) -> None:
    rule = scores.rule
    sign = "<" if rule.strict else "<="
    click.echo(f"correct: error {sign} alpha x longer side of {rule.frame}, original pixels")
    click.echo(
        f"per image: mean over pairs; per point: all {unit} together; macro: mean of categories"
    )
    if scores.overall.point[0].low is not None:
        click.echo(
            f"in brackets: 95 % interval, {scores.draws} bootstrap draws of images within category"
        )
    elif scores.draws:
        click.echo("no intervals: too many categories have fewer than 5 images")
    click.echo()


def _print_means(scores: Scores, signed: bool) -> None:
    cells = [["PCK", *(f"@{alpha:g}" for alpha in scores.rule.alphas)]]
    for name, row in (("per image", scores.overall), ("per point", scores.overall)):
        values = row.image if name == "per image" else row.point
        cells.append([name, *(_cell(value, signed) for value in values)])
    cells.append(["per image, macro", *(_cell(value, signed) for value in scores.macro.image)])
    cells.append(["per point, macro", *(_cell(value, signed) for value in scores.macro.point)])
    _print_cells(cells)


def _print_rows(
    title: str, rows: Sequence[Row], rule: Rule, unit: str, signed: bool = False
) -> None:
    """A line per row, without intervals: per image, then per point."""
    kinds = [kind for kind in ("image", "point") if all(getattr(row, kind) for row in rows)]
    short = {"image": "per img", "point": "per pt"}
    heads = [f"{short[kind]}@{alpha:g}" for kind in kinds for alpha in rule.alphas]
    cells = [[title, "pairs", UNITS[unit], *heads]]
    for row in rows:
        numbers = [_number(value.value, signed) for kind in kinds for value in getattr(row, kind)]
        cells.append([row.name, str(row.pairs), str(row.keypoints), *numbers])
    _print_cells(cells)


def _cell(value: Value, signed: bool, unit: float = 100) -> str:
    """A number in parts of the unit, 100 for percent, with its interval."""
    number = _number(value.value, signed, unit)
    if value.low is None or value.high is None:
        return number
    return f"{number} [{_number(value.low, signed, unit)}, {_number(value.high, signed, unit)}]"


def _number(share: float, signed: bool, unit: float = 100) -> str:
    rounded = round(unit * share, 2) + 0.0  # no -0.00
    return f"{rounded:{'+' if signed else ''}.2f}"


def _print_cells(cells: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *rest in cells:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        click.echo("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
