"""Similarities averaged with those of the mirrored source photo."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.cache import DiskStore
from sdcorr.encodings import _bytes
from sdcorr.errors import BadRecipe
from sdcorr.fusion import Group, MapUse, join, turned_back
from sdcorr.geometry import Grid, Size
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe, read_recipe
from sdcorr.recipes import find_recipe
from sdcorr.similarities import ConfidenceWeighted, MeanSimilarity
from sdcorr.types import FeatureMap

PHOTO = Size(48, 72)
GRIDS = {
    "plain": Grid((4, 6), (12.0, 12.0), (0.0, 0.0), PHOTO),
    "letterbox above": Grid((8, 8), (9.0, 9.0), (0.0, -12.0), PHOTO),
    "letterbox beside": Grid((7, 5), (20.0, 7.0), (-14.0, -0.5), PHOTO),
    "overhang": Grid((5, 7), (11.0, 10.0), (0.0, 0.0), PHOTO),
    "inset": Grid((10, 14), (4.5, 4.25), (6.5, 3.0), PHOTO),
}
EVERY_GRID = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


# The mirrored grid


def test_a_mirrored_grid_by_hand():
    """Over a photo of 10 px, cells of 4 px that begin 1 px beyond the left edge and end 3 px
    beyond the right one; mirrored, they begin 3 px beyond the left edge. y is as it was."""
    grid = Grid((2, 3), (4.0, 5.0), (-1.0, -2.0), Size(7, 10))
    assert grid.centers()[:3].tolist() == [[0.5, 0.0], [4.5, 0.0], [8.5, 0.0]]
    mirrored = grid.mirror()
    assert mirrored.offset == (-1.0, -2.0)  # 1 + 10 + 1 px: the same on both sides
    grid = Grid((2, 3), (4.0, 5.0), (1.0, -2.0), Size(7, 10))  # 1 px inside, 3 px beyond
    assert grid.mirror() == Grid((2, 3), (4.0, 5.0), (-3.0, -2.0), Size(7, 10))
    assert grid.mirror().centers()[:3].tolist() == [[-1.5, 0.0], [2.5, 0.0], [6.5, 0.0]]


@EVERY_GRID
def test_mirrored_twice_a_grid_is_itself(grid: Grid):
    assert grid.mirror().mirror() == grid
    assert grid.mirror().shape == grid.shape
    assert grid.mirror().image == grid.image


@EVERY_GRID
def test_mirrored_centres_are_the_centres_mirrored(grid: Grid):
    """A pixel x of the photo is pixel W - 1 - x of the mirror image; column c is w - 1 - c."""
    there = grid.mirror().centers().reshape(*grid.shape, 2).flip(1)
    here = grid.centers().reshape(*grid.shape, 2)
    torch.testing.assert_close(there[..., 0], 71 - here[..., 0])
    assert torch.equal(there[..., 1], here[..., 1])
    inside = grid.inside().reshape(grid.shape).flip(1)
    assert torch.equal(grid.mirror().inside().reshape(grid.shape), inside)


# Maps of the mirror image, turned back


def places(grid: Grid) -> FeatureMap:
    """A map that holds each cell's own (x, y)."""
    return FeatureMap("m", grid.centers().T.reshape(2, *grid.shape), grid)


@EVERY_GRID
def test_what_stands_at_x_in_the_mirror_image_comes_to_w_minus_x(grid: Grid):
    """A ramp is read exactly between cells; beyond the outermost, padding is never read."""
    turned = turned_back({"a/m": places(grid)}, {"a/m": places(grid)})
    (name, one), = turned.items()  # fmt: skip
    assert (name, one.name, one.grid) == ("a/m", "m", grid)
    x, y = one.values.double()
    low, high = (71 - edge for edge in grid.confine(torch.tensor([[99.0, 0], [-99.0, 0]]))[:, 0])
    own = grid.centers().reshape(*grid.shape, 2)
    where = grid.inside().reshape(grid.shape) & (own[..., 0] >= low) & (own[..., 0] <= high)
    assert where.sum() >= 4
    torch.testing.assert_close(x[where], 71 - own[..., 0][where], rtol=0, atol=1e-3)
    torch.testing.assert_close(y[where], own[..., 1][where], rtol=0, atol=1e-3)


