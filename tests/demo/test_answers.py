from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

import sdcorr
from sdcorr.demo._answers import Wanted, answer, as_csv, as_json, as_png, collect
from sdcorr.demo._studio import Joined
from sdcorr.export import how_made
from sdcorr.files import to_json
from sdcorr.fused import Fused
from sdcorr.geometry import Grid, Size
from sdcorr.matchers.nearest import Nearest
from sdcorr.pipeline import Pipeline
from sdcorr.types import Encoding, Image
from tests.demo.server import OFFERED, astronaut, hopper, small, until


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """Similarities that are given, ``(source cells, target cells)``."""

    source: Grid
    target: Grid
    values: Tensor
    foreground: Tensor | None = None

    def rows(self, points: Tensor) -> Tensor:
        return self.values[self.source.cell_of(points)]

    def swap(self) -> Table:
        return Table(self.target, self.source, self.values.T)


def tabled(source: Grid, target: Grid, values: Tensor) -> Joined:
    """A pair of these similarities, matched by the nearest cell."""
    ends = [
        Encoding(Image(np.zeros((*grid.image, 3), np.uint8)), {}, {}, {})
        for grid in (source, target)
    ]
    table = Table(source, target, values)
    forth = Fused(ends[0], ends[1], table, Nearest())
    return Joined(forth, Fused(ends[1], ends[0], table.swap(), Nearest()), {})


def joined_by(model: Pipeline, first: np.ndarray, second: np.ndarray) -> Joined:
    one, other = model.encode(first), model.encode(second)
    return Joined(model.fuse(one, other), model.fuse(other, one), how_made(model))


@pytest.fixture(scope="module")
def sift() -> Joined:
    return joined_by(sdcorr.load("sift"), astronaut(), hopper())


def heat_of(joined: Joined, turned: bool, point: Sequence[float]) -> tuple[np.ndarray, list[float]]:
    """Levels ``(h, w)`` and extent, as the page reads them."""
    told = json.loads(to_json(answer(joined, turned, [point], around=True)))["heat"]
    levels = np.frombuffer(base64.b64decode(told["levels"], validate=True), np.uint8)
    return levels.reshape(told["shape"]).astype(int), told["extent"]


def check_heat(joined: Joined, turned: bool, point: Sequence[float]) -> None:
    """Against a loop: 0 at the median of the cells on the photo and below, 255 at the most."""
    pair = joined.back if turned else joined.forth
    grid = pair.similarity.target
    row = pair.similarity.rows(torch.tensor([point], dtype=torch.float64))[0].tolist()
    inside = sorted(
        value for value, counts in zip(row, grid.inside().tolist(), strict=True) if counts
    )
    low, high = inside[(len(inside) - 1) // 2], inside[-1]
    levels, extent = heat_of(joined, turned, point)
    height, width = grid.shape
    assert levels.shape == (height, width)
    for y in range(height):
        for x in range(width):
            share = (row[y * width + x] - low) / max(high - low, 1e-9)
            assert abs(levels[y, x] - min(max(share, 0), 1) * 255) <= 1.01  # rounded down
    left, right, bottom, top = extent
    centers = grid.centers().reshape(height, width, 2)
    across, down = (right - left) / width, (bottom - top) / height
    for (y, x), place in (((0, 0), centers[0, 0]), ((height - 1, width - 1), centers[-1, -1])):
        middle = (left + across * (x + 1 / 2), top + down * (y + 1 / 2))
        assert place.tolist() == pytest.approx(middle)


# -- heat --------------------------------------------------------------------------------------

LETTERBOX = Grid((6, 6), (10.0, 10.0), (0.0, -15.0), Size(30, 60))  # rows 0, 1 and 4, 5: padding
UPRIGHT = Grid((4, 3), (8.0, 8.0), (-2.0, 0.0), Size(32, 20))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_heat_of_a_table(turned: bool, seed: int) -> None:
    values = torch.randn(12, 36, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)
    check_heat(tabled(UPRIGHT, LETTERBOX, values), turned, [5.5, 9.0])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("point", [[0, 0], [50.5, 60.25], [99, 103]])
def test_heat_of_photos(sift: Joined, turned: bool, point: list[float]) -> None:
    check_heat(sift, turned, point)


def test_padding_does_not_set_the_scale() -> None:
    """Its similarities are larger than any on the photo: they are cut, and the rest keeps 255."""
    values = torch.zeros(12, 36)
    values[:, LETTERBOX.inside()] = torch.linspace(0.1, 0.3, int(LETTERBOX.inside().sum()))
    values[:, ~LETTERBOX.inside()] = 0.9
    levels, extent = heat_of(tabled(UPRIGHT, LETTERBOX, values), False, [5, 5])
    inside = levels[LETTERBOX.inside().reshape(6, 6).numpy()]
    assert (inside.max(), int((inside == 0).sum())) == (255, len(inside) // 2)
    assert extent == [-0.5, 59.5, 44.5, -15.5]


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.3])
def test_equal_similarities_are_cold(value: float) -> None:
    levels, _ = heat_of(tabled(UPRIGHT, LETTERBOX, torch.full((12, 36), value)), False, [5, 5])
    assert levels.max() == 0


