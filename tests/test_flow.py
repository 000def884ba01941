"""Dense flow and its forward-backward check."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.errors import BadRecipe
from sdcorr.flow import Flow, dense_flow, places
from sdcorr.fusion import FusedSimilarity, Group, MapUse
from sdcorr.geometry import Grid, Size
from sdcorr.matchers.mutual import Mutual
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.same_position import SamePosition
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.recipe import Recipe
from sdcorr.types import FeatureMap

WIDE = Grid((6, 9), (10.0, 10.0), (0.0, 0.0), Size(60, 90))
CROP = Grid((6, 6), (10.0, 10.0), (0.0, 0.0), Size(60, 60))
LETTERBOX = Grid((8, 8), (9.0, 9.0), (0.0, -12.0), Size(48, 72))  # rows 0 and 7 lie on padding
UPRIGHT = Grid((5, 5), (9.0, 9.0), (-10.0, 0.0), Size(45, 25))  # columns 0 and 4 lie on padding


def random_map(grid: Grid, seed: int, channels: int = 64) -> FeatureMap:
    generator = torch.Generator().manual_seed(seed)
    return FeatureMap("m", torch.randn(channels, *grid.shape, generator=generator), grid)


def crops(shift: int) -> FusedSimilarity:
    """Two views of one scene, the target's ``shift`` columns of 10 px further to the right.

    No two places look alike, but those of columns 0 and 1 look a little like that of column 4.
    """
    scene = torch.eye(54).reshape(54, 6, 9)
    scene[:, :, :2] += scene[:, :, 4:5] / 2
    left, right = scene[:, :, :6], scene[:, :, shift : shift + 6]
    return FusedSimilarity(FeatureMap("m", left, CROP), FeatureMap("m", right, CROP))


def test_a_shifted_picture_flows_by_the_shift_and_what_left_it_is_not_consistent():
    """Two columns left the view: they are found at column 4, which leads back 40 and 30 px off."""
    flow = dense_flow(Nearest(), crops(2), 0.05)
    assert flow.grid == CROP
    assert flow.target.shape == (6, 6, 2)
    assert flow.target.dtype == torch.float64
    assert flow.consistent.tolist() == [[False, False, True, True, True, True]] * 6
    centers = CROP.centers().reshape(6, 6, 2)
    shift = torch.tensor([20.0, 0.0])
    torch.testing.assert_close(flow.target, centers[:, [4, 4, 2, 3, 4, 5]] - shift)
    assert flow.cycle_error.tolist() == [[40, 30, 0, 0, 0, 0]] * 6
    assert dense_flow(Nearest(), crops(2), 0.5).consistent.tolist() == [[False] + [True] * 5] * 6


def test_a_picture_flows_nowhere_to_itself():
    flow = dense_flow(Nearest(), crops(0), 0.0)
    assert flow.consistent.all()
    moved, consistent = flow.per_pixel()
    assert np.abs(moved).max() < 1e-4  # float32 of up to 60 px
    assert consistent.all()


@pytest.mark.parametrize(
    "matcher", [Nearest(), SoftArgmax(window=3), Mutual(Nearest(), within=0.2)], ids=str
)
def test_each_cell_is_matched_at_its_centre(matcher):
    similarity = FusedSimilarity(random_map(LETTERBOX, 0, 8), random_map(UPRIGHT, 1, 8))
    flow = dense_flow(matcher, similarity, 0.25)
    inside = LETTERBOX.inside()
    points = LETTERBOX.centers()
    for index in range(64):
        point = points[index] if inside[index] else LETTERBOX.confine(points[index][None])[0]
        match = matcher(similarity, point[None])
        row, column = divmod(index, 8)
        # many points at once are summed in another order than one, in float32
        torch.testing.assert_close(flow.target[row, column], match.target[0], rtol=0, atol=1e-3)
        cycle = flow.cycle_error[row, column]
        torch.testing.assert_close(cycle, match.cycle_error[0], rtol=0, atol=1e-3)
        expected = inside[index] and match.matched[0] and match.cycle_error[0] <= 0.25 * 72
        assert bool(flow.consistent[row, column]) == bool(expected)
    assert 0 < flow.consistent.sum() < inside.sum()


def test_padding_is_never_consistent():
    one = random_map(LETTERBOX, 0)
    flow = dense_flow(Nearest(), FusedSimilarity(one, one), 1.0)
    assert torch.equal(flow.consistent.flatten(), LETTERBOX.inside())
    assert torch.equal(flow.target[0], flow.target[1])  # that of the nearest cell on the photo
    assert LETTERBOX.image.contains(flow.target.reshape(-1, 2)).all()
    _, consistent = flow.per_pixel()
    assert consistent.all()  # each pixel is of the photo


def test_the_tolerance_is_a_share_of_the_source_photo_s_longer_side():
    similarity = FusedSimilarity(random_map(LETTERBOX, 0, 8), random_map(UPRIGHT, 1, 8))
    for within in (0.0, 0.1, 0.3, 1.0):
        flow = dense_flow(Nearest(), similarity, within)
        near = flow.cycle_error.flatten() <= within * 72
        assert torch.equal(flow.consistent.flatten(), near & LETTERBOX.inside())


def test_a_flat_place_is_not_consistent():
    """Whatever its way back; cells beside it still see something."""
    values = random_map(CROP, 0).values.clone()
    values[:, :3, :3] = 0
    one = FeatureMap("m", values, CROP)
    consistent = dense_flow(Nearest(), FusedSimilarity(one, one), 1.0).consistent
    assert not consistent[1, 1]
    assert consistent[4:].all()
    assert consistent[:, 4:].all()


# At each pixel


def two_cells(width: int) -> Flow:
    """Two cells of 4 px, centres at 1.5 and 5.5, moved by (0, 0) and (8, 0) to the first and the
    fourth of the target's, which lead back; the two between those lead to 5 and 2 px before them.
    """
    grid = Grid((1, 2), (4.0, 3.0), (0.0, 0.0), Size(3, 8))
    wide = Grid((1, width // 4), (4.0, 3.0), (0.0, 0.0), Size(3, width))
    target = grid.centers().reshape(1, 2, 2) + torch.tensor([[[0.0, 0.0], [8.0, 0.0]]])
    back = torch.zeros(2, 1, width // 4)
    back[0, 0, 1:4] = torch.tensor([-5.0, -2.0, -8.0])
    accepted = torch.tensor([[True, True]])
    error = torch.zeros(1, 2).double()
    return Flow(grid, target, error, accepted, FeatureMap("back", back, wide), 1.0)


def test_the_flow_at_pixels_by_hand():
    """8 px are little of a photo of 400 px: between the cells by their distance, beyond them as
    they are. Pixels 3 and 4 lie at 6 and 9, where other places match, which lead back to 1 and 7:
    further than the 1 px of tolerance.
    """
    flow = two_cells(width=400)
    moved, valid = flow.per_pixel()
    assert (moved.shape, moved.dtype) == ((3, 8, 2), np.float32)
    assert (valid.shape, valid.dtype) == ((3, 8), np.bool_)
    for row in moved:
        assert row[:, 0].tolist() == pytest.approx([0, 0, 1, 3, 5, 7, 8, 8], abs=1e-5)
        assert row[:, 1].tolist() == pytest.approx([0] * 8, abs=1e-5)
    assert valid.tolist() == [[True] * 3 + [False] * 2 + [True] * 3] * 3
    half = dataclasses.replace(flow, accepted=torch.tensor([[True, False]]))
    assert half.per_pixel()[1].tolist() == [[True] * 3 + [False] * 5] * 3


def test_places_that_match_far_apart_are_not_mixed():
    """8 px are half of a photo of 16 px: a tear. Each pixel moves like its cell, and comes back."""
    moved, valid = two_cells(width=16).per_pixel()
    assert moved[:, :, 0].tolist() == [[0, 0, 0, 0, 8, 8, 8, 8]] * 3
    assert valid.all()


@pytest.mark.parametrize("grid", [LETTERBOX, UPRIGHT, WIDE], ids=["rows", "columns", "whole"])
def test_the_flow_at_pixels_agrees_with_a_loop(grid: Grid):
    """Bilinear between the centres of cells on the photo; padding is never read, on neither side.

    Three in four cells move alike and back, so that some pixels come back and some do not; the
    others move otherwise, most of them too far to be mixed: 72 px have a twentieth of 3.6.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = grid.shape
    still = torch.rand(height, width, generator=generator) < 0.75
    moves = 30 * torch.rand(height, width, 2, generator=generator, dtype=torch.float64) - 15
    moves[still] = torch.tensor([3.0, 2.0]).double()
    inside = grid.inside().reshape(height, width)
    moves[~inside] = 1e6
    back = 20 * torch.rand(2, 8, 8, generator=generator) - 10
    back[:, torch.rand(8, 8, generator=generator) < 0.75] = torch.tensor([[-3.0], [-2.0]])
    back[:, [0, 7]] = 1e6
    accepted = torch.rand(height, width, generator=generator) > 0.1
    own = places(grid).reshape(height, width, 2)
    flow = Flow(
        grid, own + moves, torch.zeros(height, width).double(), accepted,
        FeatureMap("back", back, LETTERBOX), 4.0,
    )  # fmt: skip
    moved, valid = flow.per_pixel()
    rows, columns = inside.any(dim=1).nonzero()[:, 0].tolist(), inside.any(dim=0).nonzero()[:, 0]
    columns = columns.tolist()
    seen = set()
    for y, x in itertools.product(range(0, 45, 4), range(0, 25, 3)):
        column = (x + 0.5 - grid.offset[0]) / grid.stride[0] - 0.5
        row = (y + 0.5 - grid.offset[1]) / grid.stride[1] - 0.5
        column = min(max(column, columns[0]), columns[-1])
        row = min(max(row, rows[0]), rows[-1])
        expected, total = torch.zeros(2).double(), 0.0
        own = moves[round(row), round(column)]
        for r in {int(row), min(int(row) + 1, rows[-1])}:
            for c in {int(column), min(int(column) + 1, columns[-1])}:
                if math.dist(moves[r, c], own) <= 3.6:
                    share = (1 - abs(row - r)) * (1 - abs(column - c))
                    expected, total = expected + share * moves[r, c], total + share
        px, py = x + expected[0].item() / total, y + expected[1].item() / total
        nearest = min(max(px, -0.5), 71.5) - x, min(max(py, -0.5), 47.5) - y
        assert moved[y, x].tolist() == pytest.approx(nearest, abs=1e-3)
        over = min(max(round((px + 0.5) / 9 - 0.5), 0), 7)
        down = min(max(round((py + 12.5) / 9 - 0.5), 1), 6)  # rows 0 and 7 lie on padding
        dx, dy = back[:, down, over].tolist()
        comes = math.hypot(px + dx - x, py + dy - y) <= 4
        on = -0.5 <= px <= 71.5 and -0.5 <= py <= 47.5
        assert valid[y, x] == (bool(accepted[round(row), round(column)]) and comes and on)
        seen |= {(bool(valid[y, x]), comes, on)}
    assert seen >= {(True, True, True), (False, True, True), (False, False, True)}


