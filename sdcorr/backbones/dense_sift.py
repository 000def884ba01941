"""SIFT-like descriptors at every cell (Lowe 2004), of colour gradients and with a contrast floor.

Needs no weights. As in SIFT, a square window is split into places, and each place has a histogram
of gradient orientations, weighted by gradient strength. Two things come from HOG (Dalal and Triggs,
CVPR 2005): at each pixel the colour channel with the strongest gradient counts, and histograms are
divided by their sum *plus a floor*, so that the noise of a flat sky stays faint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.fields import check
from sdcorr.geometry import Grid, Size
from sdcorr.preprocess import LARGEST, fit
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap, Image, Weights

WINDOW = 36.0  # px; larger windows are described on a photo shrunk to this
BLUR = 0.5  # of a place's side: standard deviation of the Gaussian that gathers its gradients
NARROWEST = 0.5  # px; narrower Gaussians fall between pixels
FULL = 255.0  # contrast
ROUNDING = 1e-3  # fainter gradients, in levels of 255, come of resizing a flat photo
GREY = (0.299, 0.587, 0.114)  # of red, green, blue (ITU-R BT.601)


@dataclass(frozen=True)
class DenseSift:
    """Histograms of gradient orientations at every cell, in several sizes side by side.

    Args:
        size: longer side of the resized photo in pixels.
        stride: side of a cell in resized pixels.
        windows: sides of the squares that descriptors look at, in resized pixels.
        places: places along a window's side, each with a histogram.
        orientations: bins of a histogram.
        signed: tell dark to bright from bright to dark; if not, the bins span half a turn.
        colour: take the gradient of the channel where it is strongest, else that of the grey photo.
        floor: gradients are divided by the window's mean plus this, so that what is much fainter
            stays faint; share of full contrast per pixel of the shrunk photo.

    Raises:
        BadRecipe: a field is out of range.
    """

    size: int = 480
    stride: int = 16
    windows: tuple[float, ...] = (36.0, 72.0, 144.0, 288.0)
    places: int = 4
    orientations: int = 16
    signed: bool = True
    colour: bool = True
    floor: float = 0.02

    def __post_init__(self) -> None:
        check(self)
        if not (self.stride > 0 and 0 < self.size <= LARGEST and 1e-6 <= self.floor <= 1):
            raise BadRecipe(
                f"dense_sift: expected stride above 0, size 1 to {LARGEST} px, floor 1e-6 to 1; "
                f"got {self}"
            )
        if not self.windows or not all(1 <= window <= LARGEST for window in self.windows):
            raise BadRecipe(
                f"dense_sift: expected windows of 1 to {LARGEST} px, got {self.windows}"
            )
        if not (1 <= self.places <= 64 and 1 <= self.orientations <= 64):
            raise BadRecipe(
                "dense_sift: expected 1 to 64 places and orientations, got "
                f"{self.places} and {self.orientations}"
            )

    @property
    def maps(self) -> tuple[str, ...]:
        """One map, ``gradients``."""
        return ("gradients",)

    def weights(self) -> tuple[Weights, ...]:
        """None are needed."""
        return ()

    def build(self, runtime: Runtime) -> DenseSiftBackbone:
        """Nothing to load."""
        return DenseSiftBackbone(self, runtime)


@dataclass(frozen=True, eq=False)
class DenseSiftBackbone:
    """Dense histograms of gradient orientations."""

    config: DenseSift
    runtime: Runtime

    @property
    def channels(self) -> Mapping[str, int]:
        """``places`` squared times ``orientations``, for each window."""
        config = self.config
        return {"gradients": len(config.windows) * config.places**2 * config.orientations}

    @property
    def revisions(self) -> Mapping[str, str]:
        """Empty: there are no weights."""
        return {}

    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """One map for each photo, unpadded."""
        return tuple({"gradients": self._extract(image)} for image in images)

    def _extract(self, image: Image) -> FeatureMap:
        canvas = fit(image, self.config.size, "resize")
        stride = float(self.config.stride)
        height, width = canvas.content
        shape = (math.ceil(height / stride), math.ceil(width / stride))  # the last hang over
        cells = Grid(shape, (stride, stride), (0.0, 0.0), canvas.content)
        # before the device: resizing differs in the last bits from one to another
        photo = torch.tensor(canvas.pixels).permute(2, 0, 1).float()  # (3, H, W)
        if not self.config.colour:
            photo = torch.tensordot(torch.tensor(GREY), photo, dims=1)[None]
        found = [self._describe(photo, cells, window) for window in self.config.windows]
        values = torch.cat(found, dim=1).T.unflatten(1, shape)  # (C, h, w)
        values = values.to(self.runtime.device)
        return FeatureMap("gradients", values, canvas.grid(shape, stride))

    def _describe(self, photo: Tensor, cells: Grid, window: float) -> Tensor:
        """Descriptors at each cell ``(h*w, places * places * orientations)``.

        Large windows are described on a shrunken photo: the same area at a fraction of the work,
        smoothed as its scale asks for.
        """
        config = self.config
        ratio = min(1.0, WINDOW / window)
        height, width = (max(1, round(side * ratio)) for side in photo.shape[1:])
        small = F.interpolate(photo[None], (height, width), mode="bilinear", antialias=True)[0]
        stride = (
            cells.stride[0] * width / photo.shape[2],
            cells.stride[1] * height / photo.shape[1],
        )
        shrunk = Grid(cells.shape, stride, cells.offset, Size(height, width))
        place = window * ratio / config.places
        steps = (torch.arange(config.places) - (config.places - 1) / 2) * place
        centers = shrunk.centers().reshape(*cells.shape, 2)
        rows = (centers[:, 0, 1, None] + steps).flatten()  # (h * places,)
        columns = (centers[0, :, 0, None] + steps).flatten()  # (w * places,)
        maps = orientation_maps(small, config.orientations, config.signed)
        gathered = gather(maps, rows, columns, max(BLUR * place, NARROWEST))
        by_place = gathered.unflatten(2, (-1, config.places)).unflatten(1, (-1, config.places))
        histograms = by_place.permute(1, 3, 2, 4, 0).reshape(math.prod(cells.shape), -1)
        total = histograms.sum(dim=1, keepdim=True)
        described: Tensor = histograms / (total + config.floor * FULL * config.places**2)
        return described


def orientation_maps(photo: Tensor, count: int, signed: bool) -> Tensor:
    """Gradient strength of each pixel, in the two bins next to its direction: ``(count, H, W)``.

    Args:
        photo: ``(C, H, W)``, levels 0 to 255; of each pixel, the channel with the strongest
            gradient counts.
        count: bins, the first one at a gradient to the right.
        signed: bins span a whole turn, else half a turn.
    """
    padded = F.pad(photo[None], (1, 1, 1, 1), mode="replicate")[0]
    along = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    strength = F.threshold(torch.hypot(along, down), ROUNDING, 0.0)
    best = strength.argmax(dim=0, keepdim=True)
    strength, along, down = (one.gather(0, best) for one in (strength, along, down))  # (1, H, W)
    turn = 2 * math.pi if signed else math.pi
    bins = torch.atan2(down, along).remainder(turn) / turn * count
    low = bins.floor()
    part = bins - low
    empty = strength.new_zeros(count, *strength.shape[1:])
    first = low.long() % count
    lower = empty.scatter(0, first, strength * (1 - part))
    return lower.scatter_add(0, (first + 1) % count, strength * part)


def gather(maps: Tensor, rows: Tensor, columns: Tensor, deviation: float) -> Tensor:
    """Gaussian mean of maps around places; beyond the photo's edge there is nothing, so zeros.

    Args:
        maps: ``(O, H, W)``.
        rows: ``(R,)`` rows of places, in pixels and fractions of them.
        columns: ``(S,)`` likewise.
        deviation: of the Gaussian, in pixels.

    Returns:
        ``(O, R, S)``, at each row and column.
    """
    down = _gaussian(rows, maps.shape[1], deviation)
    along = _gaussian(columns, maps.shape[2], deviation)
    return down @ maps @ along.T


def _gaussian(places: Tensor, length: int, deviation: float) -> Tensor:
    """Weights of pixels along an axis for each place, ``(N, length)``; of all pixels, 1."""
    gap = (torch.arange(length) - places[:, None]) / deviation
    weights: Tensor = torch.exp(-(gap**2) / 2) / (deviation * math.sqrt(2 * math.pi))
    return weights.float()


PLUGIN = DenseSift
