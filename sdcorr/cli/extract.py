"""``sdcorr extract``: descriptors of many photos, a file each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import (
    debug,
    hide_downloads_off_terminal,
    processes_option,
    recipe_options,
    runtime_options,
)
from sdcorr.cli._watch import PhotoWatch, in_one_line, name_of, say_start

if TYPE_CHECKING:
    from sdcorr.extraction import Extraction, Part
    from sdcorr.processes import World
    from sdcorr.recipe import Recipe


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@recipe_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the files; photos that have theirs, made in the same way, are passed over.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="A folder above all photos, below which --out names them; else the folder given, or the "
    "lowest above all.",
)
@click.option(
    "--category", metavar="TEXT", help="What the photos show, for recipes with a text prompt."
)
@processes_option
@runtime_options
@debug
def extract(
    photos: tuple[Path, ...], recipe: Recipe, out: Path, root: Path | None,
    category: str | None, processes: int | None, device: str, dtype: str, batch: int,
) -> None:  # fmt: skip
    """Write the descriptors of PHOTOS: folders, globs, .txt lists (a photo a line), or photos.

    Of a/b.jpg below the root, OUT/a/b.jpg.safetensors holds the recipe's raw maps as float32
    tensors (C, h, w) named group/layer, with --flip also mirrored/group/layer; and as JSON in the
    metadata, under "sdcorr", where the cells lie on the photo and how all was made. In Python,
    sdcorr.read_features opens it. Photos that cannot be read are told and skipped. The same
    command goes on with an extraction that was stopped, at whatever moment.

    \b
    Examples:
      sdcorr extract photos --recipe dinov2-b --out features
      sdcorr extract cat.jpg 'dogs/*.jpg' more.txt --root . --recipe sift --out features
      torchrun --nproc_per_node 8 -m sdcorr extract photos --recipe dinov2-b --out features
    """
    from sdcorr.extraction import Extraction, plan
    from sdcorr.processes import find_world
    from sdcorr.recipes import runtime_for

    recipe.check_category(category)
    world = find_world(processes)
    with world.named():
        runtime = runtime_for(recipe, world.device(device), dtype, batch)
        job = Extraction(photos, out, recipe, runtime, root, category)
        hide_downloads_off_terminal()
        part = plan(job, world)
        say_start(world, runtime.describe())
        try:
            _extract(job, part, world)
        except KeyboardInterrupt:
            if world.rank == 0:
                click.echo("interrupted; the same command goes on", err=True)
            raise


def _extract(job: Extraction, part: Part, world: World) -> None:
    from sdcorr.errors import BadImage
    from sdcorr.extraction import extract

    done = skipped = 0
    written = ""
    with PhotoWatch(world, len(part.names)) as watch:
        for name, problem in extract(job, part):
            if problem is None:
                done += 1
                written = name
            else:
                skipped += 1
                watch.say(f"skipped {name}: {problem}")
            watch(done, skipped)
    if skipped and not done and not part.before and world.size == 1:
        raise BadImage(f"no photo could be read; skipped: {skipped}")
    there = f"{part.before} were there before, " if world.rank == 0 else ""
    click.echo(
        f"{name_of(world)}wrote {done} file{'s' * (done != 1)} to {in_one_line(str(job.out))} "
        f"({there}{skipped} skipped)"
    )
    if written and world.rank == 0:
        click.echo(f"to open one in Python: sdcorr.read_features({str(job.path(written))!r})")
