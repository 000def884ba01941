"""The command ``sdcorr``. Each module adds one command; here they are collected."""

from __future__ import annotations

import sys
import traceback
import warnings

import click

from sdcorr import __version__
from sdcorr.cli._watch import in_one_line
from sdcorr.cli.calibrate import calibrate
from sdcorr.cli.data import data
from sdcorr.cli.demo import demo
from sdcorr.cli.doctor import doctor
from sdcorr.cli.evaluate import evaluate
from sdcorr.cli.extract import extract
from sdcorr.cli.flow import flow
from sdcorr.cli.heatmap import heatmap
from sdcorr.cli.match import match
from sdcorr.cli.models import models
from sdcorr.cli.parts import parts
from sdcorr.cli.pca import pca
from sdcorr.cli.recipes import recipes
from sdcorr.cli.report import report
from sdcorr.cli.score import score
from sdcorr.cli.swap import swap
from sdcorr.cli.transfer import transfer
from sdcorr.errors import SdcorrError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sdcorr")
def cli() -> None:
    """Zero-shot semantic correspondence: where is this point of one photo in another?

    \b
    Example:
      sdcorr match cat.jpg dog.jpg --category cat
      sdcorr match a.jpg b.jpg --recipe sift       (no weights needed)
      sdcorr demo cat.jpg dog.jpg                  (a page to click in)
      sdcorr eval spair --root data/SPair-71k --out runs/sd-dino
    """


for command in (
    match,
    heatmap,
    flow,
    swap,
    pca,
    parts,
    demo,
    transfer,
    extract,
    evaluate,
    score,
    report,
    calibrate,
    data,
    recipes,
    models,
    doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line: exit status 0, 2 for a user's mistake, 1 for anything else."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    warnings.filterwarnings("ignore", module=r"PIL\b")  # of odd metadata, also in threads
    try:
        cli.main(arguments, prog_name="sdcorr", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except click.Abort:
        return 130
    except Exception as error:  # the last stop: the user gets one line, --debug the whole story
        if "--debug" in arguments:
            traceback.print_exc()
        known = isinstance(error, SdcorrError)
        story = "" if known or "--debug" in arguments else " (--debug shows where)"
        kind = "" if known else f"{type(error).__name__}: "
        click.echo(f"sdcorr: {kind}{in_one_line(str(error))}{story}", err=True)
        return error.exit_status if isinstance(error, SdcorrError) else 1
    return 0
