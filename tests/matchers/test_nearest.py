from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdcorr.fusion import FusedSimilarity
from sdcorr.geometry import Grid, Size
from sdcorr.maps import unit
from sdcorr.matchers import _rows
from sdcorr.matchers._rows import best_cells, best_elsewhere, mean_of_allowed, mutual_cells
from sdcorr.matchers.nearest import Nearest
from sdcorr.types import FeatureMap

LANDSCAPE = Grid((6, 6), (10.0, 10.0), (0.0, -15.0), Size(30, 60))  # rows 0, 1, 4, 5: padding


def random_map(grid: Grid, seed: int, channels: int = 12) -> FeatureMap:
    values = torch.randn(channels, *grid.shape, generator=torch.Generator().manual_seed(seed))
    return FeatureMap("m", unit(values, dim=0), grid)


def pair(seed: int = 0) -> FusedSimilarity:
    portrait = Grid((5, 5), (9.0, 9.0), (-10.0, 0.0), Size(45, 25))
    return FusedSimilarity(random_map(LANDSCAPE, seed), random_map(portrait, seed + 1))


def points_on(grid: Grid, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit_points = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return unit_points * torch.tensor([grid.image.width - 1.0, grid.image.height - 1.0])


def test_the_best_cell_by_hand():
    """Three target cells; the middle one is along the source, 0.96 the nearest after it."""
    size = Size(2, 6)
    source = FeatureMap(
        "s", torch.tensor([0.6, 0.8])[:, None, None], Grid((1, 1), (6, 2), (0, 0), size)
    )
    target = FeatureMap(
        "t",
        torch.tensor([[0.8, 0.6, 1.0], [0.6, 0.8, 0.0]])[:, None],
        Grid((1, 3), (2, 2), (0, 0), size),
    )
    matches = Nearest()(FusedSimilarity(source, target), torch.tensor([[0.0, 0.0]]).double())
    assert matches.target.tolist() == [[2.5, 0.5]]
    assert matches.score.item() == pytest.approx(1.0)
    assert matches.peak.item() == pytest.approx(1.0 - (0.96 + 1.0 + 0.6) / 3)
    assert matches.margin.item() == math.inf  # no cell is more than two away
    assert matches.cycle_error.item() == pytest.approx(math.hypot(2.5, 0.5))  # centre of the cell
    assert matches.matched.tolist() == [True]


@pytest.mark.parametrize("inside_only", [True, False])
@pytest.mark.parametrize("sample", ["bilinear", "cell"])
def test_every_number_agrees_with_a_slow_loop(inside_only, sample):
    similarity = pair()
    points = points_on(similarity.source, 40)
    matches = Nearest(inside_only=inside_only, sample=sample)(similarity, points)
    target, source = similarity.target, similarity.source
    keys, inside = similarity.target_map.descriptors(), target.inside().tolist()
    for index, point in enumerate(points):
        start = source.centers()[source.cell_of(point[None])] if sample == "cell" else point[None]
        query = unit(similarity.source_map.sample(start), dim=1)[0]
        allowed = [cell for cell in range(25) if inside[cell] or not inside_only]
        scores = {cell: (query @ keys[cell]).item() for cell in allowed}
        best = max(allowed, key=lambda cell: scores[cell])
        assert matches.score[index].item() == pytest.approx(scores[best], abs=1e-5)
        expected = target.image.clamp(target.centers()[best][None])[0]
        assert matches.target[index].tolist() == pytest.approx(expected.tolist())
        far = [
            scores[cell]
            for cell in allowed
            if max(abs(cell // 5 - best // 5), abs(cell % 5 - best % 5)) > 2
        ]
        margin = scores[best] - max(far) if far else math.inf
        assert matches.margin[index].item() == pytest.approx(margin, abs=1e-5)
        mean = sum(scores.values()) / len(scores)
        assert matches.peak[index].item() == pytest.approx(scores[best] - mean, abs=1e-5)
        way_back = unit(similarity.target_map.sample(target.centers()[best][None]), dim=1)[0]
        home = similarity.source_map.descriptors() @ way_back
        if inside_only:
            home[~source.inside()] = -2
        place = source.image.clamp(source.centers()[home.argmax()])
        error = (place - point).norm().item()
        assert matches.cycle_error[index].item() == pytest.approx(error, abs=1e-6)


def test_padding_is_never_matched():
    """The best keys lie on padding; with inside_only=False they win."""
    similarity = pair()
    values = similarity.target_map.values.clone()
    padding = ~similarity.target.inside().reshape(5, 5)
    assert padding.any()
    values[:, padding] = similarity.source_map.values[:, 2, 2:3]  # an inside source cell
    loaded = FusedSimilarity(similarity.source_map, FeatureMap("t", values, similarity.target))
    points = similarity.source.centers()[[2 * 6 + 2]]
    assert Nearest(inside_only=False)(loaded, points).score.item() == pytest.approx(1)
    matches = Nearest()(loaded, points)
    assert matches.score.item() < 0.99
    all_points = points_on(similarity.source, 200)
    found = Nearest()(loaded, all_points).target
    assert similarity.target.image.contains(found).all()


def test_ties_go_to_the_first_cell():
    rows = torch.tensor([[0.2, 0.7, 0.7, 0.7]])
    score, cell = best_cells(rows)
    assert (score.item(), cell.item()) == (pytest.approx(0.7), 1)


def test_elsewhere_is_more_than_two_cells_away():
    grid = Grid((1, 6), (1.0, 1.0), (0.0, 0.0), Size(1, 6))
    rows = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]])
    assert best_elsewhere(rows, torch.tensor([0]), grid).item() == pytest.approx(0.6)
    assert best_elsewhere(rows, torch.tensor([5]), grid).item() == pytest.approx(0.9)


