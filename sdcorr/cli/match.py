"""``sdcorr match``: points of one photo, found in another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcorr.cli._options import (
    Progress,
    cache_options,
    debug,
    hide_downloads_off_terminal,
    recipe_options,
    runtime_options,
)

if TYPE_CHECKING:
    from sdcorr.cache import DiskStore
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Matches

STDOUT = Path("-")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@recipe_options
@click.option(
    "--category", metavar="TEXT", help="What the photos show, for recipes with a text prompt."
)
@click.option(
    "--point",
    "points",
    nargs=2,
    type=float,
    multiple=True,
    metavar="X Y",
    help="A point of SOURCE in pixels; may be repeated. Without points: confident matches.",
)
@click.option(
    "--points-file",
    type=click.Path(path_type=Path),
    help='JSON: [[x, y], ...] or {"name": [x, y], ...}.',
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Picture to write (png, jpg, webp, pdf, svg); default match-SOURCE-TARGET.png, or none "
    "if only --json is given.",
)
@click.option("--json", "json_out", metavar="PATH", help="JSON to write; - is standard output.")
@cache_options
@runtime_options
@debug
def match(
    source: Path, target: Path, recipe: Recipe, category: str | None,
    points: tuple[tuple[float, float], ...], points_file: Path | None, out: Path | None,
    json_out: str | None, store: DiskStore | None, device: str,
    dtype: str, batch: int,
) -> None:  # fmt: skip
    """Find points of SOURCE in TARGET.

    \b
    Examples:
      sdcorr match a.jpg b.jpg --recipe sift
      sdcorr match cat.jpg dog.jpg --category cat
      sdcorr match cat.jpg dog.jpg --point 120 80 --point 40 200 --recipe dinov2-b
      sdcorr match cat.jpg dog.jpg --points-file points.json --json out.json --out out.png
    """
    from sdcorr.preprocess import load_image, read_points
    from sdcorr.recipes import load

    # all that the user can have got wrong is looked at before the expensive work
    recipe.check_category(category)
    inputs = (source, target) if points_file is None else (source, target, points_file)
    picture, results = _outputs(inputs, out, json_out)
    photos = load_image(source, category), load_image(target, category)
    wanted = _wanted_points(points, points_file)
    if wanted is not None:
        read_points(wanted, photos[0].size)

    hide_downloads_off_terminal()
    with Progress(steps=4) as progress:
        with progress.step(f"loading {recipe.name}"):
            model = load(recipe, device=device, dtype=dtype, batch=batch, cache=store)
        with progress.step(f"encoding {source.name}"):
            first = model.encode(photos[0])
        with progress.step(f"encoding {target.name}"):
            second = model.encode(photos[1])
        with progress.step("matching"):
            matches = model.match(first, second, wanted)
    _report(matches, model, picture, results)


def _outputs(
    inputs: tuple[Path, ...], out: Path | None, json_out: str | None
) -> tuple[Path | None, Path | None]:
    """Where the picture and the JSON go, ``-`` for standard output; None where not wanted."""
    from sdcorr.export import PICTURES
    from sdcorr.files import check_output

    if out is None and json_out is None:
        out = Path(f"match-{_cut(inputs[0].stem)}-{_cut(inputs[1].stem)}.png")
    results = Path(json_out) if json_out is not None else None
    if out is not None:
        check_output(out, inputs, PICTURES)
        import sdcorr.viz  # noqa: F401 - a matplotlib that does not load shows now
    if results is not None and results != STDOUT:
        check_output(results, inputs)
        if out is not None and results.resolve() == out.resolve():
            raise click.UsageError(f"--out and --json name one file, {out}")
    return out, results


def _report(matches: Matches, model: Pipeline, picture: Path | None, results: Path | None) -> None:
    """Write the files, then print: a reader that goes away costs nobody the results."""
    from sdcorr.export import matches_to_dict, write_picture
    from sdcorr.files import to_json, write_json

    piped = results == STDOUT
    if results is not None and not piped:
        write_json(results, matches_to_dict(matches, model))
    if picture is not None:
        write_picture(picture, matches.plot())
    if piped:
        click.echo(to_json(matches_to_dict(matches, model)))
    else:
        _print_table(matches)
    for written in (results, picture):
        if written is not None and written != STDOUT:
            click.echo(f"wrote {written}", err=piped)


def _wanted_points(points: tuple[tuple[float, float], ...], file: Path | None) -> Any:
    from sdcorr.errors import BadPoints
    from sdcorr.files import parse_json

    if file is None:
        return [list(point) for point in points] or None
    if points:
        raise click.UsageError("give --point or --points-file, not both")
    try:
        values = parse_json(file.read_bytes())
    except OSError as error:
        raise BadPoints(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise BadPoints(f"{file} is not JSON of points: {error}") from error
    if not isinstance(values, list | dict):
        raise BadPoints(f'{file} holds no points; expected [[x, y], ...] or {{"name": [x, y]}}')
    return values


def _cut(name: str) -> str:
    """At most 100 bytes, so that two of them make a file name."""
    return name.encode(errors="ignore")[:100].decode(errors="ignore")


def _print_table(matches: Matches) -> None:
    """One line per match: name, source x y, target x y, score, and whether it was rejected."""
    names = matches.names or tuple(str(number + 1) for number in range(len(matches)))
    width = max([4, *map(len, names)])
    click.echo(f"{'':{width}}  {'source x':>8} {'y':>8}  {'target x':>8} {'y':>8}  score")
    rows = zip(
        names, matches.source.tolist(), matches.target.tolist(), matches.score.tolist(),
        matches.matched.tolist(), strict=True,
    )  # fmt: skip
    for name, (sx, sy), (tx, ty), score, matched in rows:
        note = "" if matched else "  no match"
        click.echo(f"{name:{width}}  {sx:8.1f} {sy:8.1f}  {tx:8.1f} {ty:8.1f}  {score:.3f}{note}")
