"""``sdcorr recipes``: what can be computed, and what exactly it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from sdcorr.cli._options import debug, plugins_option

if TYPE_CHECKING:
    from sdcorr.recipe import Recipe


@click.group()
def recipes() -> None:
    """List the recipes, or show one in full.

    \b
    Example:
      sdcorr recipes list
      sdcorr recipes show sd-dino
    """


@recipes.command("list")
@debug
def list_recipes() -> None:
    """One line per recipe.

    \b
    Example:
      sdcorr recipes list
    """
    from sdcorr.recipes import DEFAULT, RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        click.echo(f"{name:{width}}  {recipe.about}{' (default)' if name == DEFAULT else ''}")


@recipes.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Every field, as results record them.")
@plugins_option
@debug
def show(name: str, as_json: bool, allow_plugins: bool) -> None:
    """Paper, weights, deviations and every setting of recipe NAME, or of the JSON of one.

    \b
    Examples:
      sdcorr recipes show sd-dino
      sdcorr recipes show sd-dino --json > mine.json    # edit it, then: --recipe ./mine.json
      sdcorr recipes show ./mine.json
    """
    from sdcorr.recipes import find_recipe

    recipe = find_recipe(name, allow_plugins)
    if as_json:
        click.echo(json.dumps(recipe.describe(), indent=2))
        return
    for line in _in_words(recipe):
        click.echo(line)


def _in_words(recipe: Recipe) -> Iterator[str]:
    from sdcorr.models import licence_of, size_of
    from sdcorr.recipes import RECIPES

    yield f"{recipe.name}: {recipe.about}"
    if recipe != RECIPES.get(recipe.name, recipe):
        yield "  note    not the recipe of this name that sdcorr lists: what follows is the file's"
    yield f"  source  {recipe.paper}"
    if recipe.memory:
        yield f"  memory  {recipe.memory}"
    yield from (f"  differs {deviation}" for deviation in recipe.deviations)
    for key, weights in recipe.weights.items():
        yield f"  weights {key}: {weights.model}, {licence_of(weights)}, {size_of(weights)}"
    described: dict[str, Any] = recipe.describe()
    for group in described["groups"]:
        config, unit = group["backbone"], "" if group["unit"] else ", raw"
        yield f"  {group['name']} ({config.pop('kind')}), weight {group['weight']:g}{unit}"
        yield from (f"    {field} = {json.dumps(value)}" for field, value in config.items())
        for use in group["maps"]:
            context = ", log-binned context" if use["context"] else ""
            context += ", standardised" if use["standardize"] else ""
            reduced = f", PCA to {use['pca']}" if use["pca"] else ""
            steps = "".join(f", x{factor}" for factor in use["upsample"])
            yield f"    uses {use['name']}{context}{reduced}{steps}"
    if limits := described["foreground"]:
        yield f"  matches where {limits['map']} > {limits['above']:g}"
    if described["by_confidence"]:
        yield "  groups  weighted at each point by how peaked their similarity is"
    if described["flip"]:
        yield "  flip    similarities averaged with those of the mirrored source photo"
    if described["calibration"] and recipe.own_calibration is None:
        yield "  confidence none: the calibration was fitted to another recipe"
    elif calibration := described["calibration"]:
        right = f"error <= {calibration['alpha']:g} of the {calibration['threshold']} side"
        yield f"  confidence of {right}, fitted on {calibration['fitted']}"
    else:
        yield "  confidence uncalibrated"
    matcher = described["matcher"]
    fields = ", ".join(f"{key}={value}" for key, value in matcher.items() if key != "kind")
    yield f"  matcher {matcher['kind']}{': ' if fields else ''}{fields}"
