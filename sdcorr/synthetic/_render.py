"""A figure seen from somewhere, as a photo, and which place of which part each pixel shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcorr.synthetic._backgrounds import GRAIN, background
from sdcorr.synthetic._figures import Figure, Keypoint, exchanged
from sdcorr.synthetic._looks import Look
from sdcorr.synthetic._solids import Floats, Hits, Solid, first_hits

MARGIN = 2  # px left between a figure that is whole and the frame
AMBIENT = 0.45  # light on what is turned away
SAMPLES = np.array([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)]) / 3  # at edges, px
NEIGHBOURHOOD = np.array([(x, y) for y in range(-2, 3) for x in range(-2, 3)])
SNAP = 1.6  # px, most between a keypoint and the pixel that shows it
SLACK = (3.0, 0.15)  # px, and share of the part, between their places in space


@dataclass(frozen=True)
class View:
    """From where a figure is seen, and where it lies in the photo.

    Args:
        size: ``(height, width)`` in pixels.
        azimuth: degrees; 0 faces the viewer, 90 looks to the left, 180 away.
        elevation: degrees from which the viewer looks down.
        roll: degrees by which the photo is turned.
        fill: share of the frame that the figure takes, the smaller of both axes.
        place: where it lies in the room that is left, 0 to 1 from left and from top.
        cut: share of the figure beyond the left (negative) or right, and the top or bottom edge; 0
            leaves it inside.
    """

    size: tuple[int, int]
    azimuth: float
    elevation: float
    roll: float
    fill: float
    place: tuple[float, float]
    cut: tuple[float, float] = (0.0, 0.0)

    def look_at(self, figure: Figure) -> tuple[Solid, ...]:
        """The figure's parts in the photo's pixels, in order."""
        turn = self._turn()
        seen = [part.solid.moved(turn, np.zeros(3)) for part in figure.parts]
        low, high = bounds(seen)
        height, width = self.size
        room = np.array([width, height]) - (1 + 2 * MARGIN)
        scale = self.fill * (room / (high - low)).min()
        extent = scale * (high - low)
        corner = MARGIN + np.array(self.place) * (room - extent)
        cut = np.array(self.cut)
        edge = np.where(cut < 0, cut * extent, room + 2 * MARGIN - (1 - cut) * extent)
        shift = np.where(cut == 0, corner, edge) - scale * low
        return tuple(one.moved(scale * np.eye(3), np.append(shift, 0)) for one in seen)

    def _turn(self) -> Floats:
        """``(3, 3)``, from the figure's forward, left, up to right, down, away."""
        a, e, r = np.deg2rad([self.azimuth, self.elevation, self.roll])
        face = np.array(
            [[-np.sin(a), np.cos(a), 0], [0, 0, -1], [-np.cos(a), -np.sin(a), 0]]
        )  # seen from its own height
        tilt = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
        spin = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
        return np.asarray(spin @ tilt @ face)


@dataclass(frozen=True, eq=False)
class Cover:
    """Something in front of the figure."""

    solid: Solid
    look: Look


