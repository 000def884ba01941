"""Join the maps of two photos into one similarity: groups of maps, one group per backbone.

Within a group: joint PCA per map, bilinear resampling, concatenation, L2 per cell. The groups are
weighted and concatenated. With unit groups the cosine of the stack is
``sum(w_i^2 cos_i) / sum(w_i^2)``, so weights and nothing else decide how groups share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.geometry import Grid
from sdcorr.types import BackboneConfig, FeatureMap

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
    """

    name: str
    pca: int | None = None
    upsample: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """The maps of one backbone.

    Args:
        name: unique in the recipe; ``--model NAME=PATH`` replaces its weights.
        backbone: what makes the maps.
        maps: in the order of concatenation.
        weight: w_i, positive.
    """

    name: str
    backbone: BackboneConfig
    maps: tuple[MapUse, ...]
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class FusedSimilarity:
    """Cosine similarity of two fused maps, ``(C, h, w)`` with unit descriptors."""

    source_map: FeatureMap
    target_map: FeatureMap

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
        return (queries @ self.target_map.values.flatten(1)).clamp(-1, 1)  # rounding exceeds 1

    def swap(self) -> FusedSimilarity:
        """The same pair seen from the target."""
        return FusedSimilarity(self.target_map, self.source_map)


def join(
    groups: Sequence[Group],
    source: Mapping[str, FeatureMap],
    target: Mapping[str, FeatureMap],
) -> FusedSimilarity:
    """Fuse the maps of two photos.

    Args:
        groups: which maps, how reduced and weighted.
        source: raw maps ``(C, h, w)`` by ``group/layer``.
        target: the same of the other photo.

    Returns:
        Similarity on the grid of the group with the most cells, in photo pixels.
    """
    pairs = [fuse_group(group, source, target) for group in groups]
    weights = [group.weight for group in groups]
    return FusedSimilarity(
        _stack([pair[0] for pair in pairs], weights), _stack([pair[1] for pair in pairs], weights)
    )


def fuse_group(
    group: Group, source: Mapping[str, FeatureMap], target: Mapping[str, FeatureMap]
) -> tuple[FeatureMap, FeatureMap]:
    """One map per photo, unit descriptors (zero where all channels are)."""
    sides: tuple[list[FeatureMap], list[FeatureMap]] = ([], [])
    for use in group.maps:
        pair = (source[f"{group.name}/{use.name}"], target[f"{group.name}/{use.name}"])
        if use.pca is not None:
            pair = joint_pca(*pair, use.pca)
        for side, reduced in zip(sides, pair, strict=True):
            side.append(_upsample(reduced, use.upsample))
    return _concatenate(group, sides[0]), _concatenate(group, sides[1])


def joint_pca(
    source: FeatureMap, target: FeatureMap, dimensions: int
) -> tuple[FeatureMap, FeatureMap]:
    """Both maps on the first principal directions of their cells taken together.

    All cells count, padding included, as published. Centred on the common mean; no whitening.
    Directions without variance give zeros.

    Raises:
        BadRecipe: the maps have fewer channels than ``dimensions``.
    """
    if dimensions > source.values.shape[0]:
        raise BadRecipe(
            f"pca {dimensions} of map {source.name!r}, which has {source.values.shape[0]} channels"
        )
    mean, basis = principal_directions(source.descriptors(), target.descriptors(), dimensions)
    return _project(source, mean, basis), _project(target, mean, basis)


def principal_directions(source: Tensor, target: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Exact PCA of the rows of two matrices taken together.

    Args:
        source: ``(M, C)``.
        target: ``(N, C)``.
        dimensions: directions to keep, at most C.

    Returns:
        The common mean ``(C,)`` and the directions as columns, ``(C, dimensions)``: orthonormal,
        by falling variance; zero where the rows have no variance left.
    """
    rows = torch.cat([source, target])
    # float64: the Gram matrix squares the spread of the spectrum; mps has neither it nor eigh
    exact = (rows.cpu() if rows.device.type == "mps" else rows).double()
    mean = exact.mean(dim=0)
    centred = exact - mean
    count, channels = centred.shape
    if count <= channels:
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        directions = centred.T @ vectors
    else:
        values, directions = torch.linalg.eigh(centred.T @ centred)
    # no variance: below what rounding leaves, of these products or of the float32 input
    eps, input_eps = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps
    floor = count * torch.maximum(eps * values.max(), (input_eps * mean.norm()) ** 2)
    basis = unit(directions, dim=0) * (values > floor)
    basis = basis.flip(1)[:, :dimensions]  # eigh sorts by rising values
    basis = F.pad(basis, (0, dimensions - basis.shape[1]))
    return mean.to(source.dtype).to(source.device), basis.to(source.dtype).to(source.device)


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length one; zero stays zero."""
    return F.normalize(vectors, dim=dim, eps=1e-30)


def _project(feature_map: FeatureMap, mean: Tensor, basis: Tensor) -> FeatureMap:
    reduced = (feature_map.descriptors() - mean) @ basis  # (h*w, k)
    values = reduced.T.unflatten(1, feature_map.grid.shape)
    return FeatureMap(feature_map.name, values, feature_map.grid)


def _upsample(feature_map: FeatureMap, factors: Sequence[int]) -> FeatureMap:
    values, grid = feature_map.values, feature_map.grid
    for factor in factors:
        values = F.interpolate(
            values[None], scale_factor=factor, mode="bilinear", align_corners=False
        )[0]
        grid = grid.refine(factor)
    return FeatureMap(feature_map.name, values, grid)


def _concatenate(group: Group, maps: Sequence[FeatureMap]) -> FeatureMap:
    grid = maps[-1].grid
    shapes = {one.name: one.grid.shape for one in maps}
    if len(set(shapes.values())) > 1:
        raise BadRecipe(
            f"group {group.name!r}: after upsampling, its maps must have one shape, got {shapes}"
        )
    values = torch.cat([one.values for one in maps])  # (C, h, w)
    return FeatureMap(group.name, unit(values, dim=0), grid)


def _stack(maps: Sequence[FeatureMap], weights: Sequence[float]) -> FeatureMap:
    """Weighted concatenation on the grid with the most cells (the first of equals), unit length."""
    grid = max((one.grid for one in maps), key=lambda grid: grid.shape[0] * grid.shape[1])
    values = [
        weight * _on_grid(one, grid).values for one, weight in zip(maps, weights, strict=True)
    ]
    return FeatureMap("fused", unit(torch.cat(values), dim=0), grid)


def _on_grid(feature_map: FeatureMap, grid: Grid) -> FeatureMap:
    """The map read at the grid's cells: as it is where the cells agree, else bilinear."""
    if feature_map.grid.agrees_with(grid, SAME_PLACE):
        return feature_map
    values = unit(feature_map.sample(grid.centers()), dim=1)
    return FeatureMap(feature_map.name, values.T.unflatten(1, grid.shape), grid)
