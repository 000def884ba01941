"""What the commands that draw a picture share: its name, photos, and progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sdcorr.cli._options import Progress, hide_downloads_off_terminal

if TYPE_CHECKING:
    from sdcorr.cache import DiskStore
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Encoding, Image

Result = TypeVar("Result")

category_option = click.option(
    "--category", metavar="TEXT", help="What the photos show, for recipes with a text prompt."
)


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
        names = [short(photo.stem) for photo in photos[:2]]
        more = [f"and-{len(photos) - 2}-more"] if len(photos) > 2 else []
        out = Path("-".join([str(command), *names, *more]) + ".png")
    check_output(out, (*photos, *inputs), PICTURES)
    import sdcorr.viz  # noqa: F401 - a matplotlib that does not load shows now

    return out


def short(name: str) -> str:
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
        with progress.step("drawing"):
            return work(model, encodings)
