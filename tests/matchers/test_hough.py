"""Votes of matches for each other, against a slow reference that takes one match at a time."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdcorr
from sdcorr.errors import BadRecipe
from sdcorr.fusion import FusedSimilarity
from sdcorr.geometry import Grid, Size
from sdcorr.maps import unit
from sdcorr.matchers import _rows, hough
from sdcorr.matchers._votes import coarse, pool, read, support
from sdcorr.matchers.hough import Hough
from sdcorr.matchers.nearest import Nearest
from sdcorr.recipe import read_recipe
from sdcorr.recipes import find_recipe
from sdcorr.types import FeatureMap, Matches, Similarity

SOURCE = Grid((5, 7), (10.0, 8.0), (0.0, 0.0), Size(40, 70))
TARGET = Grid((6, 4), (9.0, 11.0), (0.0, 0.0), Size(66, 36))
LANDSCAPE = Grid((7, 7), (10.0, 10.0), (0.0, -15.0), Size(40, 70))  # rows 0, 1 and 6: padding
PORTRAIT = Grid((6, 6), (9.0, 9.0), (-10.0, 0.0), Size(54, 34))  # columns 0 and 5: padding
ORIGIN = torch.zeros(1, 2, dtype=torch.float64)
NUMBERS = ("target", "score", "margin", "peak", "cycle_error")


def random_map(grid: Grid, seed: int, channels: int = 12) -> FeatureMap:
    values = torch.randn(channels, *grid.shape, generator=torch.Generator().manual_seed(seed))
    return FeatureMap("m", unit(values, dim=0), grid)


def pair(source: Grid = SOURCE, target: Grid = TARGET, seed: int = 0) -> FusedSimilarity:
    return FusedSimilarity(random_map(source, seed), random_map(target, seed + 1))


def masked(similarity: FusedSimilarity, seed: int = 0) -> FusedSimilarity:
    """With about two thirds of the cells of both photos as foreground."""
    draw = torch.Generator().manual_seed(seed)
    sides = (similarity.source_map, similarity.target_map)
    masks = [torch.rand(math.prod(one.grid.shape), generator=draw) > 1 / 3 for one in sides]
    return FusedSimilarity(*sides, *masks)


def points_on(grid: Grid, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit_points = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return unit_points * torch.tensor([grid.image.width - 1.0, grid.image.height - 1.0])


def line(descriptors: list[Tensor]) -> FeatureMap:
    """Cells of one pixel side by side."""
    cells = len(descriptors)
    grid = Grid((1, cells), (1.0, 1.0), (0.0, 0.0), Size(1, cells))
    return FeatureMap("line", torch.stack(descriptors, dim=1)[:, None], grid)


def on_line(columns: list[float]) -> Tensor:
    return torch.tensor([[column, 0.0] for column in columns], dtype=torch.float64)


# The slow reference


def slow_blocks(grid: Grid, cells: int) -> tuple[int, Grid]:
    """Side of a block in cells, and the grid of blocks."""
    block = next(block for block in itertools.count(1) if max(grid.shape) <= block * cells)
    height, width = (math.ceil(side / block) for side in grid.shape)
    stride = (block * grid.stride[0], block * grid.stride[1])
    return block, Grid((height, width), stride, grid.offset, grid.image)


def slow_allowed(grid: Grid, foreground: Tensor | None, inside_only: bool) -> list[int]:
    inside = grid.inside().tolist()
    return [
        cell
        for cell in range(math.prod(grid.shape))
        if (inside[cell] or not inside_only) and (foreground is None or foreground[cell])
    ]


def slow_block_of(cell: int, grid: Grid, block: int) -> tuple[int, int]:
    row, column = divmod(cell, grid.shape[1])
    return row // block, column // block


def slow_weights(matcher: Hough, similarity: Similarity) -> tuple[np.ndarray, dict[int, float]]:
    """Weights ``(h, w, H, W)`` of matches of blocks; and for each target cell the sum over source.

    A weight is the root of the softmax over target cells times that over source blocks.
    """
    swapped = similarity.swap()
    block, source = slow_blocks(similarity.source, matcher.cells)
    block_there, target = slow_blocks(similarity.target, matcher.cells)
    cells = slow_allowed(similarity.target, similarity.foreground, matcher.inside_only)
    source_cells = slow_allowed(swapped.target, swapped.foreground, matcher.inside_only)
    voters = sorted({slow_block_of(cell, similarity.source, block) for cell in source_cells})
    rows = similarity.rows(source.centers()).double().reshape(*source.shape, -1).numpy()
    strength = np.exp(rows / matcher.temperature)
    over_source = {cell: sum(strength[voter][cell] for voter in voters) for cell in cells}
    weights = np.zeros((*source.shape, *target.shape))
    for voter in voters:
        over_target = sum(strength[voter][cell] for cell in cells)
        for cell in cells:
            both = strength[voter][cell] ** 2 / over_target / over_source[cell]
            there = slow_block_of(cell, similarity.target, block_there)
            weights[voter + there] += math.sqrt(both)
    return weights, over_source


def slow_support(weights: np.ndarray, scale: float, near: float, agree: float) -> np.ndarray:
    """Votes for one match after another; cells of the source count root of scale times."""
    y, x, there_y, there_x = np.indices(weights.shape)
    votes = np.zeros(weights.shape)
    for row, column, there_row, there_column in np.ndindex(weights.shape):
        down, along = there_y - there_row, there_x - there_column
        error = (down - scale * (y - row)) ** 2 + (along - scale * (x - column)) ** 2
        distance = (scale * ((y - row) ** 2 + (x - column) ** 2) + (down**2 + along**2) / scale) / 2
        exponent = error / scale / agree**2 + distance / near**2
        votes[row, column, there_row, there_column] = (weights * np.exp(-exponent / 2)).sum()
    return votes


def slow_votes(matcher: Hough, weights: np.ndarray) -> np.ndarray:
    """The best of the scales: share of near votes to a power, times share of all to a power."""

    def shares(by_scale: list[np.ndarray], near: float, power: float) -> list[np.ndarray]:
        found = [
            slow_support(one, scale, near, matcher.agree)
            for one, scale in zip(by_scale, matcher.scales, strict=True)
        ]
        return [(one / np.max(found)) ** power for one in found]

    near = shares([weights] * len(matcher.scales), matcher.near, matcher.local_power)
    every = shares([weights * one for one in near], math.inf, matcher.overall_power)
    best = np.max([one * other for one, other in zip(near, every, strict=True)], axis=0)
    return best / best.max()


def slow_read(values: np.ndarray, fine: Grid, block: int, point: Tensor) -> np.ndarray:
    """Values of blocks ``(h, w, ...)`` at a point, bilinear.

    Never beyond the centres of the outermost blocks that hold cells on the photo.
    """
    cells = slow_allowed(fine, None, inside_only=True)
    axes = zip(*[slow_block_of(cell, fine, block) for cell in cells], strict=True)
    place = [
        # centre of the first block: half a block from the grid's edge, as a pixel's of the photo's
        min(max((along + 0.5 - offset) / (block * stride) - 0.5, min(axis)), max(axis))
        for along, offset, stride, axis in zip(
            point.tolist()[::-1], fine.offset[::-1], fine.stride[::-1], axes, strict=True
        )
    ]
    total = np.zeros(values.shape[2:])
    for y, x in np.ndindex(*values.shape[:2]):
        total += max(0, 1 - abs(place[0] - y)) * max(0, 1 - abs(place[1] - x)) * values[y, x]
    return total


@dataclass
class Slow:
    """What the matcher knows of a pair, seen from one photo."""

    matcher: Hough
    similarity: Similarity
    votes: np.ndarray
    over_source: dict[int, float]

    def evidence(self, point: Tensor) -> dict[int, float]:
        """Logarithm, for each allowed cell."""
        matcher, target = self.matcher, self.similarity.target
        source_block, _ = slow_blocks(self.similarity.source, matcher.cells)
        block, _ = slow_blocks(target, matcher.cells)
        row = self.similarity.rows(point[None])[0].tolist()
        votes = slow_read(self.votes, self.similarity.source, source_block, point)
        of_cell = {
            cell: slow_read(votes, target, block, target.centers()[cell]).item()
            if block > 1
            else votes[slow_block_of(cell, target, 1)]
            for cell in self.over_source
        }
        return {
            cell: row[cell] / matcher.temperature - math.log(over) / 2 + math.log(of_cell[cell])
            for cell, over in self.over_source.items()
        }

    def find(self, point: Tensor) -> tuple[Tensor, float, float, float]:
        """Place, score, margin and peak."""
        logarithms, width = self.evidence(point), self.similarity.target.shape[1]
        best = max(logarithms, key=lambda cell: logarithms[cell])
        shares = {cell: math.exp(one - logarithms[best]) for cell, one in logarithms.items()}
        steps = {
            cell: max(abs(cell // width - best // width), abs(cell % width - best % width))
            for cell in shares
        }
        window = [cell for cell, step in steps.items() if 2 * step < self.matcher.window]
        weights = {cell: shares[cell] ** self.matcher.sharpness for cell in window}
        centers = self.similarity.target.centers()
        place = sum(weight * centers[cell] for cell, weight in weights.items())
        elsewhere = max([share for cell, share in shares.items() if steps[cell] > 2], default=0)
        return (
            place / sum(weights.values()),
            self.similarity.rows(point[None])[0, best].item(),
            1 - elsewhere,
            1 - sum(shares.values()) / len(shares),
        )


def slow(matcher: Hough, similarity: Similarity) -> tuple[Slow, Slow]:
    """Seen from the source, and from the target."""
    weights, over_source = slow_weights(matcher, similarity)
    _, over_target = slow_weights(matcher, similarity.swap())
    votes = slow_votes(matcher, weights)
    return (
        Slow(matcher, similarity, votes, over_source),
        Slow(matcher, similarity.swap(), votes.transpose(2, 3, 0, 1), over_target),
    )


def check_against_slow(matcher: Hough, similarity: FusedSimilarity, seed: int = 0) -> Matches:
    points = points_on(similarity.source, 12, seed)
    matches = matcher(similarity, points)
    forth, back = slow(matcher, similarity)
    for index, point in enumerate(points):
        place, score, margin, peak = forth.find(point)
        # float32: 2e-6 of a logarithm near 20, four times that of a weight, of 50 px
        expected = similarity.target.image.clamp(place[None])[0]
        assert matches.target[index].tolist() == pytest.approx(expected.tolist(), abs=1e-3)
        assert matches.score[index].item() == pytest.approx(score, abs=1e-6)
        assert matches.margin[index].item() == pytest.approx(margin, abs=1e-5)
        assert matches.peak[index].item() == pytest.approx(peak, abs=1e-5)
        error = (back.find(place)[0] - point).norm().item()
        assert matches.cycle_error[index].item() == pytest.approx(error, abs=1e-3)
    assert matches.matched.all()
    return matches


# By reference


@pytest.mark.parametrize("seed", [0, 10, 20])
def test_every_number_agrees_with_the_slow_reference(seed):
    check_against_slow(Hough(), pair(seed=seed), seed)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.3, "near": 1.5, "agree": 0.6, "scales": (0.5, 1.0)},
        {"temperature": 0.03},
        {"local_power": 0.0, "overall_power": 2.5},
        {"local_power": 0.5, "overall_power": 0.0, "scales": (1.3,)},
        {"local_power": 0.0, "overall_power": 0.0},
        {"window": 1},
        {"window": 3, "sharpness": 0.5},
        {"window": 99, "sharpness": 1.0},
    ],
    ids=str,
)
def test_every_field_does_as_the_slow_reference(changes):
    check_against_slow(Hough(**changes), pair(seed=3), 3)


@pytest.mark.parametrize("inside_only", [True, False])
@pytest.mark.parametrize("foreground", [True, False])
def test_padding_and_foreground_agree_with_the_slow_reference(inside_only, foreground):
    similarity = pair(LANDSCAPE, PORTRAIT, seed=5)
    similarity = masked(similarity) if foreground else similarity
    check_against_slow(Hough(scales=(0.8, 1.25), inside_only=inside_only), similarity)


@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize("cells", [2, 3, 4, 6])
@pytest.mark.parametrize("grids", [(SOURCE, TARGET), (LANDSCAPE, PORTRAIT)], ids=["whole", "boxed"])
def test_voting_by_blocks_agrees_with_the_slow_reference(grids, cells, foreground):
    similarity = pair(*grids, seed=7)
    similarity = masked(similarity, seed=1) if foreground else similarity
    check_against_slow(Hough(scales=(0.8, 1.25), cells=cells), similarity)


def test_blocks_change_something():
    """Or else the tests of them would show nothing."""
    similarity, points = pair(), points_on(SOURCE, 30)
    whole, blocks = Hough(window=1), Hough(window=1, cells=3)
    assert not torch.equal(whole(similarity, points).target, blocks(similarity, points).target)
    assert torch.equal(
        whole(similarity, points).target, Hough(window=1, cells=7)(similarity, points).target
    )


# The votes


@pytest.mark.parametrize(
    ("scale", "near", "agree"),
    [(1.0, 2.0, 1.0), (0.7, 1.0, 0.5), (2.0, 3.0, 2.0), (1.5, math.inf, 0.7)],
)
@pytest.mark.parametrize("shape", [(3, 2, 2, 4), (1, 5, 2, 3), (1, 1, 4, 3)], ids=str)
def test_support_agrees_with_loops(shape, scale, near, agree):
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = slow_support(weights.numpy(), scale, near, agree)
    found = support(weights, scale, near, agree)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    # sums of positive numbers: no error grows
    single = support(weights.float(), scale, near, agree)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-5)


def test_votes_for_one_match_by_hand():
    """Of a single match, (y, x) = (0, 0) to (1, 1); scale 1, a cell of error is worth a half."""
    agree = 1 / math.sqrt(2 * math.log(2))
    weights = torch.zeros(2, 3, 3, 3, dtype=torch.float64)
    weights[0, 0, 1, 1] = 8
    votes = support(weights, 1.0, math.inf, agree)
    assert votes[0, 0, 1, 1].item() == pytest.approx(8)
    assert votes[1, 1, 2, 2].item() == pytest.approx(8)  # as far along in both
    assert votes[1, 0, 2, 2].item() == pytest.approx(4)  # one cell too far to the right
    assert votes[0, 0, 0, 0].item() == pytest.approx(2)  # one up and one to the left
    assert votes[0, 2, 1, 1].item() == pytest.approx(8 / 16)  # two: (1/2)^4


@pytest.mark.parametrize(("here", "there", "scale"), [(1, 2, 2.0), (2, 1, 0.5), (2, 2, 1.0)])
def test_a_vote_weakens_with_the_distance_of_both_photos(here, there, scale):
    """Steps that agree: 2 cells^2 in the middle of both photos at scale 2, 4 at scale 1."""
    weights = torch.zeros(1, 3, 1, 3, dtype=torch.float64)
    weights[0, 0, 0, 0] = 1
    votes = support(weights, scale, 1.5, 1.0)
    assert votes[0, here, 0, there].item() == pytest.approx(math.exp(-here * there / 2 / 1.5**2))


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.6])
def test_source_and_target_may_be_exchanged(scale):
    weights = torch.rand(3, 4, 2, 5, generator=torch.Generator().manual_seed(0)).double()
    forth = support(weights, scale, 2.0, 0.8)
    back = support(weights.permute(2, 3, 0, 1), 1 / scale, 2.0, 0.8)
    torch.testing.assert_close(back.permute(2, 3, 0, 1), forth, rtol=1e-12, atol=0)


def test_coarse_grids_by_hand():
    grid = Grid((5, 7), (10.0, 8.0), (-3.0, 4.0), Size(40, 70))
    assert coarse(grid, 7) == coarse(grid, 64) == grid
    assert coarse(grid, 6) == coarse(grid, 4)  # blocks of 2 x 2 in both cases
    assert coarse(grid, 4) == Grid((3, 4), (20.0, 16.0), (-3.0, 4.0), Size(40, 70))
    assert coarse(grid, 3) == Grid((2, 3), (30.0, 24.0), (-3.0, 4.0), Size(40, 70))
    assert coarse(Grid((7, 5), (1.0, 1.0), (0.0, 0.0), Size(7, 5)), 3).shape == (3, 2)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (7, 5), (9, 10), (64, 33), (1, 60)], ids=str)
def test_no_side_of_a_coarse_grid_is_longer_than_asked_for(shape):
    grid = Grid(shape, (1.0, 1.0), (0.0, 0.0), Size(*shape))
    for cells in range(2, 65):
        found = coarse(grid, cells)
        assert max(found.shape) <= cells
        assert found == slow_blocks(grid, cells)[1]
        # each cell is in one block
        ones = pool(torch.ones(1, math.prod(shape)), grid, found)
        assert ones.shape == (1, *found.shape)
        assert ones.sum().item() == math.prod(shape)


def test_pool_by_hand():
    """3 x 5 cells in blocks of two: the last row and column of blocks hold fewer."""
    fine = Grid((3, 5), (1.0, 1.0), (0.0, 0.0), Size(3, 5))
    rows = torch.stack([torch.arange(15.0), torch.ones(15)])
    found = pool(rows, fine, coarse(fine, 3))
    assert found[0].tolist() == [[12.0, 20.0, 13.0], [21.0, 25.0, 14.0]]
    assert found[1].tolist() == [[4.0, 4.0, 2.0], [2.0, 2.0, 1.0]]
    assert pool(rows, fine, fine)[0].tolist() == torch.arange(15.0).reshape(3, 5).tolist()


def test_maps_are_read_between_cells_and_never_on_padding():
    """Columns 0 and 4 of 5 lie on padding; the photo's cells hold 1, 2 and 4."""
    grid = Grid((1, 5), (10.0, 10.0), (-10.0, 0.0), Size(10, 30))
    maps = torch.tensor([[[99.0, 1.0, 2.0, 4.0, 99.0]], [[0.0, 0.0, 8.0, 0.0, 0.0]]])
    points = torch.tensor([[-0.5, 0.0], [4.5, 9.0], [14.5, 4.5], [19.5, 4.5], [29.5, 4.5]])
    found = read(maps, grid, grid, points.double())
    assert found[0].tolist() == pytest.approx([1, 1, 2, 3, 4], abs=1e-4)
    assert found[1].tolist() == pytest.approx([0, 0, 8, 4, 0], abs=1e-4)


