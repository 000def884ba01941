"""``sdcorr models``: which weights, from where, and whether they are here."""

from __future__ import annotations

import click

from sdcorr.cli._options import (
    debug,
    hide_downloads_off_terminal,
    places_of,
    plugins_option,
)


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
    from sdcorr.models import find_downloaded, licence_of, size_of
    from sdcorr.recipes import RECIPES

    for recipe in RECIPES.values():
        click.echo(f"{recipe.name}{'' if recipe.weights else ': no weights needed'}")
        for key, weights in recipe.weights.items():
            here = "here" if find_downloaded(weights) else "not here"
            about = f"{licence_of(weights)}, {size_of(weights)}, {here}"
            click.echo(f"  {key}: {weights.model}, {about}")


@models.command()
@click.argument("recipe")
@click.option(
    "--model", "places", multiple=True, metavar="KEY=ID", callback=places_of,
    help="Another hub id for a backbone, as for `sdcorr match`.",
)  # fmt: skip
@plugins_option
@debug
def download(recipe: str, places: dict[str, str], allow_plugins: bool) -> None:
    """Fetch the weights of RECIPE into the hub's cache; those that are there are kept.

    RECIPE is a name, or the path of a recipe's JSON.

    \b
    Example:
      sdcorr models download sd-dino
    """
    from sdcorr.models import resolve
    from sdcorr.recipes import find_recipe

    hide_downloads_off_terminal()
    chosen = find_recipe(recipe, allow_plugins).with_models(places)
    if not chosen.weights:
        click.echo(f"recipe {recipe} needs no weights")
    for key, weights in chosen.weights.items():
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
    every = [weights for recipe in RECIPES.values() for weights in recipe.weights.values()]
    found = {one.model: one.path for one in map(find_downloaded, every) if one}
    for model in sorted({weights.model for weights in every}):
        click.echo(f"  {model}: {found.get(model, 'not here')}")
