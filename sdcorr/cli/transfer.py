"""``sdcorr transfer``: annotate one photo, get a folder annotated."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import (
    cache_options,
    debug,
    hide_downloads_off_terminal,
    processes_option,
    recipe_options,
    runtime_options,
)

if TYPE_CHECKING:
    from sdcorr.cache import DiskStore
    from sdcorr.labelling import Labelling, Progress
    from sdcorr.photos import Photos
    from sdcorr.processes import World
    from sdcorr.recipe import Recipe


@click.command()
@click.argument("references", type=click.Path(path_type=Path))
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="COCO keypoints JSON to write; one that was written in the same way is gone on with.",
)
@click.option("--csv", type=click.Path(path_type=Path), help="The same as a table.")
@click.option(
    "--review",
    type=click.Path(path_type=Path),
    help="HTML page that shows the photos, the least certain first.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder that file_name in REFERENCES is relative to; default: that of REFERENCES.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that file_name in --out is relative to; default: the one folder given, or the "
    "lowest above all photos.",
)
@click.option("--category", metavar="NAME", help="Of REFERENCES, if several are annotated.")
@click.option(
    "--min-confidence",
    type=float,
    metavar="P",
    help="Keypoints less likely right count as not there (v = 0); of calibrated recipes.",
)
@recipe_options
@cache_options
@processes_option
@runtime_options
@debug
def transfer(
    references: Path, photos: tuple[Path, ...], out: Path, csv: Path | None, review: Path | None,
    images: Path | None, root: Path | None, category: str | None, min_confidence: float | None,
    recipe: Recipe, store: DiskStore | None, processes: int | None, device: str, dtype: str,
    batch: int,
) -> None:  # fmt: skip
    """Find the keypoints annotated in REFERENCES on all PHOTOS.

    REFERENCES is COCO keypoints JSON of one or several photos; of several, each votes. PHOTOS are
    folders, globs, .txt lists or single photos. A run that was stopped is resumed by the same
    command, and photos added later are added to OUT by it.

    \b
    Examples:
      sdcorr transfer cat.json photos --out labels.json --review labels.html
      sdcorr transfer labels.json more --images photos --out more.json --min-confidence 0.3
      torchrun --nproc_per_node 8 -m sdcorr transfer cat.json photos --out labels.json
    """
    from sdcorr.cli._watch import say_start
    from sdcorr.coco import read_references
    from sdcorr.labelling import Labelling, label
    from sdcorr.photos import find_photos
    from sdcorr.processes import find_world
    from sdcorr.recipes import runtime_for

    world = find_world(processes)
    with world.named():  # also when something is wrong, or the others would wait
        annotated = read_references(references, images, category)
        found = find_photos(photos, root)
        recipe_file = Path(click.get_current_context().params["recipe_name"])
        inputs = (references, recipe_file, *photos, *(one.photo for one in annotated.objects))
        _check_outputs((out, csv, review), inputs, found)
        runtime = runtime_for(recipe, world.device(device), dtype, batch)
        job = Labelling(annotated, found, recipe, runtime, out, csv, review, min_confidence, store)
        hide_downloads_off_terminal()
        say_start(world, runtime.describe())
        if world.rank == 0:
            _say_scheme(job)
        try:
            with _Watch(world) as watch:
                skipped = label(job, world, watch)
        except KeyboardInterrupt:
            if world.rank == 0:
                click.echo("interrupted; the same command resumes", err=True)
            raise
        if skipped is not None:
            _say_end(job, skipped)


def _check_outputs(
    outputs: tuple[Path | None, ...], inputs: tuple[Path, ...], photos: Photos
) -> None:
    """Refuse files that could not be written, or are to be read."""
    from sdcorr.errors import BadOutput
    from sdcorr.files import check_output

    wanted = [path for path in outputs if path is not None]
    if len({os.path.realpath(path) for path in wanted}) < len(wanted):
        raise click.UsageError("--out, --csv and --review must be different files")
    for path in wanted:
        check_output(path, inputs)
    read = {os.path.realpath(photos.path(name)) for name in photos.names}
    for path in wanted:
        if os.path.realpath(path) in read:
            raise BadOutput(f"cannot write {path}: it is one of the files to be read")


class _Watch(ExitStack):
    """Shows progress, and tells of each photo that is skipped."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world, self._told = world, 0

    def __call__(self, progress: Progress) -> None:
        from sdcorr.cli._watch import PhotoWatch

        if progress.done == 0:
            if progress.before and self._world.rank == 0:
                click.echo(f"{progress.before} photos were labelled before", err=True)
            if progress.gone and self._world.rank == 0:
                click.echo(
                    f"labels dropped, since their photos are gone: {progress.gone}", err=True
                )
            self._show = self.enter_context(PhotoWatch(self._world, progress.photos))
            return
        for name, reason in list(progress.skipped.items())[self._told :]:
            self._show.say(f"skipped {name}: {reason}")
        self._told = len(progress.skipped)
        self._show(progress.done - self._told, self._told)


def _say_scheme(job: Labelling) -> None:
    """What is transferred, and what will not be."""
    from sdcorr.cli._watch import in_one_line

    scheme, objects = job.references.scheme, len(job.references.objects)
    click.echo(
        f"{len(scheme.keypoints)} keypoints of {in_one_line(scheme.name)} from {objects} reference"
        f"{'' if objects == 1 else 's'}",
        err=True,
    )
    if absent := job.references.never_visible:
        names = in_one_line(", ".join(absent))
        click.echo(f"no reference shows {names}: not transferred", err=True)
    if scheme.symmetric and not job.recipe.flip:
        cost = ", which costs the confidence" if job.recipe.own_calibration else ""
        click.echo(
            f"left and right are not exchanged on mirrored photos: add --flip{cost}", err=True
        )


def _say_end(job: Labelling, skipped: dict[str, str]) -> None:
    """What was written, and what was not done."""
    from sdcorr.cli._watch import in_one_line
    from sdcorr.errors import BadImage

    done = len(job.photos.names) - len(skipped)
    for path in (job.out, job.csv, job.review):
        if path is not None:
            click.echo(f"wrote {in_one_line(str(path))}")
    summary = f"labelled {done} of {len(job.photos.names)} photos"
    if job.recipe.own_calibration is None:
        summary += f"; without confidence: recipe {job.recipe.name} is not calibrated"
    click.echo(summary)
    if not done:
        name, reason = next(iter(skipped.items()))
        raise BadImage(f"no photo could be labelled; first {name}: {reason}")
