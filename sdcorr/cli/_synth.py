"""``sdcorr data synth``: draw a data set."""

from __future__ import annotations

import time
from pathlib import Path

import click

from sdcorr.cli._options import debug
from sdcorr.cli._watch import LINE_EVERY, in_one_line, is_terminal


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="A new folder; it appears when all is written.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Another one draws other figures.",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    metavar="N",
    help="Pairs of the test split; val and trn get a quarter each, and flow a tenth, at least 3.",
)
@debug
def synth(out: Path, seed: int, pairs: int) -> None:
    """Draw figures with exact keypoints and flow, in the layouts of SPair-71k and TSS.

    Birds, boats, cars, chairs, dolls, fish, planes and quadrupeds; nothing is downloaded, and the
    same seed draws the same set.

    \b
    Examples:
      sdcorr data synth --out data/synthetic
      sdcorr data synth --out data/synthetic-1 --seed 1 --pairs 1000
    """
    from sdcorr.synthetic import write_synthetic

    try:
        with _Bar() as bar:
            written = write_synthetic(out, seed, pairs, bar)
    except KeyboardInterrupt:
        click.echo("interrupted; nothing was written", err=True)
        raise
    click.echo(
        f"drew {written.photos} photos for {_several(written.pairs, 'test pair')} of "
        f"{_several(written.categories, 'category', 'categories')}, and {2 * written.flow_pairs} "
        f"for {_several(written.flow_pairs, 'pair')} with flow"
    )
    click.echo(f"wrote {in_one_line(str(out))}")


def _several(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


class _Bar:
    """A bar over pictures on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._terminal = is_terminal()
        self._bar = tqdm(disable=not self._terminal, leave=False, bar_format=_FORMAT)
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if not self._terminal and time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            click.echo(f"{done} of {total} pictures drawn", err=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()


_FORMAT = "drawing {bar:20} {n_fmt}/{total_fmt} [{elapsed}]"
