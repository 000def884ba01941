"""Encode each photo once, match as often as you like."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdcorr import models
from sdcorr.cache import CachedBackbone, DiskStore
from sdcorr.errors import BadRecipe, NotFinite, WeightsNotFound
from sdcorr.fusion import Group, join
from sdcorr.geometry import Size
from sdcorr.matchers.nearest import Nearest
from sdcorr.preprocess import Photo, Points, load_image, read_points
from sdcorr.presets import RECIPES
from sdcorr.recipe import Recipe
from sdcorr.runtime import Runtime, memory_in_words
from sdcorr.types import (
    Backbone,
    Encoding,
    FeatureMap,
    Image,
    Matcher,
    Matches,
    Similarity,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 20  # matches shown when no points are asked for
APART = 1 / 20  # of the photo's longer side, between two of them


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
        image = load_image(photo, category)
        maps: dict[str, FeatureMap] = {}
        with memory_in_words(self.recipe.name, self.runtime):
            for name, backbone in self.backbones.items():
                (found,) = _extract(backbone, image, self.runtime)
                maps |= {f"{name}/{layer}": one for layer, one in found.items()}
        return Encoding(image, maps, self.recipe.backbones, self.revisions)

    def fuse(
        self, source: Photo | Encoding, target: Photo | Encoding, category: str | None = None
    ) -> Fused:
        """Both photos joined, so that each click is cheap.

        Args:
            source: an encoding, or anything that ``encode`` takes.
            target: likewise.
            category: for those that are not encoded yet.

        Raises:
            BadRecipe: an encoding was made by another recipe.
        """
        pair = (self._encoded(source, category), self._encoded(target, category))
        with memory_in_words(self.recipe.name, self.runtime), torch.no_grad():
            similarity = join(
                self.recipe.groups, pair[0].maps, pair[1].maps, self.recipe.foreground
            )
        return Fused(*pair, similarity, self.recipe.matcher)

    def match(
        self,
        source: Photo | Encoding,
        target: Photo | Encoding,
        points: Points | None = None,
        category: str | None = None,
    ) -> Matches:
        """Where points of the source lie in the target: ``fuse``, then ``Fused.match``.

        Args:
            source: an encoding, or anything that ``encode`` takes.
            target: likewise.
            points: ``(N, 2)`` xy pixels of the source, or a mapping of name to (x, y); None
                gives confident matches.
            category: for photos that are not encoded yet.

        Raises:
            BadPoints: points are malformed, not finite, or not on the photo.
            BadRecipe: an encoding was made by another recipe.
        """
        return self.fuse(source, target, category).match(points)

    def _encoded(self, photo: Photo | Encoding, category: str | None) -> Encoding:
        if not isinstance(photo, Encoding):
            return self.encode(photo, category)
        if (photo.backbones, photo.revisions) != (self.recipe.backbones, self.revisions):
            raise BadRecipe(
                "this encoding was made with other backbones or weights than those of "
                f"{self.recipe.name!r}; encode the photo again"
            )
        return photo


@dataclass(frozen=True, eq=False)
class Fused:
    """Two photos joined by a recipe's fusion. Made by ``Pipeline.fuse``."""

    source: Encoding
    target: Encoding
    similarity: Similarity = field(repr=False)
    matcher: Matcher

    @torch.no_grad()
    def match(self, points: Points | None = None) -> Matches:
        """Where points of the source lie in the target.

        Args:
            points: ``(N, 2)`` xy pixels of the source photo, or a mapping of name to (x, y).
                Without points: mutual nearest cells, best score first, at most 20, at least
                1/20 of the photo's longer side apart in both photos, and the recipe's match
                of each.

        Raises:
            BadPoints: points are malformed, not finite, or not on the photo.
        """
        if points is None:
            found, names = self.matcher(self.similarity, self._confident()), None
            order = found.score.argsort(descending=True, stable=True)
            found = found.select(order[found.matched[order]])
        else:
            names, places = read_points(points, self.source.size)
            found = self.matcher(self.similarity, places)
        return dataclasses.replace(
            found,
            source=self.source.size.clamp(found.source),  # a thin photo's cells reach beyond it
            names=names,
            source_image=self.source.image,
            target_image=self.target.image,
        )

    def _confident(self) -> Tensor:
        """Centres of mutual nearest cells, best first and apart: ``(N, 2)`` source pixels."""
        grid, foreground = self.similarity.source, self.similarity.swap().foreground
        cells = grid.inside() if foreground is None else grid.inside() & foreground.cpu()
        found = Nearest(mutual=True)(self.similarity, grid.centers()[cells])
        return best_apart(found.select(found.matched), self.source.size, self.target.size).source

    def plot(self, point: Sequence[float]) -> Figure:
        """A figure of one source point (x, y), in pixels, and its similarity over the target."""
        from sdcorr.viz import plot_heatmap

        return plot_heatmap(self.similarity, self.match([point]))


def best_apart(matches: Matches, source: Size, target: Size) -> Matches:
    """The best matches by score that keep their distance in both photos, at most 20."""
    apart = (APART * max(source), APART * max(target))
    order = matches.score.argsort(descending=True, stable=True).tolist()
    kept: list[int] = []
    for index in order:
        near_source = (matches.source[kept] - matches.source[index]).norm(dim=1) < apart[0]
        near_target = (matches.target[kept] - matches.target[index]).norm(dim=1) < apart[1]
        if not (near_source | near_target).any():
            kept.append(index)
        if len(kept) == MOST:
            break
    return matches.select(torch.tensor(kept, dtype=torch.long))


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


def _extract(
    backbone: Backbone, image: Image, runtime: Runtime
) -> tuple[dict[str, FeatureMap], ...]:
    """The maps of one photo; what is not finite is told with the dtype that made it."""
    try:
        return backbone.extract([image])
    except NotFinite as error:
        full = runtime.dtype == torch.float32
        advice = "" if full else "; run again with --dtype float32 (in Python: dtype='float32')"
        raise NotFinite(f"{error}, computed in {runtime.dtype_name}{advice}") from error
