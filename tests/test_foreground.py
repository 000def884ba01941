"""Cells that may be matched, and groups that are joined raw or by weight."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sdcorr
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.backbones.sift import Sift
from sdcorr.backbones.vit import Vit
from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.fused import Fused
from sdcorr.fusion import (
    Foreground,
    FusedSimilarity,
    Group,
    MapUse,
    foreground_cells,
    fuse_group,
    join,
)
from sdcorr.geometry import Grid, Size
from sdcorr.maps import unit
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe, read_recipe
from sdcorr.recipes import find_recipe
from sdcorr.types import Encoding, FeatureMap, Image, Matcher
from tests.tiny import shrink, vit_parts, write

PHOTO = Size(48, 72)
LETTERBOX = Grid((8, 8), (9.0, 9.0), (0.0, -12.0), PHOTO)  # rows 0 and 7 lie on padding
GROUP = Group("a", Sift(), (MapUse("m"),))


def stretched(rows: int, columns: int, photo: Size = PHOTO) -> Grid:
    return Grid((rows, columns), (photo.width / columns, photo.height / rows), (0.0, 0.0), photo)


def random_map(grid: Grid, seed: int, channels: int = 8, name: str = "m") -> FeatureMap:
    generator = torch.Generator().manual_seed(seed)
    return FeatureMap(name, torch.randn(channels, *grid.shape, generator=generator), grid)


def salience(grid: Grid, seed: int) -> FeatureMap:
    """A map of one channel in 0..1."""
    values = torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(seed))
    return FeatureMap("salience", values, grid)


def maps_of(grid: Grid, seed: int, coarse: Grid | None = None) -> dict[str, FeatureMap]:
    return {"a/m": random_map(grid, seed), "a/s": salience(coarse or grid, seed + 1)}


# Which cells


def test_cells_above_the_threshold_by_hand():
    """Of 0.1, 0.5, 0.6 and 0.7 two exceed 0.5; to be equal is not enough."""
    grid = stretched(1, 4)
    one = FeatureMap("s", torch.tensor([[[0.1, 0.5, 0.6, 0.7]]]), grid)
    assert foreground_cells(one, 0.5, grid).tolist() == [False, False, True, True]
    assert foreground_cells(one, 0.0, grid).tolist() == [True] * 4
    assert foreground_cells(one, -1, grid).tolist() == [True] * 4


def test_rows_and_columns_are_not_mixed_up():
    grid = stretched(2, 3)
    one = FeatureMap("s", torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]), grid)
    assert foreground_cells(one, 0.5, grid).nonzero().flatten().tolist() == [1, 5]


def test_on_another_grid_the_map_is_read_bilinearly():
    """Two cells of 36 px, centres at 17.5 and 53.5, against four of 18: at 8.5, 26.5, 44.5, 62.5.

    0 and 1 there are 0, 0.25, 0.75 and 1 here.
    """
    coarse = FeatureMap("s", torch.tensor([[[0.0, 1.0]]]), stretched(1, 2))
    fine = stretched(1, 4)
    for above, kept in ((0.2, [1, 2, 3]), (0.3, [2, 3]), (0.7, [2, 3]), (0.8, [3])):
        assert foreground_cells(coarse, above, fine).nonzero().flatten().tolist() == kept


@pytest.mark.parametrize("coarse", [stretched(3, 5), Grid((5, 5), (18.0, 18.0), (-9, -21), PHOTO)])
@pytest.mark.parametrize("fine", [stretched(7, 11), LETTERBOX], ids=["stretched", "letterboxed"])
def test_another_grid_agrees_with_a_loop(coarse, fine):
    one = salience(coarse, 3)
    got = foreground_cells(one, 0.5, fine)
    rows, columns = (sorted(set(axis)) for axis in zip(*inside_cells(coarse), strict=True))
    for cell, (x, y) in enumerate(fine.centers().tolist()):
        column = (x + 0.5 - coarse.offset[0]) / coarse.stride[0] - 0.5
        row = (y + 0.5 - coarse.offset[1]) / coarse.stride[1] - 0.5
        column = min(max(column, columns[0]), columns[-1])  # never of padding
        row = min(max(row, rows[0]), rows[-1])
        value = sum(
            (1 - abs(row - r)) * (1 - abs(column - c)) * one.values[0, r, c].item()
            for r in {math.floor(row), math.ceil(row)}
            for c in {math.floor(column), math.ceil(column)}
        )
        assert abs(value - 0.5) > 1e-5
        assert got[cell].item() == (value > 0.5)


def inside_cells(grid: Grid) -> list[tuple[int, int]]:
    """Rows and columns of the cells on the photo."""
    return [tuple(cell) for cell in grid.inside().reshape(grid.shape).nonzero().tolist()]


def test_no_foreground_is_told_with_the_map_and_the_threshold():
    grid = stretched(2, 2)
    one = FeatureMap("salience", torch.full((1, 2, 2), 0.5), grid)
    with pytest.raises(BadRecipe, match="no cell of the photo is foreground: 'salience' is nowher"):
        foreground_cells(one, 0.5, grid)
    maps = {"a/m": random_map(grid, 0), "a/s": one}
    with pytest.raises(BadRecipe, match=r"nowhere above 0\.75$"):
        join([GROUP], maps, maps, Foreground("a/s", 0.75))
    assert join([GROUP], maps, maps, Foreground("a/s", 0.25)).foreground.all()


@pytest.mark.parametrize("side", [0, 1], ids=["source", "target"])
def test_no_foreground_on_one_photo_alone(side):
    grid = stretched(2, 2)
    pair = [{"a/m": random_map(grid, 0), "a/s": salience(grid, 1)} for _ in range(2)]
    pair[side]["a/s"] = FeatureMap("salience", torch.zeros(1, 2, 2), grid)
    with pytest.raises(BadRecipe, match="no cell of the photo is foreground"):
        join([GROUP], *pair, Foreground("a/s", 0.0))


def test_foreground_on_padding_alone_is_none():
    values = torch.zeros(1, 8, 8)
    values[:, 0] = values[:, 7] = 1
    with pytest.raises(BadRecipe, match="no cell of the photo is foreground"):
        foreground_cells(FeatureMap("s", values, LETTERBOX), 0.5, LETTERBOX)


def test_a_map_of_several_channels_is_no_foreground():
    """Its first channel alone would decide, and nobody could tell."""
    grid = stretched(4, 4)
    maps = {"a/m": random_map(grid, 0)}
    with pytest.raises(BadRecipe, match="channel"):
        join([GROUP], maps, maps, Foreground("a/m", 0.0))


# In a recipe


def test_a_map_that_nobody_makes_is_unknown():
    group = Group("sift", Sift(), (MapUse("rootsift"),))
    for wrong, known in (
        ("sift/rotsift", "did you mean 'sift/rootsift'"),
        ("rootsift", "did you mean 'sift/rootsift'"),
        ("", "known: sift/rootsift"),
    ):
        with pytest.raises(UnknownName, match=f"no map for the foreground called '{wrong}'; .*"
                           f"{known}"):  # fmt: skip
            Recipe("mine", (group,), foreground=Foreground(wrong, 0.5))
    described = find_recipe("dino-v1").describe()
    described["foreground"]["map"] = "vit/attention"
    with pytest.raises(UnknownName, match="no map for the foreground called 'vit/attention'"):
        read_recipe(described)


def test_the_map_may_be_one_that_no_group_uses():
    """Salience decides where, and takes no part in the descriptors."""
    vit = Vit(saliency=(0,))
    recipe = Recipe(
        "mine",
        (Group("vit", vit, (MapUse("token"),)), Group("sift", Sift(), (MapUse("rootsift"),))),
        foreground=Foreground("vit/saliency", 0.1),
    )
    assert recipe.groups[0].maps == (MapUse("token"),)
    with pytest.raises(UnknownName, match="no map for the foreground"):
        dataclasses.replace(recipe, groups=recipe.groups[1:])


# In the similarity


def test_join_makes_a_mask_for_each_photo():
    source, target = maps_of(stretched(5, 7), 0), maps_of(LETTERBOX, 10)
    similarity = join([GROUP], source, target, Foreground("a/s", 0.6))
    expected = [maps["a/s"].values.flatten() > 0.6 for maps in (source, target)]
    assert torch.equal(similarity.source_foreground, expected[0])
    assert torch.equal(similarity.foreground, expected[1])
    assert join([GROUP], source, target).foreground is None


def test_the_mask_is_of_the_fused_grid():
    """The finest group decides; the salience is coarser than it."""
    fine = stretched(12, 18)
    groups = [GROUP, Group("b", Sift(), (MapUse("m"),))]
    maps = maps_of(stretched(4, 6), 0) | {"b/m": random_map(fine, 5)}
    similarity = join(groups, maps, maps, Foreground("a/s", 0.5))
    assert similarity.target == fine
    assert torch.equal(similarity.foreground, foreground_cells(maps["a/s"], 0.5, fine))
    assert 0 < similarity.foreground.sum() < 12 * 18


def test_swap_swaps_the_masks():
    similarity = join([GROUP], maps_of(stretched(5, 7), 0), maps_of(LETTERBOX, 10),
                      Foreground("a/s", 0.6))  # fmt: skip
    swapped = similarity.swap()
    assert torch.equal(swapped.foreground, similarity.source_foreground)
    assert torch.equal(swapped.source_foreground, similarity.foreground)
    assert swapped.source == similarity.target
    twice = swapped.swap()
    assert torch.equal(twice.foreground, similarity.foreground)
    assert torch.equal(twice.source_foreground, similarity.source_foreground)


MATCHERS = pytest.mark.parametrize(
    "matcher", [Nearest(), Nearest(inside_only=False), Nearest(mutual=True), Pixel()], ids=str
)


@MATCHERS
def test_matches_lie_on_the_foreground_and_so_does_the_way_back(matcher: Matcher):
    foreground = Foreground("a/s", 0.7)
    similarity = join(
        [GROUP], maps_of(stretched(7, 9), 0), maps_of(stretched(8, 8), 10), foreground
    )
    points = similarity.source.centers()
    found = matcher(similarity, points)
    assert similarity.foreground[similarity.target.cell_of(found.target)].all()
    back = matcher(similarity.swap(), found.target)
    assert similarity.source_foreground[similarity.source.cell_of(back.target)].all()
    everywhere = matcher(FusedSimilarity(similarity.source_map, similarity.target_map), points)
    assert not torch.equal(found.target, everywhere.target)
    assert (found.score <= everywhere.score + 1e-6).all()


def fused(foreground: Foreground | None, matcher: Matcher, seed: int = 0) -> Fused:
    """Two photos of unlike sizes that show the same in places."""
    sizes = Size(48, 72), Size(64, 40)
    grids = stretched(8, 12, sizes[0]), stretched(8, 8, sizes[1])
    shared = random_map(grids[1], seed, channels=16)
    wide = random_map(grids[0], seed + 1, channels=16).values
    wide[:, :, 2:10] = shared.values  # cell (r, c) there is cell (r, c + 2) here
    masks = salience(grids[0], seed + 2), salience(grids[1], seed + 3)
    maps = [
        {"a/m": FeatureMap("m", wide, grids[0]), "a/s": masks[0]},
        {"a/m": shared, "a/s": masks[1]},
    ]
    ends = [
        Encoding(Image(np.zeros((*size, 3), np.uint8)), one, {}, {})
        for size, one in zip(sizes, maps, strict=True)
    ]
    return Fused(*ends, join([GROUP], *maps, foreground), matcher)


@MATCHERS
def test_confident_matches_start_and_end_on_the_foreground(matcher: Matcher):
    pair = fused(Foreground("a/s", 0.6), matcher)
    matches, similarity = pair.match(), pair.similarity
    assert 5 <= len(matches) <= 20
    assert similarity.swap().foreground[similarity.source.cell_of(matches.source)].all()
    assert similarity.foreground[similarity.target.cell_of(matches.target)].all()
    everywhere = fused(None, matcher).match()
    starts = similarity.source.cell_of(everywhere.source)
    assert not similarity.swap().foreground[starts].all()


def test_confident_matches_are_found_where_both_photos_show_the_same():
    pair = fused(Foreground("a/s", 0.6), Nearest())
    matches, similarity = pair.match(), pair.similarity
    here, there = (
        grid.cell_of(points)
        for grid, points in (
            (similarity.source, matches.source), (similarity.target, matches.target)
        )
    )  # fmt: skip
    same = matches.score > 0.999
    assert same.any()
    assert torch.equal(here[same] % 12 - 2, there[same] % 8)
    assert torch.equal(here[same] // 12, there[same] // 8)


def test_a_soft_place_is_a_mean_of_foreground_cells_alone():
    pair = fused(Foreground("a/s", 0.6), SoftArgmax(window=3, temperature=0.5))
    similarity = pair.similarity
    matches = pair.match()
    assert len(matches)
    for source, target in zip(matches.source, matches.target, strict=True):
        row = similarity.rows(source[None])[0].masked_fill(~similarity.foreground, -math.inf)
        best = int(row.argmax())
        cells = [
            cell for cell in similarity.foreground.nonzero().flatten().tolist()
            if max(abs(cell // 8 - best // 8), abs(cell % 8 - best % 8)) <= 1
        ]  # fmt: skip
        weights = (row[cells].double() / 0.5).softmax(dim=0)
        expected = weights @ similarity.target.centers()[cells]
        torch.testing.assert_close(target, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def dino_v1(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = write(tmp_path_factory.mktemp("vit"), vit_parts())
    recipe = shrink(find_recipe("dino-v1"))
    (group,) = recipe.groups
    group = dataclasses.replace(group, backbone=dataclasses.replace(group.backbone, size=96))
    recipe = dataclasses.replace(
        recipe, groups=(group,), foreground=Foreground("vit/saliency", 0.3)
    )
    return sdcorr.load(recipe, models={"vit": str(folder)}, device="cpu", dtype="float32")


def test_a_recipe_with_a_foreground_from_photos_to_matches(dino_v1, photo, other_photo):
    pair = dino_v1.fuse(photo, other_photo)
    similarity = pair.similarity
    matches = pair.match()
    assert len(matches) >= 1
    for grid, mask, points in (
        (similarity.source, similarity.source_foreground, matches.source),
        (similarity.target, similarity.foreground, matches.target),
    ):
        assert 0 < mask.sum() < len(mask)
        assert mask[grid.cell_of(points)].all()
    asked = pair.match([[0, 0], [470, 312], [200, 100]])
    assert similarity.foreground[similarity.target.cell_of(asked.target)].all()


def test_a_recipe_that_leaves_no_foreground(dino_v1, photo):
    """Saliency is at most 1 on each photo."""
    blind = dataclasses.replace(dino_v1.recipe, foreground=Foreground("vit/saliency", 1.0))
    (place,) = (weights.model for weights in blind.weights.values())
    assert Path(place).is_dir()
    with pytest.raises(
        BadRecipe, match="no cell of the photo is foreground: 'saliency' is nowhere"
    ):
        sdcorr.load(blind, device="cpu", dtype="float32").fuse(photo, photo)


# Raw groups, and groups by weight


def test_raw_groups_are_not_joined():
    groups = (
        Group("a", Sift(), (MapUse("rootsift"),), unit=False),
        Group("b", Sift(), (MapUse("rootsift"),)),
    )
    for order in itertools.permutations(groups):
        with pytest.raises(BadRecipe, match="group 'a': unit must be true where several groups"):
            Recipe("mine", order)
    assert Recipe("mine", groups[:1]).groups[0].unit is False
    described = find_recipe("sd-dino").describe()
    described["groups"][1]["unit"] = False
    with pytest.raises(BadRecipe, match="group 'dinov2': unit must be true"):
        read_recipe(described)


def raw_pair() -> tuple[FeatureMap, FeatureMap]:
    """Maps whose descriptors are of lengths 1 to 10 and more."""
    source, target = random_map(stretched(5, 7), 0), random_map(stretched(6, 4), 1)
    ramp = [torch.linspace(1, 10, len(one.grid.centers())).reshape(one.grid.shape) for one in
            (source, target)]  # fmt: skip
    return tuple(
        FeatureMap("m", one.values * length, one.grid)
        for one, length in zip((source, target), ramp, strict=True)
    )


def cosines(source: Tensor, target: Tensor) -> Tensor:
    """Of rows ``(N, C)`` and ``(M, C)``, one by one: ``(N, M)``."""
    return torch.stack(
        [F.cosine_similarity(one[None].double(), target.double(), dim=1) for one in source]
    )


@pytest.mark.parametrize("raw", [True, False])
def test_one_group_is_the_cosine_of_its_maps(raw):
    """Between the cells, raw descriptors are interpolated as they are, others at length one."""
    source, target = raw_pair()
    similarity = join([dataclasses.replace(GROUP, unit=not raw)], {"a/m": source}, {"a/m": target})
    points = torch.tensor([[10.3, 7.1], [33.0, 40.2], [71.0, 0.0]], dtype=torch.float64)
    read = {
        True: source.sample(points),
        False: FeatureMap("m", unit(source.values, dim=0), source.grid).sample(points),
    }
    rows = similarity.rows(points)
    torch.testing.assert_close(
        rows, cosines(read[raw], target.descriptors()).float(), rtol=0, atol=1e-5
    )
    other = cosines(read[not raw], target.descriptors())
    assert (rows - other).abs().max() > 0.01


def test_a_raw_group_is_upsampled_and_concatenated_as_it_is():
    source = {"a/m": raw_pair()[0], "a/n": random_map(stretched(10, 14), 5, name="n")}
    group = Group("a", Sift(), (MapUse("m", upsample=(2,)), MapUse("n")), unit=False)
    fused_map, _ = fuse_group(group, [source, source])
    upsampled = F.interpolate(source["a/m"].values[None], scale_factor=2, mode="bilinear")[0]
    expected = torch.cat([upsampled, source["a/n"].values])
    torch.testing.assert_close(fused_map.values, expected)
    joined = join([group], source, source).source_map
    assert torch.equal(joined.values, fused_map.values)


def test_one_map_in_two_sizes_is_refused():
    """As are two maps in two sizes; in one size, a map may be used twice."""
    maps = {"a/m": random_map(stretched(5, 7), 0)}
    twice = Group("a", Sift(), (MapUse("m"), MapUse("m")))
    assert join([twice], maps, maps).source_map.values.shape == (16, 5, 7)
    with pytest.raises(BadRecipe, match="its maps must have one shape"):
        join([Group("a", Sift(), (MapUse("m"), MapUse("m", upsample=(2,))))], maps, maps)


def test_the_weight_of_a_single_group_changes_nothing():
    source, target = raw_pair()
    for raw in (True, False):
        rows = [
            join([dataclasses.replace(GROUP, unit=not raw, weight=weight)], {"a/m": source},
                 {"a/m": target}).rows(source.grid.centers())
            for weight in (0.1, 1.0, 7.0)
        ]  # fmt: skip
        assert torch.equal(rows[0], rows[1])
        assert torch.equal(rows[0], rows[2])


@pytest.mark.parametrize(
    "weights", [(1.0, 1.0), (2.0, 0.5), (0.3, 1.7), (1.0, 100.0), (1.0, 2.0, 3.0)], ids=str
)
def test_unit_groups_share_by_the_squares_of_their_weights(weights):
    """cos = sum of w_i^2 cos_i / sum of w_i^2, whatever the lengths of the raw descriptors."""
    groups = [
        Group(f"g{index}", Sift(), (MapUse("m"),), weight=weight)
        for index, weight in enumerate(weights)
    ]
    grids = stretched(5, 7), stretched(6, 4)
    pair: list[dict[str, FeatureMap]] = [{}, {}]
    for index in range(len(weights)):
        for side in (0, 1):
            one = random_map(grids[side], 10 * index + side, channels=4 + index)
            pair[side][f"g{index}/m"] = FeatureMap("m", one.values * 10**index, one.grid)
    got = join(groups, *pair).rows(grids[0].centers())
    total = torch.zeros(35, 24, dtype=torch.float64)
    for index, weight in enumerate(weights):
        name = f"g{index}/m"
        total += weight**2 * cosines(pair[0][name].descriptors(), pair[1][name].descriptors())
    expected = total / sum(weight**2 for weight in weights)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("weight", [0, -1.0, math.nan, math.inf])
def test_a_weight_is_positive_and_finite(weight):
    with pytest.raises(BadRecipe, match=r"weight must be (positive|finite)"):
        Recipe("mine", (Group("a", Dinov2(), (MapUse("token"),), weight=weight),))
