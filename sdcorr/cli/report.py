"""``sdcorr report``: runs in tables, charts and pictures, on one page."""

from __future__ import annotations

from pathlib import Path

import click

from sdcorr.cli._alphas import AlphasCommand, bootstrap_option, rule_options
from sdcorr.cli._options import debug

MOST_PAIRS = 30


@click.command(cls=AlphasCommand)
@click.argument("runs", metavar="RUN...", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Page to write, .html; its Markdown gets the same name with .md.",
)
@rule_options
@click.option(
    "--root",
    "roots",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FOLDER",
    help="Where the photos are now, if the data set was moved; may be repeated.",
)
@click.option(
    "--pairs",
    type=click.IntRange(0, MOST_PAIRS),
    default=6,
    show_default=True,
    metavar="N",
    help="Pictures of so many best, worst and most unlike pairs each; 0 gives none.",
)
@bootstrap_option
@debug
def report(
    runs: tuple[Path, ...], out: Path, alphas: tuple[float, ...], threshold: str | None,
    strict: bool, roots: tuple[Path, ...], pairs: int, replicates: int,
) -> None:  # fmt: skip
    """Write a page on RUNs, folders that `sdcorr eval` wrote: tables, charts, pictures of pairs.

    Each run is compared with the first one that has pairs in common with it. The page is one file
    that needs no network. Photos on it are small copies, of 20 kB at most.

    \b
    Examples:
      sdcorr report runs/sd-dino --out report.html
      sdcorr report runs/sd-dino runs/dinov2-b --out report.html --alpha 0.1 0.05
    """
    from sdcorr.report import Options, check_report, gather, write_report

    check_report(out, runs)
    found = gather(runs, Options(alphas, threshold, strict, roots, pairs, replicates))
    text = write_report(out, found)
    click.echo(f"wrote {out}, {text}")
