"""Dense RootSIFT (Lowe 2004; Arandjelovic and Zisserman 2012): appearance, not meaning.

Needs no weights, so it is what runs everywhere; it finds like texture and edges, not like parts.
Descriptors near the photo's border are cut off there, so they also tell how near it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcorr.errors import BadRecipe, MissingLibrary
from sdcorr.fields import check
from sdcorr.geometry import Grid, Size
from sdcorr.preprocess import LARGEST, fit
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap, Image, Weights

CHANNELS = 128  # of one SIFT descriptor: 4 x 4 places, 8 orientations
DIAMETER = 6.0  # px; larger keypoints are shrunk to this
RADIUS = 5.3  # of the pixels that OpenCV reads, in keypoint sizes: 1.5 * sqrt(2) * (4 + 1) / 2


@dataclass(frozen=True)
class Sift:
    """Upright SIFT at every cell, in several sizes that stand side by side in one descriptor.

    Args:
        size: longer side of the resized photo in pixels.
        stride: side of a cell in resized pixels.
        diameters: SIFT keypoint sizes in resized pixels; a descriptor looks at a square of
            about six times its keypoint's size.

    Raises:
        BadRecipe: a field is not positive.
    """

    size: int = 480
    stride: int = 8
    diameters: tuple[float, ...] = (16.0, 32.0, 64.0)

    def __post_init__(self) -> None:
        check(self)
        if min(self.size, self.stride, len(self.diameters), *self.diameters) <= 0:
            raise BadRecipe(f"sift: size, stride and diameters must be positive, got {self}")
        if self.size > LARGEST:
            raise BadRecipe(f"sift: size must be at most {LARGEST} px, got {self.size}")

    @property
    def maps(self) -> tuple[str, ...]:
        """One map, ``rootsift``."""
        return ("rootsift",)

    def weights(self) -> tuple[Weights, ...]:
        """None are needed."""
        return ()

    def build(self, runtime: Runtime) -> SiftBackbone:
        """Nothing to load but OpenCV, which runs on the CPU whatever the device."""
        return SiftBackbone(self, runtime, _opencv())


@dataclass(frozen=True, eq=False)
class SiftBackbone:
    """Dense RootSIFT."""

    config: Sift
    runtime: Runtime
    cv2: ModuleType

    @property
    def channels(self) -> Mapping[str, int]:
        """128 for each diameter."""
        return {"rootsift": CHANNELS * len(self.config.diameters)}

    @property
    def revisions(self) -> Mapping[str, str]:
        """Empty: there are no weights."""
        return {}

    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """One map for each photo, unpadded."""
        return tuple({"rootsift": self._extract(image)} for image in images)

    def _extract(self, image: Image) -> FeatureMap:
        canvas = fit(image, self.config.size, "resize")
        height, width = canvas.pixels.shape[:2]
        stride = self.config.stride
        shape = (-(-height // stride), -(-width // stride))  # the last cells may hang over
        # a grid over the canvas itself says where the cells lie in its pixels
        flat = Grid(shape, (stride, stride), (0.0, 0.0), canvas.content)
        grey = self.cv2.cvtColor(canvas.pixels, self.cv2.COLOR_RGB2GRAY)
        rows = [self._describe(grey, flat, diameter) for diameter in self.config.diameters]
        values = torch.cat(rows, dim=1).T.unflatten(1, shape)  # (C, h, w)
        return FeatureMap(
            "rootsift", values.to(self.runtime.device), canvas.grid(shape, float(stride))
        )

    def _describe(self, grey: npt.NDArray[np.uint8], cells: Grid, diameter: float) -> Tensor:
        """RootSIFT at each cell, ``(h*w, 128)``: unit rows, zero where all is flat.

        Large keypoints are described on a shrunken photo: the same area at a fraction of the
        work, smoothed as its scale asks for.
        """
        ratio = min(1.0, DIAMETER / diameter)
        height, width = (max(1, round(side * ratio)) for side in grey.shape)
        small = self.cv2.resize(grey, (width, height), interpolation=self.cv2.INTER_AREA)
        shrunk = Grid(
            cells.shape,
            (cells.stride[0] * width / grey.shape[1], cells.stride[1] * height / grey.shape[0]),
            cells.offset,
            Size(height, width),
        )
        centers = shrunk.image.clamp(shrunk.centers())
        keypoints = [self.cv2.KeyPoint(x, y, diameter * ratio, 0.0) for x, y in centers.tolist()]
        _, found = self.cv2.SIFT_create().compute(small, keypoints)
        descriptors = torch.from_numpy(found)  # (h*w, 128), whole numbers 0..255
        total = descriptors.sum(dim=1, keepdim=True)
        rooted = (descriptors / total.clamp(min=1)).sqrt()  # L1, then root: Hellinger's kernel
        return rooted * self._textured(small, centers, diameter * ratio)[:, None]

    def _textured(self, grey: npt.NDArray[np.uint8], points: Tensor, diameter: float) -> Tensor:
        """Where not all that a descriptor sees is one grey: ``(N,)`` bool.

        OpenCV scales whatever gradient there is to length one, rounding errors included.
        """
        radius = round(diameter * RADIUS)
        box = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        varies = torch.from_numpy(self.cv2.dilate(grey, box) > self.cv2.erode(grey, box))
        columns, rows = points.round().long().unbind(-1)  # the nearest pixel, as OpenCV does
        return varies[rows.clamp(0, grey.shape[0] - 1), columns.clamp(0, grey.shape[1] - 1)]


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise MissingLibrary(
            f"OpenCV is installed but cannot be loaded ({error}); a slim container needs its "
            "system libraries: apt-get install libgl1 libglib2.0-0"
        ) from error
    module: ModuleType = cv2
    return module


PLUGIN = Sift