def test_the_match_is_where_it_is_hottest(sift: Joined) -> None:
    for turned, pair in ((False, sift.forth), (True, sift.back)):
        told = answer(sift, turned, [[40, 50]], around=True)
        levels, _ = heat_of(sift, turned, [40, 50])
        place = torch.tensor([told["matches"][0]["place"]], dtype=torch.float64)
        assert levels.flatten()[pair.similarity.target.cell_of(place)[0]] == 255


@pytest.mark.parametrize("recipe", OFFERED)
@pytest.mark.parametrize(
    ("first", "second"),
    [((40, 60), (60, 40)), ((300, 2), (1, 1))],
    ids=str,
)
def test_flat_and_thin_photos_are_answered(
    recipe: str, first: tuple[int, int], second: tuple[int, int]
) -> None:
    """All similarities are alike: no NaN, which JSON lacks, and no place off the photo."""
    model = sdcorr.load(small(recipe))
    joined = joined_by(model, *(np.full((*size, 3), 99, np.uint8) for size in (first, second)))
    for turned in (False, True):
        told = json.loads(to_json(answer(joined, turned, [[0, 0]], around=True)))
        target = Size(*(first if turned else second))
        places = [one["place"] for one in told["matches"]]
        if recipe != "same-position":  # which looks at no photo, nor at its size
            assert target.contains(torch.tensor(places)).all()
        assert all(map(math.isfinite, (one["score"] for one in told["next"])))
        check_heat(joined, turned, [0, 0])
    for kind in (as_json, as_csv):
        wanted = [Wanted("1", (0, 0)), Wanted("2", (0, 0), turned=True)]
        assert kind(joined, wanted, *([("a", "b")] if kind is as_json else []))


# -- the list ----------------------------------------------------------------------------------


def mixed(count: int) -> list[Wanted]:
    """Points of both photos in no order, some corrected."""
    random = np.random.default_rng(0)
    wanted = []
    for number in range(count):
        place = tuple(random.integers(0, 99, 2).tolist())
        corrected = tuple(random.integers(0, 99, 2).tolist()) if random.random() < 0.3 else None
        wanted.append(Wanted(str(number), place, bool(random.integers(2)), corrected))
    return wanted


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_points_of_both_photos_keep_their_order(sift: Joined, count: int) -> None:
    wanted = mixed(count)
    told = as_json(sift, wanted, ("a.jpg", "b.jpg"))["matches"]
    assert len(told) == count
    for match, one in zip(told, wanted, strict=True):
        single = (sift.back if one.turned else sift.forth).match([one.place])
        here, there = ("target", "source") if one.turned else ("source", "target")
        assert match[here] == list(one.place)
        assert match[there] == list(one.corrected or single.target[0].tolist())
        assert (match["name"], match["asked"]) == (one.name, here)
        assert match["corrected"] is (one.corrected is not None)
        if one.corrected is not None:
            assert (match["score"], match["confidence"], match["matched"]) == (None, None, True)
            continue
        assert match["matched"] is single.matched[0].item()
        assert match["score"] == pytest.approx(single.score[0].item(), abs=1e-5)
        assert match["confidence"] == pytest.approx(single.confidence[0].item(), abs=1e-4)


@pytest.mark.parametrize("turned", [False, True])
def test_all_points_of_one_photo(sift: Joined, turned: bool) -> None:
    wanted = [Wanted(name, (20, 30), turned) for name in "abc"]
    matches = collect(sift, wanted)
    assert matches.names == ("a", "b", "c")
    clicked = matches.target if turned else matches.source
    assert clicked.tolist() == [[20, 30]] * 3
    assert matches.source_image is sift.forth.source.image