# From photos


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    backbone = Sift(size=256, diameters=(8.0,))
    return Recipe("mine", (Group("sift", backbone, (MapUse("rootsift"),)),))


def test_flow_between_two_crops_of_a_photo(recipe: Recipe, photo: np.ndarray):
    """Crops of 256 px, whose cells are 8 px; the right one begins 64 px further to the right."""
    left, right = photo[20:276, 60:316], photo[20:276, 124:380]
    pair = sdcorr.load(recipe, device="cpu").fuse(left, right)
    moved, consistent = pair.flow().per_pixel()
    assert moved.shape == (256, 256, 2)
    inner = np.zeros((256, 256), bool)
    inner[48:208, 112:208] = True  # away from borders, and seen in both
    assert (consistent & inner).sum() > 0.8 * inner.sum()
    off = np.abs(moved[inner & consistent] - [-64, 0]).max(axis=1)
    assert (off < 1).mean() > 0.8
    assert consistent[:, :48].mean() < 0.4  # not in the right crop
    strict = pair.flow(within=0.0).consistent
    assert torch.equal(strict, strict & pair.flow(within=1.0).consistent)
    assert strict.sum() < pair.flow(within=1.0).consistent.sum()


def test_flow_uses_the_recipe_s_matcher(recipe: Recipe, photo: np.ndarray, other_photo):
    still = dataclasses.replace(recipe, matcher=SamePosition())
    flow = sdcorr.load(still, device="cpu").fuse(other_photo, photo).flow()
    points = flow.grid.image.clamp(flow.grid.confine(flow.grid.centers()))
    torch.testing.assert_close(flow.target.reshape(-1, 2), photo_clamp(points))


def photo_clamp(points: torch.Tensor) -> torch.Tensor:
    """The same x, y on the photo of 471 x 313."""
    return Size(313, 471).clamp(points)


def test_a_photo_thinner_than_a_cell_flows_nowhere_to_itself():
    grid = Grid((4, 4), (250.0, 250.0), (0.0, -499.5), Size(1, 1000))
    values = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(0))
    same = FusedSimilarity(FeatureMap("m", values, grid), FeatureMap("m", values, grid))
    flow = dense_flow(Nearest(), same, 0.05)
    moved, consistent = flow.per_pixel()
    assert np.abs(moved).max() < 1e-6
    assert consistent.all()


def test_a_mask_and_a_negative_tolerance():
    grid = Grid((2, 2), (4.0, 4.0), (0.0, 0.0), Size(8, 8))
    one = FeatureMap("m", torch.eye(4).reshape(4, 2, 2), grid)
    masked = FusedSimilarity(one, one, source_foreground=torch.tensor([True, False, True, False]))
    assert dense_flow(Nearest(), masked, 0).consistent.tolist() == [[True, False], [True, False]]
    with pytest.raises(BadRecipe, match="at least 0, got -1"):
        dense_flow(Nearest(), masked, -1)
