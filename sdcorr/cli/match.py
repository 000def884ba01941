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
    mask_options,
    recipe_options,
    runtime_options,
)
from sdcorr.cli._pictures import category_option, picture_path

if TYPE_CHECKING:
    from sdcorr.cache import DiskStore
    from sdcorr.masks import Mask, MaskLike
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Image, Matches

STDOUT = Path("-")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@recipe_options
@category_option
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
    "--symmetric",
    nargs=2,
    multiple=True,
    metavar="NAME NAME",
    help="Two named points that left and right exchange; may be repeated. With --flip.",
)
@mask_options
@click.option(
    "--min-confidence",
    type=float,
    metavar="P",
    help="Reject matches less likely right than this, 0 to 1; of calibrated recipes.",
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
    points: tuple[tuple[float, float], ...], points_file: Path | None,
    symmetric: tuple[tuple[str, str], ...],
    masks: tuple[MaskLike | None, MaskLike | None], min_confidence: float | None,
    out: Path | None, json_out: str | None, store: DiskStore | None, device: str,
    dtype: str, batch: int,
) -> None:  # fmt: skip
    """Find points of SOURCE in TARGET.

    \b
    Examples:
      sdcorr match a.jpg b.jpg --recipe sift
      sdcorr match cat.jpg dog.jpg --category cat
      sdcorr match cat.jpg dog.jpg --point 120 80 --point 40 200 --recipe dinov2-b
      sdcorr match cat.jpg dog.jpg --points-file points.json --json out.json --out out.png
      sdcorr match a.jpg b.jpg --points-file points.json --flip --symmetric left_eye right_eye
      sdcorr match a.jpg b.jpg --min-confidence 0.5 --recipe sift-hough
      sdcorr match a.jpg b.jpg --target-box 40 60 310 280 --recipe sift-hough
    """
    from sdcorr.confidence import check_confidence
    from sdcorr.masks import read_mask
    from sdcorr.preprocess import load_image
    from sdcorr.recipes import load

    # all that the user can have got wrong is looked at before the expensive work
    recipe.check_category(category)
    check_confidence(recipe.own_calibration if masks == (None, None) else None, min_confidence)
    files = (points_file, *(mask for mask in masks if isinstance(mask, Path)))
    recipe_file = Path(click.get_current_context().params["recipe_name"])
    inputs = (source, target, *(file for file in files if file is not None), recipe_file)
    picture, results = _outputs(inputs, out, json_out)
    photos = load_image(source, category), load_image(target, category)
    wanted = _wanted_points(points, points_file)
    covered = [
        None if mask is None else read_mask(mask, photo.size)
        for mask, photo in zip(masks, photos, strict=True)
    ]
    _check_points(wanted, photos[0], covered[0], recipe, symmetric)

    hide_downloads_off_terminal()
    with Progress(steps=4) as progress:
        with progress.step(f"loading {recipe.name}"):
            model = load(recipe, device=device, dtype=dtype, batch=batch, cache=store)
        with progress.step(f"encoding {source.name}"):
            first = model.encode(photos[0])
        with progress.step(f"encoding {target.name}"):
            second = model.encode(photos[1])
        with progress.step("matching"):
            pair = model.fuse(first, second, source_mask=covered[0], target_mask=covered[1])
            matches = pair.match(wanted, min_confidence, symmetric)
    _report(matches, model, picture, results)
    if symmetric and pair.mirrored:
        click.echo("the target looks mirrored: left and right were exchanged", err=True)


def _outputs(
    inputs: tuple[Path, ...], out: Path | None, json_out: str | None
) -> tuple[Path | None, Path | None]:
    """Where the picture and the JSON go, ``-`` for standard output; None where not wanted."""
    from sdcorr.files import check_output

    if out is not None or json_out is None:
        out = picture_path(out, inputs[:2], inputs[2:])
    results = Path(json_out) if json_out is not None else None
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


def _check_points(
    wanted: Any, source: Image, mask: Mask | None, recipe: Recipe,
    symmetric: tuple[tuple[str, str], ...],
) -> None:  # fmt: skip
    from sdcorr.masks import check_covered
    from sdcorr.preprocess import read_points
    from sdcorr.symmetry import partners

    names, places = (None, None) if wanted is None else read_points(wanted, source.size)
    if places is not None and mask is not None:
        check_covered(mask, places, names)
    if symmetric and not recipe.flip:
        raise click.UsageError("--symmetric reads the mirrored photo; add --flip")
    partners(names, symmetric)


def _print_table(matches: Matches) -> None:
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
