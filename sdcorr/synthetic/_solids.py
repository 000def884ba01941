"""Ellipsoids, boxes and cylinders, seen from far away: which point of which one is in front.

Points of space are (x, y, depth): x to the right and y down in pixels, depth away from the viewer.
A *place* is a point of a solid in its own frame, where each half axis has length 1; it stays the
same however the solid is moved, turned or stretched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Kind = Literal["ellipsoid", "box", "cylinder"]
LEAST = 1e-9  # a ray along a face gets this slope: no division by zero


@dataclass(frozen=True, eq=False)
class Solid:
    """A convex solid around its centre.

    Args:
        kind: its form; a cylinder's axis is its third.
        center: ``(3,)``.
        axes: ``(3, 3)``, the half axes in columns.
    """

    kind: Kind
    center: Floats
    axes: Floats

    def moved(self, turn: Floats, shift: Floats) -> Solid:
        """The solid turned, stretched or mirrored by ``(3, 3)``, then shifted by ``(3,)``."""
        return Solid(self.kind, turn @ self.center + shift, turn @ self.axes)

    def to_points(self, places: Floats) -> Floats:
        """Points of space of places, ``(N, 3)`` in and out."""
        return places @ self.axes.T + self.center

    @property
    def reach(self) -> Floats:
        """How far it goes from its centre along each axis of space, ``(3,)``."""
        if self.kind == "ellipsoid":
            return _length(self.axes, 1)
        if self.kind == "box":
            return np.asarray(np.abs(self.axes).sum(axis=1))
        return np.asarray(_length(self.axes[:, :2], 1) + np.abs(self.axes[:, 2]))

    @property
    def box(self) -> tuple[Floats, Floats]:
        """The corners, ``(2,)`` each, of the box around it in the photo."""
        reach = self.reach
        return self.center[:2] - reach[:2], self.center[:2] + reach[:2]

    def cast(self, points: Floats) -> tuple[Floats, Floats]:
        """What a viewer sees of it at ``(N, 2)`` pixels.

        Returns:
            Depth ``(N,)``, infinite where the solid is not; and places ``(N, 3)``.
        """
        inverse = np.asarray(np.linalg.inv(self.axes), np.float64)
        flat = np.column_stack([points, np.zeros(len(points))]) - self.center
        start, step = flat @ inverse.T, inverse[:, 2]  # a ray in the solid's own frame
        step = np.where(np.abs(step) < LEAST, LEAST, step)
        with np.errstate(invalid="ignore"):  # the root of a negative number is NaN: missed
            near, far = self._span(start, step)
            depth = np.where(near <= far, near, np.inf)
        places = start + np.where(np.isfinite(depth), depth, 0.0)[:, None] * step
        return depth, places

    def _span(self, start: Floats, step: Floats) -> tuple[Floats, Floats]:
        """Where rays enter and leave, ``(N,)`` each."""
        if self.kind == "ellipsoid":
            return _through_sphere(start, step)
        if self.kind == "box":
            return _through_slabs(start, step)
        (near, far), (top, bottom) = (
            _through_sphere(start[:, :2], step[:2]),
            _through_slabs(start[:, 2:], step[2:]),
        )
        return np.maximum(near, top), np.minimum(far, bottom)

    def normals(self, places: Floats) -> Floats:
        """Unit vectors out of the surface at places, ``(N, 3)`` in and out."""
        outward = places.copy()
        if self.kind == "box":
            outward[np.abs(places) < np.abs(places).max(axis=1, keepdims=True)] = 0
        elif self.kind == "cylinder":
            lid = np.abs(places[:, 2]) > _length(places[:, :2], 1)
            outward[lid, :2], outward[~lid, 2] = 0, 0
        out = outward @ np.linalg.inv(self.axes)
        return np.asarray(out / _length(out, 1)[:, None])


@dataclass(frozen=True, eq=False)
class Hits:
    """What is seen at some points.

    Args:
        index: ``(N,)`` of the solid in front, -1 where there is none.
        depth: ``(N,)``, infinite there.
        place: ``(N, 3)`` on that solid, 0 there.
    """

    index: npt.NDArray[np.int64]
    depth: Floats
    place: Floats


def first_hits(solids: Sequence[Solid], points: Floats) -> Hits:
    """The solid in front at each of ``(N, 2)`` pixels."""
    index = np.full(len(points), -1)
    depth, place = np.full(len(points), np.inf), np.zeros((len(points), 3))
    x, y = points.T.copy()  # contiguous: most of the time goes into the next comparisons
    for number, solid in enumerate(solids):
        (left, top), (right, bottom) = solid.box
        near = ((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).nonzero()[0]
        found, places = solid.cast(points[near])
        front = found < depth[near]
        chosen = near[front]
        index[chosen], depth[chosen], place[chosen] = number, found[front], places[front]
    return Hits(index, depth, place)


def to_bytes(places: Floats) -> npt.NDArray[np.uint8]:
    """The direction of places from the solid's centre in two bytes, ``(..., 3)`` to ``(..., 2)``.

    The sphere of directions is folded onto a square: the upper half is an octahedron's shadow, the
    lower half its turned-out corners (Cigolle et al., "A Survey of Efficient Representations for
    Independent Unit Vectors", JCGT 2014).

    Example:
        >>> to_bytes(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -2.0, 0.0]])).tolist()
        [[128, 128], [255, 128], [128, 0]]
    """
    flat = places / np.maximum(np.abs(places).sum(axis=-1, keepdims=True), LEAST)
    upper, lower = flat[..., :2], _folded(flat[..., :2])
    square = np.where(flat[..., 2:] < 0, lower, upper)
    scaled: npt.NDArray[np.uint8] = np.floor(square * 127.5 + 128).clip(0, 255).astype(np.uint8)
    return scaled


def to_directions(folded: npt.NDArray[np.uint8]) -> Floats:
    """Unit directions of what ``to_bytes`` made, ``(..., 2)`` to ``(..., 3)``.

    Example:
        >>> to_directions(np.array([[255, 128], [0, 128]], np.uint8))[:, 0].round(2).tolist()
        [1.0, -1.0]
    """
    square = folded / 127.5 - 1
    height = 1 - np.abs(square).sum(axis=-1, keepdims=True)
    flat = np.where(height < 0, _folded(square), square)
    direction = np.concatenate([flat, height], axis=-1)
    return np.asarray(direction / _length(direction, -1)[..., None])


def _folded(square: Floats) -> Floats:
    return np.asarray((1 - np.abs(square[..., ::-1])) * np.where(square < 0, -1.0, 1.0))


def _through_sphere(start: Floats, step: Floats) -> tuple[Floats, Floats]:
    """Where rays cross the unit sphere, or circle: NaN where they do not."""
    square = (step**2).sum()
    middle = start @ step / square
    root = np.sqrt(middle**2 - (np.einsum("ij,ij->i", start, start) - 1) / square)
    return -middle - root, -middle + root


def _through_slabs(start: Floats, step: Floats) -> tuple[Floats, Floats]:
    """Where rays are between -1 and 1 on each axis."""
    near, far = (-np.abs(1 / step) - start / step).T, (np.abs(1 / step) - start / step).T
    return np.maximum.reduce(near), np.minimum.reduce(far)  # near, far: (axes, N)


def _length(vectors: Floats, axis: int) -> Floats:
    return np.asarray(np.linalg.norm(vectors, axis=axis))
