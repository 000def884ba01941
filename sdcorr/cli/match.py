"""``sdcorr match``: points of one photo, found in another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcorr.cli._options import (
    cache_options,
    debug,
    mask_options,
    recipe_options,
    runtime_options,
)
from sdcorr.cli._pictures import (
    category_option,
    inputs_of,
    picture_path,
    read_masks,
    with_encodings,
)
from sdcorr.cli._tables import print_matches

if TYPE_CHECKING:
    from sdcorr.cache import DiskStore
    from sdcorr.masks import Mask, MaskLike
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Encoding, Image, Matches

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
    from sdcorr.preprocess import load_image

    # all that the user can have got wrong is looked at before the expensive work
    recipe.check_category(category)
    check_confidence(recipe.own_calibration if masks == (None, None) else None, min_confidence)
    files = [points_file] if points_file is not None else []
    inputs = (source, target, *files, *inputs_of(masks))
    picture, results = _outputs(inputs, out, json_out)
    photos = [load_image(photo, category) for photo in (source, target)]
    wanted = _wanted_points(points, points_file)
    covered = read_masks(masks, photos)
    _check_points(wanted, photos[0], covered[0], recipe, symmetric)

    def find(model: Pipeline, encodings: list[Encoding]) -> tuple[Matches, Pipeline, bool]:
        first, second = encodings
        pair = model.fuse(first, second, source_mask=covered[0], target_mask=covered[1])
        found = pair.match(wanted, min_confidence, symmetric)
        return found, model, bool(symmetric) and pair.mirrored

    matches, model, exchanged = with_encodings(
        recipe, photos, find, device=device, dtype=dtype, batch=batch, store=store
    )
    _report(matches, model, picture, results)
    if exchanged:
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
        print_matches(matches)
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
