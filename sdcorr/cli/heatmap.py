"""``sdcorr heatmap``: the similarity of one point to all of another photo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import cache_options, debug, recipe_options, runtime_options
from sdcorr.cli._pictures import (
    category_option,
    inputs_of,
    out_option,
    picture_path,
    with_encodings,
)
from sdcorr.cli._tables import print_matches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sdcorr.cache import DiskStore
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Encoding, Matches


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@recipe_options
@category_option
@click.option(
    "--point", "points", nargs=2, type=float, multiple=True, required=True, metavar="X Y",
    help="The point of SOURCE, in pixels.",
)  # fmt: skip
@out_option("heatmap-SOURCE-TARGET.png")
@cache_options
@runtime_options
@debug
def heatmap(
    source: Path, target: Path, recipe: Recipe, category: str | None,
    points: tuple[tuple[float, float], ...], out: Path | None, store: DiskStore | None,
    device: str, dtype: str, batch: int,
) -> None:  # fmt: skip
    """Draw how similar one point of SOURCE is to each place of TARGET.

    \b
    Examples:
      sdcorr heatmap cat.jpg dog.jpg --point 120 80
      sdcorr heatmap a.jpg b.jpg --point 120 80 --recipe sift-hough --out heat.png
    """
    from sdcorr.export import write_picture
    from sdcorr.preprocess import load_image, read_points

    if len(points) > 1:
        raise click.UsageError("a heat map is of one --point; sdcorr match takes several")
    recipe.check_category(category)
    picture = picture_path(out, (source, target), inputs_of(()))
    photos = [load_image(photo, category) for photo in (source, target)]
    read_points([list(point) for point in points], photos[0].size)

    def draw(model: Pipeline, encodings: list[Encoding]) -> tuple[Figure, Matches]:
        from sdcorr.viz import plot_heatmap

        first, second = encodings
        pair = model.fuse(first, second)
        match = pair.match([list(point) for point in points])
        return plot_heatmap(pair.similarity, match), match

    figure, match = with_encodings(
        recipe, photos, draw, device=device, dtype=dtype, batch=batch, store=store
    )
    write_picture(picture, figure)
    print_matches(match)
    click.echo(f"wrote {picture}")
