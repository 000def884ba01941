"""``sdcorr recipes``: what can be computed, and what exactly it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from sdcorr.cli._options import debug

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
@debug
def show(name: str, as_json: bool) -> None:
    """Paper, weights, deviations and every setting of recipe NAME.

    \b
    Example:
      sdcorr recipes show sd-dino
      sdcorr recipes show sd-dino --json
    """
    from sdcorr.recipes import find_recipe

    recipe = find_recipe(name)
    if as_json:
        click.echo(json.dumps(recipe.describe(), indent=2))
        return
    for line in _in_words(recipe):
        click.echo(line)


def _in_words(recipe: Recipe) -> list[str]:
    from sdcorr.models import KNOWN

    lines = [f"{recipe.name}: {recipe.about}", f"  source  {recipe.paper}"]
    lines += [f"  memory  {recipe.memory}"] if recipe.memory else []
    lines += [f"  differs {deviation}" for deviation in recipe.deviations]
    described: dict[str, Any] = recipe.describe()
    for group in described["groups"]:
        config = group["backbone"]
        lines.append(f"  {group['name']} ({config.pop('kind')}), weight {group['weight']:g}")
        known = KNOWN.get(config.get("model", ""))
        lines += [f"    weights  {known.licence}, {known.size}"] if known else []
        lines += [f"    {field} = {json.dumps(value)}" for field, value in config.items()]
        for use in group["maps"]:
            reduced = f", PCA to {use['pca']}" if use["pca"] else ""
            steps = "".join(f", x{factor}" for factor in use["upsample"])
            lines.append(f"    uses {use['name']}{reduced}{steps}")
    matcher = described["matcher"]
    fields = ", ".join(f"{key}={value}" for key, value in matcher.items() if key != "kind")
    return [*lines, f"  matcher {matcher['kind']}{': ' if fields else ''}{fields}"]
