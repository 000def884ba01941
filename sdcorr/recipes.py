"""Named recipes, each with the paper or measurement behind its odd values, and ``load``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sdcorr.backbones.constant import Constant
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.backbones.sift import Sift
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.cache import DiskStore
from sdcorr.errors import UnknownName
from sdcorr.fusion import Group, MapUse
from sdcorr.matchers.same_position import SamePosition
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe
from sdcorr.runtime import Runtime, resolve_runtime

DEFAULT = "sd-dino"

_BILINEAR = "the source is read bilinearly at the exact point, not at its cell"
_SUBPIXEL = (
    "cells and points are related by pixel centres; the papers ignore half a pixel",
    "padding is never matched; the papers allow it (matcher.inside_only=False)",
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="sd-dino",
            groups=(
                Group(
                    name="stable_diffusion",
                    backbone=StableDiffusion(),
                    maps=(
                        # order 8 | 5 | 2; layer 2 goes 15 -> 30 -> 60 in two steps
                        MapUse("up_blocks.2.attentions.1", pca=256),
                        MapUse("up_blocks.1.attentions.1", pca=256, upsample=(2,)),
                        MapUse("up_blocks.0.resnets.1", pca=256, upsample=(2, 2)),
                    ),
                ),
                Group(name="dinov2", backbone=Dinov2(), maps=(MapUse("token"),)),
            ),
            about="Stable Diffusion 1.5 and DINOv2-B, fused",
            paper="A Tale of Two Features, Zhang et al., NeurIPS 2023, sections 3 and 4",
            memory="7.7 GB, the whole process, CPU, float32 (eval/footprint.py)",
            deviations=(
                'text prompt "a photo of {category}" ("" without one), not the learned caption '
                "of ODISE, whose weights are research-only",
                "exact joint PCA; the original is randomised",
                _BILINEAR,
                *_SUBPIXEL,
            ),
        ),
        Recipe(
            name="dinov2-b",
            groups=(Group(name="dinov2", backbone=Dinov2(), maps=(MapUse("token"),)),),
            about="DINOv2 ViT-B/14, tokens of the last block",
            paper="A Tale of Two Features, Zhang et al., NeurIPS 2023 (its DINOv2 row)",
            memory="1.2 GB, the whole process, CPU, float32 (eval/footprint.py)",
            deviations=(
                _BILINEAR,
                *_SUBPIXEL,
            ),
        ),
        Recipe(
            name="sd15",
            groups=(
                Group(
                    name="stable_diffusion",
                    # one pass at 768 px, t=50: the setting in which single blocks were compared
                    backbone=StableDiffusion(
                        size=768, window=None, step=50, layers=("up_blocks.1",)
                    ),
                    maps=(MapUse("up_blocks.1"),),
                ),
            ),
            about="Stable Diffusion 1.5, one block of the UNet, 1/16",
            paper="block and step as in single-block comparisons after DIFT, Tang et al., 2023",
            memory="7.9 GB, the whole process, CPU, float32 (eval/footprint.py)",
            deviations=("letterboxed, not stretched", _BILINEAR, *_SUBPIXEL),
        ),
        Recipe(
            name="sift",
            groups=(Group(name="sift", backbone=Sift(), maps=(MapUse("rootsift"),)),),
            about="dense RootSIFT; no weights. Finds like texture, not like parts",
            paper="Lowe 2004; Arandjelovic and Zisserman 2012",
            memory="0.5 GB, the whole process, CPU, float32 (eval/footprint.py)",
        ),
        Recipe(
            name="same-position",
            groups=(Group(name="constant", backbone=Constant(), maps=(MapUse("one"),)),),
            matcher=SamePosition(),
            about="the same x, y in the target: the baseline that looks at no photo",
            paper="listed as a baseline in tables on SPair-71k",
            memory="0.2 GB, the whole process, CPU, float32 (eval/footprint.py)",
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name; raises UnknownName with the nearest one."""
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    return RECIPES[name]


def runtime_for(
    recipe: Recipe, device: str = "auto", dtype: str = "auto", batch: int = 4
) -> Runtime:
    """What ``resolve_runtime`` gives; without weights there is no model to run in half."""
    if dtype == "auto" and not recipe.needs_weights:
        dtype = "float32"
    return resolve_runtime(device, dtype, batch)


def load(
    recipe: str | Recipe = DEFAULT,
    *,
    device: str = "auto",
    dtype: str = "auto",
    batch: int = 4,
    models: Mapping[str, str] | None = None,
    cache: str | Path | DiskStore | None = None,
) -> Pipeline:
    """Load a recipe; downloads weights that are not on this machine.

    Args:
        recipe: a name (``sdcorr recipes list``) or a ``Recipe``.
        device: ``"auto"`` (cuda, then mps, then cpu) or a torch device.
        dtype: ``"auto"`` (float16 on cuda, bfloat16 on a CPU made for it, else float32),
            ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        batch: windows or photos in one forward pass.
        models: hub ids or local folders that replace a group's weights, by group name.
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
    chosen = find_recipe(recipe) if isinstance(recipe, str) else recipe
    runtime = runtime_for(chosen, device, dtype, batch)
    store = DiskStore(Path(cache)) if isinstance(cache, str | Path) else cache
    return Pipeline(chosen.with_models(models or {}), runtime, store)
