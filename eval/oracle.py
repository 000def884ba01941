"""A backbone that is told the answer: the part map of a drawn photo as its features.

It reads what `sdcorr data synth` writes beside its photos, so it bounds what any backbone can reach
there, and shows that the keypoints are where they are said to be. It lies outside the package, as a
plug-in of yours would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from sdcorr import FeatureMap, Group, Image, MapUse, Recipe, Runtime
from sdcorr.errors import BadImage
from sdcorr.geometry import Grid
from sdcorr.synthetic import to_directions
from sdcorr.types import Weights

PARTS = 24  # more than any figure has
CHANNELS = 4 * PARTS


@dataclass(frozen=True)
class Oracle:
    """The part, and the direction of the place on it.

    Two places of one part are the more similar the closer their directions from its centre,
    1 to 0; those of two parts are similar 0, and so is the background to all.

    Args:
        stride: side of a cell in pixels of the photo.
    """

    stride: int = 2

    @property
    def maps(self) -> tuple[str, ...]:
        """One map, ``places``."""
        return ("places",)

    def weights(self) -> tuple[Weights, ...]:
        """None are needed."""
        return ()

    def build(self, runtime: Runtime) -> OracleBackbone:
        """Nothing to load."""
        return OracleBackbone(self, runtime)


@dataclass(frozen=True)
class OracleBackbone:
    """Reads part maps."""

    config: Oracle
    runtime: Runtime

    @property
    def channels(self) -> Mapping[str, int]:
        """Four for each part."""
        return {"places": CHANNELS}

    @property
    def revisions(self) -> Mapping[str, str]:
        """Empty: there are no weights."""
        return {}

    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """One map for each photo, of the pixels at the middle of its cells."""
        return tuple({"places": self._extract(image)} for image in images)

    def _extract(self, image: Image) -> FeatureMap:
        stride = self.config.stride
        height, width = image.size
        shape = (height // stride, width // stride)  # no cell hangs over
        grid = Grid(shape, (stride, stride), (0.0, 0.0), image.size)
        columns, rows = grid.centers().round().long().numpy().T
        number, *place = np.moveaxis(read_part_map(image)[rows, columns], -1, 0)
        direction = to_directions(np.stack(place, axis=-1))
        values = np.zeros((len(number), PARTS, 4), np.float32)
        values[np.arange(len(number)), number] = np.column_stack([np.ones(len(number)), direction])
        values[number == 0] = 0
        flat = torch.from_numpy(values.reshape(*shape, CHANNELS)).permute(2, 0, 1)  # (C, h, w)
        return FeatureMap("places", flat.contiguous().to(self.runtime.device), grid)


def read_part_map(image: Image) -> np.ndarray:
    """The part map beside a drawn photo, ``(H, W, 3)``."""
    path = image.path or Path()
    if path.parent.parent.name != "JPEGImages":
        raise BadImage(
            f"{path} is not of a set that `sdcorr data synth` drew; the oracle needs one"
        )
    root, category = path.parents[2], path.parent.name
    return np.asarray(PIL.Image.open(root / "PartMaps" / category / f"{path.stem}.png"))


RECIPE = Recipe("oracle", (Group("oracle", Oracle(), (MapUse("places"),)),))
PLUGIN = Oracle
