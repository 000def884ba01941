"""``sdcorr pca``: what is alike in several photos, in like colours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import cache_options, debug, maps_options, runtime_options
from sdcorr.cli._pictures import (
    category_option,
    inputs_of,
    out_option,
    picture_path,
    several_photos,
    whole_option,
    with_encodings,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from sdcorr.cache import DiskStore
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Encoding


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@maps_options
@category_option
@whole_option
@out_option("pca-PHOTO-PHOTO.png")
@cache_options
@runtime_options
@debug
def pca(
    photos: tuple[Path, ...], recipe: Recipe, category: str | None, whole: bool, out: Path | None,
    store: DiskStore | None, device: str, dtype: str, batch: int,
) -> None:  # fmt: skip
    """Show the descriptors of PHOTOS as colours: what is alike has like colours, in all of them.

    The colours are the first three principal components of all photos taken together: lightness,
    blue to yellow, green to red. Only what stands out from the photos' border is coloured.

    \b
    Examples:
      sdcorr pca cat.jpg --recipe dinov2-b
      sdcorr pca cat.jpg dog.jpg horse.jpg --recipe dinov2-b --out colours.png
      sdcorr pca a.jpg b.jpg --recipe sift-hough --whole
    """
    from sdcorr.export import write_picture

    # all that the user can have got wrong is looked at before the expensive work
    recipe.check_category(category)
    images = several_photos(photos, category)
    picture = picture_path(out, photos, inputs_of(()))

    def draw(model: Pipeline, encodings: list[Encoding]) -> tuple[Figure, Tensor]:
        from sdcorr.segmentation import colours_of, principal, salient
        from sdcorr.viz import plot_pca

        maps = model.descriptors(encodings)
        found = principal(maps, None if whole else salient(maps))
        return plot_pca(images, found.grids, colours_of(found)), found.share

    figure, share = with_encodings(
        recipe, images, draw, device=device, dtype=dtype, batch=batch, store=store
    )
    write_picture(picture, figure)
    lightness, blue, green = (100 * share).tolist()
    click.echo(
        f"share of the variance: lightness {lightness:.1f} %, blue to yellow {blue:.1f} %, green "
        f"to red {green:.1f} %"
    )
    click.echo(f"wrote {picture}")
