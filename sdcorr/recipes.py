"""Find a recipe by name or in a file, and load it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sdcorr.cache import DiskStore
from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.files import parse_json
from sdcorr.pipeline import Pipeline
from sdcorr.presets import RECIPES as RECIPES
from sdcorr.recipe import Recipe, read_recipe
from sdcorr.runtime import Runtime, resolve_runtime

DEFAULT = "sd-dino"


def find_recipe(name: str | Path, allow_plugins: bool = False) -> Recipe:
    """The recipe of that name, or in that file.

    Args:
        name: of ``sdcorr recipes list``, or a path: of what ``sdcorr recipes show NAME --json``
            prints, or of results that hold a recipe (a run's ``run.json``, the JSON of a match).
            What has a slash or ends in ``.json`` is a path.
        allow_plugins: let the file name modules outside of sdcorr, which runs their code.

    Raises:
        UnknownName: there is no recipe, or in the file no field or plug-in, of that name.
        BadRecipe: the file cannot be read, or is no recipe.
    """
    if str(name) in RECIPES and not isinstance(name, Path):
        return RECIPES[str(name)]
    if isinstance(name, Path) or "/" in name or os.sep in name or name.lower().endswith(".json"):
        return _read_file(Path(name), allow_plugins)
    if Path(name).is_file():
        raise BadRecipe(f"no recipe is called {name!r}; for the file of this name write ./{name}")
    raise UnknownName("recipe", name, RECIPES)


def runtime_for(
    recipe: Recipe, device: str = "auto", dtype: str = "auto", batch: int = 4
) -> Runtime:
    """What ``resolve_runtime`` gives; without weights there is no model to run in half."""
    if dtype == "auto" and not recipe.weights:
        dtype = "float32"
    return resolve_runtime(device, dtype, batch)


def load(
    recipe: str | Path | Recipe = DEFAULT,
    *,
    device: str = "auto",
    dtype: str = "auto",
    batch: int = 4,
    models: Mapping[str, str] | None = None,
    cache: str | Path | DiskStore | None = None,
) -> Pipeline:
    """Load a recipe; downloads weights that are not on this machine.

    Args:
        recipe: a name (``sdcorr recipes list``), the path of a file (see ``find_recipe``) or a
            ``Recipe``.
        device: ``"auto"`` (cuda, then mps, then cpu) or a torch device.
        dtype: ``"auto"`` (float16 on cuda, bfloat16 on a CPU made for it, else float32),
            ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        batch: windows or photos in one forward pass.
        models: hub ids or local folders that replace weights, by the keys of ``Recipe.weights``.
        cache: folder that keeps feature maps for the next time, 20 GB at most, or a
            ``DiskStore`` with another limit; None keeps none.

    Raises:
        SdcorrError: see ``Pipeline``, ``find_recipe``, ``resolve_runtime``.

    Example:
        >>> import numpy as np
        >>> model = load("sift")
        >>> photo = np.random.default_rng(0).random((64, 96, 3))
        >>> matches = model.match(photo, photo, points=[[40, 20]])
        >>> matches.matched.tolist()
        [True]
    """
    chosen = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
    runtime = runtime_for(chosen, device, dtype, batch)
    store = DiskStore(Path(cache)) if isinstance(cache, str | Path) else cache
    return Pipeline(chosen.with_models(models or {}), runtime, store)


def _read_file(path: Path, allow_plugins: bool) -> Recipe:
    try:
        described = parse_json(path.expanduser().read_bytes())
    except OSError as error:
        raise BadRecipe(f"cannot read the recipe {path}: {error.strerror}") from error
    except RuntimeError as error:
        raise BadRecipe(f"cannot read the recipe {path}: no such user") from error
    except ValueError as error:
        raise BadRecipe(f"{path} is not JSON: {error}") from error
    if isinstance(described, dict) and isinstance(described.get("recipe"), dict):
        described = described["recipe"]  # results say how they were made
    try:
        return read_recipe(described, allow_plugins)
    except (BadRecipe, UnknownName) as error:
        raise BadRecipe(f"{path}: {error}") from error
