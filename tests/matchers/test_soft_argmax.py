from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.fusion import FusedSimilarity
from sdcorr.geometry import Grid, Size
from sdcorr.maps import unit
from sdcorr.matchers import _rows
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.soft_argmax import SoftArgmax, expected_place
from sdcorr.recipe import read_recipe
from sdcorr.recipes import find_recipe
from sdcorr.types import FeatureMap, Matches, Similarity

LANDSCAPE = Grid((8, 8), (10.0, 10.0), (0.0, -15.0), Size(50, 80))  # rows 0, 1 and 7: padding
PORTRAIT = Grid((7, 7), (9.0, 9.0), (-10.0, 0.0), Size(63, 43))  # columns 0, 6: padding
ORIGIN = torch.zeros(1, 2, dtype=torch.float64)


def random_map(grid: Grid, seed: int, channels: int = 12) -> FeatureMap:
    values = torch.randn(channels, *grid.shape, generator=torch.Generator().manual_seed(seed))
    return FeatureMap("m", unit(values, dim=0), grid)


def pair(seed: int = 0) -> FusedSimilarity:
    return FusedSimilarity(random_map(LANDSCAPE, seed), random_map(PORTRAIT, seed + 1))


def points_on(grid: Grid, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit_points = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return unit_points * torch.tensor([grid.image.width - 1.0, grid.image.height - 1.0])


def scene(cosines: Tensor, grid: Grid, foreground: Tensor | None = None) -> FusedSimilarity:
    """One source cell, to which the target's cells have these cosines ``(h, w)``."""
    photo = Size(2, 6)
    source = FeatureMap("s", torch.tensor([[[1.0]], [[0.0]]]), Grid((1, 1), (6, 2), (0, 0), photo))
    values = torch.stack([cosines, (1 - cosines**2).sqrt()])
    return FusedSimilarity(source, FeatureMap("t", values, grid), foreground=foreground)


def line(cells: int) -> Grid:
    """Cells of one pixel side by side."""
    return Grid((1, cells), (1.0, 1.0), (0.0, 0.0), Size(1, cells))


def slow_find(
    matcher: SoftArgmax, similarity: Similarity, point: Tensor
) -> tuple[Tensor, dict[int, float], int]:
    """Place, similarities of the allowed cells, and the best of these."""
    height, width = similarity.target.shape
    row = similarity.rows(point[None])[0].tolist()
    inside, foreground = similarity.target.inside().tolist(), similarity.foreground
    scores = {
        cell: row[cell]
        for cell in range(height * width)
        if (inside[cell] or not matcher.inside_only) and (foreground is None or foreground[cell])
    }
    best = max(scores, key=lambda cell: scores[cell])
    total, place = 0.0, torch.zeros(2, dtype=torch.float64)
    for cell, score in scores.items():
        down, along = cell // width - best // width, cell % width - best % width
        if 2 * max(abs(down), abs(along)) < matcher.window:
            weight = math.exp((score - scores[best]) / matcher.temperature)
            total += weight
            place += weight * similarity.target.centers()[cell]
    return place / total, scores, best


# By hand


def test_the_mean_of_three_cells_by_hand():
    """Cells at x = 0.5, 2.5 and 4.5 px, cosines 0.6, 1 and 0.8, temperature 0.2.

    Weights e^-1 : e^1 : e^0 = 0.3679 : 2.7183 : 1, so x = (0.1839 + 6.7957 + 4.5) / 4.0862.
    """
    target = Grid((1, 3), (2.0, 2.0), (0.0, 0.0), Size(2, 6))
    similarity = scene(torch.tensor([[0.6, 1.0, 0.8]]), target)
    matches = SoftArgmax(window=3, temperature=0.2)(similarity, ORIGIN)
    assert matches.target.tolist() == [[pytest.approx(2.8094, abs=1e-4), pytest.approx(0.5)]]
    assert matches.score.item() == pytest.approx(1.0)  # of the cell, not of the place
    assert matches.peak.item() == pytest.approx(1.0 - 0.8)
    assert matches.margin.item() == math.inf  # no cell is more than two away
    assert matches.cycle_error.item() == pytest.approx(math.hypot(2.5, 0.5))  # the one source cell
    assert matches.matched.tolist() == [True]


def test_two_equal_cells_meet_in_the_middle():
    similarity = scene(torch.tensor([[0.9, 0.9, -0.9, -0.9]]), line(4))
    matches = SoftArgmax(window=3)(similarity, ORIGIN)
    assert matches.target[0].tolist() == pytest.approx([0.5, 0.0])


# By reference


@pytest.mark.parametrize("inside_only", [True, False])
@pytest.mark.parametrize(
    ("window", "temperature"), [(1, 0.02), (3, 0.02), (5, 0.3), (11, 0.02), (99, 2.0)]
)
def test_every_number_agrees_with_a_slow_loop(window, temperature, inside_only):
    similarity = pair()
    points = points_on(similarity.source, 30)
    matcher = SoftArgmax(window, temperature, inside_only)
    matches = matcher(similarity, points)
    width = similarity.target.shape[1]
    for index, point in enumerate(points):
        place, scores, best = slow_find(matcher, similarity, point)
        # 1e-7 of a similarity is 5e-6 of a weight at temperature 0.02, of 90 px
        expected = similarity.target.image.clamp(place[None])[0]
        assert matches.target[index].tolist() == pytest.approx(expected.tolist(), abs=1e-3)
        assert matches.score[index].item() == pytest.approx(scores[best], abs=1e-6)
        far = [
            score
            for cell, score in scores.items()
            if max(abs(cell // width - best // width), abs(cell % width - best % width)) > 2
        ]
        assert matches.margin[index].item() == pytest.approx(scores[best] - max(far), abs=1e-6)
        mean = sum(scores.values()) / len(scores)
        assert matches.peak[index].item() == pytest.approx(scores[best] - mean, abs=1e-6)
        home, _, _ = slow_find(matcher, similarity.swap(), place)
        home = similarity.source.image.clamp(home)
        error = (home - point).norm().item()
        assert matches.cycle_error[index].item() == pytest.approx(error, abs=1e-2)


def test_foreground_agrees_with_a_slow_loop():
    plain = pair(5)
    draw = torch.Generator().manual_seed(0)
    masks = [torch.rand(one.values[0].numel(), generator=draw) > 0.5 for one in
             (plain.source_map, plain.target_map)]  # fmt: skip
    similarity = FusedSimilarity(plain.source_map, plain.target_map, *masks)
    points, matcher = points_on(similarity.source, 30), SoftArgmax(5, 0.2)
    matches = matcher(similarity, points)
    for index, point in enumerate(points):
        place, scores, best = slow_find(matcher, similarity, point)
        assert masks[1][best]
        assert matches.target[index].tolist() == pytest.approx(place.tolist(), abs=1e-3)
        assert matches.score[index].item() == pytest.approx(scores[best], abs=1e-6)
        home, _, _ = slow_find(matcher, similarity.swap(), place)  # on the source's foreground
        home = similarity.source.image.clamp(home)
        error = (home - point).norm().item()
        assert matches.cycle_error[index].item() == pytest.approx(error, abs=1e-2)
    everywhere = matcher(plain, points)
    assert not torch.allclose(matches.target, everywhere.target)


@pytest.mark.parametrize("inside_only", [True, False])
def test_a_window_of_one_is_the_nearest_cell(inside_only):
    similarity, points = pair(2), points_on(LANDSCAPE, 100)
    single = SoftArgmax(window=1, inside_only=inside_only)(similarity, points)
    nearest = Nearest(inside_only=inside_only)(similarity, points)
    for name in ("target", "score", "margin", "peak", "cycle_error", "matched"):
        torch.testing.assert_close(getattr(single, name), getattr(nearest, name))


# What counts


def test_cells_outside_the_window_never_count():
    """Whatever is beyond the window, as long as it is lower: the place is the same."""
    near = torch.tensor([0.5, 0.7, 0.9, 0.8, 0.6])
    places = []
    for beyond in (-0.9, 0.0, 0.4, 0.899):
        cosines = torch.full((1, 11), beyond)
        cosines[0, 3:8] = near
        matches = SoftArgmax(window=5, temperature=0.1)(scene(cosines, line(11)), ORIGIN)
        places.append(matches.target[0, 0].item())
    assert places == [pytest.approx(places[0], abs=1e-9)] * 4
    weights = (near.double() / 0.1).exp()
    expected = (weights * torch.arange(3.0, 8.0, dtype=torch.float64)).sum() / weights.sum()
    assert places[0] == pytest.approx(expected.item(), abs=1e-5)


def test_at_the_border_the_window_is_cut_off():
    """The best cell is a corner: four of the nine cells of the window exist."""
    grid = Grid((4, 6), (1.0, 1.0), (0.0, 0.0), Size(4, 6))
    cosines = torch.full((4, 6), -0.5)
    cosines[2:, 4:] = torch.tensor([[0.5, 0.5], [0.5, 0.51]])
    matches = SoftArgmax(window=3, temperature=1000.0)(scene(cosines, grid), ORIGIN)
    assert matches.target[0].tolist() == pytest.approx([4.5, 2.5], abs=1e-3)  # mean of the four


@pytest.mark.parametrize("inside_only", [True, False])
def test_padding_counts_only_where_it_is_asked_for(inside_only):
    """Columns 0 and 4 of 5 lie on padding, and beside the best cells they are most similar."""
    grid = Grid((1, 5), (10.0, 10.0), (-10.0, 0.0), Size(10, 30))
    similarity = scene(torch.tensor([[0.99, 0.8, 0.2, 0.1, 0.99]]), grid)
    matches = SoftArgmax(3, 0.1, inside_only)(similarity, ORIGIN)
    assert matches.score.item() == pytest.approx(0.8 if inside_only else 0.99)
    if inside_only:
        middle, right = math.exp(0.8 / 0.1), math.exp(0.2 / 0.1)
        expected = (4.5 * middle + 14.5 * right) / (middle + right)
        assert matches.target[0, 0].item() == pytest.approx(expected, abs=1e-4)
    else:
        assert matches.target[0, 0].item() == -0.5  # on padding, clamped to the photo


def test_what_is_not_foreground_never_counts():
    foreground = torch.tensor([True, False, True, True, False, True])
    similarity = scene(torch.tensor([[0.1, 0.99, 0.3, 0.8, 0.98, 0.2]]), line(6), foreground)
    matches = SoftArgmax(window=3, temperature=0.1)(similarity, ORIGIN)
    low, high = math.exp(0.3 / 0.1), math.exp(0.8 / 0.1)
    assert matches.target[0, 0].item() == pytest.approx((2 * low + 3 * high) / (low + high))
    assert matches.score.item() == pytest.approx(0.8)
    assert matches.peak.item() == pytest.approx(0.8 - (0.1 + 0.3 + 0.8 + 0.2) / 4)


def bump(peak: float, shape: tuple[int, int], row: int, column: int) -> Tensor:
    """Similarities ``(h, w)`` that fall from a peak to 0 within some cells."""
    down = torch.arange(shape[0])[:, None] - row
    along = torch.arange(shape[1])[None, :] - column
    return peak * torch.exp(-(down**2 + along**2) / 8)


def leaking_place(rows: Tensor, near: Tensor, grid: Grid, temperature: float) -> Tensor:
    """As published: similarities outside of the window times 0, softmax over all cells."""
    return ((rows * near) / temperature).softmax(dim=1).double() @ grid.centers()


@pytest.mark.parametrize(("peak", "least", "most"), [(0.1, 10, 30), (0.2, 0.3, 1.5), (0.9, 0, 0.1)])
def test_the_published_form_leaks_where_the_peak_is_low(peak, least, most):
    """Distances in cells of 60 x 60: about 15 for a peak of 0.1, 0.6 for 0.2, none for 0.9."""
    grid = Grid((60, 60), (1.0, 1.0), (0.0, 0.0), Size(60, 60))
    rows, cell = bump(peak, grid.shape, 20, 14).reshape(1, -1), torch.tensor([20 * 60 + 14])
    ours = expected_place(rows, cell, grid, 5, 0.02)
    published = leaking_place(rows, _rows.window_around(cell, grid, 5), grid, 0.02)
    assert ours[0].tolist() == pytest.approx([14.0, 20.0], abs=1e-3)  # the bump is even
    assert least <= (published - ours).norm().item() <= most


# Fields


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0, -0.02, math.nan, math.inf, -math.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(BadRecipe, match=r"temperature must be (positive|finite)"):
        SoftArgmax(temperature=temperature)
    described = find_recipe("sift").describe()
    described["matcher"] = {"kind": "soft_argmax", "temperature": temperature}
    with pytest.raises(BadRecipe, match="temperature must be"):
        read_recipe(described)


@pytest.mark.parametrize("window", [0, -1, -3, 2, 10])
def test_a_window_without_a_middle_is_refused(window):
    with pytest.raises(BadRecipe, match=f"window must be odd and positive, got {window}"):
        SoftArgmax(window=window)


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-40, 1e-320])
def test_the_lower_the_temperature_the_nearer_to_the_cell(temperature):
    """A positive number is accepted, so it must not overflow."""
    similarity, points = pair(3), points_on(LANDSCAPE, 40)
    matches = SoftArgmax(temperature=temperature)(similarity, points)
    torch.testing.assert_close(matches.target, Nearest()(similarity, points).target)


def test_the_higher_the_temperature_the_nearer_to_the_middle_of_the_window():
    similarity = scene(torch.tensor([[-1.0, 0.0, 0.1, 1.0, -0.5, -1.0, -1.0]]), line(7))
    matches = SoftArgmax(window=5, temperature=1e6)(similarity, ORIGIN)
    assert matches.target[0, 0].item() == pytest.approx(3.0, abs=1e-4)


# Properties


def test_a_shift_by_whole_cells_shifts_the_places():
    """Two crops of one scene, two cells apart, where the window lies on both."""
    wide = Grid((6, 12), (10.0, 10.0), (0.0, 0.0), Size(60, 120))
    crop = Grid((6, 10), (10.0, 10.0), (0.0, 0.0), Size(60, 100))
    scene_map = random_map(wide, 7, channels=64)
    left = FeatureMap("left", scene_map.values[:, :, :10], crop)
    right = FeatureMap("right", scene_map.values[:, :, 2:], crop)
    centers = crop.centers()
    points = centers[(centers[:, 0] > 30) & (centers[:, 0] < 90)] + torch.tensor([2.0, -1.0])
    matcher = SoftArgmax(window=3, temperature=0.2)
    own = matcher(FusedSimilarity(left, left), points)
    across = matcher(FusedSimilarity(left, right), points)
    assert (own.target - points).norm(dim=1).max() > 0.5  # between the cells
    shift = torch.tensor([20.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(across.target, own.target - shift, rtol=0, atol=1e-4)


def test_a_photo_matches_itself_exactly_where_cells_are_orthogonal():
    """At a cell's centre: its own weight is e^50 times that of any other."""
    one = FeatureMap("own", torch.eye(64).reshape(64, 8, 8), LANDSCAPE)
    points = LANDSCAPE.centers()[LANDSCAPE.inside()]
    matches = SoftArgmax()(FusedSimilarity(one, one), points)
    torch.testing.assert_close(matches.target, points, rtol=0, atol=1e-6)
    torch.testing.assert_close(matches.cycle_error, torch.zeros(len(points)).double())


def test_score_margin_and_peak_are_those_of_the_cell():
    similarity, points = pair(4), points_on(LANDSCAPE, 50)
    soft, nearest = SoftArgmax(5, 0.5)(similarity, points), Nearest()(similarity, points)
    assert not torch.allclose(soft.target, nearest.target)
    for name in ("score", "margin", "peak"):
        torch.testing.assert_close(getattr(soft, name), getattr(nearest, name))


def test_the_cycle_error_is_that_of_the_way_back_by_the_same_matcher():
    similarity, points = pair(6), points_on(LANDSCAPE, 50)
    matcher = SoftArgmax(5, 0.2)
    there = matcher(similarity, points)
    back = matcher(similarity.swap(), there.target)
    error = (back.target - points).norm(dim=1)
    torch.testing.assert_close(there.cycle_error, error, rtol=0, atol=1e-4)
    assert not torch.allclose(there.cycle_error, Nearest()(similarity, points).cycle_error)


def test_no_points_give_no_matches():
    matches = SoftArgmax()(pair(), torch.zeros(0, 2, dtype=torch.float64))
    assert isinstance(matches, Matches)
    assert matches.target.shape == (0, 2)
    assert matches.score.shape == matches.cycle_error.shape == (0,)


def test_one_cell_grids():
    grid = Grid((1, 1), (7.0, 5.0), (0.0, 0.0), Size(5, 7))
    one = random_map(grid, 0)
    matches = SoftArgmax()(FusedSimilarity(one, one), torch.tensor([[6.0, 4.0]]).double())
    assert matches.target.tolist() == [[3.0, 2.0]]
    assert (matches.margin.item(), matches.peak.item()) == (math.inf, pytest.approx(0, abs=1e-6))
    assert matches.cycle_error.item() == pytest.approx(math.hypot(3, 2))


def test_a_flat_place_matches_nothing_and_is_finite():
    one = random_map(LANDSCAPE, 0)
    values = one.values.clone()
    values[:, 3, 3] = 0
    flat = FeatureMap("flat", values, LANDSCAPE)
    points = LANDSCAPE.centers()[[3 * 8 + 3, 3 * 8 + 5]]
    matches = SoftArgmax()(FusedSimilarity(flat, one), points)
    assert matches.matched.tolist() == [False, True]
    assert torch.isfinite(matches.target).all()


def test_tiles_do_not_change_the_matches(monkeypatch):
    similarity, points = pair(), points_on(LANDSCAPE, 50)
    whole = SoftArgmax()(similarity, points)
    monkeypatch.setattr(_rows, "TILE", 3 * 49)
    tiled = SoftArgmax()(similarity, points)
    # a product's last bit depends on how many are taken at once: 5e-6 of a weight, of 90 px
    for name in ("target", "score", "margin", "peak", "cycle_error"):
        torch.testing.assert_close(getattr(whole, name), getattr(tiled, name), rtol=0, atol=1e-3)


def test_a_thin_photo_is_matched_on_the_photo():
    """No cell centre falls on a photo one pixel high; the place is clamped to it."""
    thin = Grid((4, 4), (250.0, 250.0), (0.0, -499.5), Size(1, 1000))
    one = random_map(thin, 0)
    points = torch.tensor([[10.0, 0.0], [990.0, 0.0]]).double()
    matches = SoftArgmax()(FusedSimilarity(one, one), points)
    assert thin.image.contains(matches.target).all()