def test_cells_that_fall_on_each_other_are_exchanged_and_not_resampled():
    grid = GRIDS["letterbox above"]
    values = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    turned = turned_back({"a/m": FeatureMap("m", values, grid)}, {"a/m": places(grid)})
    assert torch.equal(turned["a/m"].values, values.flip(2))


def test_cells_that_fall_between_each_other_are_resampled():
    """Cells of 8 px over 12: mirrored, they begin 4 px beyond the edge, half a cell off."""
    grid = Grid((1, 2), (8.0, 8.0), (0.0, 0.0), Size(8, 12))  # centres 3.5 and 11.5; here 7.5, -0.5
    one = FeatureMap("m", torch.tensor([[[1.0, 5.0]]]), grid)
    turned = turned_back({"a/m": one}, {"a/m": one})
    assert turned["a/m"].values.flatten().tolist() == pytest.approx([3.0, 1.0])


def test_each_map_is_turned_to_the_cells_of_its_own():
    maps = {f"a/{name}": places(grid) for name, grid in GRIDS.items()}
    turned = turned_back(maps, maps)
    assert {name: one.grid for name, one in turned.items()} == {
        name: one.grid for name, one in maps.items()
    }


# From photos to matches


def recipe(size: int = 128, **changes) -> Recipe:
    backbone = Sift(size=size, diameters=(12.0, 24.0))
    return Recipe("mine", (Group("sift", backbone, (MapUse("rootsift"),)),), **changes)


