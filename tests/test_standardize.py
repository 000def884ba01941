"""Channels centred and of variance 1 over both photos, against numpy loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorr.backbones.sift import Sift
from sdcorr.fusion import Group, MapUse, fuse_group, join
from sdcorr.geometry import Grid, Size
from sdcorr.maps import joint_pca, log_bins, standardize
from sdcorr.types import FeatureMap


def a_map(values: Tensor, name: str = "m") -> FeatureMap:
    _, height, width = values.shape
    grid = Grid((height, width), (5.0, 4.0), (0.0, 0.0), Size(4 * height, 5 * width))
    return FeatureMap(name, values, grid)


def random_map(channels: int, height: int, width: int, seed: int = 0) -> FeatureMap:
    """Channels with means and deviations of their own."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(channels, height, width, generator=generator)
    ramp = torch.arange(1.0, channels + 1)[:, None, None]
    return a_map(values * ramp**2 + 3 * ramp)


def pair(channels: int = 6) -> tuple[FeatureMap, FeatureMap]:
    """Of unlike shapes."""
    return random_map(channels, 3, 4), random_map(channels, 5, 2, seed=1)


def slow_standardize(source: FeatureMap, target: FeatureMap) -> list[np.ndarray]:
    """Channel after channel, in float64; none may be constant. Cells of zeros stay as they are."""
    sides = [one.values.double().numpy() for one in (source, target)]
    out = [np.zeros_like(side) for side in sides]
    for channel in range(len(sides[0])):
        values = [value for side in sides for value in side[channel].flatten().tolist()]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        for side, found in zip(sides, out, strict=True):
            for cell in np.ndindex(*side.shape[1:]):
                if any(side[(other, *cell)] != 0 for other in range(len(side))):
                    found[(channel, *cell)] = (side[(channel, *cell)] - mean) / math.sqrt(variance)
    return out


def test_three_cells_by_hand():
    """1 and 3 in one photo, 5 in the other: mean 3, variance (4 + 0 + 4) / 3."""
    found = standardize(a_map(torch.tensor([[[1.0, 3.0]]])), a_map(torch.tensor([[[5.0]]])))
    deviation = math.sqrt(8 / 3)
    assert found[0].values.flatten().tolist() == pytest.approx([-2 / deviation, 0])
    assert found[1].values.flatten().tolist() == pytest.approx([2 / deviation])


def test_agrees_with_a_slow_loop():
    source, target = pair()
    for found, expected, one in zip(
        standardize(source, target), slow_standardize(source, target), (source, target), strict=True
    ):
        np.testing.assert_allclose(found.values.numpy(), expected, rtol=1e-6, atol=1e-6)
        assert (found.name, found.grid) == (one.name, one.grid)
        assert found.values.dtype == torch.float32


def test_a_cell_of_zeros_stays_so_and_counts():
    """Of (0, 0) and (2, 4) against (4, 2): means 2 and 2, both of variance (4 + 0 + 4) / 3."""
    found = standardize(
        a_map(torch.tensor([[[0.0, 2.0]], [[0.0, 4.0]]])), a_map(torch.tensor([[[4.0]], [[2.0]]]))
    )
    one = 2 / math.sqrt(8 / 3)
    assert found[0].values[:, 0, 0].tolist() == [0, 0]
    assert found[0].values[:, 0, 1].tolist() == pytest.approx([0, one])
    assert found[1].values[:, 0, 0].tolist() == pytest.approx([one, 0])


def test_cells_of_zeros_agree_with_a_slow_loop():
    """Not those that lack one channel, and not those whose channels cancel."""
    source, target = pair()
    source.values[:, 1, 2] = 0
    target.values[:, 0, 0] = target.values[:, 4, 1] = 0
    target.values[:5, 2, 1] = 0
    source.values[:, 0, 1] = torch.tensor([1.0, -1, 2, -2, 3, -3])
    forth = standardize(source, target)
    for found, expected in zip(forth, slow_standardize(source, target), strict=True):
        np.testing.assert_allclose(found.values.numpy(), expected, rtol=1e-6, atol=1e-6)
    assert (forth[0].values == 0).all(dim=0).sum() == 1
    assert (forth[1].values == 0).all(dim=0).sum() == 2


def test_a_flat_photo_stays_flat():
    source, target = pair()
    flat = a_map(torch.zeros_like(source.values))
    found = standardize(flat, target)
    assert found[0].values.eq(0).all()
    assert found[1].values.ne(0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e6, 1e30])
def test_every_scale_becomes_variance_one(scale):
    source, target = (a_map(scale * one.values) for one in pair())
    found = standardize(source, target)
    both = torch.cat([one.descriptors() for one in found]).double()
    torch.testing.assert_close(both.mean(dim=0), torch.zeros(6).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        both.std(dim=0, correction=0), torch.ones(6).double(), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("mean", [1e3, 1e5, -1e6])
def test_a_mean_far_from_zero_costs_no_digits(mean):
    """Beyond those that float32 lacks on the way in."""
    source, target = (a_map(one.values / 6 + mean) for one in pair())
    for found, expected in zip(
        standardize(source, target), slow_standardize(source, target), strict=True
    ):
        np.testing.assert_allclose(found.values.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e-30, 1e6 / 3])
