"""Encode each photo once, match as often as you like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sdcorr import models
from sdcorr.cache import CachedBackbone, DiskStore
from sdcorr.errors import BadRecipe, NotFinite, WeightsNotFound
from sdcorr.fused import Fused
from sdcorr.fusion import Group, fuse, join, turned_back
from sdcorr.masks import MaskLike, read_mask
from sdcorr.preprocess import Photo, Points, load_image
from sdcorr.presets import RECIPES
from sdcorr.recipe import Recipe
from sdcorr.runtime import Runtime, memory_in_words
from sdcorr.similarities import MeanSimilarity
from sdcorr.types import Backbone, Encoding, FeatureMap, Image, Matches, Similarity


class Pipeline:
    """A recipe, loaded. Made by ``sdcorr.load``.

    Args:
        recipe: what to compute.
        runtime: on what.
        store: keeps feature maps on disk; None keeps none.

    Raises:
        WeightsNotFound: weights are not to be had; the message says how to get them.
        BadCheckpoint: weights are damaged or of another architecture.
        BadRecipe: a field does not fit the model.
        OutOfMemory: the model is too large for the device.
    """

    def __init__(self, recipe: Recipe, runtime: Runtime, store: DiskStore | None = None) -> None:
        self.recipe = recipe
        self.runtime = runtime
        self._calibration = recipe.own_calibration  # once: it takes a digest of the recipe
        find_weights(recipe)  # all of them, before any is loaded
        with memory_in_words(recipe.name, runtime):
            self.backbones = {group.name: _build(group, runtime, store) for group in recipe.groups}

    def __repr__(self) -> str:
        runtime = self.runtime
        return f"Pipeline({self.recipe.name!r}, {runtime.device}, {runtime.dtype_name})"

    @property
    def revisions(self) -> dict[str, str]:
        """Revision of each model id that takes part."""
        return {
            model: revision
            for backbone in self.backbones.values()
            for model, revision in backbone.revisions.items()
        }

    def encode(self, photo: Photo, category: str | None = None) -> Encoding:
        """The feature maps of one photo; the slow part, needed once per photo.

        Args:
            photo: path, PIL image, array ``(H, W, 3)`` or ``Image``.
            category: what it shows; read only by recipes whose prompt names it.

        Raises:
            BadImage: the photo cannot be read.
            NotFinite: a map is not finite.
            OutOfMemory: the device has too little memory.
        """
        (encoding,) = self.encode_batch([photo], category)
        return encoding

    def encode_batch(
        self, photos: Sequence[Photo], category: str | None = None, *, mirrored: bool = True
    ) -> list[Encoding]:
        """The feature maps of several photos at once, for devices that one does not fill.

        In any number: they pass through the models in parts, see ``Runtime.batch``. Their maps
        differ from those of ``encode`` by rounding. On a CPU it is no quicker (eval/README.md).

        Args:
            photos: as of ``encode``.
            category: what all of them show.
            mirrored: also encode the mirror images, in recipes with ``flip``. Without them, the
                photos can be targets and no sources.

        Raises:
            BadImage, NotFinite, OutOfMemory: see ``encode``.
        """
        images = [load_image(photo, category) for photo in photos]
        maps = self._maps(images)
        turned: list[dict[str, FeatureMap]] | list[None] = [None] * len(images)
        if self.recipe.flip and mirrored:
            flipped = self._maps([_mirror(image) for image in images])
            turned = [turned_back(*both) for both in zip(flipped, maps, strict=True)]
        backbones, revisions = self.recipe.backbones, self.revisions
        return [
            Encoding(image, found, backbones, revisions, back)
            for image, found, back in zip(images, maps, turned, strict=True)
        ]

    def fuse(
        self,
        source: Photo | Encoding,
        target: Photo | Encoding,
        category: str | None = None,
        *,
        source_mask: MaskLike | None = None,
        target_mask: MaskLike | None = None,
    ) -> Fused:
        """Both photos joined, so that each click is cheap.

        Args:
            source: an encoding, or anything that ``encode`` takes.
            target: likewise.
            category: for those that are not encoded yet.
            source_mask: what of the source may be matched: a file, an array or a box, see
                ``masks.read_mask``; None is all.
            target_mask: likewise of the target. With a mask, matches have no confidence.

        Raises:
            BadRecipe: an encoding was made by another recipe.
            BadMask: a mask does not fit its photo, or allows nothing.
        """
        first, second = self._encoded(source, category), self._encoded(target, category)
        recipe = self.recipe
        if recipe.flip and first.mirrored is None:
            raise BadRecipe(
                f"the source's encoding was made without flip, which {recipe.name!r} asks for; "
                "encode the photo again"
            )
        masks = (
            None if source_mask is None else read_mask(source_mask, first.size),
            None if target_mask is None else read_mask(target_mask, second.size),
        )

        def joined(maps: Mapping[str, FeatureMap]) -> Similarity:
            return join(
                recipe.groups, maps, second.maps, recipe.foreground, masks, recipe.by_confidence
            )

        with memory_in_words(recipe.name, self.runtime), torch.no_grad():
            similarity = joined(first.maps)
            if recipe.flip:
                assert first.mirrored is not None
                turned = dict(first.mirrored)
                if recipe.foreground is not None:  # one photo, one foreground
                    turned[recipe.foreground.map] = first.maps[recipe.foreground.map]
                similarity = MeanSimilarity((similarity, joined(turned)))
        # margins and peaks depend on how many cells there are to choose from
        masked = any(mask is not None for mask in masks)
        calibration = None if masked else self._calibration
        return Fused(first, second, similarity, recipe.matcher, calibration, masks[0])

    def descriptors(
        self, photos: Sequence[Photo | Encoding], category: str | None = None
    ) -> list[FeatureMap]:
        """Fused descriptors of several photos that may be compared with each other.

        Joint PCA looks at all photos together, so those of one depend on the others. Weights by
        confidence, flip, foreground and masks belong to pairs and are not applied.

        Args:
            photos: encodings, or anything that ``encode`` takes; at least one.
            category: for those that are not encoded yet.

        Returns:
            ``(C, h, w)`` each, of any length, on grids in pixels of their photos.

        Raises:
            BadRecipe: an encoding was made by another recipe.
            BadImage, NotFinite, OutOfMemory: see ``encode``.
        """
        encodings = [self._encoded(photo, category) for photo in photos]
        with memory_in_words(self.recipe.name, self.runtime), torch.no_grad():
            return fuse(self.recipe.groups, [one.maps for one in encodings])

    def match(
        self,
        source: Photo | Encoding,
        target: Photo | Encoding,
        points: Points | None = None,
        category: str | None = None,
        *,
        min_confidence: float | None = None,
        source_mask: MaskLike | None = None,
        target_mask: MaskLike | None = None,
    ) -> Matches:
        """Where points of the source lie in the target: ``fuse``, then ``Fused.match``.

        Args:
            source: an encoding, or anything that ``encode`` takes.
            target: likewise.
            points: ``(N, 2)`` xy pixels of the source, or a mapping of name to (x, y); None
                gives confident matches.
            category: for photos that are not encoded yet.
            min_confidence: see ``Fused.match``.
            source_mask: what of the source may be matched: a file, an array or a box, see
                ``masks.read_mask``; None is all.
            target_mask: likewise of the target.

        Raises:
            BadPoints: points are malformed, not finite, not on the photo, or not in its mask.
            BadRecipe: an encoding was made by another recipe, or this one is not calibrated.
            BadMask: a mask does not fit its photo, or allows nothing.
        """
        pair = self.fuse(source, target, category, source_mask=source_mask, target_mask=target_mask)
        return pair.match(points, min_confidence)

    def _maps(self, images: Sequence[Image]) -> list[dict[str, FeatureMap]]:
        maps: list[dict[str, FeatureMap]] = [{} for _ in images]
        with memory_in_words(self.recipe.name, self.runtime):
            for name, backbone in self.backbones.items():
                extracted = _extract(backbone, images, self.runtime)
                for mine, found in zip(maps, extracted, strict=True):
                    mine |= {f"{name}/{layer}": one for layer, one in found.items()}
        return maps

    def _encoded(self, photo: Photo | Encoding, category: str | None) -> Encoding:
        if not isinstance(photo, Encoding):
            return self.encode(photo, category)
        if (photo.backbones, photo.revisions) != (self.recipe.backbones, self.revisions):
            raise BadRecipe(
                "this encoding was made with other backbones or weights than those of "
                f"{self.recipe.name!r}; encode the photo again"
            )
        return photo


def find_weights(recipe: Recipe) -> dict[str, str]:
    """Revision of each model id of the recipe; downloads weights that are not on this machine.

    Raises:
        WeightsNotFound: weights are not to be had; the message says how to get them.
        BadCheckpoint: a local folder lacks files.
    """
    found = []
    for key, weights in recipe.weights.items():
        try:
            found.append(models.resolve(weights))
        except WeightsNotFound as error:
            raise WeightsNotFound(
                f"{error}. To get them where there is a network: sdcorr models download "
                f"{_download_words(recipe)}; to use a folder or another id: --model {key}=PATH (in "
                f"Python: models={{'{key}': PATH}}); recipe 'sift' needs no weights"
            ) from error
    return models.revisions_of(found)


def _download_words(recipe: Recipe) -> str:
    """What to download it by: its name, if the name means this recipe."""
    if RECIPES.get(recipe.name) == recipe:
        return recipe.name
    return "RECIPE (its file, or its name with the same --model)"


def _build(group: Group, runtime: Runtime, store: DiskStore | None) -> Backbone:
    backbone = group.backbone.build(runtime)
    for use in group.maps:
        channels = backbone.channels[use.name]
        if use.pca is not None and use.pca > channels:
            raise BadRecipe(
                f"group {group.name!r}: pca {use.pca} of map {use.name!r}, which has {channels} "
                "channels"
            )
    return CachedBackbone(backbone, group.backbone, runtime, store) if store else backbone


def _mirror(image: Image) -> Image:
    return Image(np.ascontiguousarray(image.pixels[:, ::-1]), image.category, image.path)


def _extract(
    backbone: Backbone, images: Sequence[Image], runtime: Runtime
) -> tuple[dict[str, FeatureMap], ...]:
    """The maps of each photo; what is not finite is told with the dtype that made it."""
    try:
        return backbone.extract(images)
    except NotFinite as error:
        full = runtime.dtype == torch.float32
        advice = "" if full else "; run again with --dtype float32 (in Python: dtype='float32')"
        raise NotFinite(f"{error}, computed in {runtime.dtype_name}{advice}") from error
