"""Scores as tables of text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sdcorr.scores import Row, Rule, Scores, Value

FRAMES = {
    "box": "the target's box",
    "keypoints": "the box around the target's keypoints",
    "image": "the target image",
}
TOLD = {
    True: "the model was told the annotated category",
    False: "the model was not told the category",
    None: "the recipe does not ask for the category",
}


def print_scores(path: Path, about: dict[str, Any], scores: Scores) -> None:
    """All that a reader must know of the numbers, then the numbers, in percent."""
    _print_head(path, about, scores.skipped)
    _print_rule(scores.rule, intervals=scores.overall.point[0].low is not None)
    _print_means(scores, signed=False)
    click.echo()
    _print_rows("category", scores.categories, scores.rule)


def print_difference(
    first: tuple[Path, dict[str, Any]], second: tuple[Path, dict[str, Any]], scores: Scores
) -> None:
    """PCK of the first run minus the second, in percentage points."""
    for path, about in (first, second):
        _print_head(path, about, 0)
    click.echo(f"{first[0]} minus {second[0]} on the {scores.overall.pairs} pairs of both")
    _print_rule(scores.rule, intervals=scores.overall.point[0].low is not None)
    _print_means(scores, signed=True)
    click.echo()
    _print_rows("category", scores.categories, scores.rule, signed=True)


def print_breakdown(title: str, rows: Sequence[Row], rule: Rule) -> None:
    """A further table, below an empty line."""
    click.echo()
    _print_rows(title, rows, rule)


def _print_head(path: Path, about: dict[str, Any], skipped: int) -> None:
    data, runtime = about["dataset"], about["runtime"]
    parts = [data["name"], *(data[part] for part in ("split", "layout") if part in data)]
    if data["only"]:
        parts.append(f"only {', '.join(data['only'])}")
    if data["limit"]:
        parts.append(f"at most {data['limit']} pairs a category (seed {data['seed']})")
    click.echo(f"{path}: recipe {about['recipe']['name']} on {', '.join(parts)}")
    click.echo(
        f"{data['pairs']} pairs of {data['images']} images, {data['keypoints']} keypoints; "
        f"{TOLD[about['told_category']]}; {runtime['device']}, {runtime['dtype']}"
    )
    if skipped:
        click.echo(f"LEFT OUT: {skipped} of {data['pairs']} pairs, whose photos could not be read")


def _print_rule(rule: Rule, intervals: bool) -> None:
    sign = "<" if rule.strict else "<="
    click.echo(
        f"correct: error {sign} alpha x longer side of {FRAMES[rule.threshold]}, original pixels"
    )
    if intervals:
        click.echo("in brackets: 95 % interval, bootstrap over images within category")
    click.echo()


def _print_means(scores: Scores, signed: bool) -> None:
    cells = [["PCK", *(f"@{alpha:g}" for alpha in scores.rule.alphas)]]
    for name, row in (("per image", scores.overall), ("per point", scores.overall)):
        values = row.image if name == "per image" else row.point
        cells.append([name, *(_cell(value, signed) for value in values)])
    cells.append(["per image, macro", *(_cell(value, signed) for value in scores.macro.image)])
    cells.append(["per point, macro", *(_cell(value, signed) for value in scores.macro.point)])
    _print_cells(cells)


def _print_rows(title: str, rows: Sequence[Row], rule: Rule, signed: bool = False) -> None:
    """A line per row, without intervals: per image, then per point."""
    kinds = [kind for kind in ("image", "point") if all(getattr(row, kind) for row in rows)]
    heads = [f"{kind}@{alpha:g}" for kind in kinds for alpha in rule.alphas]
    cells = [[title, "pairs", "points", *heads]]
    for row in rows:
        numbers = [_number(value.value, signed) for kind in kinds for value in getattr(row, kind)]
        cells.append([row.name, str(row.pairs), str(row.keypoints), *numbers])
    _print_cells(cells)


def _cell(value: Value, signed: bool) -> str:
    if value.low is None or value.high is None:
        return _number(value.value, signed)
    low, high = _number(value.low, signed), _number(value.high, signed)
    return f"{_number(value.value, signed)} [{low}, {high}]"


def _number(share: float, signed: bool) -> str:
    return f"{100 * share:{'+' if signed else ''}.2f}"


def _print_cells(cells: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *rest in cells:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        click.echo("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
