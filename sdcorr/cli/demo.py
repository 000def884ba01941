"""``sdcorr demo``: a page to click in two photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import (
    bytes_of,
    cache_options,
    debug,
    hide_downloads_off_terminal,
    recipe_options,
    runtime_options,
)
from sdcorr.cli._pictures import category_option

if TYPE_CHECKING:
    from sdcorr.cache import DiskStore
    from sdcorr.recipe import Recipe

LEAST = 10**9  # bytes, of two large photos and what is made of them


@click.command()
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path), metavar="[SOURCE TARGET]")
@recipe_options
@category_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Of the page, on 127.0.0.1; 0 takes a free one.",
)
@click.option("--open", "browse", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--memory",
    default="2GB",
    show_default=True,
    callback=bytes_of,
    metavar="SIZE",
    help="For photos, their encodings and joined pairs; what was least recently used goes first.",
)
@cache_options
@runtime_options
@debug
def demo(
    photos: tuple[Path, ...], recipe: Recipe, category: str | None, port: int, browse: bool,
    memory: int, store: DiskStore | None, device: str, dtype: str, batch: int,
) -> None:  # fmt: skip
    """Click in one photo, see the match in the other, on a page of this machine.

    The page is at http://127.0.0.1:8765, for this machine alone, and loads nothing from elsewhere.
    Photos are chosen there, or given: both or none. Needs pip install "sdcorr[demo]".

    \b
    Examples:
      sdcorr demo
      sdcorr demo cat.jpg dog.jpg --category cat
      sdcorr demo a.jpg b.jpg --recipe sift-hough --open
    """
    from sdcorr.preprocess import load_image

    if len(photos) not in (0, 2):
        raise click.UsageError(f"expected two photos or none, got {len(photos)}")
    if memory < LEAST:
        raise click.BadParameter(
            f"expected at least 1GB, got {memory} bytes", param_hint="--memory"
        )
    if category is not None or photos:
        recipe.check_category(category)
    _check_libraries()
    images = [load_image(photo) for photo in photos]

    import webbrowser

    from sdcorr.demo._photos import make_photo
    from sdcorr.demo._studio import Studio
    from sdcorr.demo.app import listen, make_app, serve
    from sdcorr.pipeline import find_weights
    from sdcorr.recipes import RECIPES, load, runtime_for

    hide_downloads_off_terminal()
    runtime_for(recipe, device, dtype, batch)  # a mistake in it is told now
    place = listen(port)
    find_weights(recipe)
    studio = Studio(
        {recipe.name: recipe} | {name: one for name, one in RECIPES.items() if name != recipe.name},
        lambda one: load(one, device=device, dtype=dtype, batch=batch, cache=store),
        memory,
    )
    shown = [
        studio.add(make_photo(image, photo.name))
        for image, photo in zip(images, photos, strict=True)
    ]
    address = f"http://127.0.0.1:{place.getsockname()[1]}"
    click.echo(f"open {address} (Ctrl-C ends)")
    if browse:
        webbrowser.open(address)
    serve(make_app(studio, recipe.name, shown, category), place)


def _check_libraries() -> None:
    from importlib.util import find_spec

    from sdcorr.errors import MissingLibrary

    if missing := [
        name for name in ("starlette", "uvicorn", "python_multipart") if not find_spec(name)
    ]:
        raise MissingLibrary(
            f"the demo needs {', '.join(missing)}, which is not installed: pip install "
            "'sdcorr[demo]' (in a clone: pip install -c constraints.txt -e '.[demo]')"
        )