def test_the_mean_leaves_padding_out():
    assert mean_of_allowed(torch.tensor([[1.0, -torch.inf, 0.0]])).item() == pytest.approx(0.5)


def test_mutual_marks_what_does_not_come_home():
    similarity = pair()
    points = similarity.source.centers()[similarity.source.inside()]
    plain, mutual = Nearest()(similarity, points), Nearest(mutual=True)(similarity, points)
    assert plain.matched.all()
    assert mutual.matched.tolist() == (mutual.cycle_error < 1e-9).tolist()
    assert 0 < mutual.matched.sum() < len(points)
    torch.testing.assert_close(plain.target, mutual.target)


def test_a_photo_matches_itself_at_every_point_inside():
    """At each pixel the match is the centre of the cell that holds it.

    Orthogonal descriptors: at a fraction of a cell, random ones can be nearer to a third cell.
    """
    one = FeatureMap("own", torch.eye(36).reshape(36, 6, 6), LANDSCAPE)
    similarity = FusedSimilarity(one, one)
    rows, columns = torch.meshgrid(torch.arange(30.0), torch.arange(60.0), indexing="ij")
    points = torch.stack([columns, rows], dim=-1).reshape(-1, 2).double()
    matches = Nearest()(similarity, points)
    expected = LANDSCAPE.centers()[LANDSCAPE.cell_of(points)]
    torch.testing.assert_close(matches.target, expected)
    assert (matches.target - points).abs().max() <= 5


def test_a_shift_by_whole_cells_shifts_the_matches():
    wide = Grid((6, 9), (10.0, 10.0), (0.0, 0.0), Size(60, 90))
    crop = Grid((6, 6), (10.0, 10.0), (0.0, 0.0), Size(60, 60))
    scene = random_map(wide, 7, channels=64)
    left = FeatureMap("left", scene.values[:, :, :6], crop)
    right = FeatureMap("right", scene.values[:, :, 2:8], crop)
    points = crop.centers()[crop.centers()[:, 0] >= 20]
    matches = Nearest()(FusedSimilarity(left, right), points)
    torch.testing.assert_close(matches.target, points - torch.tensor([20.0, 0.0]))


