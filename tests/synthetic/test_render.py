"""A figure in a photo: which way it faces, what hides its keypoints, and mirrors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdcorr.synthetic import CATEGORIES
from sdcorr.synthetic._categories import make
from sdcorr.synthetic._figures import ACROSS, Figure, Keypoint, Part, exchanged
from sdcorr.synthetic._looks import Look
from sdcorr.synthetic._render import MARGIN, Cover, Drawing, View, bounds, draw, keypoints
from sdcorr.synthetic._solids import Solid, first_hits

SIDE_ON = View((90, 140), azimuth=90, elevation=10, roll=0, fill=0.9, place=(0.5, 0.5))
PLAIN = Look("#808080", "#808080")


def figure(category: str, seed: int = 0) -> Figure:
    return make(category, np.random.default_rng(seed), np.random.default_rng(seed + 1))


def drawing(
    category: str = "quadruped", view: View = SIDE_ON, cover: Cover | None = None
) -> Drawing:
    return draw(figure(category), view, np.random.default_rng(0), cover)


def shown(one: Drawing) -> dict[str, tuple[int, int]]:
    """The keypoints that show, by name."""
    pixels, _ = keypoints(one)
    names = [point.name for point in one.figure.keypoints]
    return {name: pixel for name, pixel in zip(names, pixels, strict=True) if pixel is not None}


def ball(*keypoints: Keypoint) -> Figure:
    """A sphere."""
    return Figure(
        "ball", (Part("ball", Solid("ellipsoid", np.zeros(3), np.eye(3)), PLAIN),), keypoints
    )


def test_azimuth_by_hand():
    nose, left = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    seen = {}
    for azimuth in (0, 90, 180, 270):
        view = View((50, 50), azimuth, elevation=0, roll=0, fill=1, place=(0, 0))
        (solid,) = view.look_at(ball())
        points = solid.to_points(np.array([nose, left])) - solid.center
        seen[azimuth] = np.sign(points.round(9)).tolist()
    assert seen[0] == [[0, 0, -1], [1, 0, 0]]  # towards the viewer, whose right is its left
    assert seen[90] == [[-1, 0, 0], [0, 0, -1]]  # to the photo's left: its left side shows
    assert seen[180] == [[0, 0, 1], [-1, 0, 0]]
    assert seen[270] == [[1, 0, 0], [0, 0, 1]]


def test_from_above_the_top_is_nearer():
    view = View((50, 50), 0, elevation=30, roll=0, fill=1, place=(0, 0))
    (solid,) = view.look_at(ball())
    (top,) = solid.to_points(np.array([[0, 0, 1.0]])) - solid.center
    radius = solid.reach[0]
    assert top == pytest.approx([0, -radius * np.cos(np.pi / 6), -radius / 2])


@pytest.mark.parametrize(
    ("place", "low"), [((0, 0), (2, 2)), ((1, 1), (12, 2)), ((0.5, 0), (7, 2))]
)
def test_a_ball_lies_where_its_place_says(place, low):
    # 24 x 34 pixels less the margin of 2: from centre to centre 19 high, 29 wide
    view = View((24, 34), 0, 0, 0, fill=1, place=place)
    found, _ = bounds(view.look_at(ball()))
    assert found == pytest.approx(low)


@pytest.mark.parametrize(
    ("cut", "low", "high"),
    [((-0.25, 0), -2.5, 7.5), ((0.25, 0), 33 - 7.5, 33 + 2.5)],
)
def test_a_cut_ball_leaves_the_frame_by_that_share(cut, low, high):
    view = View((24, 34), 0, 0, 0, fill=10 / 19, place=(0, 0), cut=cut)  # 10 px wide
    found = bounds(view.look_at(ball()))
    assert [found[0][0], found[1][0]] == pytest.approx([low, high])


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_whole_figure_keeps_the_margin_and_a_cut_one_is_truncated(category):
    whole = drawing(category)
    assert not whole.truncated
    assert whole.number.any()
    inner = whole.number[MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert (inner > 0).sum() == (whole.number > 0).sum()
    assert drawing(category, replace(SIDE_ON, cut=(0.2, 0.0))).truncated
    assert drawing(category, replace(SIDE_ON, cut=(0.0, -0.2))).truncated


def test_each_pixel_shows_what_a_ray_through_its_centre_hits():
    one = drawing()
    for x, y in ((70, 40), (40, 50), (3, 3), (100, 45)):
        hits = first_hits(one.solids, np.array([[x, y]], float))
        assert one.number[y, x] == hits.index[0] + 1
        assert np.array_equal(one.place[y, x], hits.place[0])


def test_eyes_show_from_in_front_alone_and_left_parts_from_the_left():
    front = shown(drawing(view=replace(SIDE_ON, azimuth=0)))
    rear = shown(drawing(view=replace(SIDE_ON, azimuth=180)))
    left = shown(drawing())
    assert {"left_eye", "right_eye"} <= front.keys()
    assert not {"left_eye", "right_eye", "nose"} & rear.keys()
    assert "left_flank" in left
    assert "right_flank" not in left
    assert left["nose"][0] < left["withers"][0] < left["croup"][0]  # it faces left
    assert front["left_eye"][0] > front["right_eye"][0]  # as of a person who faces you


def test_a_keypoint_is_the_pixel_nearest_to_the_exact_point():
    point = Keypoint("front", "ball", (1.0, 0.0, 0.0))
    view = View((40, 40), 0, 0, 0, fill=0.5, place=(0.317, 0.683))
    one = draw(ball(point), view, np.random.default_rng(0))
    exact = one.solids[0].center[:2]
    assert keypoints(one) == ([tuple(np.rint(exact).astype(int).tolist())], False)


def test_a_keypoint_on_the_far_side_or_beyond_the_frame_is_hidden():
    far = ball(Keypoint("back", "ball", (-1.0, 0.0, 0.0)))
    view = View((40, 40), 0, 0, 0, fill=0.5, place=(0.3, 0.7))
    assert keypoints(draw(far, view, np.random.default_rng(0))) == ([None], False)
    side = ball(Keypoint("left", "ball", (0.0, 1.0, 0.0)))  # to the photo's right
    beyond = replace(view, cut=(0.25, 0.0))
    assert keypoints(draw(side, view, np.random.default_rng(0)))[0] != [None]
    assert keypoints(draw(side, beyond, np.random.default_rng(0))) == ([None], False)


def test_what_is_in_front_hides_keypoints():
    point = Keypoint("front", "ball", (1.0, 0.0, 0.0))
    view = View((40, 40), 0, 0, 0, fill=0.5, place=(0.5, 0.5))
    cover = Cover(Solid("box", np.array([19.0, 19, 0]), 3 * np.eye(3)), Look("#ff0000", "#ff0000"))
    one = draw(ball(point), view, np.random.default_rng(0), cover)
    assert keypoints(one) == ([None], True)
    assert one.covered.sum() == 49  # 16 to 22 each way
    assert one.number[19, 19] == 1
    assert one.shown[19, 19] == 0
    assert one.pixels[19, 19].argmax() == 0  # it is red


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_mirror_image_is_the_mirrored_figure_from_the_other_side(category):
    view = View((90, 140), azimuth=35, elevation=12, roll=4, fill=0.8, place=(0.2, 0.5))
    other = replace(view, azimuth=-35, roll=-4, place=(0.8, 0.5))
    one = draw(figure(category), view, np.random.default_rng(0)).mirror()
    two = draw(_across(figure(category)), other, np.random.default_rng(0))
    same = one.number == two.number
    assert same.mean() > 0.999  # rounding may move an edge
    assert np.abs(one.place - two.place)[same].max() < 1e-3
    found, expected = shown(one), shown(two)
    assert found.keys() == expected.keys()
    for name, pixel in found.items():  # of two pixels that are as near, either
        assert np.abs(np.subtract(pixel, expected[name])).max() <= 1


def _across(one: Figure) -> Figure:
    """The figure mirrored in space, in which left is left again."""
    parts = []
    for part, partner in zip(one.parts, one.partners, strict=True):
        solid = one.parts[partner].solid
        alone = one.parts[partner] is part
        axes = ACROSS @ solid.axes @ (ACROSS if alone else np.eye(3))
        parts.append(replace(part, solid=Solid(solid.kind, ACROSS @ solid.center, axes)))
    return replace(one, parts=tuple(parts))


def test_a_mirror_exchanges_left_and_right():
    one = drawing(view=replace(SIDE_ON, azimuth=40))
    found, mirrored = shown(one), shown(one.mirror())
    names = [point.name for point in one.figure.keypoints]
    other = dict(zip(names, (names[i] for i in exchanged(names)), strict=True))
    assert "left_flank" in found
    last = one.size[1] - 1
    assert mirrored == {other[name]: (last - x, y) for name, (x, y) in found.items()}
    assert np.array_equal(one.mirror().pixels, one.pixels[:, ::-1])


def test_twice_mirrored_is_as_before():
    one = drawing()
    two = one.mirror().mirror()
    for name in ("pixels", "number", "place", "covered"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert two.mirrored is False
