"""``sdcorr data``: draw a data set, or fetch one."""

from __future__ import annotations

import click

from sdcorr.cli._download import download
from sdcorr.cli._synth import synth


@click.group()
def data() -> None:
    """Draw a data set with exact keypoints, or fetch a published one.

    \b
    Examples:
      sdcorr data synth --out data/synthetic --seed 0 --pairs 200
      sdcorr data download pf-willow --out data
    """


data.add_command(synth)
data.add_command(download)