def test_blocks_are_read_up_to_the_outermost_that_hold_cells_of_the_photo():
    """Cells 0 to 2 and 9 of 10 lie on padding: of blocks of two, block 0 does, and no other.

    Blocks 1 and 4 count up to their own centres, though cells 2 and 9 hang over the photo's edge.
    """
    fine = Grid((1, 10), (10.0, 10.0), (-30.0, 0.0), Size(10, 60))
    blocks = Grid((1, 5), (20.0, 10.0), (-30.0, 0.0), Size(10, 60))
    assert fine.inside().tolist() == [False] * 3 + [True] * 6 + [False]
    maps = torch.tensor([[[99.0, 1.0, 2.0, 4.0, 8.0]]])
    # from centre to centre 20 px: block 1's is at -0.5, block 4's at 59.5
    columns = [-30.0, -0.5, 4.5, 9.5, 39.5, 49.5, 54.5, 59.5, 90.0]
    found = read(maps, blocks, fine, on_line(columns))
    assert found[0].tolist() == pytest.approx([1, 1, 1.25, 1.5, 4, 6, 7, 8, 8], abs=1e-4)


@pytest.mark.parametrize("cells", [2, 3, 4, 7])
@pytest.mark.parametrize("grid", [SOURCE, TARGET, LANDSCAPE, PORTRAIT], ids=str)
def test_blocks_are_read_as_by_the_slow_reference(grid, cells):
    block, blocks = slow_blocks(grid, cells)
    maps = torch.rand(2, *blocks.shape, generator=torch.Generator().manual_seed(0))
    points = 3 * points_on(grid, 60) - torch.tensor([grid.image.width, grid.image.height])
    found = read(maps, blocks, grid, points)
    for point, values in zip(points, found.T, strict=True):
        expected = slow_read(maps.permute(1, 2, 0).double().numpy(), grid, block, point)
        np.testing.assert_allclose(values.numpy(), expected, atol=1e-5)


