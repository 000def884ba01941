"""What the commands that draw a picture share: its name, photos, and progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sdcorr.cli._options import Progress, hide_downloads_off_terminal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sdcorr.cache import DiskStore
    from sdcorr.masks import Mask, MaskLike
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Encoding, Image

Result = TypeVar("Result")

category_option = click.option(
    "--category", metavar="TEXT", help="What the photos show, for recipes with a text prompt."
)
whole_option = click.option(
    "--whole", is_flag=True, help="All of the photos, not only what stands out from their border."
)
MOST = 100  # photos: all are in memory at once


def out_option(default: str) -> Callable[[Any], Any]:
    """``--out``, with what it is called if it is not given."""
    return click.option(
        "--out", type=click.Path(path_type=Path),
        help=f"Picture to write (png, jpg, webp, pdf, svg); default {default}.",
    )  # fmt: skip


def picture_path(out: Path | None, photos: Sequence[Path], inputs: Sequence[Path] = ()) -> Path:
    """Where the picture goes, by default COMMAND-PHOTO-PHOTO.png, found to be writable.

    Args:
        out: as asked for.
        photos: of the command.
        inputs: other files that must not be overwritten.

    Raises:
        BadOutput: it could not be written.
    """
    from sdcorr.export import PICTURES
    from sdcorr.files import check_output

    if out is None:
        command = click.get_current_context().info_name
        names = [_short(photo.stem) for photo in photos[:2]]
        more = [f"and-{len(photos) - 2}-more"] if len(photos) > 2 else []
        out = Path("-".join([str(command), *names, *more]) + ".png")
    check_output(out, (*photos, *inputs), PICTURES)
    import sdcorr.viz  # noqa: F401 - a matplotlib that does not load shows now

    return out


def several_photos(photos: Sequence[Path], category: str | None) -> list[Image]:
    """The photos of a command that looks at them all together.

    Raises:
        BadImage: there are too many, or one cannot be read.
    """
    from sdcorr.errors import BadImage
    from sdcorr.preprocess import load_image

    if len(photos) > MOST:
        raise BadImage(f"expected at most {MOST} photos at once, got {len(photos)}; give fewer")
    return [load_image(photo, category) for photo in photos]


def check_apart(outputs: Mapping[str, Path | None]) -> None:
    """Refuse two options that name one file; those that are not given are None."""
    named: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is not None and (other := named.setdefault(path.resolve(), option)) != option:
            raise click.UsageError(f"{other} and {option} name one file, {path}")


def inputs_of(masks: Sequence[MaskLike | None]) -> list[Path]:
    """Files besides the photos that a command reads: its masks', and that of its recipe."""
    recipe = Path(click.get_current_context().params["recipe_name"])
    return [recipe, *(mask for mask in masks if isinstance(mask, Path))]


def read_masks(masks: Sequence[MaskLike | None], photos: Sequence[Image]) -> list[Mask | None]:
    """What each mask covers of its photo; None where there is none."""
    from sdcorr.masks import read_mask

    return [
        None if mask is None else read_mask(mask, photo.size)
        for mask, photo in zip(masks, photos, strict=True)
    ]


def write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write ``(H, W)`` grey, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA, when whole."""
    import PIL.Image

    from sdcorr.files import replacing

    with replacing(path) as temporary:
        PIL.Image.fromarray(pixels).save(temporary, "PNG")


def _short(name: str) -> str:
    """At most 100 bytes, so that two of them make a file name."""
    return name.encode(errors="ignore")[:100].decode(errors="ignore")


def with_encodings(
    recipe: Recipe,
    photos: Sequence[Image],
    work: Callable[[Pipeline, list[Encoding]], Result],
    *,
    device: str,
    dtype: str,
    batch: int,
    store: DiskStore | None,
) -> Result:
    """Load, encode the photos, and do the work, with progress on a terminal."""
    from sdcorr.recipes import load

    hide_downloads_off_terminal()
    encodings = []
    with Progress(steps=len(photos) + 2) as progress:
        with progress.step(f"loading {recipe.name}"):
            model = load(recipe, device=device, dtype=dtype, batch=batch, cache=store)
        for photo in photos:
            with progress.step(f"encoding {photo.path.name if photo.path else 'photo'}"):
                encodings.append(model.encode(photo))
        with progress.step("computing"):
            return work(model, encodings)
