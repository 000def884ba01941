"""What a pipeline offers to pages: the next best places, half of its JSON."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import sdcorr
from sdcorr.export import how_made, matches_alone, matches_to_dict
from sdcorr.fused import Fused
from sdcorr.geometry import Grid, Size
from sdcorr.matchers.hough import Hough
from sdcorr.matchers.mutual import Mutual
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.matchers.same_position import SamePosition
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.pipeline import Pipeline
from sdcorr.recipes import RECIPES
from sdcorr.types import Encoding, Image, Matches, Similarity
from tests.demo.server import astronaut, hopper, small

MATCHERS = (Nearest(), Hough(), Mutual(Hough()), SoftArgmax(), Pixel(), SamePosition())


def with_matcher(model: Pipeline, matcher) -> Pipeline:
    return sdcorr.load(dataclasses.replace(model.recipe, matcher=matcher), device="cpu")


@pytest.fixture(scope="module")
def sift() -> Pipeline:
    """Of small photos as they are, not enlarged: much faster. Calibrated for itself alone."""
    recipe = small("sift")
    fitted = dataclasses.replace(RECIPES["sift"].calibration, recipe=recipe.digest)
    return sdcorr.load(dataclasses.replace(recipe, calibration=fitted), device="cpu")


@pytest.fixture(scope="module")
def photos(sift: Pipeline) -> tuple[Encoding, Encoding]:
    return sift.encode(astronaut()), sift.encode(hopper())


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """Similarities of every source point to a row of target cells, given."""

    values: Tensor
    target: Grid
    foreground: Tensor | None = None

    @property
    def source(self) -> Grid:
        return self.target

    def rows(self, points: Tensor) -> Tensor:
        return self.values.expand(len(points), -1)

    def swap(self) -> Row:
        return self


def given(values: list[float], foreground: list[bool] | None = None) -> Fused:
    """Cells of 1 px in a photo 40 px wide and 1 high: apart is 2 px."""
    grid = Grid((1, 40), (1.0, 1.0), (0.0, 0.0), Size(1, 40))
    photo = Encoding(Image(np.zeros((1, 40, 3), np.uint8)), {}, {}, {})
    row = torch.zeros(40)
    row[: len(values)] = torch.tensor(values)
    mask = None if foreground is None else torch.tensor(foreground)
    return Fused(photo, photo, Row(row, grid, mask), Nearest())


def places(pair: Fused, match: Matches, count: int = 4) -> list[float]:
    return pair.next_best(match, count)[0][:, 0].tolist()


def at(x: float) -> Matches:
    """A match at (x, 0)."""
    one, place = torch.zeros(1), torch.tensor([[x, 0.0]], dtype=torch.float64)
    yes = torch.ones(1, dtype=torch.bool)
    return Matches(place, place, one, one, one.double(), one, yes)


# -- the next best places ----------------------------------------------------------------------


def test_by_hand() -> None:
    """The match at 0 covers 0 and 1; 2 is far enough and covers 3; 7 covers 6 and 8; then 4."""
    pair = given([0.9, 0.8, 0.7, 0.6, 0.3, 0.0, 0.45, 0.5, 0.4])
    assert places(pair, at(0)) == [2, 7, 4, 9]
    centers, similarity = pair.next_best(at(0), 3)
    assert (centers.dtype, centers.shape) == (torch.float64, (3, 2))
    assert similarity.tolist() == pytest.approx([0.7, 0.5, 0.3])


def test_of_equals_the_first() -> None:
    assert places(given([0.5] * 40), at(20)) == [0, 2, 4, 6]


def test_fewer_where_there_is_no_room() -> None:
    pair = given([0.5] * 40)
    assert len(places(pair, at(0), 100)) == 19
    assert places(pair, at(0), 1) == [2]
    centers, similarity = pair.next_best(at(0), 0)
    assert (centers.shape, similarity.shape) == ((0, 2), (0,))


def test_a_foreground_leaves_the_rest_out() -> None:
    allowed = [False] * 40
    allowed[5] = allowed[30] = True
    assert places(given([1.0] * 40, allowed), at(30)) == [5]


def test_a_photo_of_one_cell_has_no_other_place() -> None:
    grid = Grid((1, 1), (9.0, 9.0), (0.0, 0.0), Size(9, 9))
    photo = Encoding(Image(np.zeros((9, 9, 3), np.uint8)), {}, {}, {})
    pair = Fused(photo, photo, Row(torch.ones(1), grid), Nearest())
    centers, similarity = pair.next_best(pair.match([[4, 4]]))
    assert (centers.shape, similarity.shape) == ((0, 2), (0,))


def slowly(
    pair: Fused, read: Similarity, match: Matches, count: int
) -> tuple[list[list[float]], list[float]]:
    """The next best places by what is read, by looking at every cell again for each."""
    grid = pair.similarity.target
    strength = read.rows(match.source)[0].tolist()
    cosine = pair.similarity.rows(match.source)[0].tolist()
    centers, inside = grid.centers().tolist(), grid.inside().tolist()
    apart = max(pair.target.size) / 20
    taken, found = [match.target[0].tolist()], []
    for _ in range(count):
        best = None
        for cell, place in enumerate(centers):
            far = all(math.dist(place, other) >= apart for other in taken)
            better = best is None or strength[cell] > strength[best]
            if inside[cell] and far and better and strength[cell] > -math.inf:
                best = cell
        if best is None:
            break
        taken.append(centers[best])
        found.append(best)
    return taken[1:], [cosine[cell] for cell in found]


@pytest.mark.parametrize("matcher", MATCHERS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("turned", [False, True])
def test_as_a_slow_loop_finds_them(
    sift: Pipeline, photos: tuple[Encoding, Encoding], matcher, turned: bool
) -> None:
    model = with_matcher(sift, matcher)
    pair = model.fuse(*(photos[::-1] if turned else photos))
    read = matcher.prepare(pair.similarity) if hasattr(matcher, "prepare") else pair.similarity
    for point in ([0, 0], [50, 60], [99, 103.5]):
        match = pair.match([point])
        found, similarity = pair.next_best(match, 6)
        wanted, cosine = slowly(pair, read, match, 6)
        assert found.tolist() == wanted
        assert similarity.tolist() == pytest.approx(cosine)
        if isinstance(matcher, Nearest):  # what it chooses by is the cosine: no place beats it
            assert (similarity <= match.score + 1e-6).all()
            assert similarity.tolist() == sorted(similarity.tolist(), reverse=True)


def test_best_first_by_what_the_matcher_reads(
    sift: Pipeline, photos: tuple[Encoding, Encoding]
) -> None:
    """Votes may prefer a place of lower cosine."""
    pair = with_matcher(sift, Hough()).fuse(*photos)
    rows = pair.matcher.prepare(pair.similarity)
    for point in ([20, 30], [50, 60]):
        match = pair.match([point])
        found, _ = pair.next_best(match)
        evidence = rows.rows(match.source)[0][pair.similarity.target.cell_of(found)]
        assert evidence.tolist() == sorted(evidence.tolist(), reverse=True)


def test_letterbox_padding_is_never_offered() -> None:
    grid = Grid((6, 6), (10.0, 10.0), (0.0, -15.0), Size(30, 60))
    values = torch.rand(36, generator=torch.Generator().manual_seed(0))
    values[~grid.inside()] = 2
    photo = Encoding(Image(np.zeros((30, 60, 3), np.uint8)), {}, {}, {})
    pair = Fused(photo, photo, Row(values, grid), Nearest())
    found, similarity = pair.next_best(pair.match([[5, 5]]), 100)
    assert Size(30, 60).contains(found).all()
    assert similarity.max() <= 1
    assert len(found) == int(grid.inside().sum()) - 1


# -- the halves of its JSON --------------------------------------------------------------------


def test_what_was_found_and_how_are_the_whole(
    sift: Pipeline, photos: tuple[Encoding, Encoding]
) -> None:
    matches = sift.match(*photos, {"ear": (20, 30), "eye": (60, 70.5)})
    alone, made = matches_alone(matches), how_made(sift)
    assert alone.keys() == {"schema", "source", "target", "matches"}
    assert made.keys() == {"recipe", "weights", "runtime"}
    whole = matches_to_dict(matches, sift)
    assert whole == alone | made
    assert list(whole) == [*alone, *made]
    assert [one["name"] for one in alone["matches"]] == ["ear", "eye"]
    assert alone["matches"][0]["source"] == [20, 30]
    assert alone["source"] == {"path": None, "size": [104, 157]}
    assert made["recipe"] == sift.recipe.describe()
    other = how_made(with_matcher(sift, SamePosition()))
    assert other["recipe"]["matcher"] == {"kind": "same_position"}
