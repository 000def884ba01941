"""Whether a run's recipe is what its name says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.recipe import Recipe, read_recipe
from sdcorr.recipes import RECIPES
from sdcorr.report._runs import Run

SETTINGS = ("groups", "matcher", "foreground", "by_confidence", "flip")


def other_recipe(run: Run) -> Iterator[str]:
    """In what a run's recipe is not sdcorr's of that name; fields left out have their defaults."""
    if run.recipe not in RECIPES:
        return
    ours = RECIPES[run.recipe]
    try:
        used = read_recipe(run.about["recipe"])
    except (BadRecipe, UnknownName):  # of another version of sdcorr, or with plug-ins of others
        yield f"other settings than recipe {run.recipe}"
        return
    if used.digest != ours.digest:
        same = _without_weights(used) == _without_weights(ours)
        yield "other weights" if same else f"other settings than recipe {run.recipe}"


def _without_weights(recipe: Recipe) -> dict[str, Any]:
    """Settings without the places of weights, which may be folders."""
    described = recipe.describe()
    names = {
        name
        for needed in recipe.weights.values()
        for name in (needed.field, "revision", f"{needed.field}_revision")
    }
    groups = [
        {**group, "backbone": {k: v for k, v in group["backbone"].items() if k not in names}}
        for group in described["groups"]
    ]
    return {key: described[key] for key in SETTINGS} | {"groups": groups}