# By hand


def test_two_cells_by_hand():
    """A photo of two unlike cells against itself, no near votes.

    e^(1/T) is 3, so weights are 3/4 on the diagonal and 1/4 beside it. A cell of error is worth
    a half: votes(0, 0) = 3/4 + 3/4 + 1/2 (1/4 + 1/4) = 1.75, votes(0, 1) = 1/4 + 1/2 (3/4 + 3/4)
    + 1/16 * 1/4 = 1.015625, or 0.580357 of the most; evidence 3 : 0.580357 = 1 : 0.193452.
    """
    one = line([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])])
    matcher = Hough(
        temperature=1 / math.log(3), scales=(1.0,), agree=1 / math.sqrt(2 * math.log(2)),
        local_power=0.0, overall_power=1.0, window=3, sharpness=1.0,
    )  # fmt: skip
    matches = matcher(FusedSimilarity(one, one), on_line([0.0, 1.0]))
    share = 0.193452
    expected = [share / (1 + share), 1 / (1 + share)]
    assert matches.target[:, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert matches.target[:, 1].tolist() == [0.0, 0.0]
    assert matches.score.tolist() == pytest.approx([1.0, 1.0])
    assert matches.margin.tolist() == [1.0, 1.0]  # no cell is more than two away
    assert matches.peak.tolist() == pytest.approx([(1 - share) / 2] * 2, abs=1e-5)
    assert matches.matched.tolist() == [True, True]
    squared = dataclasses.replace(matcher, sharpness=2.0)(FusedSimilarity(one, one), ORIGIN)
    expected = share**2 / (1 + share**2)
    assert squared.target[0, 0].item() == pytest.approx(expected, abs=1e-5)


def test_votes_mend_what_similarities_mistake():
    """Seven cells reappear five to the right; the fourth has a perfect double at the left end."""
    kinds = list(torch.eye(9))
    target = [kinds[7]] * 14
    target[5:12] = kinds[:7]
    target[8] = 0.6 * kinds[3] + 0.8 * kinds[8]
    target[0] = kinds[3]
    similarity = FusedSimilarity(line(kinds[:7]), line(target))
    points = on_line([0, 1, 2, 3, 4, 5, 6])
    nearest = Nearest()(similarity, points)
    assert nearest.target[:, 0].tolist() == [5, 6, 7, 0, 9, 10, 11]
    for powers in ((2.0, 1.0), (2.0, 0.0), (0.0, 2.0)):  # six agree with 8, none with 0
        matcher = Hough(window=1, local_power=powers[0], overall_power=powers[1])
        matches = matcher(similarity, points)
        assert matches.target[:, 0].tolist() == [5, 6, 7, 8, 9, 10, 11]
        assert matches.score.tolist() == pytest.approx([1, 1, 1, 0.6, 1, 1, 1])
        assert matches.margin[3] < matches.margin[2]
        assert matches.cycle_error.tolist() == [0] * 7
    silent = Hough(window=1, local_power=0.0, overall_power=0.0)(similarity, points)
    assert silent.target[:, 0].tolist() == nearest.target[:, 0].tolist()


def test_neighbours_and_the_crowd_may_differ():
    """Eight cells move right by ten, three others left by ten; the last of these has two doubles.

    One is where its neighbours went, the other where the crowd did.
    """
    kinds = list(torch.eye(13))
    source = [*kinds[:8], *[kinds[11]] * 4, *kinds[8:11]]  # the three at 12, 13 and 14
    target = [kinds[12]] * 25
    target[10:18], target[2:5], target[24] = kinds[:8], kinds[8:11], kinds[10]
    similarity = FusedSimilarity(line(source), line(target))
    plain = Hough(window=1, scales=(1.0,), near=2.0)
    local = dataclasses.replace(plain, local_power=1.0, overall_power=0.0)
    overall = dataclasses.replace(plain, local_power=0.0, overall_power=1.0)
    assert local(similarity, on_line([14])).target.tolist() == [[4.0, 0.0]]
    assert overall(similarity, on_line([14])).target.tolist() == [[24.0, 0.0]]


@pytest.mark.parametrize("turned", [False, True])
def test_an_object_of_twice_the_size_is_found_at_its_scale(turned):
    """Each of eight cells appears as two; the fifth is vague, with a perfect double at the end."""
    kinds = list(torch.eye(11))
    target = [kinds[min(column // 2, 9)] for column in range(24)]
    target[8] = target[9] = 0.6 * kinds[4] + 0.8 * kinds[10]
    target[23] = kinds[4]
    small, large = line(kinds[:8]), line(target)
    points = on_line([4])
    if turned:
        small, large, points = upright(small), upright(large), points.flip(1)
    similarity = FusedSimilarity(small, large)

    def column(scales: tuple[float, ...]) -> float:
        matches = Hough(scales=scales, agree=0.4, window=1)(similarity, points)
        return matches.target[0, int(turned)].item()

    assert column((2.0,)) in (8, 9)
    assert column((0.5, 1.0, 2.0)) in (8, 9)
    assert column((0.5,)) == 23


def upright(one: FeatureMap) -> FeatureMap:
    """A line of cells below each other."""
    height, width = one.grid.image
    grid = Grid((width, height), (1.0, 1.0), (0.0, 0.0), Size(width, height))
    return FeatureMap(one.name, one.values.transpose(1, 2), grid)


# What may be matched


@pytest.mark.parametrize("cells", [3, 32])
def test_padding_is_never_matched(cells):
    """The best keys lie on padding; with inside_only=False they win."""
    similarity = pair(LANDSCAPE, PORTRAIT)
    values = similarity.target_map.values.clone()
    padding = ~PORTRAIT.inside().reshape(PORTRAIT.shape)
    start = similarity.source_map.values[:, 3, 3]
    values[:, padding] = start[:, None]
    loaded = FusedSimilarity(similarity.source_map, FeatureMap("t", values, PORTRAIT))
    point = LANDSCAPE.centers()[[3 * 7 + 3]]
    wide = Hough(cells=cells, inside_only=False, local_power=0.0, overall_power=0.0)
    assert wide(loaded, point).score.item() == pytest.approx(1)
    points = points_on(LANDSCAPE, 60)
    matches = Hough(cells=cells)(loaded, points)
    left, right = PORTRAIT.centers()[PORTRAIT.inside(), 0].aminmax()
    assert (matches.target[:, 0] >= left - 1e-9).all()
    assert (matches.target[:, 0] <= right + 1e-9).all()
    assert matches.score.max() < 0.99


@pytest.mark.parametrize("cells", [3, 32])
def test_what_lies_on_padding_changes_nothing(cells):
    """Neither does it vote, nor take anything from the cells that do."""
    similarity, points = pair(LANDSCAPE, PORTRAIT), points_on(LANDSCAPE, 40)
    changed = []
    for one, seed in ((similarity.source_map, 40), (similarity.target_map, 41)):
        inside = one.grid.inside().reshape(one.grid.shape)
        values = torch.where(inside, one.values, random_map(one.grid, seed).values)
        changed.append(FeatureMap("changed", values, one.grid))
    before = Hough(cells=cells)(similarity, points)
    after = Hough(cells=cells)(FusedSimilarity(*changed), points)
    for name in NUMBERS:
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=0, atol=1e-3)


@pytest.mark.parametrize("cells", [3, 32])
def test_what_is_not_foreground_is_never_matched_and_never_votes(cells):
    similarity, points = masked(pair()), points_on(SOURCE, 40)
    matcher = Hough(cells=cells, window=1)
    matches = matcher(similarity, points)
    assert similarity.foreground is not None
    assert similarity.foreground[TARGET.cell_of(matches.target)].all()
    home = matcher(similarity.swap(), matches.target)
    assert similarity.source_foreground[SOURCE.cell_of(home.target)].all()
    # whatever the masked target cells hold
    other = random_map(TARGET, 50).values
    values = torch.where(
        similarity.foreground.reshape(TARGET.shape), similarity.target_map.values, other
    )
    changed = dataclasses.replace(similarity, target_map=FeatureMap("t", values, TARGET))
    again = matcher(changed, points)
    for name in ("target", "score", "margin", "peak"):
        torch.testing.assert_close(getattr(again, name), getattr(matches, name), rtol=0, atol=1e-5)


# Properties


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0), Hough().scales], ids=str)
def test_evidence_seen_from_the_target_is_that_of_the_swapped_pair(scales):
    """The same logarithm for both ways, once each row has its own normaliser."""
    matcher, similarity = Hough(scales=scales), masked(pair(seed=9))
    evidence, swapped = matcher.prepare(similarity), matcher.prepare(similarity.swap())
    turned = evidence.swap()
    assert (turned.source, turned.target) == (TARGET, SOURCE)
    assert torch.equal(turned.foreground, similarity.source_foreground)
    centers, there = SOURCE.centers(), TARGET.centers()
    # 1e-6 of a cell's step reaches a neighbour whose votes may be a thousand times as many
    torch.testing.assert_close(turned.rows(there), swapped.rows(there), rtol=0, atol=5e-3)
    forth = evidence.rows(centers) - turned.over_source[:, None] / 2
    back = turned.rows(there) - evidence.over_source[:, None] / 2
    torch.testing.assert_close(forth, back.T, rtol=0, atol=5e-3)
    twice = turned.swap()
    torch.testing.assert_close(twice.rows(centers), evidence.rows(centers), rtol=0, atol=0)


