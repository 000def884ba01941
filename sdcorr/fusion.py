"""Fuse maps in groups, one per backbone, and join those of two photos into one similarity.

Within a group: log-binned context, standardised channels and joint PCA per map, bilinear
resampling, concatenation, L2 per cell. The groups are weighted and concatenated. With unit groups
the cosine of the stack is ``sum(w_i^2 cos_i) / sum(w_i^2)``, so weights and nothing else decide
how groups share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdcorr.errors import BadMask, BadRecipe
from sdcorr.geometry import Grid
from sdcorr.maps import joint_pca, log_bins, standardize, unit, upsample
from sdcorr.masks import Mask, cells_under
from sdcorr.similarities import ConfidenceWeighted
from sdcorr.types import BackboneConfig, FeatureMap, Similarity

SAME_PLACE = 0.25  # cells; grids closer than this are joined cell by cell, as the papers do


@dataclass(frozen=True)
class MapUse:
    """How a group uses one map.

    Args:
        name: layer name, one of the backbone's ``maps``.
        pca: dimensions kept by joint PCA; None keeps the map as it is.
        upsample: bilinear steps in order, as in ``(2, 2)`` for 15 -> 30 -> 60 cells. The number
            of steps matters: one step by 4 gives other values than two by 2. All maps of a group
            must end in one shape.
        context: join each cell with 16 averages of its surroundings, see ``log_bins``; first of
            all.
        standardize: centre each channel and scale it to variance 1, over both photos together;
            before PCA.
    """

    name: str
    pca: int | None = None
    upsample: tuple[int, ...] = ()
    context: bool = False
    standardize: bool = False


@dataclass(frozen=True)
class Group:
    """The maps of one backbone.

    Args:
        name: unique in the recipe; ``--model NAME=PATH`` replaces its weights.
        backbone: what makes the maps.
        maps: in the order of concatenation.
        weight: w_i, positive.
        unit: L2 per cell before groups are joined; False for one group alone, whose map is then
            upsampled and sampled as it is.
    """

    name: str
    backbone: BackboneConfig
    maps: tuple[MapUse, ...]
    weight: float = 1.0
    unit: bool = True


@dataclass(frozen=True)
class Foreground:
    """Cells of a photo that may be matched.

    Args:
        map: a map of one channel, ``group/layer``.
        above: the cell counts where the map, read at its centre, exceeds this.
    """

    map: str
    above: float


@dataclass(frozen=True, eq=False)
class FusedSimilarity:
    """Cosine similarity of two fused maps.

    Args:
        source_map: descriptors of the source, ``(C, h, w)``, of any length.
        target_map: those of the target.
        source_foreground: ``(h*w,)`` bool, source cells that may be matched; None is all.
        foreground: likewise of the target.
    """

    source_map: FeatureMap
    target_map: FeatureMap
    source_foreground: Tensor | None = None
    foreground: Tensor | None = None

    @property
    def source(self) -> Grid:
        """Cells of the source photo."""
        return self.source_map.grid

    @property
    def target(self) -> Grid:
        """Cells of the target photo."""
        return self.target_map.grid

    def rows(self, points: Tensor) -> Tensor:
        """Cosine of the source's bilinear descriptor at ``(N, 2)`` pixels to each target cell.

        ``(N, h*w)`` float32. A zero descriptor, as of a flat cell, is similar 0 to all.
        """
        queries = unit(self.source_map.sample(points), dim=1)  # (N, C)
        products = queries @ self.target_map.values.flatten(1)  # (N, h*w)
        lengths = self.target_map.lengths
        cosines: Tensor = products / lengths.masked_fill(lengths == 0, 1)
        return cosines.clamp(-1, 1)  # rounding exceeds 1

    def swap(self) -> FusedSimilarity:
        """The same pair seen from the target."""
        return FusedSimilarity(
            self.target_map, self.source_map, self.foreground, self.source_foreground
        )


def join(
    groups: Sequence[Group],
    source: Mapping[str, FeatureMap],
    target: Mapping[str, FeatureMap],
    foreground: Foreground | None = None,
    masks: tuple[Mask | None, Mask | None] = (None, None),
    by_confidence: bool = False,
) -> Similarity:
    """Fuse the maps of two photos.

    Args:
        groups: which maps, how reduced and weighted.
        source: raw maps ``(C, h, w)`` by ``group/layer``.
        target: the same of the other photo.
        foreground: which cells may be matched; None is all.
        masks: which pixels ``(H, W)`` of source and target may be matched; None is all.
        by_confidence: weigh the groups at each point, see ``ConfidenceWeighted``; else they are
            stacked, and the similarity is a ``FusedSimilarity``.

    Returns:
        Similarity on the grid of the group with the most cells, in photo pixels.

    Raises:
        BadRecipe: after upsampling, maps of a group differ in shape, or no cell is foreground.
        BadMask: no cell is both foreground and in the mask.
    """
    photos = (source, target)
    stacks = _fused_groups(groups, photos)
    allowed = [
        _allowed(raw, mask, foreground, maps[0].grid)
        for raw, mask, maps in zip(photos, masks, stacks, strict=True)
    ]
    weights = [group.weight for group in groups]
    if by_confidence:
        parts = [FusedSimilarity(one, other, *allowed) for one, other in zip(*stacks, strict=True)]
        return ConfidenceWeighted(tuple(parts), tuple(weight**2 for weight in weights))
    first, second = (_stack(maps, weights) for maps in stacks)
    return FusedSimilarity(first, second, *allowed)


def fuse(groups: Sequence[Group], photos: Sequence[Mapping[str, FeatureMap]]) -> list[FeatureMap]:
    """The groups of several photos stacked, each on the grid of its group with the most cells.

    Of two photos these are the maps of ``join``, if not ``by_confidence``. Joint PCA and
    standardising look at all photos together. ``(C, h, w)`` each, descriptors of any length.

    Args:
        groups: which maps, how reduced and weighted.
        photos: raw maps ``(C, h, w)`` of each photo, by ``group/layer``.

    Raises:
        BadRecipe: after upsampling, maps of a group differ in shape.
    """
    weights = [group.weight for group in groups]
    return [_stack(maps, weights) for maps in _fused_groups(groups, photos)]


def _fused_groups(
    groups: Sequence[Group], photos: Sequence[Mapping[str, FeatureMap]]
) -> list[list[FeatureMap]]:
    """Of each photo a map per group, all on one grid."""
    fused = [fuse_group(group, photos) for group in groups]
    return [_at_finest(maps) for maps in zip(*fused, strict=True)]


def _allowed(
    maps: Mapping[str, FeatureMap], mask: Mask | None, foreground: Foreground | None, grid: Grid
) -> Tensor | None:
    """Cells ``(h*w,)`` bool that a photo's mask and the recipe's foreground both allow."""
    masked = None if mask is None else cells_under(mask, grid)
    if foreground is None:
        return masked
    cells = foreground_cells(maps[foreground.map], foreground.above, grid)
    if masked is None:
        return cells
    both: Tensor = cells & masked.to(cells.device)
    if not both.any():
        raise BadMask(
            f"no cell under the mask is foreground: {foreground.map!r} is nowhere above "
            f"{foreground.above:g} there; make the mask larger"
        )
    return both


def foreground_cells(feature_map: FeatureMap, above: float, grid: Grid) -> Tensor:
    """Cells of a grid ``(h*w,)`` bool at which a map of one channel exceeds ``above``.

    Raises:
        BadRecipe: there is none on the photo, or the map has more channels.
    """
    if len(feature_map.values) != 1:
        raise BadRecipe(
            f"foreground: expected a map of one channel, {feature_map.name!r} has "
            f"{len(feature_map.values)}"
        )
    cells: Tensor = _at_cells(feature_map, grid)[0].flatten() > above
    if not bool((cells.cpu() & grid.inside()).any()):
        raise BadRecipe(
            f"no cell of the photo is foreground: {feature_map.name!r} is nowhere above {above:g}"
        )
    return cells


def fuse_group(group: Group, photos: Sequence[Mapping[str, FeatureMap]]) -> list[FeatureMap]:
    """One map per photo; descriptors of length one, or zero, if the group asks for it."""
    uses: list[list[FeatureMap]] = []
    for use in group.maps:
        maps = [photo[f"{group.name}/{use.name}"] for photo in photos]
        if use.context:
            maps = [log_bins(one) for one in maps]
        if use.standardize:
            maps = standardize(*maps)
        if use.pca is not None:
            maps = joint_pca(maps, use.pca)
        uses.append([upsample(one, use.upsample) for one in maps])
    return [_concatenate(group, maps) for maps in zip(*uses, strict=True)]


def _concatenate(group: Group, maps: Sequence[FeatureMap]) -> FeatureMap:
    grid = maps[-1].grid
    if len({one.grid.shape for one in maps}) > 1:
        shapes = ", ".join(f"{one.name!r}: {one.grid.shape}" for one in maps)
        raise BadRecipe(
            f"group {group.name!r}: after upsampling, its maps must have one shape, got {shapes}"
        )
    values = maps[0].values if len(maps) == 1 else torch.cat([one.values for one in maps])
    return FeatureMap(group.name, unit(values, dim=0) if group.unit else values, grid)


def _at_finest(maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """The groups' maps on the grid with the most cells, the first of equals."""
    grid = max((one.grid for one in maps), key=lambda grid: grid.shape[0] * grid.shape[1])
    if len(maps) == 1:
        return list(maps)
    # unit again: interpolation between cells shortens
    return [FeatureMap(one.name, unit(_at_cells(one, grid), dim=0), grid) for one in maps]


