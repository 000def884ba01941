"""``sdcorr models``: which weights, from where, and whether they are here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import debug, hide_downloads_off_terminal, places_of

if TYPE_CHECKING:
    from sdcorr.recipe import Recipe
    from sdcorr.types import Weights


@click.group()
def models() -> None:
    """List, download or find the weights of the recipes.

    \b
    Example:
      sdcorr models list
      sdcorr models download dinov2-b
    """


@models.command("list")
@debug
def list_models() -> None:
    """Each recipe's weights: id, licence, size, and whether they are on this machine.

    \b
    Example:
      sdcorr models list
    """
    from sdcorr.models import KNOWN, find_downloaded, size_of
    from sdcorr.recipes import RECIPES

    for recipe in RECIPES.values():
        click.echo(f"{recipe.name}{'' if recipe.needs_weights else ': no weights needed'}")
        for key, weights in _weights_of(recipe):
            licence = KNOWN[weights.model].licence if weights.model in KNOWN else "unknown licence"
            here = "here" if find_downloaded(weights) else "not here"
            click.echo(f"  {key}: {weights.model}, {licence}, {size_of(weights.model)}, {here}")


@models.command()
@click.argument("recipe")
@click.option(
    "--model", "places", multiple=True, metavar="KEY=ID", callback=places_of,
    help="Another hub id for a backbone, as for `sdcorr match`.",
)  # fmt: skip
@debug
def download(recipe: str, places: dict[str, str]) -> None:
    """Fetch the weights of RECIPE into the hub's cache; those that are there are kept.

    \b
    Example:
      sdcorr models download sd-dino
    """
    from sdcorr.models import resolve
    from sdcorr.recipes import find_recipe

    hide_downloads_off_terminal()
    chosen = find_recipe(recipe).with_models(places)
    if not chosen.needs_weights:
        click.echo(f"recipe {recipe} needs no weights")
    for key, weights in _weights_of(chosen):
        checkpoint = resolve(weights)
        click.echo(f"{key}: {checkpoint.path} (revision {checkpoint.revision})")


@models.command()
@debug
def where() -> None:
    """The folder that holds downloaded weights, and those of the recipes that are in it.

    Set HF_HOME to move it.

    \b
    Example:
      sdcorr models where
    """
    from sdcorr.models import cache_folder, find_downloaded
    from sdcorr.recipes import RECIPES

    click.echo(f"{cache_folder()}")
    every = {weights for recipe in RECIPES.values() for _, weights in _weights_of(recipe)}
    for weights in sorted(every, key=lambda one: one.model):
        found = find_downloaded(weights)
        click.echo(f"  {weights.model}: {found.path if found else 'not here'}")


def _weights_of(recipe: Recipe) -> Iterator[tuple[str, Weights]]:
    for key, config in recipe.backbones.items():
        weights = config.weights()
        if weights is not None:
            yield key, weights
