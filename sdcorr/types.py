"""The values that travel from photo to matches, and what each stage must offer.

photo -> Image -> Backbone -> FeatureMap, kept in an Encoding
Encoding + Encoding -> fusion -> Similarity -> Matcher -> Matches
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcorr.errors import BadImage
from sdcorr.feature_map import FeatureMap as FeatureMap
from sdcorr.geometry import Grid, Size
from sdcorr.runtime import Runtime

if TYPE_CHECKING:
    import cv2
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Image:
    """A photo, upright and in 8 bits.

    Args:
        pixels: ``(H, W, 3)`` uint8, RGB, rotated by EXIF, alpha laid on white.
        category: what the photo shows, used only by prompts that name it.
        path: the file it came from, if any.

    Raises:
        BadImage: the pixels have another shape or dtype.
    """

    pixels: npt.NDArray[np.uint8] = field(repr=False)
    category: str | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or min(shape) == 0:
            raise BadImage(f"expected pixels (H, W, 3) of uint8, got {shape} of {dtype}")

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return Size(*self.pixels.shape[:2])


@dataclass(frozen=True)
class Weights:
    """What a backbone needs from the hub, or from a local folder of the same layout.

    Args:
        model: hub id ``organisation/name``, or path of a folder.
        revision: branch, tag or commit on the hub; None is the newest.
        required: files that must be there.
        one_of: sets of files of which one must be there whole; empty if there is no choice.
        optional: files that are used where they exist.
        field: the config's field that holds ``model``; its revision stands in ``revision``, or
            in ``unet_revision`` for a field ``unet``.
    """

    model: str
    revision: str | None
    required: tuple[str, ...]
    one_of: tuple[tuple[str, ...], ...] = ()
    optional: tuple[str, ...] = ()
    field: str = "model"


class Backbone(Protocol):
    """A loaded feature extractor. Same input, same output, whatever came before."""

    @property
    def channels(self) -> Mapping[str, int]:
        """Channels of each map, by layer name."""
        ...

    @property
    def revisions(self) -> Mapping[str, str]:
        """Revision of each model id (or local folder) that it loaded."""
        ...

    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """The maps of each photo, by layer name.

        Each grid says in pixels of the photo where the cells lie; some may lie on padding.
        """
        ...


class BackboneConfig(Protocol):
    """What defines a feature: a frozen dataclass, one per file of ``backbones/``.

    One whose prompt can name a category has the field ``prompt``; each ``Weights.field`` is one.
    """

    @property
    def maps(self) -> tuple[str, ...]:
        """Layer names of the maps it makes."""
        ...

    def weights(self) -> tuple[Weights, ...]:
        """The files it loads; none, or from one place or several."""
        ...

    def build(self, runtime: Runtime) -> Backbone:
        """Load it.

        Raises:
            BadRecipe: a field contradicts another or the model.
            WeightsNotFound: the weights are not to be had.
            BadCheckpoint: the weights are damaged or of another architecture.
        """
        ...


@dataclass(frozen=True, eq=False)
class Encoding:
    """All that is kept of one photo: made once, matched often.

    Args:
        image: the photo.
        maps: raw feature maps by ``group/layer``.
        backbones: the config that made each group's maps.
        revisions: revision of each model id that took part.
        mirrored: maps of the mirror image, turned back onto the photo; None where not asked for.
    """

    image: Image
    maps: Mapping[str, FeatureMap] = field(repr=False)
    backbones: Mapping[str, BackboneConfig] = field(repr=False)
    revisions: Mapping[str, str]
    mirrored: Mapping[str, FeatureMap] | None = field(default=None, repr=False)

    @property
    def size(self) -> Size:
        """Height and width of the photo in pixels."""
        return self.image.size


class Similarity(Protocol):
    """Cosine similarities of two photos, computed when asked for."""

    @property
    def source(self) -> Grid:
        """Cells of the source photo."""
        ...

    @property
    def target(self) -> Grid:
        """Cells of the target photo."""
        ...

    @property
    def foreground(self) -> Tensor | None:
        """Target cells that may be matched, ``(h*w,)`` bool; None is all."""
        ...

    def rows(self, points: Tensor) -> Tensor:
        """Similarity of ``(N, 2)`` source pixels to each target cell: ``(N, h*w)``, float32."""
        ...

    def swap(self) -> Similarity:
        """The same pair seen from the target."""
        ...


@dataclass(frozen=True, eq=False)
class Matches:
    """Where points of the source photo lie in the target photo.

    Pixels of the original photos after EXIF rotation, (x, y), (0, 0) at the centre of the
    top-left pixel. Tensors are on the CPU, where ``np.asarray`` takes them, one entry per point,
    in the order asked for.

    Args:
        source: ``(N, 2)`` float64, the points asked for.
        target: ``(N, 2)`` float64, where they were found.
        score: ``(N,)`` float32 cosine similarity, -1 to 1.
        margin: ``(N,)`` score minus that of the best place elsewhere; infinite where there is none.
        cycle_error: ``(N,)`` float64, pixels of the source photo between a point and where its
            match leads back to.
        peak: ``(N,)`` score minus the mean over the target's allowed cells (see the matcher).
        matched: ``(N,)`` bool, False where the matcher rejects the match.
        confidence: ``(N,)`` float32, 0 to 1; None where the recipe is not calibrated.
        names: a name for each point, or None; source_image and target_image, the photos.
    """

    source: Tensor
    target: Tensor
    score: Tensor
    margin: Tensor
    cycle_error: Tensor
    peak: Tensor
    matched: Tensor
    confidence: Tensor | None = None
    names: tuple[str, ...] | None = None
    source_image: Image | None = field(default=None, repr=False)
    target_image: Image | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.source)

    def select(self, keep: Tensor) -> Matches:
        """The matches that ``keep`` picks: ``(N,)`` bool, or indices in the wanted order."""
        order = keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep
        values: dict[str, Any] = {
            item.name: value[order]
            for item in fields(self)
            if isinstance(value := getattr(self, item.name), Tensor)
        }
        if self.names is not None:
            values["names"] = tuple(self.names[index] for index in order.tolist())
        return replace(self, **values)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The matches that are not rejected, the highest score first, as transformers gives them.

        Keys, as of its pipeline ``keypoint-matching``: ``keypoint_image_0`` (source) and
        ``keypoint_image_1`` (target), each ``{"x", "y"}`` in float pixels of the original photo,
        and ``score``; also ``name`` and ``confidence`` where there are any. That shape has no place
        for rejected matches, which must not pass as matches; ``to_csv`` holds them all.
        """
        from sdcorr.export import matches_to_keypoint_dicts

        return matches_to_keypoint_dicts(self)

    def to_coco(self, category: str | None = None) -> dict[str, Any]:
        """What was found on the target photo: a COCO keypoints data set with one annotation.

        Pixels of the original photo, unrounded; rejected points are ``0, 0, 0``. ``category``
        names the thing, by default as the target photo does. Fields: see
        ``sdcorr.export.matches_to_coco``.
        """
        from sdcorr.export import matches_to_coco

        return matches_to_coco(self, category)

    def to_csv(self) -> str:
        """All matches as text, a header and a row each.

        In pixels of the original photos, (x, y), unrounded. Rejected ones too: their ``matched`` is
        ``false``. See ``sdcorr.export.matches_to_csv``.
        """
        from sdcorr.export import matches_to_csv

        return matches_to_csv(self)

    def to_opencv(self) -> tuple[list[cv2.KeyPoint], list[cv2.KeyPoint], list[cv2.DMatch]]:
        """N keypoints of the source, N of the target, and the pairs of those not rejected.

        In pixels of the original photos, as ``cv2.drawMatches`` takes them. See
        ``sdcorr.export.matches_to_opencv``.
        """
        from sdcorr.export import matches_to_opencv

        return matches_to_opencv(self)

    def plot(self) -> Figure:
        """A figure of both photos side by side with numbered points and lines."""
        from sdcorr.viz import plot_matches

        return plot_matches(self)

    def _repr_png_(self) -> bytes | None:
        """The picture a notebook shows."""
        if self.source_image is None or self.target_image is None:
            return None
        buffer = io.BytesIO()
        self.plot().savefig(buffer, format="png")
        return buffer.getvalue()


class Matcher(Protocol):
    """Finds points of one photo in the other. A frozen dataclass, one per file of ``matchers/``."""

    def __call__(self, similarity: Similarity, points: Tensor) -> Matches:
        """Matches of ``(N, 2)`` source pixels, in their order."""
        ...
