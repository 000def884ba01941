"""What fusion does to one map of several photos: context, standardising, joint PCA, upsampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.feature_map import FeatureMap, exact


def log_bins(feature_map: FeatureMap) -> FeatureMap:
    """Each cell with 16 averages of its surroundings: 17 times the channels.

    Bin by bin: the cell itself; its 8 neighbours; then, 3 cells away in the same 8 directions, the
    mean of 3 x 3 cells. Cells beyond the edge do not count in a mean, and a bin beyond it is that
    of the nearest cell. "Deep ViT Features as Dense Visual Descriptors", Amir et al., 2022,
    section 4.1, with the two rings of its code.
    """
    values = feature_map.values
    _, height, width = values.shape
    bins = [values]
    for size in (1, 3):
        pooled = F.avg_pool2d(
            values[None], size, stride=1, padding=size // 2, count_include_pad=False
        )[0]
        for down in (-size, 0, size):
            for along in (-size, 0, size):
                if down or along:
                    rows = (torch.arange(height) + down).clamp(0, height - 1)
                    columns = (torch.arange(width) + along).clamp(0, width - 1)
                    bins.append(pooled[:, rows][:, :, columns])
    return FeatureMap(feature_map.name, torch.cat(bins), feature_map.grid)


def standardize(*maps: FeatureMap) -> list[FeatureMap]:
    """Maps of several photos with each channel centred and of variance 1, over all their cells.

    All cells count, padding included. A channel without variance becomes 0; a descriptor that is
    all zeros, as of a flat cell, stays so.
    """
    rows = torch.cat([one.descriptors() for one in maps])  # (M + N + ..., C)
    cells = exact(rows)  # a channel whose mean is far from 0 keeps its digits
    deviation, mean = torch.std_mean(cells, dim=0, correction=0)
    constant = deviation <= torch.finfo(torch.float32).eps * mean.abs()
    scale = deviation.masked_fill(constant, 1).reciprocal().masked_fill(constant, 0)
    described = (cells != 0).any(dim=1, keepdim=True)
    scaled = ((cells - mean) * scale * described).to(rows.dtype).to(rows.device)
    parts = scaled.split([_cells(one) for one in maps])
    return [
        FeatureMap(one.name, part.T.unflatten(1, one.grid.shape), one.grid)
        for one, part in zip(maps, parts, strict=True)
    ]


def joint_pca(maps: Sequence[FeatureMap], dimensions: int) -> list[FeatureMap]:
    """Maps of several photos on the first principal directions of their cells taken together.

    All cells count, padding included, as published. Centred on the common mean; no whitening.
    Directions without variance give zeros.

    Raises:
        BadRecipe: the maps have fewer channels than ``dimensions``.
    """
    channels = maps[0].values.shape[0]
    if dimensions > channels:
        raise BadRecipe(f"pca {dimensions} of map {maps[0].name!r}, which has {channels} channels")
    mean, basis = principal_directions(maps, dimensions)
    return [_project(one, mean, basis) for one in maps]


def principal_directions(maps: Sequence[FeatureMap], dimensions: int) -> tuple[Tensor, Tensor]:
    """Exact PCA of the cells of several maps taken together.

    From the products of the channels, which each photo's moments give without another look at
    its cells, or from those of the cells, whichever are fewer.

    Args:
        maps: ``(C, h, w)`` each, with shapes of their own; at least one.
        dimensions: directions to keep, at most C.

    Returns:
        The common mean ``(C,)`` and the directions as columns, ``(C, dimensions)``: orthonormal,
        by falling variance; zero where the cells have no variance left.
    """
    count, values = sum(map(_cells, maps)), maps[0].values
    if count <= values.shape[0]:
        mean, directions, variances = _from_cells(maps, dimensions)
    else:
        mean, directions, variances = _from_moments(maps, dimensions)
    # no variance: below what rounding leaves, of these products or of the float32 input
    eps, input_eps = torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps
    floor = count * torch.maximum(eps * variances.max(), (input_eps * mean.norm()) ** 2)
    basis = (directions * (variances > floor)).flip(1)  # eigh sorts by rising values
    basis = F.pad(basis, (0, dimensions - basis.shape[1]))
    return mean.to(values.dtype).to(values.device), basis.to(values.dtype).to(values.device)


def _from_cells(maps: Sequence[FeatureMap], dimensions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, last directions and their variances, by the products of fewer cells than channels."""
    rows = exact(torch.cat([one.descriptors() for one in maps]))
    mean = rows.mean(dim=0)
    centred = rows - mean
    # float64: the division by the spread of a direction takes half of the digits
    variances, vectors = torch.linalg.eigh(centred @ centred.T)
    directions = centred.T @ vectors[:, -dimensions:]
    return mean, unit(directions, dim=0), variances[-dimensions:]


def _from_moments(maps: Sequence[FeatureMap], dimensions: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same by the products of fewer channels than cells; moments joined one by one.

    "Algorithms for computing the sample variance", Chan et al., 1983, for matrices.
    """
    count, (mean, scatter) = _cells(maps[0]), maps[0].moments
    for one in maps[1:]:
        cells, (other, its_scatter) = _cells(one), one.moments
        apart, total = other - mean, count + cells
        mean = (count * mean + cells * other) / total
        scatter = scatter + its_scatter + torch.outer(apart, apart) * (count * cells / total)
        count = total
    # float64: where few channels have most of the variance, float32 loses the last directions
    variances, directions = torch.linalg.eigh(scatter)
    return mean, directions[:, -dimensions:], variances[-dimensions:]


def _cells(feature_map: FeatureMap) -> int:
    height, width = feature_map.grid.shape
    return height * width


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length one; zero stays zero."""
    return F.normalize(vectors, dim=dim, eps=1e-30)


def _project(feature_map: FeatureMap, mean: Tensor, basis: Tensor) -> FeatureMap:
    centred = feature_map.values.flatten(1) - mean[:, None]  # (C, h*w)
    values = (basis.T @ centred).unflatten(1, feature_map.grid.shape)
    return FeatureMap(feature_map.name, values, feature_map.grid)


def upsample(feature_map: FeatureMap, factors: Sequence[int]) -> FeatureMap:
    """Bilinear steps in order, each by a whole factor; half-pixel centres, edges repeated."""
    values, grid = feature_map.values, feature_map.grid
    for factor in factors:
        values = F.interpolate(
            values[None], scale_factor=factor, mode="bilinear", align_corners=False
        )[0]
        grid = grid.refine(factor)
    return FeatureMap(feature_map.name, values, grid)
