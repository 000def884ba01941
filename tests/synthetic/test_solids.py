"""Which point of which solid is in front: by hand, and against a walk along the ray."""

from __future__ import annotations

import numpy as np
import pytest

from sdcorr.synthetic._solids import Solid, first_hits, to_bytes, to_directions

KINDS = ("ellipsoid", "box", "cylinder")


def upright(kind: str, half: tuple[float, float, float] = (2.0, 3.0, 4.0)) -> Solid:
    """A solid at (10, 20), 100 away, along the axes of space."""
    return Solid(kind, np.array([10.0, 20.0, 100.0]), np.diag(half))


def tilted(kind: str, seed: int) -> Solid:
    """A solid of any direction and half axes of 3 to 9 px."""
    generator = np.random.default_rng(seed)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    return Solid(kind, generator.uniform(-5, 5, 3), turn * generator.uniform(3, 9, 3))


def inside(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Whether points of space are in the solid, from its definition."""
    x, y, z = np.linalg.solve(solid.axes, (points - solid.center).T)
    return {
        "ellipsoid": x**2 + y**2 + z**2 <= 1,
        "box": (abs(x) <= 1) & (abs(y) <= 1) & (abs(z) <= 1),
        "cylinder": (x**2 + y**2 <= 1) & (abs(z) <= 1),
    }[solid.kind]


def surface(solid: Solid, seed: int = 0, count: int = 4000) -> np.ndarray:
    """Places all over the surface, ``(N, 3)``."""
    places = np.random.default_rng(seed).normal(size=(count, 3))
    if solid.kind == "ellipsoid":
        return places / np.linalg.norm(places, axis=1, keepdims=True)
    if solid.kind == "box":
        return places / abs(places).max(axis=1, keepdims=True)
    radius = np.maximum(np.hypot(places[:, 0], places[:, 1]), abs(places[:, 2]))
    return places / radius[:, None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_middle_is_hit_in_front(kind):
    depth, place = upright(kind).cast(np.array([[10.0, 20.0]]))
    assert depth.tolist() == pytest.approx([96])  # half its depth nearer than its centre
    assert place[0] == pytest.approx([0, 0, -1], abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "point", "depth"),
    [
        ("ellipsoid", (11.2, 20.0), 100 - 4 * 0.8),  # 0.6 of its half axis: 0.8 of its depth
        ("ellipsoid", (11.6, 22.4), np.inf),  # 0.8 of both
        ("box", (11.6, 22.4), 96.0),
        ("box", (12.01, 20.0), np.inf),
        ("cylinder", (11.2, 20.0), 96.0),  # its lid
        ("cylinder", (11.6, 22.4), np.inf),
    ],
)
def test_points_beside_the_middle(kind, point, depth):
    found, _ = upright(kind).cast(np.array([point]))
    assert found[0] == pytest.approx(depth)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_the_depth_is_where_a_walk_along_the_ray_enters(kind, seed):
    solid = tilted(kind, seed)
    points = np.random.default_rng(seed).uniform(-14, 14, (60, 2))
    depth, place = solid.cast(points)
    step = 0.02
    walk = np.arange(-30, 30, step)
    for point, found, where in zip(points, depth, place, strict=True):
        way = np.column_stack([np.tile(point, (len(walk), 1)), walk])
        first = inside(solid, way).nonzero()[0]
        if len(first):
            assert found == pytest.approx(walk[first[0]], abs=1.01 * step)
            assert solid.to_points(where[None])[0] == pytest.approx([*point, found])
        else:  # missed, or so thin that the walk steps over it
            chord = np.array([[*point, found + step]])
            assert found == np.inf or not inside(solid, chord)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_box_is_tight(kind):
    solid = tilted(kind, 5)
    points = solid.to_points(surface(solid, count=40_000))[:, :2]
    low, high = solid.box
    assert (points >= low - 1e-9).all()
    assert (points <= high + 1e-9).all()
    assert points.min(axis=0) == pytest.approx(low, abs=0.3)  # of 3 to 9 px
    assert points.max(axis=0) == pytest.approx(high, abs=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_a_solid_lies_below_its_tangent_planes(kind):
    solid = tilted(kind, 2)
    places = surface(solid, count=200)
    points, normals = solid.to_points(places), solid.normals(places)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(np.ones(200))
    height = (points[None] - points[:, None]) @ normals[:, :, None]  # (200, 200, 1)
    assert height.max() < 1e-9


def test_the_nearest_solid_is_in_front_whatever_the_order():
    solids = [tilted(kind, seed) for seed, kind in enumerate(KINDS * 3)]
    points = np.random.default_rng(1).uniform(-15, 15, (500, 2))
    depths = np.array([solid.cast(points)[0] for solid in solids])
    hits = first_hits(solids, points)
    assert np.array_equal(hits.depth, depths.min(axis=0))
    seen = np.isfinite(hits.depth)
    assert 50 < seen.sum() < 450
    assert np.array_equal(hits.index[seen], depths.argmin(axis=0)[seen])
    assert (hits.index[~seen] == -1).all()
    back = first_hits(solids[::-1], points)
    assert np.array_equal(back.index[seen], len(solids) - 1 - hits.index[seen])
    assert np.array_equal(back.place, hits.place)


def test_a_moved_solid_keeps_its_places():
    solid = tilted("box", 1)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    moved = solid.moved(2 * turn, np.array([1.0, 2.0, 3.0]))
    places = surface(solid, count=10)
    expected = 2 * solid.to_points(places) @ turn.T + [1, 2, 3]
    assert moved.to_points(places) == pytest.approx(expected)


def test_two_bytes_keep_a_direction_to_a_degree():
    directions = surface(upright("ellipsoid"), count=20_000)
    directions = np.vstack([directions, np.eye(3), -np.eye(3)])
    kept = to_directions(to_bytes(7.0 * directions))  # the length does not count
    cosines = (kept * directions).sum(axis=1)
    assert np.degrees(np.arccos(cosines.clip(-1, 1))).max() < 1