def test_no_points_give_no_matches():
    matches = Nearest()(pair(), torch.zeros(0, 2, dtype=torch.float64))
    assert len(matches) == 0
    assert matches.target.shape == (0, 2)


def test_one_cell_grids():
    grid = Grid((1, 1), (7.0, 5.0), (0.0, 0.0), Size(5, 7))
    one = random_map(grid, 0)
    matches = Nearest(mutual=True)(FusedSimilarity(one, one), torch.tensor([[6.0, 4.0]]).double())
    assert matches.target.tolist() == [[3.0, 2.0]]
    assert matches.matched.tolist() == [True]


@pytest.mark.parametrize("mutual", [True, False])
def test_a_flat_place_matches_nothing(mutual):
    one = random_map(LANDSCAPE, 0)
    values = one.values.clone()
    values[:, 2, 2] = 0
    flat = FeatureMap("flat", values, LANDSCAPE)
    points = LANDSCAPE.centers()[[2 * 6 + 2, 2 * 6 + 4]]
    matches = Nearest(mutual=mutual)(FusedSimilarity(flat, one), points)
    assert matches.matched.tolist() == [False, True]
    assert matches.score[0].item() == 0


def test_tiles_do_not_change_the_matches(monkeypatch):
    similarity, points = pair(), points_on(LANDSCAPE, 50)
    whole = Nearest()(similarity, points)
    monkeypatch.setattr(_rows, "TILE", 3 * 25)
    tiled = Nearest()(similarity, points)
    for name in ("target", "score", "margin", "peak", "cycle_error"):
        torch.testing.assert_close(getattr(whole, name), getattr(tiled, name))


def test_a_thin_photo_is_matched_on_the_photo():
    """No cell centre falls on a photo one pixel high; the match is clamped to it."""
    thin = Grid((4, 4), (250.0, 250.0), (0.0, -499.5), Size(1, 1000))
    one = random_map(thin, 0)
    matches = Nearest()(
        FusedSimilarity(one, one), torch.tensor([[10.0, 0.0], [990.0, 0.0]]).double()
    )
    assert thin.image.contains(matches.target).all()
    assert matches.target[:, 0].tolist() == [124.5, 874.5]


@pytest.mark.parametrize("tile", [1, 60, 2**24])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("masked", [False, True])
def test_mutual_cells_agree_with_a_slow_loop(monkeypatch, tile, seed, masked):
    monkeypatch.setattr(_rows, "TILE", tile)
    similarity = pair(seed)
    if masked:
        generator = torch.Generator().manual_seed(seed)
        sides = [torch.rand(count, generator=generator) < 0.6 for count in (36, 25)]
        maps = similarity.source_map, similarity.target_map
        similarity = FusedSimilarity(*maps, *sides)
    cosines = similarity.rows(similarity.source.centers())
    ways = (similarity.swap(), similarity)
    first, second = (
        way.target.inside() & (True if way.foreground is None else way.foreground) for way in ways
    )
    expected = []
    for one in first.nonzero()[:, 0].tolist():
        there = max(second.nonzero()[:, 0].tolist(), key=lambda cell: cosines[one, cell].item())
        back = max(first.nonzero()[:, 0].tolist(), key=lambda cell: cosines[cell, there].item())
        if back == one and cosines[one, there] > 0:
            expected.append((one, there))
    source, target, score = mutual_cells(similarity)
    found = zip(
        similarity.source.cell_of(source).tolist(), similarity.target.cell_of(target).tolist(),
        strict=True,
    )  # fmt: skip
    assert list(found) == expected != []
    picked = torch.stack([cosines[one, other] for one, other in expected])
    torch.testing.assert_close(score, picked)


def test_flat_photos_have_no_mutual_cells():
    flat = FeatureMap("m", torch.zeros(3, 6, 6), LANDSCAPE)
    source, target, score = mutual_cells(FusedSimilarity(flat, flat))
    assert source.shape == target.shape == (0, 2)
    assert len(score) == 0