def _stack(maps: Sequence[FeatureMap], weights: Sequence[float]) -> FeatureMap:
    """Weighted concatenation."""
    if len(maps) == 1:
        return maps[0]
    values = [
        one.values if weight == 1 else weight * one.values
        for one, weight in zip(maps, weights, strict=True)
    ]
    return FeatureMap("fused", torch.cat(values), maps[0].grid)


def turned_back(
    mirrored: Mapping[str, FeatureMap], photo: Mapping[str, FeatureMap]
) -> dict[str, FeatureMap]:
    """Maps of a photo's mirror image, turned back onto the photo, at the cells of its own maps."""
    turned = {}
    for name, one in mirrored.items():
        grid = photo[name].grid
        flipped = FeatureMap(one.name, one.values.flip(2), one.grid.mirror())
        turned[name] = FeatureMap(one.name, _at_cells(flipped, grid), grid)
    return turned


def _at_cells(feature_map: FeatureMap, grid: Grid) -> Tensor:
    """Values ``(C, h, w)`` at a grid's cells: as they are where the cells agree, else bilinear."""
    if feature_map.grid.agrees_with(grid, SAME_PLACE):
        return feature_map.values
    values: Tensor = feature_map.sample(grid.centers()).T.unflatten(1, grid.shape)
    return values