def test_a_correction_changes_no_other_point_and_no_later_answer(sift: Joined) -> None:
    plain = [Wanted("a", (20, 30)), Wanted("b", (40, 50), turned=True)]
    before = collect(sift, plain)
    by_hand = [dataclasses.replace(plain[0], corrected=(1.5, 2.5)), plain[1]]
    corrected = collect(sift, by_hand)
    assert corrected.target[0].tolist() == [1.5, 2.5]
    assert corrected.target[1].equal(before.target[1])
    assert corrected.source.equal(before.source)
    assert collect(sift, plain).target.equal(before.target)


def test_a_corrected_point_is_matched_though_nothing_was_found() -> None:
    flat = np.full((40, 60, 3), 99, np.uint8)
    joined = joined_by(sdcorr.load(small("sift")), flat, flat)
    told = as_json(joined, [Wanted("a", (5, 5)), Wanted("b", (5, 5), False, (7, 8))], ("a", "b"))
    assert [one["matched"] for one in told["matches"]] == [False, True]


def test_json_has_the_shape_of_the_command_match(sift: Joined) -> None:
    """And two fields more of each point, one of all."""
    model = sdcorr.load("sift")
    matches = model.match(astronaut(), hopper(), {"ear": (20, 30)})
    plain = sdcorr.export.matches_to_dict(matches, model)
    told = as_json(sift, [Wanted("ear", (20, 30))], ("a.jpg", "b.jpg"))
    assert told.keys() == plain.keys() | {"min_confidence"}
    assert told["min_confidence"] is None
    assert told["source"] == {"path": "a.jpg", "size": [104, 157]}
    assert told["target"] == {"path": "b.jpg", "size": [136, 100]}
    (one,) = told["matches"]
    assert one == plain["matches"][0] | {"asked": "source", "corrected": False}
    for key in ("recipe", "weights", "runtime", "schema"):
        assert told[key] == plain[key]
    json.loads(to_json(told))


def test_answering_changes_nothing_that_is_kept(sift: Joined) -> None:
    """The second answer says what the first did: no field of what all share is written to."""
    first, second = (as_json(sift, [Wanted("a", (20, 30))], (name, "b")) for name in "xy")
    assert first["source"]["path"] == "x"
    assert second["source"]["path"] == "y"
    assert sift.made.keys() == {"recipe", "weights", "runtime"}


def test_csv_where_there_is_no_confidence() -> None:
    joined = joined_by(sdcorr.load("same-position"), astronaut(), hopper())
    wanted = [Wanted("a", (20, 30)), Wanted("b", (1, 2), corrected=(3, 4))]
    assert as_csv(joined, wanted).splitlines()[1:] == [
        "a,20.0,30.0,20.0,30.0,0.0,,true,source,false",
        "b,1.0,2.0,3.0,4.0,,,true,source,true",
    ]


def test_csv_of_hostile_names_reads_back(sift: Joined) -> None:
    names = ["a,b", '"', '""', "a\rb", "a\nb", "a\r\nb", "=1+1", "貓", "", " x ", "\t"]
    text = as_csv(sift, [Wanted(name, (5, 5)) for name in names])
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["name"] for row in rows] == names
    assert all(None not in row and None not in row.values() for row in rows)


def test_pictures_are_drawn_in_several_threads(sift: Joined) -> None:
    drawn: list[Any] = []

    def draw() -> None:
        drawn.append(as_png(sift, mixed(5)))

    threads = [threading.Thread(target=draw, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: not any(thread.is_alive() for thread in threads), 20)
    assert len(drawn) == 3
    assert len({PIL.Image.open(io.BytesIO(one)).size for one in drawn}) == 1


def test_next_places_are_apart_and_none_is_the_match(sift: Joined) -> None:
    for turned, size in ((False, Size(136, 100)), (True, Size(104, 157))):
        told = answer(sift, turned, [[40, 50]], around=True)
        places = [told["matches"][0]["place"], *(one["place"] for one in told["next"])]
        assert len(told["next"]) == 4
        for index, place in enumerate(places):
            assert size.contains(torch.tensor([place])).all()
            for other in places[:index]:
                assert math.dist(place, other) >= max(size) / 20


def test_around_is_of_the_first_point(sift: Joined) -> None:
    one = answer(sift, False, [[40, 50]], around=True)
    two = answer(sift, False, [[40, 50], [1, 2]], around=True)
    assert one["heat"] == two["heat"]
    assert [place["place"] for place in one["next"]] == [place["place"] for place in two["next"]]
    assert answer(sift, False, [[40, 50]], around=False).keys() == {"matches"}
