"""Log-binned context of each cell, against slow loops."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from sdcorr.backbones.sift import Sift
from sdcorr.fusion import Group, MapUse, fuse_group
from sdcorr.geometry import Grid, Size
from sdcorr.maps import joint_pca, log_bins, upsample
from sdcorr.types import FeatureMap
from tests.papers import reference_transformers as reference


def a_map(channels: int, height: int, width: int, seed: int = 0) -> FeatureMap:
    values = torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed))
    image = Size(4 * height, 5 * width)
    return FeatureMap("key", values, Grid((height, width), (5.0, 4.0), (0.0, 0.0), image))


def bins(feature_map: FeatureMap) -> Tensor:
    """``(17, C, h, w)``"""
    return log_bins(feature_map).values.unflatten(0, (17, -1))


def around(values: Tensor, row: int, column: int) -> Tensor:
    """Mean of the cells within one of a place, those beyond the edge not counted."""
    height, width = values.shape[1:]
    near = [
        values[:, y, x]
        for y in range(height)
        for x in range(width)
        if abs(y - row) <= 1 and abs(x - column) <= 1
    ]
    return sum(near) / len(near)


@pytest.mark.parametrize("shape", [(9, 7), (4, 11), (2, 2), (1, 6), (5, 1), (1, 1)], ids=str)
def test_each_cell_has_itself_and_two_rings(shape):
    """Bin by bin, from the definition; a bin beyond the edge is that of the nearest cell."""
    one = a_map(3, *shape)
    values, found = one.values, bins(one)
    height, width = shape
    steps = [(y, x) for y, x in itertools.product((-1, 0, 1), repeat=2) if (y, x) != (0, 0)]
    for row in range(height):
        for column in range(width):
            assert torch.equal(found[0, :, row, column], values[:, row, column])
            for number, (down, along) in enumerate(steps):
                y = min(max(row + down, 0), height - 1)
                x = min(max(column + along, 0), width - 1)
                torch.testing.assert_close(found[1 + number, :, row, column], values[:, y, x])
                y = min(max(row + 3 * down, 0), height - 1)
                x = min(max(column + 3 * along, 0), width - 1)
                torch.testing.assert_close(found[9 + number, :, row, column], around(values, y, x))


@pytest.mark.parametrize("shape", [(9, 7), (3, 12)], ids=str)
def test_cosines_are_those_of_the_original(shape):
    """dino-vit-features goes through the bins in another order; cosines do not see it."""
    first, second = a_map(4, *shape, seed=1), a_map(4, *shape, seed=2)
    ours = [log_bins(one).values.flatten(1).double() for one in (first, second)]
    theirs = [reference.log_bins(one.values.double()).flatten(1) for one in (first, second)]
    ours, theirs = ([one / one.norm(dim=0) for one in pair] for pair in (ours, theirs))
    torch.testing.assert_close(ours[0].T @ ours[1], theirs[0].T @ theirs[1], rtol=0, atol=1e-6)


def test_a_single_bright_cell_by_hand():
    """At (5, 5) of 11 x 11: itself, its eight neighbours, and the 8 x 9 cells whose ring meets it.

    Away from the edge each bin holds the cell once, or 1/9 of it nine times.
    """
    values = torch.zeros(1, 11, 11)
    values[0, 5, 5] = 9.0
    grid = Grid((11, 11), (1.0, 1.0), (0.0, 0.0), Size(11, 11))
    found = bins(FeatureMap("key", values, grid))[:, 0]
    assert [int((one > 0).sum()) for one in found] == [1] * 9 + [9] * 8
    assert found[0, 5, 5] == 9
    # the bin up and left of a cell: one away in the first ring, three away in the second
    assert found[1, 6, 6] == 9
    torch.testing.assert_close(found[9, 7:10, 7:10], torch.ones(3, 3))
    # the bin to the right, then the one below
    assert found[5, 5, 4] == 9
    torch.testing.assert_close(found[13, 4:7, 1:4], torch.ones(3, 3))
    assert found[7, 4, 5] == 9
    torch.testing.assert_close(found[15, 1:4, 4:7], torch.ones(3, 3))


def test_padding_does_not_count_in_a_mean():
    """A flat map stays flat, to its corners."""
    grid = Grid((5, 8), (1.0, 1.0), (0.0, 0.0), Size(5, 8))
    found = log_bins(FeatureMap("key", torch.full((2, 5, 8), 3.0), grid)).values
    torch.testing.assert_close(found, torch.full((34, 5, 8), 3.0))


def test_name_and_grid_stay():
    one = a_map(2, 5, 7)
    found = log_bins(one)
    assert (found.name, found.grid) == (one.name, one.grid)
    assert found.values.shape == (34, 5, 7)
    assert found.values.is_contiguous()


def test_a_shifted_map_has_shifted_bins():
    """Five cells from the edge nothing is clamped, and means hold nine cells."""
    one = a_map(2, 16, 17)
    moved = dataclasses.replace(one, values=one.values.roll((2, 1), dims=(1, 2)))
    inner = bins(one)[..., 5:9, 5:9]
    torch.testing.assert_close(bins(moved)[..., 7:11, 6:10], inner)


def test_a_group_joins_context_first_of_all():
    """Before joint PCA, and before upsampling."""
    pair = {"a/key": a_map(3, 6, 7, seed=3)}, {"a/key": a_map(3, 6, 7, seed=4)}
    use = MapUse("key", pca=5, upsample=(2,), context=True)  # 5 dimensions of 51, not of 3
    found = fuse_group(Group("a", Sift(), (use,), unit=False), pair)
    reduced = joint_pca([log_bins(maps["a/key"]) for maps in pair], 5)
    for got, expected in zip(found, reduced, strict=True):
        finer = upsample(expected, (2,))
        assert got.grid == finer.grid
        torch.testing.assert_close(got.values, finer.values)
    plain = fuse_group(Group("a", Sift(), (MapUse("key"),), unit=False), pair)
    assert torch.equal(plain[0].values, pair[0]["a/key"].values)