def test_a_constant_channel_becomes_zero(value):
    sides = []
    for one in pair():
        values = one.values.clone()
        values[2] = value
        sides.append(a_map(values))
    found = standardize(*sides)
    for one in found:
        assert one.values[2].eq(0).all()
        assert one.values[[0, 1, 3, 4, 5]].ne(0).all()


def test_what_rounding_leaves_of_a_constant_channel_becomes_zero():
    """One cell of 22 is one float32 step off."""
    source, target = (a_map(torch.full(shape, 1000.1)) for shape in ((1, 3, 4), (1, 5, 2)))
    above = torch.nextafter(source.values[0, 1, 1], torch.tensor(torch.inf))
    source.values[0, 1, 1] = above
    assert all(one.values.eq(0).all() for one in standardize(source, target))


def test_one_cell_of_each_photo():
    """Two unlike values are 1 and -1, two alike 0."""
    source, target = (
        a_map(torch.tensor([[[4.0]], [[2.0]]])),
        a_map(torch.tensor([[[1.0]], [[2.0]]])),
    )
    found = standardize(source, target)
    assert found[0].values.flatten().tolist() == pytest.approx([1, 0])
    assert found[1].values.flatten().tolist() == pytest.approx([-1, 0])


def test_source_and_target_may_be_exchanged():
    source, target = pair()
    forth, back = standardize(source, target), standardize(target, source)
    for one, other in zip(forth, reversed(back), strict=True):
        torch.testing.assert_close(one.values, other.values, rtol=1e-6, atol=1e-6)


def test_padding_counts_as_any_cell():
    source, target = pair()
    boxed = Grid((3, 4), (5.0, 4.0), (0.0, -4.0), Size(4, 20))
    assert not boxed.inside().all()
    found = standardize(FeatureMap("m", source.values, boxed), target)
    assert torch.equal(found[0].values, standardize(source, target)[0].values)
    assert found[0].grid == boxed


def test_what_comes_in_stays_as_it_is():
    source, target = pair()
    before = source.values.clone(), target.values.clone()
    standardize(source, target)
    assert torch.equal(source.values, before[0])
    assert torch.equal(target.values, before[1])


# Through fusion


def similarities(source: FeatureMap, target: FeatureMap, use: MapUse) -> Tensor:
    """Of all cells to all cells."""
    joined = join([Group("a", Sift(), (use,))], {"a/m": source}, {"a/m": target})
    return joined.rows(source.grid.centers())


def test_cosines_are_of_the_standardized_cells():
    source, target = pair()
    found = similarities(source, target, MapUse("m", standardize=True)).double().numpy()
    rows, columns = (
        one.reshape(len(one), -1).T / np.linalg.norm(one.reshape(len(one), -1), axis=0)[:, None]
        for one in slow_standardize(source, target)
    )
    np.testing.assert_allclose(found, rows @ columns.T, rtol=0, atol=1e-6)
    plain = similarities(source, target, MapUse("m"))
    assert np.abs(plain.numpy() - found).max() > 0.5


def test_the_scale_of_a_channel_does_not_matter_where_it_is_standardized():
    source, target = pair()
    stretch = torch.tensor([2.0**14, 1, 1, 2.0**-14, 1, 1])[:, None, None]
    stretched = [a_map(one.values * stretch) for one in (source, target)]
    use = MapUse("m", standardize=True)
    torch.testing.assert_close(
        similarities(*stretched, use), similarities(source, target, use), rtol=0, atol=1e-5
    )


def test_context_comes_before_and_pca_after():
    source, target = pair()
    use = MapUse("m", pca=5, context=True, standardize=True)
    group = Group("a", Sift(), (use,), unit=False)
    found = fuse_group(group, [{"a/m": source}, {"a/m": target}])
    expected = joint_pca(standardize(log_bins(source), log_bins(target)), 5)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.values, other.values)
    wrong = joint_pca([log_bins(source), log_bins(target)], 5)
    assert not torch.allclose(found[0].values, wrong[0].values)


def test_upsampling_comes_after():
    source, target = pair()
    groups = [Group("a", Sift(), (MapUse("m", upsample=(2,), standardize=True),), unit=False)]
    found = join(groups, {"a/m": source}, {"a/m": target})
    plain = [Group("a", Sift(), (MapUse("m", upsample=(2,)),), unit=False)]
    ready = standardize(source, target)
    expected = join(plain, {"a/m": ready[0]}, {"a/m": ready[1]})
    assert torch.equal(found.source_map.values, expected.source_map.values)
    assert torch.equal(found.target_map.values, expected.target_map.values)
