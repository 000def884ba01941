"""``sdcorr data download``: fetch a published data set."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import click

from sdcorr.cli._options import debug
from sdcorr.cli._watch import LINE_EVERY, in_one_line, is_terminal


@click.command()
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder in which the data set's folder is made, beside what was fetched.",
)
@click.option(
    "--url",
    metavar="ADDRESS",
    help="Fetch the archive from there; with / at its end, a folder of all files by their names.",
)
@debug
def download(name: str, out: Path, url: str | None) -> None:
    """Fetch the data set NAME (spair, pf-pascal, pf-willow, tss, ap10k) and unpack it.

    Licence and size are told first. The same command goes on with a download that was stopped. A
    file that lies in --out under its own name, put there by hand, is used and not fetched. What
    was fetched stays there, with its SHA-256; later files are compared with it.

    \b
    Examples:
      sdcorr data download pf-willow
      sdcorr data download spair --out ~/data
      sdcorr data download spair --url https://mirror.example.org/SPair-71k.tar.gz
    """
    from sdcorr.downloads import download, find_source, is_there

    source = find_source(name)
    source = source if url is None else source.at(url)
    root = source.root(out)
    if is_there(source, out):
        click.echo(f"{in_one_line(str(root))} is there; nothing was fetched")
    else:
        click.echo(f"{source.title}\nlicence: {source.licence}\nsize: {source.size}")
        for file in source.files:
            there = out / file.name
            told = f"is here: {there}" if there.exists() else f"from: {file.url}"
            click.echo(in_one_line(told))
        click.echo(f"to: {in_one_line(str(root))}")
        try:
            with _Bytes() as watch:
                download(source, out, watch)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on", err=True)
            raise
        names = ", ".join(file.name for file in source.files)
        spare = " and ".join(names.rsplit(", ", 1))
        click.echo(f"wrote {in_one_line(str(root))}; {spare} may be deleted")
    place = shlex.quote(in_one_line(str(root)))
    click.echo(f"to measure: sdcorr eval {name} --root {place} --recipe sift --out runs/{name}")


class _Bytes:
    """A bar for each step on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._terminal = is_terminal()
        self._bar = tqdm(disable=True)
        self._what = ""
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if what != self._what:
            self._what = what
            self._bar.close()
            self._bar = tqdm(
                desc=what, total=total, initial=done, unit="B", unit_scale=True, leave=False,
                disable=not self._terminal,
            )  # fmt: skip
        self._bar.update(done - self._bar.n)
        if not self._terminal and time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            of = f" of {total / 1e6:.1f}" if total is not None else ""
            click.echo(f"{what}: {done / 1e6:.1f}{of} MB", err=True)

    def say(self, line: str) -> None:
        """A line on standard error, above the bar."""
        from tqdm import tqdm

        tqdm.write(in_one_line(line), file=sys.stderr)

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()
