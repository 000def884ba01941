"""Zero-shot semantic correspondence: where is this point of one photo in another?

photo -> preprocess -> backbone -> feature map (+ its grid) -> fusion -> matcher -> matches
px       px -> input               cells + where they are      cells     px -> px   px

import sdcorr

model = sdcorr.load("sd-dino")
source, target = model.encode("cat.jpg"), model.encode("dog.jpg")  # slow, once per photo
matches = model.match(source, target, points=[[120, 80]])          # fast, once per click
matches.plot()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdcorr.errors import SdcorrError as SdcorrError
    from sdcorr.features import Features as Features
    from sdcorr.features import read_features as read_features
    from sdcorr.features import write_features as write_features
    from sdcorr.fused import Fused as Fused
    from sdcorr.fusion import Group as Group
    from sdcorr.fusion import MapUse as MapUse
    from sdcorr.geometry import Grid as Grid
    from sdcorr.geometry import Size as Size
    from sdcorr.pipeline import Pipeline as Pipeline
    from sdcorr.preprocess import load_image as load_image
    from sdcorr.recipe import Recipe as Recipe
    from sdcorr.recipes import load as load
    from sdcorr.runtime import Runtime as Runtime
    from sdcorr.types import Encoding as Encoding
    from sdcorr.types import FeatureMap as FeatureMap
    from sdcorr.types import Image as Image
    from sdcorr.types import Matches as Matches

__version__ = "0.1.0"

# torch takes a second to import: each name is loaded when it is first used
_HOMES = {
    "SdcorrError": "errors",
    "Grid": "geometry",
    "Size": "geometry",
    "Group": "fusion",
    "MapUse": "fusion",
    "Runtime": "runtime",
    "Image": "types",
    "FeatureMap": "types",
    "Encoding": "types",
    "Matches": "types",
    "load_image": "preprocess",
    "Features": "features",
    "read_features": "features",
    "write_features": "features",
    "Pipeline": "pipeline",
    "Fused": "fused",
    "Recipe": "recipe",
    "load": "recipes",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sdcorr' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sdcorr.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