@pytest.mark.parametrize(("scales", "inverse"), [((0.5,), (2.0,)), ((1.0, 1.6), (1.0, 0.625))])
def test_the_cycle_error_is_that_of_the_way_back_at_inverse_scales(scales, inverse):
    similarity, points = pair(seed=11), points_on(SOURCE, 30)
    there = Hough(scales=scales)(similarity, points)
    back = Hough(scales=inverse)(similarity.swap(), there.target)
    error = (back.target - points).norm(dim=1)
    torch.testing.assert_close(there.cycle_error, error, rtol=0, atol=1e-3)
    plain = Hough(scales=scales)(similarity.swap(), there.target).target
    assert not torch.allclose(plain, back.target, atol=1e-3)


@pytest.mark.parametrize("cells", [4, 32])
def test_a_photo_matches_itself_where_cells_are_orthogonal(cells):
    """At a cell's centre: its own evidence is thousands of times that of any other."""
    one = FeatureMap("own", torch.eye(49).reshape(49, 7, 7), LANDSCAPE)
    points = LANDSCAPE.centers()[LANDSCAPE.inside()]
    matches = Hough(cells=cells)(FusedSimilarity(one, one), points)
    torch.testing.assert_close(matches.target, points, rtol=0, atol=1e-6)
    torch.testing.assert_close(matches.cycle_error, torch.zeros(len(points)).double(), atol=1e-6,
                               rtol=0)  # fmt: skip
    assert matches.score.tolist() == pytest.approx([1.0] * len(points))
    assert (matches.margin > 0.99).all()


