"""How often half precision moves a match: nearest cells in float32 against bfloat16 and float16.

    python eval/precision.py sd-dino --out eval/results/precision-sd-dino.json
    python eval/precision.py sd-dino --real photo1.jpg photo2.jpg     (the weights of this machine)

Encodes two photos in each precision and asks, for every cell of the first that lies on the photo,
whether its nearest cell in the second stays the one that float32 finds: with each backbone alone
and with all fused. Without ``--real``, the models are of full size with random weights; their
features are far less distinct than trained ones, so that the shares are no forecast of those.

No CPU multiplies in float16 at a bearable speed. There it is *emulated*, and labelled so: weights,
and what goes into and comes out of every layer that has weights, are rounded to float16; sums
inside a layer are float32, as on a GPU, and so is attention, which is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import sdcorr
from sdcorr.fusion import join
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES, find_recipe
from sdcorr.runtime import Runtime, resolve_runtime
from sdcorr.types import Similarity

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkpoint writers are the tests'
from eval import footprint

ASSETS = Path(__file__).parents[1] / "assets"
PHOTOS = (ASSETS / "astronaut.png", ASSETS / "hopper.jpg")
TIE = 1e-5  # similarities closer than this are one


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Compare, print, save; returns what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=[name for name in RECIPES if RECIPES[name].weights])
    parser.add_argument("photos", nargs="*", type=Path, default=list(PHOTOS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--real", action="store_true", help="the weights of this machine")
    parser.add_argument("--category", help="for prompts that ask for it")
    parser.add_argument("--weights", type=Path, help="folder with checkpoints of an earlier run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if len(options.photos) != 2:
        parser.error(f"expected two photos, got {len(options.photos)}")
    recipe = find_recipe(options.recipe)
    runtime = resolve_runtime(options.device, "float32")
    photos = [sdcorr.load_image(photo, options.category) for photo in options.photos]
    if options.real:
        result = compare(recipe, {}, runtime, photos)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            places = footprint.checkpoints(options.recipe, options.weights or Path(temporary))
            result = compare(recipe, places, runtime, photos)
    result["weights"] = "of this machine" if options.real else "random, full size"
    result["photos"] = [photo.name for photo in options.photos]
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    return result


def compare(
    recipe: Recipe, places: dict[str, str], runtime: Runtime, photos: list[sdcorr.Image]
) -> dict[str, Any]:
    """Shares of unchanged nearest cells, by precision, for each backbone and all together."""
    expected = nearest_cells(recipe, encode(recipe, places, runtime, photos, emulate=False))
    native = runtime.device.type != "cpu"
    shares: dict[str, Any] = {}
    for name, dtype, emulate in (
        ("bfloat16", torch.bfloat16, False),
        ("float16" if native else "float16, emulated", torch.float16, not native),
    ):
        half = replace(runtime, dtype=torch.float32 if emulate else dtype)
        found = nearest_cells(recipe, encode(recipe, places, half, photos, emulate))
        shares[name] = {part: unchanged(expected[part], cell) for part, (cell, _) in found.items()}
    return {
        "recipe": recipe.name,
        "cells": len(next(iter(expected.values()))[0]),
        "unchanged nearest cell, share": shares,
        "runtime": runtime.describe(),
    }


def encode(
    recipe: Recipe, places: dict[str, str], runtime: Runtime, photos: list[sdcorr.Image],
    emulate: bool,
) -> list[sdcorr.Encoding]:  # fmt: skip
    """Both photos in one precision."""
    model = sdcorr.load(recipe, models=places, device=str(runtime.device), dtype=runtime.dtype_name)
    if not emulate:
        return [model.encode(photo) for photo in photos]
    with rounding_to_float16(model):
        return [model.encode(photo) for photo in photos]


@contextmanager
def rounding_to_float16(model: sdcorr.Pipeline) -> Iterator[None]:
    """Round every layer with weights: those for good, and inside what goes in and comes out."""
    with ExitStack() as hooks:
        for layer in (layer for module in modules_of(model) for layer in module.modules()):
            weights = list(layer.parameters(recurse=False))
            for weight in weights:
                weight.data = rounded(weight.data)
            if weights:
                before = layer.register_forward_pre_hook(lambda _, words: _all_rounded(words))
                after = layer.register_forward_hook(lambda _, _words, out: _all_rounded(out))
                hooks.callback(before.remove)
                hooks.callback(after.remove)
        yield


def modules_of(model: sdcorr.Pipeline) -> Iterator[nn.Module]:
    """UNets, VAEs and transformers."""
    for backbone in model.backbones.values():
        for name in ("unet", "vae", "transformer"):
            part = getattr(backbone, name, None)
            if part is not None:
                yield getattr(part, "model", part)


def rounded(value: Tensor) -> Tensor:
    """To what float16 can hold; beyond 65504 that is infinite."""
    return value.half().float()


def _all_rounded(values: Any) -> Any:
    return tree_map_only(
        Tensor, lambda one: rounded(one) if one.is_floating_point() else one, values
    )


Found = dict[str, tuple[Tensor, Tensor]]


def nearest_cells(recipe: Recipe, encodings: list[sdcorr.Encoding]) -> Found:
    """Nearest target cell and the similarities ``(N, h*w)`` of each source cell on the photo.

    For each backbone alone, and for all ``fused``.
    """
    parts = {group.name: (group,) for group in recipe.groups}
    parts |= {"fused": recipe.groups} if len(recipe.groups) > 1 else {}
    with torch.no_grad():
        joined = {
            name: join(groups, *(encoding.maps for encoding in encodings))
            for name, groups in parts.items()
        }
        return {name: _nearest(similarity) for name, similarity in joined.items()}


def _nearest(similarity: Similarity) -> tuple[Tensor, Tensor]:
    rows = similarity.rows(similarity.source.centers()[similarity.source.inside()])
    rows = rows.masked_fill(~similarity.target.inside().to(rows.device), -torch.inf)
    return rows.argmax(dim=1), rows


def unchanged(expected: tuple[Tensor, Tensor], found: Tensor) -> float:
    """Share of points with the expected cell, or one that float32 finds as similar."""
    cell, rows = expected
    behind = (rows.gather(1, cell[:, None]) - rows.gather(1, found[:, None]))[:, 0]
    return round(float((behind <= TIE).float().mean()), 4)


if __name__ == "__main__":
    main()
