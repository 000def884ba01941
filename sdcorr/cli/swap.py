"""``sdcorr swap``: the object of one photo in the place of another's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import cache_options, debug, mask_options, recipe_options, runtime_options
from sdcorr.cli._pictures import (
    category_option,
    check_apart,
    inputs_of,
    picture_path,
    read_masks,
    with_encodings,
    write_png,
)

if TYPE_CHECKING:
    from sdcorr.cache import DiskStore
    from sdcorr.masks import Mask, MaskLike
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Encoding, Image
    from sdcorr.warping import Swapped

SIDES = ("source", "target")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@recipe_options
@category_option
@mask_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Picture to write (png, jpg, webp, pdf, svg); default swap-SOURCE-TARGET.png, or none if "
    "only --photo is given.",
)
@click.option(
    "--photo",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="The result alone to write, of TARGET's size.",
)
@cache_options
@runtime_options
@debug
def swap(
    source: Path, target: Path, recipe: Recipe, category: str | None,
    masks: tuple[MaskLike | None, MaskLike | None], out: Path | None, photo: Path | None,
    store: DiskStore | None, device: str, dtype: str, batch: int,
) -> None:  # fmt: skip
    """Put the object of SOURCE in the place of the object of TARGET.

    An object without mask or box is found as what stands out in both photos together.

    \b
    Examples:
      sdcorr swap cat.jpg dog.jpg
      sdcorr swap cat.jpg dog.jpg --source-mask cat.png --target-mask dog.png --photo swapped.png
      sdcorr swap a.jpg b.jpg --source-box 40 60 310 280 --target-box 20 30 200 240
    """
    from sdcorr.export import write_picture
    from sdcorr.preprocess import load_image

    recipe.check_category(category)
    picture = _checked((source, target), inputs_of(masks), out, photo)
    photos = [load_image(path, category) for path in (source, target)]
    given = read_masks(masks, photos)

    def work(model: Pipeline, encodings: list[Encoding]) -> tuple[Swapped, list[Mask]]:
        return _swapped(model, encodings, given)

    swapped, objects = with_encodings(
        recipe, photos, work, device=device, dtype=dtype, batch=batch, store=store
    )
    if photo is not None:
        write_png(photo, swapped.pixels)
    if picture is not None:
        from sdcorr.viz import plot_swap

        first, second = photos
        write_picture(picture, plot_swap(first, objects[0], second, objects[1], swapped.pixels))
    _tell(photos, given, objects)
    for written in (photo, picture):
        if written is not None:
            click.echo(f"wrote {written}")


def _checked(
    photos: tuple[Path, Path], inputs: list[Path], out: Path | None, photo: Path | None
) -> Path | None:
    """Where the picture goes, None where it is not wanted; all found to be writable."""
    from sdcorr.files import check_output

    if photo is not None:
        check_output(photo, (*photos, *inputs), (".png",))
    picture = None if out is None and photo is not None else picture_path(out, photos, inputs)
    check_apart({"--out": picture, "--photo": photo})
    return picture


def _swapped(
    model: Pipeline, encodings: list[Encoding], given: list[Mask | None]
) -> tuple[Swapped, list[Mask]]:
    """The result, and the objects of both photos: as given, else what stands out."""
    from sdcorr.warping import swap_object

    objects = _objects(model, encodings, given)
    first, second = encodings
    back = model.fuse(second, first, source_mask=objects[1], target_mask=objects[0]).flow()
    return swap_object(first.image, second.image, back, *objects), objects


def _objects(model: Pipeline, encodings: list[Encoding], given: list[Mask | None]) -> list[Mask]:
    import torch

    from sdcorr.errors import BadImage
    from sdcorr.segmentation import salient
    from sdcorr.warping import object_mask

    if all(mask is not None for mask in given):
        return [mask for mask in given if mask is not None]
    maps = model.descriptors(encodings)
    try:
        cells = salient(maps)
    except BadImage:  # told below, with what this command can do about it
        cells = [torch.zeros_like(one.grid.inside()) for one in maps]
    objects = []
    for side, mask, chosen, one in zip(SIDES, given, cells, maps, strict=True):
        objects.append(object_mask(chosen, one.grid) if mask is None else mask)
        if not objects[-1].any():
            raise BadImage(
                f"nothing stands out in the {side} photo; give its object, with --{side}-mask or "
                f"--{side}-box"
            )
    return objects


def _tell(photos: list[Image], given: list[Mask | None], objects: list[Mask]) -> None:
    """Say of each object that was not given how much of its photo was taken for it."""
    for side, image, mask, found in zip(SIDES, photos, given, objects, strict=True):
        if mask is None:
            name = image.path.name if image.path else side
            click.echo(
                f"{name}: what stands out, {100 * found.mean():.0f} % of the photo, was taken for "
                f"the object; --{side}-mask or --{side}-box says otherwise",
                err=True,
            )