def test_a_shift_by_whole_cells_shifts_the_matches():
    wide = Grid((6, 12), (10.0, 10.0), (0.0, 0.0), Size(60, 120))
    crop = Grid((6, 9), (10.0, 10.0), (0.0, 0.0), Size(60, 90))
    scene = random_map(wide, 7, channels=64)
    left = FeatureMap("left", scene.values[:, :, :9], crop)
    right = FeatureMap("right", scene.values[:, :, 3:], crop)
    points = crop.centers()[crop.centers()[:, 0] >= 30]
    matches = Hough()(FusedSimilarity(left, right), points)
    shift = torch.tensor([30.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(matches.target, points - shift, rtol=0, atol=1e-2)


def test_a_point_between_cells_has_the_votes_of_both():
    """Half way between two cells: the mean of their votes, of their similarities by descriptor."""
    similarity = pair(seed=2)
    evidence = Hough().prepare(similarity)
    centers = SOURCE.centers()[[9, 10]]
    middle = centers.mean(dim=0, keepdim=True)
    votes = [
        (evidence.rows(point) - similarity.rows(point) / 0.1).double().exp()
        for point in (*centers.split(1), middle)
    ]
    torch.testing.assert_close(votes[2], (votes[0] + votes[1]) / 2, rtol=1e-4, atol=0)


def test_a_prepared_pair_gives_the_same_matches():
    matcher, similarity, points = Hough(), masked(pair(seed=4)), points_on(SOURCE, 20)
    prepared = matcher.prepare(similarity)
    assert matcher.prepare(prepared) is prepared
    plain, again = matcher(similarity, points), matcher(prepared, points)
    for name in NUMBERS:
        assert torch.equal(getattr(plain, name), getattr(again, name))


def test_margin_and_peak_are_shares_of_the_best():
    matches = Hough()(pair(seed=13), points_on(SOURCE, 100))
    for share in (matches.margin, matches.peak):
        assert (share >= 0).all()
        assert (share <= 1).all()


def test_no_points_give_no_matches():
    matches = Hough()(pair(), torch.zeros(0, 2, dtype=torch.float64))
    assert isinstance(matches, Matches)
    assert matches.target.shape == (0, 2)
    assert matches.score.shape == matches.cycle_error.shape == (0,)


def test_one_cell_grids():
    grid = Grid((1, 1), (7.0, 5.0), (0.0, 0.0), Size(5, 7))
    one = random_map(grid, 0)
    matches = Hough()(FusedSimilarity(one, one), torch.tensor([[6.0, 4.0]]).double())
    assert matches.target.tolist() == [[3.0, 2.0]]
    assert (matches.score.item(), matches.margin.item()) == (pytest.approx(1), 1)
    assert matches.peak.item() == pytest.approx(0, abs=1e-6)
    assert matches.cycle_error.item() == pytest.approx(math.hypot(3, 2))


@pytest.mark.parametrize("cells", [2, 32])
def test_a_photo_against_one_cell(cells):
    grid = Grid((1, 1), (7.0, 5.0), (0.0, 0.0), Size(5, 7))
    similarity = FusedSimilarity(random_map(SOURCE, 0), random_map(grid, 1))
    matches = Hough(cells=cells)(similarity, points_on(SOURCE, 10))
    assert matches.target.tolist() == [[3.0, 2.0]] * 10
    back = Hough(cells=cells)(similarity.swap(), ORIGIN)
    assert SOURCE.image.contains(back.target).all()


def test_a_flat_place_matches_nothing_and_is_finite():
    one = random_map(LANDSCAPE, 0)
    values = one.values.clone()
    values[:, 3, 3] = 0
    flat = FeatureMap("flat", values, LANDSCAPE)
    points = LANDSCAPE.centers()[[3 * 7 + 3, 3 * 7 + 5]]
    matches = Hough()(FusedSimilarity(flat, one), points)
    assert matches.matched.tolist() == [False, True]
    assert matches.score[0].item() == 0
    assert torch.isfinite(matches.target).all()


def test_a_flat_photo_is_finite():
    """All matches weigh the same, and none is matched."""
    flat = FeatureMap("flat", torch.zeros(4, *SOURCE.shape), SOURCE)
    matches = Hough()(FusedSimilarity(flat, random_map(TARGET, 0, 4)), points_on(SOURCE, 5))
    assert not matches.matched.any()
    assert all(torch.isfinite(getattr(matches, name)).all() for name in NUMBERS)


@pytest.mark.parametrize("powers", [(0, 0), (0, 1000), (1000, 0), (1000, 1000)], ids=str)
@pytest.mark.parametrize("scales", [(1 / 1000,), (1000.0,), (1 / 1000, 1.0, 1000.0)], ids=str)
def test_extremes_of_the_allowed_ranges_give_finite_places(scales, powers):
    similarity, points = masked(pair(LANDSCAPE, PORTRAIT)), points_on(LANDSCAPE, 8)
    for temperature, near, agree, sharpness in itertools.product([1 / 1000, 1000], repeat=4):
        matcher = Hough(temperature, scales, near, agree, *powers, sharpness=sharpness)
        matches = matcher(similarity, points)
        assert all(torch.isfinite(getattr(matches, name)).all() for name in NUMBERS), matcher
        assert PORTRAIT.image.contains(matches.target).all()


@pytest.mark.parametrize("flat_source", [True, False])
def test_a_recipe_matches_nothing_of_a_flat_photo(photo, flat_source):
    """From photos to matches: no rounding on the way makes one cell more alike than another."""
    model = sdcorr.load("sift-hough", device="cpu")
    flat = np.full((200, 301, 3), (31, 127, 210), np.uint8)
    pair_of = (flat, photo) if flat_source else (photo, flat)
    height, width = pair_of[0].shape[:2]
    points = [[x, y] for x in (0, width // 3, width - 1) for y in (0, height // 2, height - 1)]
    matches = model.match(*pair_of, points=points)
    assert matches.matched.tolist() == [False] * 9
    assert matches.score.tolist() == [0.0] * 9
    assert torch.isfinite(matches.target).all()
    assert model.match(photo, photo, points=[[200, 150]]).matched.tolist() == [True]


@pytest.mark.parametrize("cells", [3, 32])
@pytest.mark.parametrize("tile", [1, 49, 150])
def test_tiles_do_not_change_the_matches(monkeypatch, tile, cells):
    """So what is held at once beyond the votes is bounded."""
    similarity, points = masked(pair(LANDSCAPE, PORTRAIT)), points_on(LANDSCAPE, 25)
    whole = Hough(cells=cells)(similarity, points)
    rows = FusedSimilarity.rows
    asked = []

    def counting(self: FusedSimilarity, points: Tensor) -> Tensor:
        found = rows(self, points)
        asked.append(found.numel())
        return found

    monkeypatch.setattr(FusedSimilarity, "rows", counting)
    monkeypatch.setattr(_rows, "TILE", tile)
    monkeypatch.setattr(hough, "TILE", tile)
    tiled = Hough(cells=cells)(similarity, points)
    assert max(asked) <= max(tile, 36) / 36 * 49  # one row at least; as many on the way back
    # a product's last bit depends on how many are taken at once
    for name in NUMBERS:
        torch.testing.assert_close(getattr(whole, name), getattr(tiled, name), rtol=0, atol=1e-3)


def test_a_thin_photo_is_matched_on_the_photo():
    """No cell centre falls on a photo one pixel high; the place is clamped to it."""
    thin = Grid((4, 4), (250.0, 250.0), (0.0, -499.5), Size(1, 1000))
    one = random_map(thin, 0)
    points = torch.tensor([[10.0, 0.0], [990.0, 0.0]]).double()
    for cells in (2, 3, 32):
        matches = Hough(cells=cells)(FusedSimilarity(one, one), points)
        assert thin.image.contains(matches.target).all()
        assert torch.isfinite(matches.target).all()


def test_the_same_twice():
    similarity, points = pair(), points_on(SOURCE, 20)
    first, second = Hough()(similarity, points), Hough()(similarity, points)
    for name in NUMBERS:
        assert torch.equal(getattr(first, name), getattr(second, name))


# Fields


def refused(changes: dict[str, Any], message: str) -> None:
    """In Python, and in a recipe."""
    with pytest.raises(BadRecipe, match=message):
        Hough(**changes)
    described = find_recipe("sift").describe()
    plain = {name: list(one) if isinstance(one, tuple) else one for name, one in changes.items()}
    described["matcher"] = {"kind": "hough"} | plain
    with pytest.raises(BadRecipe, match=message):
        read_recipe(described)


@pytest.mark.parametrize("name", ["temperature", "near", "agree", "sharpness"])
@pytest.mark.parametrize("value", [0, 0.0, -0.02, 0.0009, 1000.5, 1001])
def test_numbers_out_of_range_are_refused(name, value):
    refused({name: value}, "sharpness and scales must be 0.001 to 1000, got ")


@pytest.mark.parametrize("name", ["temperature", "near", "agree", "sharpness", "local_power"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_must_be_finite(name, value):
    refused({name: value}, f"{name} must be finite")


@pytest.mark.parametrize("scales", [(0.0,), (1.0, -1.0), (0.0009,), (1.0, 1001.0)], ids=str)
def test_scales_out_of_range_are_refused(scales):
    refused({"scales": scales}, "sharpness and scales must be 0.001 to 1000, got ")


@pytest.mark.parametrize("count", [0, 17])
def test_too_few_or_many_scales_are_refused(count):
    refused({"scales": (1.0,) * count}, f"expected 1 to 16 scales, got {count}")


@pytest.mark.parametrize("name", ["local_power", "overall_power"])
@pytest.mark.parametrize("value", [-0.5, 1000.5])
def test_powers_out_of_range_are_refused(name, value):
    refused({name: value}, "powers must be 0 to 1000, got ")


@pytest.mark.parametrize("cells", [-1, 0, 1, 65])
def test_cells_out_of_range_are_refused(cells):
    refused({"cells": cells}, f"cells must be 2 to 64 .*, got {cells} and 5")


@pytest.mark.parametrize("window", [0, -1, 2, 10])
def test_a_window_without_a_middle_is_refused(window):
    refused({"window": window}, f"window odd and positive, got 32 and {window}")


def test_the_limits_themselves_are_accepted():
    for limit, power in ((1 / 1000, 0.0), (1000.0, 1000.0)):
        Hough(limit, (limit,) * 16, limit, limit, power, power, sharpness=limit)
    for cells in (2, 64):
        assert Hough(cells=cells, window=1, local_power=0.0, overall_power=0.0).cells == cells
