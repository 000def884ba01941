"""Means of similarities, plain and by confidence, against slow loops in float64."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.errors import BadRecipe
from sdcorr.fusion import Foreground, FusedSimilarity, Group, MapUse, join
from sdcorr.geometry import Grid, Size
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.recipe import Recipe
from sdcorr.similarities import ConfidenceWeighted, MeanSimilarity, allowed_cells, heat_of
from sdcorr.types import FeatureMap

PHOTO = Size(48, 72)
SOURCE = Grid((4, 6), (12.0, 12.0), (0.0, 0.0), PHOTO)
TARGET = Grid((8, 8), (9.0, 9.0), (0.0, -12.0), PHOTO)  # rows 0 and 7 lie on padding


@dataclass(frozen=True, eq=False)
class Given:
    """A similarity by its table ``(source cells, target cells)``."""

    table: Tensor
    source: Grid = SOURCE
    target: Grid = TARGET
    foreground: Tensor | None = None
    source_foreground: Tensor | None = None

    def rows(self, points: Tensor) -> Tensor:
        return self.table[self.source.cell_of(points)]

    def swap(self) -> Given:
        return Given(
            self.table.T, self.target, self.source, self.source_foreground, self.foreground
        )


def test_heat_is_of_one_point_and_its_range_of_the_cells_on_the_photo():
    """Four cells on the photo, of 0.25, 0.5, 0.75 and 1: the lower of the middle ones, and 1."""
    target = Grid((4, 2), (10.0, 10.0), (0.0, -10.0), Size(20, 20))  # rows 0 and 3 lie on padding
    table = torch.zeros(24, 8)
    table[7] = torch.tensor([0.9, 0.9, 0.5, 1.0 + 1e-6, 0.25, 0.75, -1.5, 0.9])
    point = SOURCE.centers()[7:8]
    heat = heat_of(Given(table, target=target), point)
    expected = torch.tensor([[0.9, 0.9], [0.5, 1.0], [0.25, 0.75], [-1.0, 0.9]])
    assert torch.equal(heat.values, expected)
    assert (heat.low, heat.high) == (0.5, 1.0)


def random_table(seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * (2 * torch.rand(24, 64, generator=generator) - 1)


def some_cells(count: int, seed: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) > 0.5


def slow_weighted(
    tables: list[np.ndarray], weights: tuple[float, ...], allowed: list[bool]
) -> np.ndarray:
    """By the letter: confidence is the maximum minus the mean over what may be matched."""
    out = np.zeros(tables[0].shape)
    for point in range(len(out)):
        shares = []
        for table, weight in zip(tables, weights, strict=True):
            values = [v for v, ok in zip(table[point].tolist(), allowed, strict=True) if ok]
            shares.append(weight * (max(values) - sum(values) / len(values)))
        if not any(share > 0 for share in shares):
            shares = list(weights)
        for cell in range(out.shape[1]):
            total = sum(share * table[point, cell] for share, table in zip(shares, tables))  # noqa: B905
            out[point, cell] = total / sum(shares)
    return out


# The plain mean


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_mean_agrees_with_a_loop(count: int):
    tables = [random_table(seed) for seed in range(count)]
    rows = MeanSimilarity(tuple(map(Given, tables))).rows(SOURCE.centers())
    for point in range(24):
        for cell in range(64):
            values = [table[point, cell].item() for table in tables]
            assert rows[point, cell].item() == pytest.approx(sum(values) / count, abs=1e-6)


def test_a_mean_has_the_grids_and_the_mask_of_its_parts():
    masks = some_cells(64, 0), some_cells(24, 1)
    parts = tuple(Given(random_table(seed), SOURCE, TARGET, *masks) for seed in (0, 1))
    for joined in (MeanSimilarity(parts), ConfidenceWeighted(parts, (1.0, 1.0))):
        assert (joined.source, joined.target) == (SOURCE, TARGET)
        assert torch.equal(joined.foreground, masks[0])
        swapped = joined.swap()
        assert type(swapped) is type(joined)
        assert (swapped.source, swapped.target) == (TARGET, SOURCE)
        assert torch.equal(swapped.foreground, masks[1])
        assert torch.equal(swapped.swap().foreground, masks[0])
    free = tuple(map(Given, (random_table(0), random_table(1))))
    assert MeanSimilarity(free).foreground is None


def test_the_mean_swapped_is_the_mean_of_the_parts_swapped():
    joined = MeanSimilarity((Given(random_table(0)), Given(random_table(1))))
    back = joined.swap().rows(TARGET.centers()[TARGET.inside()])
    torch.testing.assert_close(back, joined.rows(SOURCE.centers()).T[TARGET.inside()])


@pytest.mark.parametrize("weighted", [True, False])
def test_no_points_give_no_rows(weighted: bool):
    parts = (Given(random_table(0)), Given(random_table(1)))
    joined = ConfidenceWeighted(parts, (1.0, 2.0)) if weighted else MeanSimilarity(parts)
    assert joined.rows(torch.zeros(0, 2).double()).shape == (0, 64)
    assert len(Nearest()(joined, torch.zeros(0, 2).double())) == 0


# By confidence


def test_confidence_by_hand():
    """Peaks 0.9 - 0.3 and 0.4 - 0.2: shares of 3/4 and 1/4; with weights 1 and 3, of 1/2."""
    grid = Grid((1, 3), (2.0, 2.0), (0.0, 0.0), Size(2, 6))
    one = Given(torch.tensor([[0.9, 0.0, 0.0]]).expand(3, 3), grid, grid)
    two = Given(torch.tensor([[0.2, 0.4, 0.0]]).expand(3, 3), grid, grid)
    point = grid.centers()[:1]
    plain = ConfidenceWeighted((one, two), (1.0, 1.0)).rows(point)[0]
    assert plain.tolist() == pytest.approx([0.725, 0.1, 0.0])
    weighted = ConfidenceWeighted((one, two), (1.0, 3.0)).rows(point)[0]
    assert weighted.tolist() == pytest.approx([0.55, 0.2, 0.0])


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 2.5), (5.0, 5.0)], ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_confidence_agrees_with_a_loop(weights: tuple[float, ...], masked: bool):
    mask = some_cells(64, 7) if masked else None
    tables = [random_table(0), random_table(1, 0.3)]
    parts = tuple(Given(table, foreground=mask) for table in tables)
    allowed = TARGET.inside() if mask is None else TARGET.inside() & mask
    expected = slow_weighted(
        [table.double().numpy() for table in tables], weights, allowed.tolist()
    )
    rows = ConfidenceWeighted(parts, weights).rows(SOURCE.centers())
    np.testing.assert_allclose(rows.double().numpy(), expected, atol=1e-6)


def test_three_groups_agree_with_a_loop():
    tables = [random_table(seed, 1 / (seed + 1)) for seed in range(3)]
    weights = (1.0, 4.0, 0.25)
    expected = slow_weighted(
        [table.double().numpy() for table in tables], weights, TARGET.inside().tolist()
    )
    rows = ConfidenceWeighted(tuple(map(Given, tables)), weights).rows(SOURCE.centers())
    np.testing.assert_allclose(rows.double().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("where", ["padding", "outside the mask"])
def test_a_peak_that_may_not_be_matched_counts_for_nothing(where: str):
    mask = torch.ones(64, dtype=torch.bool)
    mask[20] = where == "padding"
    tables = [random_table(0), random_table(1)]
    parts = tuple(Given(table, foreground=mask) for table in tables)
    before = ConfidenceWeighted(parts, (1.0, 1.0)).rows(SOURCE.centers())
    peak = 3 if where == "padding" else 20
    raised = tables[0].clone()
    raised[:, peak] = 50
    parts = (Given(raised, foreground=mask), parts[1])
    after = ConfidenceWeighted(parts, (1.0, 1.0)).rows(SOURCE.centers())
    others = torch.arange(64) != peak
    torch.testing.assert_close(after[:, others], before[:, others])


def test_a_flat_group_has_no_say_and_flat_groups_share_by_weight():
    flat, other = torch.full((24, 64), 0.5), random_table(1)
    rows = ConfidenceWeighted((Given(flat), Given(other)), (9.0, 1.0)).rows(SOURCE.centers())
    torch.testing.assert_close(rows, other)
    zero = torch.zeros(24, 64)
    rows = ConfidenceWeighted((Given(flat), Given(zero)), (3.0, 1.0)).rows(SOURCE.centers())
    assert torch.equal(rows, torch.full((24, 64), 0.375))


def test_each_point_has_its_own_weights():
    """The first group is flat on the left half of the source, the second on the right."""
    left = SOURCE.centers()[:, 0] < 36
    one, two = random_table(0), random_table(1)
    one[left], two[~left] = 0, 0
    rows = ConfidenceWeighted((Given(one), Given(two)), (1.0, 1.0)).rows(SOURCE.centers())
    torch.testing.assert_close(rows, torch.where(left[:, None], two, one))


def test_swapped_peaks_are_those_of_the_way_back():
    tables = [random_table(0), random_table(1, 0.3)]
    masks = some_cells(64, 2), some_cells(24, 3)
    parts = tuple(Given(table, SOURCE, TARGET, *masks) for table in tables)
    rows = ConfidenceWeighted(parts, (1.0, 2.0)).swap().rows(TARGET.centers()[TARGET.inside()])
    backward = [table.T[TARGET.inside()].double().numpy() for table in tables]
    expected = slow_weighted(backward, (1.0, 2.0), masks[1].tolist())
    np.testing.assert_allclose(rows.double().numpy(), expected, atol=1e-6)


# Through the fusion


def random_map(grid: Grid, seed: int, channels: int = 8) -> FeatureMap:
    generator = torch.Generator().manual_seed(seed)
    return FeatureMap("m", torch.randn(channels, *grid.shape, generator=generator), grid)


def cosines(source: FeatureMap, target: FeatureMap, points: Tensor, cells: Tensor) -> np.ndarray:
    """Of one group: unit descriptors, read bilinearly at the cells of the finest grid."""
    units = [
        FeatureMap("m", torch.nn.functional.normalize(one.values, dim=0), one.grid)
        for one in (source, target)
    ]
    rows = [one.sample(where).double() for one, where in zip(units, (points, cells), strict=True)]
    return np.array(
        [[(a @ b / a.norm() / b.norm()).item() for b in rows[1].unbind()] for a in rows[0].unbind()]
    )


def test_groups_on_unlike_grids_meet_on_the_finer_one():
    coarse = Grid((3, 4), (18.0, 16.0), (0.0, 0.0), PHOTO)
    groups = [
        Group("a", Sift(), (MapUse("m"),), weight=2.0),
        Group("b", Sift(), (MapUse("m"),), weight=0.5),
    ]
    source = {"a/m": random_map(SOURCE, 0), "b/m": random_map(coarse, 1, 5)}
    target = {"a/m": random_map(TARGET, 2), "b/m": random_map(coarse, 3, 5)}
    similarity = join(groups, source, target, by_confidence=True)
    assert isinstance(similarity, ConfidenceWeighted)
    assert (similarity.source, similarity.target) == (SOURCE, TARGET)
    assert similarity.weights == (4.0, 0.25)  # as the squares, like the stack's
    points, cells = SOURCE.centers(), TARGET.centers()
    tables = [cosines(source[f"{name}/m"], target[f"{name}/m"], points, cells) for name in "ab"]
    expected = slow_weighted(tables, (4.0, 0.25), TARGET.inside().tolist())
    inside = TARGET.inside().numpy()  # the loop reads no cells on padding
    rows = similarity.rows(points).double().numpy()
    np.testing.assert_allclose(rows[:, inside], expected[:, inside], atol=1e-5)


def test_join_hands_masks_and_foreground_to_the_groups():
    groups = [Group(name, Sift(), (MapUse("m"),)) for name in "ab"]
    source = {f"{name}/m": random_map(SOURCE, seed) for seed, name in enumerate("ab")}
    target = {f"{name}/m": random_map(TARGET, seed + 5) for seed, name in enumerate("ab")}
    salience = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    target["a/s"] = FeatureMap("s", salience, TARGET)
    source["a/s"] = FeatureMap("s", torch.ones(1, 4, 6), SOURCE)
    mask = np.zeros(PHOTO, bool)
    mask[:, :40] = True
    options = (Foreground("a/s", 0.4), (None, mask))
    weighted = join(groups, source, target, *options, by_confidence=True)
    stacked = join(groups, source, target, *options)
    assert isinstance(stacked, FusedSimilarity)
    assert torch.equal(weighted.foreground, stacked.foreground)
    assert torch.equal(weighted.swap().foreground, stacked.source_foreground)
    matches = Nearest()(weighted, SOURCE.centers())
    assert weighted.foreground[TARGET.cell_of(matches.target)].all()


def test_a_recipe_that_weighs_groups_by_confidence(photo, other_photo):
    groups = tuple(
        Group(f"sift{size}", Sift(size=128, diameters=(float(size),)), (MapUse("rootsift"),))
        for size in (16, 48)
    )
    recipe = Recipe("mine", groups, by_confidence=True)
    pair = sdcorr.load(recipe, device="cpu").fuse(photo, other_photo)
    assert isinstance(pair.similarity, ConfidenceWeighted)
    plain = dataclasses.replace(recipe, by_confidence=False)
    stacked = sdcorr.load(plain, device="cpu").fuse(photo, other_photo)
    points = [[100, 100], [300, 200], [200, 50]]
    assert not torch.equal(pair.match(points).score, stacked.match(points).score)
    assert len(pair.match()) >= 1
    assert pair.plot((100, 100)).axes
    with pytest.raises(BadRecipe, match="by_confidence weighs groups, and there is one"):
        dataclasses.replace(recipe, groups=groups[:1])


def test_a_matcher_that_needs_maps_says_so():
    joined = MeanSimilarity((Given(random_table(0)), Given(random_table(1))))
    with pytest.raises(BadRecipe, match=r"pixel: this fusion has no maps .* use another matcher"):
        Pixel()(joined, SOURCE.centers())


def test_groups_without_peaks_are_weighed_as_if_fixed():
    """A blank target: what is left of peaks is rounding, of either sign."""
    grid = Grid((4, 5), (2.0, 2.0), (0.0, 0.0), Size(8, 10))
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        parts = tuple(
            FusedSimilarity(
                FeatureMap("s", torch.randn(6, 4, 5, generator=generator), grid),
                FeatureMap("t", torch.randn(6, 1, 1, generator=generator).expand(6, 4, 5), grid),
            )
            for _ in range(2)
        )
        rows = ConfidenceWeighted(parts, (1.0, 3.0)).rows(grid.centers())
        plain = (parts[0].rows(grid.centers()) + 3 * parts[1].rows(grid.centers())) / 4
        torch.testing.assert_close(rows, plain, atol=1e-6, rtol=0)


def test_allowed_cells_by_hand():
    """Four columns of which the first is padding; the foreground leaves out the last."""
    grid = Grid((1, 4), (2.0, 2.0), (-2.0, 0.0), Size(2, 6))
    one = FeatureMap("m", torch.ones(3, 1, 4), grid)
    foreground = torch.tensor([True, True, True, False])
    similarity = FusedSimilarity(one, one, foreground=foreground)
    assert allowed_cells(similarity).tolist() == [False, True, True, False]
    assert allowed_cells(similarity, inside_only=False).tolist() == foreground.tolist()
    assert allowed_cells(similarity.swap()).tolist() == [False, True, True, True]
