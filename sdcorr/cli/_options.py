"""Options that several commands share, and progress on a terminal."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from sdcorr.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])

debug = click.option(
    "--debug", is_flag=True, expose_value=False, help="Show a traceback when something fails."
)


def places_of(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """``KEY=PATH`` pairs as a dict."""
    pairs = {}
    for value in values:
        key, equals, place = value.partition("=")
        if not (key and equals and place):
            raise click.BadParameter(f"expected KEY=PATH, got {value!r}")
        if key in pairs:
            raise click.BadParameter(f"{key} is given twice")
        pairs[key] = place
    return pairs


def bytes_of(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """``"2GB"``, ``"500MB"`` or a plain number as bytes, in powers of a thousand."""
    if value is None:
        return None
    text = value.strip().upper().removesuffix("B")
    power = "KMGT".find(text[-1:]) + 1 if text else 0
    try:
        number = float(text[:-1] if power else text) * 1000**power
        if not 0 <= number < 1e18:
            raise ValueError(value)
    except ValueError as error:
        raise click.BadParameter(f"expected a size like 2GB, got {value!r}") from error
    return int(number)


def cache_options(command: Command) -> Command:
    """``--cache-dir`` and ``--cache-limit``, handed on as ``store``, a DiskStore or None."""

    @functools.wraps(command)
    def with_store(*args: Any, cache_dir: Path | None, cache_limit: int | None, **rest: Any) -> Any:
        from sdcorr.cache import LIMIT, DiskStore

        if cache_limit is not None and cache_dir is None:
            raise click.UsageError("--cache-limit bounds --cache-dir; give both or none")
        limit = LIMIT if cache_limit is None else cache_limit
        store = DiskStore(cache_dir, limit) if cache_dir is not None else None
        return command(*args, store=store, **rest)

    folder = click.option(
        "--cache-dir",
        type=click.Path(path_type=Path),
        help="Keep feature maps in this folder for the next time.",
    )
    limit = click.option(
        "--cache-limit", callback=bytes_of, metavar="SIZE",
        help="Of that folder, 20GB if not given; what was least recently used goes first.",
    )  # fmt: skip
    return cast(Command, folder(limit(with_store)))


plugins_option = click.option(
    "--allow-plugins", is_flag=True,
    help="Let a recipe's file name modules outside of sdcorr, which runs their code.",
)  # fmt: skip


processes_option = click.option(
    "--processes", type=click.IntRange(min=1), metavar="N",
    help="Fail unless N processes were started (torchrun --nproc_per_node N -m sdcorr ...).",
)  # fmt: skip


def recipe_options(command: Command) -> Command:
    """``--recipe`` and what changes it, handed on as ``recipe``, a Recipe."""

    @functools.wraps(command)
    def with_flip(*args: Any, recipe: Recipe, flip: bool, **rest: Any) -> Any:
        if flip and not recipe.flip:
            recipe = replace(recipe, name=f"{recipe.name}+flip", flip=True)
        return command(*args, recipe=recipe, **rest)

    flip = click.option(
        "--flip", is_flag=True,
        help="Average the similarities of the source photo and of its mirror image; encodes twice.",
    )  # fmt: skip
    return cast(Command, _recipe_named(flip(_recipe_found(with_flip))))


def maps_options(command: Command) -> Command:
    """``recipe_options`` for commands that compare no pair: flip, also a file's, is left out."""

    @functools.wraps(command)
    def without_flip(*args: Any, recipe: Recipe, **rest: Any) -> Any:
        return command(*args, recipe=replace(recipe, flip=False), **rest)

    return cast(Command, _recipe_named(_recipe_found(without_flip)))


def _recipe_found(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def with_recipe(
        *args: Any, recipe_name: str, places: dict[str, str], allow_plugins: bool, **rest: Any
    ) -> Any:
        from sdcorr.recipes import find_recipe

        recipe = find_recipe(recipe_name, allow_plugins).with_models(places)
        return command(*args, recipe=recipe, **rest)

    return plugins_option(with_recipe)


def _recipe_named(command: Callable[..., Any]) -> Callable[..., Any]:
    name = click.option(
        "--recipe", "recipe_name", default="sd-dino", show_default=True, metavar="NAME",
        help="One of `sdcorr recipes list`, or the path of a recipe's JSON.",
    )  # fmt: skip
    model = click.option(
        "--model", "places", multiple=True, metavar="KEY=PATH", callback=places_of,
        help="Other weights: a folder or hub id; KEY as in `sdcorr models list`, like dinov2.",
    )  # fmt: skip
    named: Callable[..., Any] = name(model(command))
    return named


def mask_options(command: Command) -> Command:
    """``--source-mask`` or ``--source-box``, likewise of the target: as ``masks``, one of each."""

    @functools.wraps(command)
    def with_masks(*args: Any, **rest: Any) -> Any:
        masks = []
        for side in ("source", "target"):
            file, box = rest.pop(f"{side}_mask"), rest.pop(f"{side}_box")
            if file is not None and box is not None:
                raise click.UsageError(f"give --{side}-mask or --{side}-box, not both")
            masks.append(box if file is None else file)
        return command(*args, masks=tuple(masks), **rest)

    wrapped: Any = with_masks
    for side in ("target", "source"):
        wrapped = click.option(
            f"--{side}-box", nargs=4, type=float, metavar="X0 Y0 X1 Y1",
            help=f"Match only what lies in this box of {side.upper()}, in pixels.",
        )(wrapped)  # fmt: skip
        wrapped = click.option(
            f"--{side}-mask", type=click.Path(path_type=Path), metavar="FILE",
            help=f"Match only what is not black in this picture (PNG) of {side.upper()}'s size.",
        )(wrapped)  # fmt: skip
    return cast(Command, wrapped)


def runtime_options(command: Command) -> Command:
    """``--device``, ``--dtype`` and ``--batch``."""
    options = (
        click.option("--device", default="auto", show_default=True, help="cuda, mps, cpu, cuda:1"),
        click.option(
            "--dtype", default="auto", show_default=True, help="float32, bfloat16 or float16"
        ),
        click.option(
            "--batch", default=4, show_default=True, help="Windows or photos in one forward pass."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def hide_downloads_off_terminal() -> None:
    """Switch the hub's own bars off where nobody watches."""
    if not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()


class Progress:
    """A bar over a known number of steps, shown on a terminal once a second has passed."""

    def __init__(self, steps: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=steps, disable=None, leave=False, delay=1, bar_format=_BAR)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step of the work."""
        self._bar.set_description_str(name, refresh=False)
        done = threading.Event()
        clock = threading.Thread(target=self._tick, args=(done,), daemon=True)
        clock.start()
        try:
            yield
        finally:
            done.set()
            clock.join()
        self._bar.update()

    def _tick(self, done: threading.Event) -> None:
        while not done.wait(1.0):
            self._bar.refresh()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()


_BAR = "{desc} {bar:20} {n_fmt}/{total_fmt} [{elapsed}]"
