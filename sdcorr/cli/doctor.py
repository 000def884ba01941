"""``sdcorr doctor``: what this machine has, and what would be used."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator

import click

from sdcorr.cli._options import debug


@click.command()
@debug
def doctor() -> None:
    """Versions, devices, precision, weights that are here, free disk, and known troubles.

    \b
    Example:
      sdcorr doctor
    """
    from sdcorr.runtime import available_devices, library_versions, resolve_runtime

    click.echo(f"python {platform.python_version()} on {platform.platform()}")
    for name, number in library_versions().items():
        click.echo(f"{name} {number}")
    runtime = resolve_runtime()
    click.echo(f"devices: {', '.join(available_devices())}")
    click.echo(f"auto picks: {runtime.device} ({runtime.describe()['device_name']})")
    click.echo(f"            {runtime.dtype_name}")
    for line in _weights():
        click.echo(line)
    troubles = list(_troubles())
    for trouble in troubles:
        click.echo(f"trouble: {trouble}")
    if not troubles:
        click.echo("no trouble found")


def _weights() -> Iterator[str]:
    from sdcorr.models import cache_folder, find_downloaded, size_of
    from sdcorr.recipes import RECIPES

    folder = cache_folder()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    yield f"weights folder: {folder}, {shutil.disk_usage(there).free / 1e9:.0f} GB free"
    needed = {weights for recipe in RECIPES.values() for weights in recipe.weights.values()}
    for weights in sorted(needed, key=lambda one: (one.model, one.required)):
        here = "here" if find_downloaded(weights) else "not here"
        yield f"  {weights.model}, {size_of(weights)}: {here}"


def _troubles() -> Iterator[str]:
    from sdcorr.backbones.sift import Sift
    from sdcorr.errors import SdcorrError
    from sdcorr.runtime import Runtime

    try:
        Sift().build(Runtime())
    except SdcorrError as error:
        yield str(error)
    yield from _torchvision()


def _torchvision() -> Iterator[str]:
    """A torchvision made for another torch breaks transformers with a misleading message."""
    import importlib.util

    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # it fails in many ways; any of them is the trouble
        yield (
            f"torchvision is installed and does not load ({type(error).__name__}: {error}), which "
            "breaks transformers; sdcorr does not need it: pip uninstall torchvision"
        )
