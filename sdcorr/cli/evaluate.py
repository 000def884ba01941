"""``sdcorr eval``: predict the keypoints of annotated pairs, and score them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcorr.cli._options import (
    bytes_of,
    cache_options,
    debug,
    hide_downloads_off_terminal,
    processes_option,
    recipe_options,
    runtime_options,
)
from sdcorr.cli._tables import print_errors, print_scores
from sdcorr.cli._watch import LINE_EVERY, is_terminal, name_of, say_start

if TYPE_CHECKING:
    from sdcorr.cache import DiskStore
    from sdcorr.encodings import Tally
    from sdcorr.pairs import Dataset
    from sdcorr.processes import World
    from sdcorr.recipe import Recipe


@click.command("eval")
@click.argument("dataset")
@click.option(
    "--root", type=click.Path(path_type=Path), required=True, help="Folder of the data set."
)
@recipe_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run; an unfinished run made in the same way is resumed.",
)
@click.option("--split", help="Part of the data set: test (the default), val or trn.")
@click.option("--layout", help="Of SPair-71k: large (the default) or small.")
@click.option(
    "--protocol",
    help="Of AP-10K: intra-species (the default), cross-species or cross-family.",
)
@click.option(
    "--crowd",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Of AP-10K: ids of images with several animals, one a line, to be left out.",
)
@click.option("--only", multiple=True, metavar="CATEGORY", help="One category; may be repeated.")
@click.option(
    "--limit-per-category",
    "limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most N pairs of each category, drawn by --seed.",
)
@click.option("--seed", type=int, help="Of that draw; 0 if not given.")
@click.option(
    "--symmetric",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Keypoints that left and right exchange, JSON: {"cat": [["0", "1"]]}. With --flip; report '
    "such numbers apart.",
)
@click.option("--no-category", is_flag=True, help="Do not tell the model the annotated category.")
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out pairs whose photos cannot be read; every table says how many.",
)
@click.option(
    "--cache-memory",
    "memory",
    default="2GB",
    show_default=True,
    callback=bytes_of,
    help="Encodings kept in each process, on its device.",
)
@cache_options
@processes_option
@runtime_options
@debug
def evaluate(
    dataset: str, root: Path, recipe: Recipe, out: Path, split: str | None,
    layout: str | None, protocol: str | None, crowd: Path | None, only: tuple[str, ...],
    limit: int | None, seed: int | None, symmetric: Path | None, no_category: bool, skip_bad: bool,
    memory: int, store: DiskStore | None, processes: int | None, device: str, dtype: str,
    batch: int,
) -> None:  # fmt: skip
    """Predict the keypoints of DATASET (spair, pf-pascal, pf-willow, ap10k), then score them.

    Of tss, it predicts the flow of every pixel of the object.

    A run that was stopped, at whatever moment, is resumed by the same command. Several processes,
    on one host or many that share the folder, split the pairs.

    \b
    Examples:
      sdcorr eval spair --root data/SPair-71k --recipe sd-dino --out runs/sd-dino
      sdcorr eval pf-willow --root data/PF-WILLOW --recipe sift --out runs/willow-sift
      torchrun --nproc_per_node 8 -m sdcorr eval spair --root data/SPair-71k --out runs/sd-dino
    """
    from sdcorr.benchmark import Benchmark, run_benchmark
    from sdcorr.pairs import Selection
    from sdcorr.processes import find_world
    from sdcorr.recipes import runtime_for
    from sdcorr.symmetry import read_symmetric

    only = tuple(sorted(set(only)))
    if seed is not None and limit is None:
        raise click.UsageError("--seed draws pairs for --limit-per-category; give both or none")
    if no_category and not recipe.uses_category:
        raise click.UsageError(
            f"recipe {recipe.name} never asks for the category; leave --no-category out"
        )
    if no_category:
        recipe.check_category(None)
    if symmetric is not None and not recipe.flip:
        raise click.UsageError("--symmetric reads the mirrored photo; add --flip")
    annotated = _dataset(dataset, root, split=split, layout=layout, protocol=protocol, crowd=crowd)
    world = find_world(processes)
    with world.named():
        runtime = runtime_for(recipe, world.device(device), dtype, batch)
        benchmark = Benchmark(
            annotated, recipe, runtime, out, Selection(only, limit, seed or 0),
            told=not no_category, skip_bad=skip_bad, memory=memory, store=store,
            symmetric=None if symmetric is None else read_symmetric(symmetric),
        )  # fmt: skip
        hide_downloads_off_terminal()
        say_start(world, runtime.describe())
        try:
            with _Watch(world) as watch:
                finished = run_benchmark(benchmark, world, watch)
        except KeyboardInterrupt:
            if world.rank == 0:
                click.echo("interrupted; the same command resumes the run", err=True)
            raise
        if finished:
            _print(out, annotated)


def _print(out: Path, dataset: Dataset) -> None:
    """The scores of the finished run by the data set's usual rule."""
    from sdcorr.flow_records import FlowRecords
    from sdcorr.hits import Rule
    from sdcorr.runs import RunFolder
    from sdcorr.scores import mean_errors, score

    about, records = RunFolder(out).read()
    print_scores(out, about, records, score(records, Rule(dataset.alphas, dataset.threshold)))
    if isinstance(records, FlowRecords):
        print_errors(mean_errors(records))


