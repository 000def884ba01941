"""``sdcorr parts``: the parts that several photos have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import cache_options, debug, maps_options, runtime_options
from sdcorr.cli._pictures import (
    category_option,
    check_apart,
    inputs_of,
    out_option,
    picture_path,
    several_photos,
    whole_option,
    with_encodings,
    write_png,
)
from sdcorr.cli._watch import in_one_line

if TYPE_CHECKING:
    from torch import Tensor

    from sdcorr.cache import DiskStore
    from sdcorr.geometry import Grid
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Encoding


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@maps_options
@category_option
@click.option(
    "-k",
    "--parts",
    "count",
    type=click.IntRange(1, 255),
    default=4,
    show_default=True,
    metavar="N",
    help="How many parts.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the random starts of the clustering.",
)
@whole_option
@out_option("parts-PHOTO-PHOTO.png")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write there a PNG of each photo's name and size: the number of the part, 0 elsewhere.",
)
@cache_options
@runtime_options
@debug
def parts(
    photos: tuple[Path, ...], recipe: Recipe, category: str | None, count: int, seed: int,
    whole: bool, out: Path | None, labels: Path | None, store: DiskStore | None, device: str,
    dtype: str, batch: int,
) -> None:  # fmt: skip
    """Split what stands out in PHOTOS into parts that they have in common.

    The descriptors of all photos are clustered together. Parts are numbered from the top of the
    photos to the bottom; with the same seed they are the same again.

    \b
    Examples:
      sdcorr parts cat.jpg dog.jpg --recipe dinov2-b
      sdcorr parts cat.jpg dog.jpg horse.jpg -k 6 --recipe dinov2-b --labels masks
      sdcorr parts a.jpg b.jpg --recipe sift-hough --whole
    """
    from sdcorr.export import write_picture

    # all that the user can have got wrong is looked at before the expensive work
    recipe.check_category(category)
    images = several_photos(photos, category)
    picture = picture_path(out, photos, inputs_of(()))
    files = [] if labels is None else _label_files(labels, photos, picture)

    def find(model: Pipeline, encodings: list[Encoding]) -> list[tuple[Grid, Tensor]]:
        from sdcorr.segmentation import parts, salient

        maps = model.descriptors(encodings)
        found = parts(maps, None if whole else salient(maps), count, seed)
        return list(zip((one.grid for one in maps), found, strict=True))

    found = with_encodings(
        recipe, images, find, device=device, dtype=dtype, batch=batch, store=store
    )
    from sdcorr.viz import plot_parts

    write_picture(picture, plot_parts(images, *zip(*found, strict=True)))
    if labels is not None:
        labels.mkdir(exist_ok=True)
        for file, (grid, cells) in zip(files, found, strict=True):
            _write_labels(file, grid, cells)
    _print_shares(photos, [cells for _, cells in found], count)
    for written in (*files, picture):
        click.echo(f"wrote {written}")


def _label_files(folder: Path, photos: Sequence[Path], picture: Path) -> list[Path]:
    """FOLDER/NAME.png of each photo, found to be writable."""
    from sdcorr.errors import BadOutput
    from sdcorr.files import check_output

    names: dict[str, Path] = {}
    for photo in photos:
        if (other := names.setdefault(photo.stem, photo)) is not photo:
            raise BadOutput(
                f"--labels: {other} and {photo} would both be {folder / photo.stem}.png; "
                "give photos of different names"
            )
    files = [folder / f"{name}.png" for name in names]
    if folder.exists() and not folder.is_dir():
        raise BadOutput(f"--labels: {folder} is a file; give a folder")
    if not folder.exists():
        check_output(folder)  # whether it could be made there
    for file in files:
        if folder.exists():
            check_output(file, (*photos, *inputs_of(())))
        check_apart({"--out": picture, "--labels": file})
    return files


def _write_labels(file: Path, grid: Grid, cells: Tensor) -> None:
    """The part at each pixel of a photo, 0 to 255."""
    import torch

    from sdcorr.segmentation import at_pixels

    write_png(file, at_pixels(cells.to(torch.uint8).reshape(grid.shape).numpy(), grid))


def _print_shares(photos: Sequence[Path], found: Sequence[Tensor], count: int) -> None:
    """One line per photo: its name, and the share of its foreground that each part has."""
    names = [in_one_line(str(photo)) for photo in photos]
    width = max(map(len, names))
    click.echo(f"{'':{width}}" + "".join(f"  {f'part {part + 1}':>8}" for part in range(count)))
    for name, cells in zip(names, found, strict=True):
        cells_of = cells.bincount(minlength=count + 1)[1:].tolist()
        all_cells = sum(cells_of)
        shares = [f"{100 * one / all_cells:.1f} %" if all_cells else "none" for one in cells_of]
        click.echo(f"{name:{width}}" + "".join(f"  {share:>8}" for share in shares))
