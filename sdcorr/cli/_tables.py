"""Matches and scores as tables of text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sdcorr.records import Records
    from sdcorr.scores import Row, Rule, Scores, Value
    from sdcorr.types import Matches

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


def print_scores(path: Path, about: dict[str, Any], records: Records, scores: Scores) -> None:
    """All that a reader must know of the numbers, then the numbers, in percent."""
    _print_head(path, about, records)
    _print_rule(scores)
    _print_means(scores, signed=False)
    click.echo()
    _print_rows("category", scores.categories, scores.rule)


def print_difference(
    first: tuple[Path, dict[str, Any], Records],
    second: tuple[Path, dict[str, Any], Records],
    scores: Scores,
) -> None:
    """PCK of the first run minus the second, in percentage points."""
    _print_head(*first)
    _print_head(*second)
    click.echo(
        f"{first[0]} minus {second[0]}, on the {scores.overall.pairs} pairs that both predicted"
    )
    _print_rule(scores)
    _print_means(scores, signed=True)
    click.echo()
    _print_rows("category", scores.categories, scores.rule, signed=True)


def print_breakdown(title: str, rows: Sequence[Row], rule: Rule) -> None:
    """A further table, below an empty line."""
    click.echo()
    _print_rows(title, rows, rule)


def _print_head(path: Path, about: dict[str, Any], records: Records) -> None:
    data, runtime = about["dataset"], about["runtime"]
    parts = [data["name"], *(data[part] for part in ("split", "layout") if part in data)]
    if data["only"]:
        parts.append(f"only {', '.join(data['only'])}")
    if data["limit"]:
        parts.append(f"at most {data['limit']} pairs a category (seed {data['seed']})")
    click.echo(f"{path}: recipe {about['recipe']['name']} on {', '.join(parts)}")
    click.echo(
        f"{len(records.pairs)} pairs of {records.images} images, {len(records.error)} keypoints; "
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


def _print_rule(scores: Scores) -> None:
    rule = scores.rule
    sign = "<" if rule.strict else "<="
    click.echo(
        f"correct: error {sign} alpha x longer side of {FRAMES[rule.threshold]}, original pixels"
    )
    click.echo(
        "per image: mean over pairs; per point: all keypoints together; macro: mean of categories"
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


def _print_rows(title: str, rows: Sequence[Row], rule: Rule, signed: bool = False) -> None:
    """A line per row, without intervals: per image, then per point."""
    kinds = [kind for kind in ("image", "point") if all(getattr(row, kind) for row in rows)]
    short = {"image": "per img", "point": "per pt"}
    heads = [f"{short[kind]}@{alpha:g}" for kind in kinds for alpha in rule.alphas]
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
    rounded = round(100 * share, 2) + 0.0  # no -0.00
    return f"{rounded:{'+' if signed else ''}.2f}"


def _print_cells(cells: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *rest in cells:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        click.echo("  ".join([first.ljust(widths[0]), *numbers]).rstrip())
