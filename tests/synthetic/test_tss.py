"""Flow between two views of one figure: exact, both ways, and as TSS writes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sdcorr.datasets.tss import Tss
from sdcorr.flo import read_flo
from sdcorr.synthetic._render import Drawing
from sdcorr.synthetic._solids import Solid
from sdcorr.synthetic._tss import TURN, flow_between, tss_pairs, two_views

KEYS = {"car": (0, 1), "quadruped": (0, 2), "plane": (0, 3), "doll": (0, 4)}


@pytest.fixture(scope="module", params=KEYS)
def views(request: pytest.FixtureRequest) -> tuple[Drawing, Drawing]:
    return two_views(request.param, KEYS[request.param])


def front_place(solid: Solid, x: float, y: float) -> np.ndarray:
    """The place that a solid shows at a pixel: its centre line, halved until it is found."""

    def excess(depth: float) -> float:
        u = np.linalg.solve(solid.axes, np.array([x, y, depth]) - solid.center)
        if solid.kind == "ellipsoid":
            return np.linalg.norm(u) - 1
        if solid.kind == "box":
            return max(abs(u)) - 1
        return max(np.hypot(u[0], u[1]), abs(u[2])) - 1

    walk = solid.center[2] + np.linspace(-1, 1, 4001) * np.linalg.norm(solid.axes, axis=0).sum()
    inner = next(depth for depth in walk if excess(depth) <= 0)
    outer = inner - (walk[1] - walk[0])
    for _ in range(60):
        middle = (inner + outer) / 2
        inner, outer = (middle, outer) if excess(middle) <= 0 else (inner, middle)
    return np.linalg.solve(solid.axes, np.array([x, y, inner]) - solid.center)


def test_some_pixels_by_a_slow_way(views):
    source, target = views
    flow = flow_between(source, target)
    rows, columns = flow.valid.nonzero()
    assert len(rows) > 500
    for index in np.linspace(0, len(rows) - 1, 25).astype(int):
        x, y = int(columns[index]), int(rows[index])
        part = source.number[y, x] - 1
        try:
            place = front_place(source.solids[part], x, y)
        except StopIteration:  # the walk stepped over a sliver at the rim
            continue
        solid = target.solids[part]
        expected = (solid.axes @ place + solid.center)[:2] - [x, y]
        assert flow.way[y, x] == pytest.approx(expected, abs=0.01)


def test_the_pixel_that_the_flow_leads_to_shows_the_same_place(views):
    source, target = views
    flow = flow_between(source, target)
    rows, columns = flow.valid.nonzero()
    ends = np.rint(np.column_stack([columns, rows]) + flow.way[rows, columns]).astype(int)
    same = source.number[rows, columns] == target.number[ends[:, 1], ends[:, 0]]
    assert same.mean() > 0.9  # all but those that end within half a pixel of another part
    gap = (source.place[rows, columns] - target.place[ends[:, 1], ends[:, 0]])[same]
    assert np.median(np.linalg.norm(gap, axis=1)) < 0.1  # half axes; half a pixel away


def test_there_and_back(views):
    source, target = views
    there, back = flow_between(source, target), flow_between(target, source)
    rows, columns = there.valid.nonzero()
    starts = np.column_stack([columns, rows])
    ends = starts + there.way[rows, columns]
    x, y = np.rint(ends).astype(int).T
    known = back.valid[y, x]
    assert known.mean() > 0.8
    returned = np.column_stack([x, y]) + back.way[y, x]
    error = np.linalg.norm(returned - starts, axis=1)[known]
    assert np.median(error) < 0.8  # a rounded end is 0.38 px off on average, times the scale
    assert np.quantile(error, 0.9) < 3


def test_most_of_what_both_see_has_flow(views):
    source, target = views
    flow = flow_between(source, target)
    assert not flow.valid[source.number == 0].any()
    assert flow.valid.sum() > 0.4 * (source.number > 0).sum()
    assert (flow.way[~flow.valid] == 0).all()


def test_a_figure_hides_its_other_side():
    source, target = two_views("car", KEYS["car"])
    flow = flow_between(source, target)
    names = [part.name for part in source.figure.parts]
    for index, name in enumerate(names):
        if not (target.number == index + 1).any():
            assert not flow.valid[source.number == index + 1].any(), name


def test_a_mirrored_view_has_the_mirrored_flow(views):
    source, target = views
    plain, flipped = flow_between(source, target), flow_between(source, target.mirror())
    assert np.array_equal(plain.valid, flipped.valid)
    columns = np.broadcast_to(np.arange(source.size[1]), source.size)
    ends, turned = (columns + flow.way[..., 0] for flow in (plain, flipped))
    last = target.size[1] - 1
    assert turned[plain.valid] == pytest.approx(last - ends[plain.valid], abs=1e-3)
    assert np.array_equal(plain.way[..., 1], flipped.way[..., 1])
    back, turned_back = flow_between(target, source), flow_between(target.mirror(), source)
    assert np.array_equal(back.valid, turned_back.valid[:, ::-1])
    assert np.array_equal(back.way[..., 1], turned_back.way[:, ::-1, 1])


def test_both_views_are_of_one_individual():
    source, target = two_views("quadruped", (1, 2, 3))
    for one, other in zip(source.figure.parts, target.figure.parts, strict=True):
        assert one.look == other.look
        assert np.linalg.det(one.solid.axes) == pytest.approx(np.linalg.det(other.solid.axes))
    assert source.size != target.size
    assert TURN <= 40


@pytest.mark.parametrize(("pairs", "flows"), [(1, 3), (39, 3), (60, 6), (200, 20)])
def test_how_many(pairs, flows):
    assert tss_pairs(pairs) == flows


def homes(drawn: Path) -> list[Path]:
    return sorted((drawn / "tss").glob("*/*"))


def test_files_are_those_of_tss(drawn):
    assert len(homes(drawn)) == 6
    flips = []
    for home in homes(drawn):
        assert {file.name for file in home.iterdir()} == {
            "image1.png", "image2.png", "flow1.flo", "flow2.flo", "mask1.png", "mask2.png",
            "flip_gt.txt", "pair.txt", "corr.txt",
        }  # fmt: skip
        category, first, second = home.name.split("_")
        assert (home / "pair.txt").read_text() == f"{first}\t{second}\n"
        assert category.isalpha()
        flips.append((home / "flip_gt.txt").read_text().strip())
        for end in "12":
            photo, mask = (PIL.Image.open(home / f"{name}{end}.png") for name in ("image", "mask"))
            _, valid = read_flo(home / f"flow{end}.flo")
            assert photo.size == mask.size == valid.shape[::-1]
            palette = home.parent.name == "JODS"
            assert mask.mode == ("P" if palette else "L")
            numbers = np.asarray(mask)
            assert set(np.unique(numbers)) == {0, 1 if palette else 255}
            assert np.array_equal(numbers > 0, valid)
    assert sorted(flips) == ["0"] * 5 + ["1"]
    assert {home.name.split("_")[0] for home in homes(drawn) if home.parent.name == "FG3DCar"} == {
        "car"
    }


def test_corr_txt_agrees_with_the_flow(drawn):
    for home in homes(drawn):
        table = np.loadtxt(home / "corr.txt", delimiter="\t")
        assert 20 <= len(table) <= 60
        flow, _ = read_flo(home / "flow1.flo")
        sizes = [PIL.Image.open(home / f"image{end}.png").size for end in "12"]
        start, end = table[:, :2] * sizes[0], table[:, 2:] * sizes[1]
        x, y = np.rint(start).astype(int).T
        assert start == pytest.approx(np.column_stack([x, y]), abs=1e-3)
        assert end == pytest.approx(start + flow[y, x], abs=2e-3)


def test_the_loader_reads_it(drawn):
    pairs = Tss(drawn / "tss").pairs()
    assert len(pairs) == 12  # both ways
    for pair in pairs:
        flow, valid = pair.read()
        assert valid.sum() > 300
        height, width = pair.target_size
        rows, columns = valid.nonzero()
        ends = np.column_stack([columns, rows]) + flow[valid]
        assert (ends >= 0).all()
        assert (ends <= [width - 1, height - 1]).all()