def load(flip: bool, **changes) -> Pipeline:
    return sdcorr.load(recipe(flip=flip, **changes), device="cpu")


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """128 wide, 96 high, 16 x 12 cells: lines and wedges, no two alike nor their own mirror."""
    import cv2

    canvas = np.full((96, 128, 3), 128, np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(40):
        corners = generator.integers(0, (128, 96), (3, 2)).astype(np.int32)
        cv2.fillPoly(canvas, [corners], generator.integers(0, 256, 3).tolist())
    return canvas


def inner(points: torch.Tensor) -> torch.Tensor:
    """Those away from the border, where OpenCV cuts descriptors off."""
    return points[((points - torch.tensor([63.5, 47.5])).abs() < torch.tensor([44, 32])).all(dim=1)]


def test_a_mirrored_object_is_found_at_its_mirrored_place(picture: np.ndarray):
    """Its mirror image looks like the target in each descriptor, it itself in few."""
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    points = inner(load(False).fuse(picture, picture).similarity.source.centers())
    expected = torch.stack([127 - points[:, 0], points[:, 1]], dim=1)
    found = {flip: load(flip).match(picture, mirrored, points) for flip in (True, False)}
    hit = {flip: (one.target - expected).norm(dim=1) < 1 for flip, one in found.items()}
    assert hit[True].double().mean() > 0.9
    assert hit[False].double().mean() < 0.2
    assert (found[True].score[hit[True]] > 0.6).all()  # at least half of 1


def test_what_is_not_mirrored_is_still_found(picture: np.ndarray):
    model = load(True)
    points = inner(model.fuse(picture, picture).similarity.source.centers())
    matches = model.match(picture, picture, points)
    assert ((matches.target - points).norm(dim=1) < 1).double().mean() > 0.9
    assert len(model.match(picture, picture)) >= 5


def test_the_similarity_is_the_mean_of_two_computed_apart(picture: np.ndarray, other_photo):
    """16 cells of 8 px: the mirror image's cells fall on the photo's, columns in reverse."""
    plain = load(False)
    source, target = plain.encode(picture), plain.encode(other_photo)
    mirrored = plain.encode(np.ascontiguousarray(picture[:, ::-1])).maps["sift/rootsift"]
    turned = FeatureMap("rootsift", mirrored.values.flip(2), source.maps["sift/rootsift"].grid)
    parts = [
        join(plain.recipe.groups, one, target.maps)
        for one in (source.maps, {"sift/rootsift": turned})
    ]
    similarity = load(True).fuse(picture, other_photo).similarity
    assert isinstance(similarity, MeanSimilarity)
    points = torch.tensor([[20.3, 30.1], [100.0, 90.0], [64.0, 0.0]]).double()
    expected = (parts[0].rows(points) + parts[1].rows(points)) / 2
    torch.testing.assert_close(similarity.rows(points), expected, rtol=0, atol=1e-6)
    assert (parts[0].rows(points) - parts[1].rows(points)).abs().max() > 0.05
    places = similarity.target.centers()[::7]
    back = (parts[0].swap().rows(places) + parts[1].swap().rows(places)) / 2
    torch.testing.assert_close(similarity.swap().rows(places), back, rtol=0, atol=1e-6)


def test_the_target_is_not_mirrored(picture: np.ndarray, other_photo):
    model = load(True)
    source, target = model.encode(other_photo), model.encode(picture)
    blind = dataclasses.replace(target, mirrored=source.mirrored)  # whatever it is
    pair, again = model.fuse(source, target), model.fuse(source, blind)
    points = pair.similarity.source.centers()[::11]
    assert torch.equal(pair.similarity.rows(points), again.similarity.rows(points))


def test_masks_hold_for_both_ways(picture: np.ndarray):
    model = load(True)
    boxes = {"source_mask": (0, 0, 63, 95), "target_mask": (64, 0, 127, 95)}
    matches = model.match(picture, picture[:, ::-1].copy(), **boxes)
    assert len(matches) >= 3
    assert (matches.source[:, 0] <= 63).all()
    assert (matches.target[:, 0] >= 64).all()


def test_sources_encoded_without_flip_are_refused(picture: np.ndarray):
    plain, flipped = load(False), load(True)
    encoding = plain.encode(picture)
    with pytest.raises(BadRecipe, match="made without flip"):
        flipped.match(encoding, picture, [[1, 1]])
    both = plain.match(flipped.encode(picture), encoding, [[1, 1]])  # what is too much is left
    assert torch.equal(both.score, plain.match(encoding, encoding, [[1, 1]]).score)
    assert plain.encode(picture).mirrored is None
    assert flipped.encode(picture).mirrored.keys() == flipped.encode(picture).maps.keys()


def test_a_target_needs_no_mirror_image(picture: np.ndarray):
    flipped = load(True)
    (target,) = flipped.encode_batch([picture[:, ::-1].copy()], mirrored=False)
    assert target.mirrored is None
    found = flipped.match(picture, target, [[1, 1], [9, 5]])
    assert torch.equal(
        found.target, flipped.match(picture, picture[:, ::-1].copy(), [[1, 1], [9, 5]]).target
    )
    with pytest.raises(BadRecipe, match="encode the photo again"):
        flipped.match(target, picture, [[1, 1]])


def test_the_second_maps_count_as_memory(picture: np.ndarray):
    """RootSIFT of two sizes at 12 x 16 cells, in float32, twice."""
    maps, pixels = 2 * 128 * 12 * 16 * 4, 96 * 128 * 3
    assert _bytes(load(False).encode(picture)) == maps + pixels
    assert _bytes(load(True).encode(picture)) == 2 * maps + pixels


def test_maps_of_photo_and_mirror_image_are_kept_apart_on_disk(picture: np.ndarray, tmp_path):
    fresh = load(True).encode(picture)
    for _ in range(2):
        cached = sdcorr.load(recipe(flip=True), device="cpu", cache=DiskStore(tmp_path))
        again = cached.encode(picture)
        for maps, own in ((again.maps, fresh.maps), (again.mirrored, fresh.mirrored)):
            assert torch.equal(maps["sift/rootsift"].values, own["sift/rootsift"].values)


def test_flip_and_groups_by_confidence_go_together(picture: np.ndarray):
    groups = tuple(
        Group(f"sift{size}", Sift(size=128, diameters=(float(size),)), (MapUse("rootsift"),))
        for size in (12, 24)
    )
    both = Recipe("mine", groups, by_confidence=True, flip=True)
    pair = sdcorr.load(both, device="cpu").fuse(picture, picture)
    assert isinstance(pair.similarity, MeanSimilarity)
    assert all(isinstance(part, ConfidenceWeighted) for part in pair.similarity.parts)
    assert len(pair.match()) >= 5
    assert pair.plot((60, 40)).axes


def test_flip_is_a_field_of_the_recipe():
    mine = recipe(flip=True)
    assert read_recipe(mine.describe()) == mine
    assert mine.describe()["flip"] is True
    assert not find_recipe("sift").flip
    with pytest.raises(BadRecipe, match=r"recipe\.flip must be true or false, got 1"):
        read_recipe(mine.describe() | {"flip": 1})
