"""``sdcorr calibrate``: a recipe whose matches have a confidence, from a benchmark run of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import debug, plugins_option

if TYPE_CHECKING:
    from sdcorr.calibration import Evidence, Quality
    from sdcorr.pairs import Threshold

FEW = 50  # right matches, or wrong ones: fewer hardly tell where to draw a line


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The recipe to write, JSON."
)
@click.option(
    "--alpha", type=float, default=0.1, show_default=True,
    help="A match counts as right whose error is at most this share of the side.",
)  # fmt: skip
@click.option(
    "--threshold",
    type=click.Choice(["box", "keypoints", "image"]),
    help="Side of the target's box, of the box around its keypoints, or of the image; the data "
    "set's own if not given.",
)
@plugins_option
@debug
def calibrate(
    run: Path, out: Path, alpha: float, threshold: Threshold | None, allow_plugins: bool
) -> None:
    """Fit the confidence of matches to RUN, a folder that `sdcorr eval` wrote.

    Writes the run's recipe with the calibration in it; --recipe takes that file. Parts that the
    target lacks count as wrong, so that a run with such parts also teaches "no match".

    \b
    Examples:
      sdcorr calibrate runs/sd-dino --out sd-dino-calibrated.json
      sdcorr match a.jpg b.jpg --recipe sd-dino-calibrated.json --min-confidence 0.5
    """
    from dataclasses import replace

    from sdcorr.calibration import calibrate as fit
    from sdcorr.calibration import judge, read_evidence
    from sdcorr.files import check_output, write_json
    from sdcorr.recipe import read_recipe
    from sdcorr.runs import RunFolder

    folder = RunFolder(run)
    check_output(out, (folder.about, folder.manifest, folder.records))
    about, _ = folder.read_keypoints()
    recipe = read_recipe(about["recipe"], allow_plugins)
    side = threshold or about["dataset"]["threshold"]
    evidence = read_evidence(folder.manifest, folder.records)
    found = fit(evidence, alpha, side)
    words = f"{about['dataset']['name']}, {len(evidence.error)} matches"
    recipe = replace(recipe, calibration=replace(found, fitted=words, recipe=recipe.digest))
    own = judge(evidence, found(evidence.values), alpha, side)
    click.echo(f"right is an error of at most {alpha:g} of the {side} side")
    _print(own, "judged on what it was fitted on")
    right = int(evidence.right(alpha, side).sum())
    if (scarce := min(right, own.matches - right)) < FEW:
        click.echo(f"few to learn from: only {scarce} of the rarer kind, right or wrong")
    _judge_on_others(evidence, alpha, side)
    write_json(out, recipe.describe())
    click.echo(f"wrote {out}")


def _judge_on_others(evidence: Evidence, alpha: float, side: Threshold) -> None:
    """On every second object, by what the others teach, and the other way round."""
    from sdcorr.calibration import crossfit, judge
    from sdcorr.errors import BadScore

    if len(evidence.objects) == 1:
        click.echo(f"not judged on other objects: all matches are of {evidence.objects[0]}")
        return
    try:
        crossed = crossfit(evidence, evidence.index % 2, alpha, side)
    except BadScore as error:
        click.echo(f"not judged on objects not fitted on: {error}")
        return
    _print(judge(evidence, crossed, alpha, side), "judged on the objects not fitted on")


def _print(quality: Quality, how: str) -> None:
    import math

    click.echo(f"{how} ({quality.matches} matches, {quality.accuracy:.1%} right):")
    click.echo(f"  right in the more confident half   {quality.half:.1%}")
    click.echo(f"  ROC AUC, right against wrong       {quality.auc:.3f}")
    if not math.isnan(quality.no_match_auc):
        click.echo(f"  ROC AUC, part there or not         {quality.no_match_auc:.3f}")
    click.echo(f"  area under risk-coverage           {quality.aurc:.3f}")
    click.echo(f"  expected calibration error         {quality.error:.3f}")