@dataclass(frozen=True, eq=False)
class Drawing:
    """A photo and what it shows.

    Args:
        figure: what is drawn.
        solids: its parts in pixels of the photo that is not mirrored.
        pixels: ``(H, W, 3)`` uint8.
        number: ``(H, W)`` uint8, 1 + the part's index, 0 beside the figure; covered parts, too.
        place: ``(H, W, 3)`` on that part; 0 elsewhere.
        covered: ``(H, W)`` bool, where something is in front.
        mirrored: whether left and right are exchanged, of the photo and of all names.
    """

    figure: Figure
    solids: tuple[Solid, ...]
    pixels: npt.NDArray[np.uint8]
    number: npt.NDArray[np.uint8]
    place: Floats
    covered: npt.NDArray[np.bool_]
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)``."""
        height, width = self.number.shape
        return height, width

    @property
    def shown(self) -> npt.NDArray[np.uint8]:
        """``number`` where the figure is not covered, 0 elsewhere."""
        return np.where(self.covered, np.uint8(0), self.number)

    @property
    def truncated(self) -> bool:
        """Whether some of the figure lies beyond the frame."""
        low, high = bounds(self.solids)
        height, width = self.size
        return bool((low < 0).any() or (high > [width - 1, height - 1]).any())

    def mirror(self) -> Drawing:
        """The mirror image; its left is what looks left."""
        partners = np.array([0, *(1 + one for one in self.figure.partners)], np.uint8)
        alone = partners == np.arange(len(partners))
        number = self.number[:, ::-1]
        flip = np.where(alone[number], -1.0, 1.0)  # a pair's places are mirror images already
        place = self.place[:, ::-1].copy()
        place[..., 1] *= flip
        pictures = (np.ascontiguousarray(self.pixels[:, ::-1]), partners[number], place)
        names = ("pixels", "number", "place")
        changed: dict[str, Any] = dict(zip(names, pictures, strict=True))
        return replace(self, **changed, covered=self.covered[:, ::-1], mirrored=not self.mirrored)


def draw(
    figure: Figure, view: View, generator: np.random.Generator, cover: Cover | None = None
) -> Drawing:
    """A photo of a figure, not mirrored."""
    solids = view.look_at(figure)
    height, width = view.size
    behind = background(generator, height, width).reshape(-1, 3)
    side, above = generator.uniform([-0.8, -0.9], [0.8, -0.4])
    light = np.array([side, above, -0.7])
    scene = _Scene(figure, solids, cover, light / np.sqrt((light**2).sum()))
    points = pixels_of(height, width)
    hits = first_hits(solids, points)
    covered = scene.covers(points)
    colours = scene.paint(points, hits, behind)
    edge = _edges(np.where(covered, -2, hits.index).reshape(height, width)).ravel().nonzero()[0]
    finer = points[edge] + SAMPLES[:, None]  # (9, edges, 2)
    several = finer.reshape(-1, 2)
    painted = scene.paint(
        several, first_hits(solids, several), np.tile(behind[edge], (len(SAMPLES), 1))
    )
    colours[edge] = painted.reshape(len(SAMPLES), -1, 3).mean(axis=0)
    colours = colours + generator.normal(0, GRAIN, colours.shape)
    pixels = np.rint(255 * colours.clip(0, 1)).astype(np.uint8).reshape(height, width, 3)
    number = (hits.index + 1).astype(np.uint8).reshape(height, width)
    place = hits.place.reshape(height, width, 3)
    return Drawing(figure, solids, pixels, number, place, covered.reshape(height, width))


@dataclass(frozen=True, eq=False)
class _Scene:
    figure: Figure
    solids: tuple[Solid, ...]
    cover: Cover | None
    light: Floats

    def covers(self, points: Floats) -> npt.NDArray[np.bool_]:
        """Where something is in front of all, ``(N,)``."""
        if self.cover is None:
            return np.zeros(len(points), bool)
        return np.isfinite(self.cover.solid.cast(points)[0])

    def paint(self, points: Floats, hits: Hits, behind: Floats) -> Floats:
        """Colours ``(N, 3)`` of ``(N, 2)`` pixels, where ``behind`` are those of the background."""
        colours = behind.copy()
        for number, (part, solid) in enumerate(zip(self.figure.parts, self.solids, strict=True)):
            self._lay(colours, hits.index == number, hits.place, solid, part.look)
        if self.cover is not None:
            depth, places = self.cover.solid.cast(points)
            self._lay(colours, np.isfinite(depth), places, self.cover.solid, self.cover.look)
        return colours

    def _lay(
        self,
        colours: Floats,
        where: npt.NDArray[np.bool_],
        places: Floats,
        solid: Solid,
        look: Look,
    ) -> None:
        """Paint what is seen of one solid, as bright as it faces the light."""
        if where.any():
            seen = places[where]
            facing = (solid.normals(seen) @ self.light).clip(0, 1)[:, None]
            colours[where] = look.paint(seen) * (AMBIENT + (1.1 - AMBIENT) * facing)


def keypoints(drawing: Drawing) -> tuple[list[tuple[int, int] | None], bool]:
    """The pixel (x, y) that shows each keypoint, None of hidden ones; and whether one is covered.

    The pixel is the one nearest to the exact point, at most ``SNAP`` away, that shows the
    keypoint's part near its place; without one, the figure itself or the frame hides it.
    """
    if drawing.mirrored:
        found, covered = keypoints(drawing.mirror())
        last = drawing.size[1] - 1
        turned = [None if one is None else (last - one[0], one[1]) for one in found]
        order = exchanged([point.name for point in drawing.figure.keypoints])
        return [turned[index] for index in order], covered
    pixels = [_pixel_of(drawing, point) for point in drawing.figure.keypoints]
    hidden = [one is not None and bool(drawing.covered[one[1], one[0]]) for one in pixels]
    shown = [None if is_hidden else one for one, is_hidden in zip(pixels, hidden, strict=True)]
    return shown, any(hidden)


def _pixel_of(drawing: Drawing, point: Keypoint) -> tuple[int, int] | None:
    """The pixel that would show a keypoint if nothing covered the figure."""
    index = [part.name for part in drawing.figure.parts].index(point.part)
    solid = drawing.solids[index]
    exact = solid.to_points(np.array([point.place]))[0]
    near = np.rint(exact[:2]).astype(int) + NEIGHBOURHOOD
    height, width = drawing.size
    near = near[((near >= 0) & (near < [width, height])).all(axis=1)]
    shown = solid.to_points(drawing.place[near[:, 1], near[:, 0]])
    gap = np.sqrt(((shown - exact) ** 2).sum(axis=1))
    away = np.sqrt(((near - exact[:2]) ** 2).sum(axis=1))
    most = SLACK[0] + SLACK[1] * float(np.cbrt(abs(np.linalg.det(solid.axes))))
    own = drawing.number[near[:, 1], near[:, 0]] == index + 1
    able = own & (away <= SNAP) & (gap <= most)
    if not able.any():
        return None
    x, y = near[np.where(able, away, np.inf).argmin()].tolist()
    return x, y


def bounds(solids: Sequence[Solid]) -> tuple[Floats, Floats]:
    """The corners, ``(2,)`` each, of the box around all of them."""
    boxes = np.array([one.box for one in solids])  # (parts, 2, 2)
    return boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)


def pixels_of(height: int, width: int) -> Floats:
    """The centre of each pixel, row by row, ``(H*W, 2)``."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)


def _edges(label: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Pixels one of whose four neighbours has another label, ``(H, W)``."""
    edge = np.zeros(label.shape, bool)
    for axis in (0, 1):
        change = np.diff(label, axis=axis) != 0
        first = [(0, 1) if one == axis else (0, 0) for one in (0, 1)]
        edge |= np.pad(change, first) | np.pad(change, [pad[::-1] for pad in first])
    return edge
