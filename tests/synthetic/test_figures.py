"""The figures of each category: the same parts in all, alike left and right."""

from __future__ import annotations

import numpy as np
import pytest

from sdcorr.synthetic import CATEGORIES
from sdcorr.synthetic._categories import make
from sdcorr.synthetic._figures import Figure, block, down, exchanged, pitch, rod, roll, yaw
from sdcorr.synthetic._looks import Look, Mark, to_rgb


def figure(category: str, shape: int = 0, pose: int = 0) -> Figure:
    return make(category, np.random.default_rng(shape), np.random.default_rng(pose))


@pytest.mark.parametrize("category", CATEGORIES)
def test_all_of_a_category_have_the_same_parts_and_keypoints(category):
    one, other = figure(category, 0, 1), figure(category, 2, 3)
    assert [part.name for part in one.parts] == [part.name for part in other.parts]
    assert one.keypoints == other.keypoints
    assert 10 <= len(one.keypoints) <= 20
    assert len({part.name for part in one.parts}) == len(one.parts) < 24  # of the oracle


@pytest.mark.parametrize("category", CATEGORIES)
def test_shape_and_pose_are_drawn_apart(category):
    one, posed, shaped = figure(category, 0, 1), figure(category, 0, 2), figure(category, 5, 1)
    for part, other in zip(one.parts, posed.parts, strict=True):
        assert part.look == other.look
    volumes = [[np.linalg.det(part.solid.axes) for part in f.parts] for f in (one, posed, shaped)]
    assert volumes[0] == pytest.approx(volumes[1])
    assert sum(a != pytest.approx(b) for a, b in zip(volumes[0], volumes[2], strict=True)) >= 4
    centers = [np.array([part.solid.center for part in f.parts]) for f in (one, posed)]
    assert category == "car" or abs(centers[0] - centers[1]).max() > 0.01  # a car turns its wheels


@pytest.mark.parametrize("category", CATEGORIES)
def test_keypoints_lie_on_the_surface_of_their_part(category):
    one = figure(category)
    solids = {part.name: part.solid for part in one.parts}
    for point in one.keypoints:
        x, y, z = map(abs, point.place)
        reach = {
            "ellipsoid": np.sqrt(x * x + y * y + z * z),
            "box": max(x, y, z),
            "cylinder": max(np.hypot(x, y), z),
        }[solids[point.part].kind]
        assert reach == pytest.approx(1, abs=0.005), point


@pytest.mark.parametrize("category", CATEGORIES)
def test_left_and_right_are_drawn_alike(category):
    one = figure(category)
    partners = one.partners
    assert [partners[index] for index in partners] == list(range(len(partners)))
    paired = [index for index, other in enumerate(partners) if index != other]
    assert paired
    for index in paired:
        part, other = one.parts[index], one.parts[partners[index]]
        assert part.look == other.look
        lengths = [np.linalg.norm(each.solid.axes, axis=0) for each in (part, other)]
        assert lengths[0] == pytest.approx(lengths[1])
        # mirrored, not turned: of opposite handedness
        assert np.linalg.det(part.solid.axes) == pytest.approx(-np.linalg.det(other.solid.axes))


@pytest.mark.parametrize("category", CATEGORIES)
def test_keypoints_have_partners_on_the_partner_parts(category):
    one = figure(category)
    names = [part.name for part in one.parts]
    order = exchanged([point.name for point in one.keypoints])
    for point, index in zip(one.keypoints, order, strict=True):
        other = one.keypoints[index]
        assert names[one.partners[names.index(point.part)]] == other.part
        alone = point.part == other.part
        x, y, z = point.place
        assert other.place == ((x, -y, z) if alone else (x, y, z))


def test_turns_by_hand():
    quarter = np.pi / 2
    assert pitch(quarter) @ [1, 0, 0] == pytest.approx([0, 0, 1])  # forward goes up
    assert yaw(quarter) @ [1, 0, 0] == pytest.approx([0, 1, 0])  # forward goes left
    assert roll(quarter) @ [0, 1, 0] == pytest.approx([0, 0, 1])  # left goes up
    assert down(0) == pytest.approx([0, 0, -1])
    assert down(quarter) == pytest.approx([1, 0, 0])
    assert down(0.3, quarter) == pytest.approx([0, 1, 0])


def test_a_rod_goes_from_its_start_to_its_end():
    solid = rod((1, 2, 3), (1, 2, -1), 0.5, 0.25, "cylinder")
    ends = solid.to_points(np.array([[0, 0, -1], [0, 0, 1], [1, 0, 0], [0, 1, 0]]))
    assert ends[:2] == pytest.approx(np.array([[1, 2, 3], [1, 2, -1]]))
    assert ends[2:] == pytest.approx(np.array([[1.5, 2, 1], [1, 2.25, 1]]))  # forward, left
    longer = rod((0, 0, 0), (8, 0, 0), 1, 1)
    assert longer.to_points(np.array([[0, 0, 1]]))[0] == pytest.approx([8.5, 0, 0])


def test_a_block_is_turned_about_its_centre():
    solid = block("box", (1, 1, 1), (3, 2, 1), yaw(np.pi / 2))
    assert solid.to_points(np.array([[1, 0, 0]]))[0] == pytest.approx([1, 4, 1])


@pytest.mark.parametrize("pattern", ["mottled", "stripes", "bands", "spots", "checks", "planks"])
def test_looks_are_the_same_left_and_right_and_lie_between_their_colours(pattern):
    look = Look("#204060", "#a0c0e0", pattern, 2.0, 0.4)
    places = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    colours = look.paint(places)
    assert np.array_equal(colours, look.paint(places * [1, -1, 1]))
    assert (colours >= to_rgb("#204060") - 1e-9).all()
    assert (colours <= to_rgb("#a0c0e0") + 1e-9).all()
    assert colours[:, 0].std() > 0.01


def test_a_mark_is_on_both_sides():
    look = Look("#ffffff", "#ffffff", marks=(Mark((0, 0.6, 0.8), 0.1, "#ff0000"),))
    colours = look.paint(np.array([[0, 0.6, 0.8], [0, -0.6, 0.8], [0, 0.6, 0.6]]))
    assert colours.tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 1]]


def test_panes_are_in_the_middle_of_each_face():
    look = Look("#000000", "#ffffff", "panes")
    middle, rim = look.paint(np.array([[1, 0.1, 0.1], [1, 0.97, 0.1]]))[:, 0]
    assert middle > 0.9
    assert rim < 0.1
