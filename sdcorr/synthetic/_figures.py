"""What a drawn figure is made of: parts, joined by angles, and named keypoints on them.

In a figure's own frame x points forward, y to its left, z up. A figure is the same left and right
but for its pose: what is called ``right_...`` is the mirror image of ``left_...``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sdcorr.synthetic._looks import Look
from sdcorr.synthetic._solids import Floats, Kind, Solid

Vector = Sequence[float] | Floats
LEFT, RIGHT = "left_", "right_"
ACROSS = np.diag([1.0, -1.0, 1.0])  # left to right


@dataclass(frozen=True, eq=False)
class Part:
    """A solid with a name and a look."""

    name: str
    solid: Solid
    look: Look


@dataclass(frozen=True)
class Keypoint:
    """A named place on the surface of a part."""

    name: str
    part: str
    place: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure in one pose; figures of a category have the same parts and keypoints, in order."""

    category: str
    parts: tuple[Part, ...]
    keypoints: tuple[Keypoint, ...]

    @property
    def partners(self) -> tuple[int, ...]:
        """The part that each one becomes in a mirror, by index."""
        return exchanged([part.name for part in self.parts])


def exchanged(names: Sequence[str]) -> tuple[int, ...]:
    """Where the name with left and right exchanged stands, for each name.

    Example:
        >>> exchanged(["nose", "left_eye", "right_eye"])
        (0, 2, 1)
    """
    return tuple(names.index(_other(name)) for name in names)


def _other(name: str) -> str:
    for one, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        if name.startswith(one):
            return other + name.removeprefix(one)
    return name


class Builder:
    """Puts a figure together.

    Args:
        shape: draws what makes the individual; in the same order for all of a category.
        pose: draws angles.
    """

    def __init__(self, shape: np.random.Generator, pose: np.random.Generator) -> None:
        self._shape, self._pose = shape, pose
        self._parts: list[Part] = []
        self._keypoints: list[Keypoint] = []
        self._looks: dict[str, Look] = {}

    def size(self, value: float, spread: float = 0.13) -> float:
        """A length of this individual, at most ``spread`` away in relation."""
        return value * self._shape.uniform(1 - spread, 1 + spread)

    def angle(self, least: float, most: float) -> float:
        """An angle of this pose in radians, of degrees."""
        return float(np.deg2rad(self._pose.uniform(least, most)))

    def add(self, name: str, solid: Solid, look: Look) -> None:
        """A part in the middle."""
        self._add(name, name, solid, look)

    def side(self, side: str, name: str, solid: Solid, look: Look) -> None:
        """A part of one side, given as it would be on the left."""
        placed = solid if side == LEFT else solid.moved(ACROSS, np.zeros(3))
        self._add(side + name, name, placed, look)

    def point(self, name: str, part: str, place: Vector) -> None:
        """A keypoint on a part in the middle, or on both parts of a pair of that name.

        A place beside the middle of a part in the middle stands for two keypoints.
        """
        x, y, z = place
        names = [part.name for part in self._parts]
        for side, sign in ((LEFT, 1), (RIGHT, -1)):
            if side + part in names:
                self._keypoints.append(Keypoint(side + name, side + part, (x, y, z)))
            elif y:
                self._keypoints.append(Keypoint(side + name, part, (x, sign * y, z)))
        if part in names and not y:
            self._keypoints.append(Keypoint(name, part, (x, y, z)))

    def figure(self, category: str) -> Figure:
        """What was put together."""
        return Figure(category, tuple(self._parts), tuple(self._keypoints))

    def _add(self, name: str, kind: str, solid: Solid, look: Look) -> None:
        if kind not in self._looks:
            self._looks[kind] = look.varied(self._shape)
        self._parts.append(Part(name, solid, self._looks[kind]))


Maker = Callable[[Builder], None]


def block(kind: Kind, center: Vector, half: Vector, turn: Floats | None = None) -> Solid:
    """A solid by its centre and half axes along x, y, z, then turned about its centre."""
    axes = np.diag(np.asarray(half, float))
    return Solid(kind, np.asarray(center, float), axes if turn is None else turn @ axes)


def rod(start: Vector, end: Vector, deep: float, wide: float, kind: Kind = "ellipsoid") -> Solid:
    """A long solid from one point to another: its third axis; the second lies to the side.

    Args:
        start: where it begins.
        end: where it ends.
        deep: half its size forward.
        wide: half its size to the side.
        kind: an ellipsoid goes an eighth beyond both ends, so that joints are closed.
    """
    a, b = np.asarray(start, float), np.asarray(end, float)
    along = (b - a) / 2
    unit = along / np.linalg.norm(along)
    to_side = np.array([0.0, 1.0, 0.0]) - unit[1] * unit
    to_side /= np.linalg.norm(to_side)
    forward = np.cross(unit, to_side)
    beyond = 1.125 if kind == "ellipsoid" else 1.0
    axes = np.column_stack([forward * deep, to_side * wide, along * beyond])
    return Solid(kind, (a + b) / 2, axes)


def vector(x: float, y: float, z: float) -> Floats:
    """Forward, left, up: ``(3,)``."""
    return np.array([x, y, z], np.float64)


def down(angle: float, out: float = 0.0) -> Floats:
    """The unit vector down, turned forward by ``angle`` and to the left by ``out`` radians."""
    return np.array([np.sin(angle) * np.cos(out), np.sin(out), -np.cos(angle) * np.cos(out)])


def pitch(angle: float) -> Floats:
    """``(3, 3)``, turns forward to up by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def yaw(angle: float) -> Floats:
    """``(3, 3)``, turns forward to the left by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def roll(angle: float) -> Floats:
    """``(3, 3)``, turns left to up by an angle in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