def _dataset(name: str, root: Path, **parts: str | Path | None) -> Dataset:
    import dataclasses

    from sdcorr import plugins
    from sdcorr.errors import UnknownName

    known = [one.replace("_", "-") for one in plugins.names("datasets")]
    if name not in known:
        raise UnknownName("data set", name, known)
    kind: Any = plugins.find("datasets", name.replace("-", "_"))
    fields = {field.name for field in dataclasses.fields(kind)}
    given = {part: value for part, value in parts.items() if value is not None}
    if surplus := sorted(given.keys() - fields):
        raise click.UsageError(f"{name} has no --{surplus[0]}; leave it out")
    dataset: Dataset = kind(root, **given)
    return dataset


class _Watch:
    """Says how far the run has come: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, world: World) -> None:
        from tqdm import tqdm

        self._leads = world.rank == 0
        self._name = name_of(world)
        terminal = is_terminal()
        self._bar = tqdm(disable=not (terminal and self._leads), leave=False, bar_format=_BAR)
        self._lines = not terminal
        self._last = time.monotonic()
        self._begun = False

    def __call__(self, tally: Tally) -> None:
        if not self._begun:
            self._begun = True
            self._say_before(tally.before)
        self._bar.total = tally.pairs
        self._bar.set_description_str(
            f"{self._name}{_speed(tally)}, {tally.encoded}/{tally.images} images", refresh=False
        )
        self._bar.update(tally.done - self._bar.n)
        now = time.monotonic()
        if self._lines and now - self._last >= LINE_EVERY:
            self._last = now
            click.echo(
                f"{self._name}{tally.done} of {tally.pairs} pairs, {tally.encoded} of "
                f"{tally.images} images; {_speed(tally)}",
                err=True,
            )

    def _say_before(self, pairs: int) -> None:
        if pairs and self._leads:
            click.echo(f"{pairs} pairs were predicted before", err=True)

    def __enter__(self) -> Callable[[Tally], None]:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()


def _speed(tally: Tally) -> str:
    """Time left, and images and pairs per second of the time that each of the two took."""
    parts = []
    left = tally.seconds_left()
    if left is not None:
        minutes, seconds = divmod(round(left), 60)
        parts.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left")
    if tally.encoding:
        parts.append(f"encoding {tally.encoded / tally.encoding:.3g}/s")
    if tally.matching:
        parts.append(f"matching {tally.done / tally.matching:.3g}/s")
    return ", ".join(parts)


_BAR = "{n_fmt}/{total_fmt} pairs {bar:10} {desc}"
