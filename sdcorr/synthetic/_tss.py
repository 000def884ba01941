"""Two views of one figure with the exact flow between them, in the layout of TSS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from sdcorr.flo import write_flo
from sdcorr.synthetic._categories import make
from sdcorr.synthetic._photos import whole_view
from sdcorr.synthetic._render import Drawing, draw, pixels_of
from sdcorr.synthetic._solids import Floats, first_hits

SUBSETS = {  # each with the categories that it takes in turn
    "FG3DCar": ("car",),
    "JODS": ("plane", "boat", "bird"),
    "PASCAL": ("quadruped", "chair", "fish", "doll"),
}
STREAM = 9  # apart from the splits of the keypoints
TURN = 40  # degrees, most between both azimuths
IN_FRONT = 1.0  # px, least by which one surface hides another
ROWS = 60  # most of corr.txt
PALETTE = [0, 0, 0, 255, 255, 255]


def tss_pairs(pairs: int) -> int:
    """How many pairs with flow come with so many pairs with keypoints: a tenth, at least 3."""
    return max(len(SUBSETS), pairs // 10)


def write_tss(root: Path, seed: int, pairs: int, step: Callable[[], None]) -> None:
    """Write so many pairs below ``root``, in turn to each subset; ``step`` follows each one."""
    for number in range(pairs):
        turn, index = divmod(number, len(SUBSETS))
        subset = list(SUBSETS)[index]
        category = SUBSETS[subset][turn % len(SUBSETS[subset])]
        views = two_views(category, (seed, STREAM, number))
        if flipped := number % 4 == 2:
            views = (views[0], views[1].mirror())
        names = (f"{2 * turn + 1:03d}", f"{2 * turn + 2:03d}")
        home = root / subset / "_".join((category, *names))
        home.mkdir(parents=True)
        _write(home, views, palette=subset == "JODS")
        (home / "flip_gt.txt").write_text(f"{int(flipped)}\n", encoding="utf-8")
        (home / "pair.txt").write_text("\t".join(names) + "\n", encoding="utf-8")
        step()


def two_views(category: str, key: tuple[int, ...]) -> tuple[Drawing, Drawing]:
    """The same figure twice: in other poses, from up to ``TURN`` degrees apart."""
    scene, *rest = np.random.default_rng(key).spawn(5)
    views = [whole_view(scene, fill=0.6) for _ in range(2)]
    apart = float(scene.uniform(-TURN, TURN))
    views[1] = replace(views[1], azimuth=views[0].azimuth + apart)
    shape = (*key, 1)  # one individual: the same draws for both
    figures = [make(category, np.random.default_rng(shape), pose) for pose in rest[:2]]
    first, second = map(draw, figures, views, rest[2:])
    return first, second


@dataclass(frozen=True, eq=False)
class Flow:
    """``(H, W, 2)`` float32 way from each pixel, and ``(H, W)``, where it is known."""

    way: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]


def flow_between(source: Drawing, target: Drawing) -> Flow:
    """The way of all that both views show, on the source's pixels.

    A pixel's place on its part leads to a point of the target; it counts where nothing is in front
    of that point by ``IN_FRONT``.
    """
    start, goal = (one.mirror() if one.mirrored else one for one in (source, target))
    there = _places_in(start, goal)  # (H, W, 2), NaN where not seen
    if target.mirrored:
        there = (goal.size[1] - 1) * np.array([1, 0]) + there * [-1, 1]
    if source.mirrored:
        there = there[:, ::-1]
    valid = np.isfinite(there[..., 0])
    here = pixels_of(*source.size).reshape(*source.size, 2)
    return Flow(np.where(valid[..., None], there - here, 0).astype(np.float32), valid)


def _places_in(start: Drawing, goal: Drawing) -> Floats:
    """Where what each pixel shows lies in another drawing, ``(H, W, 2)``; NaN where hidden."""
    there = np.full((*start.size, 2), np.nan)
    height, width = goal.size
    for index, solid in enumerate(goal.solids):
        own = start.number == index + 1
        points = solid.to_points(start.place[own])  # (N, 3)
        hits = first_hits(goal.solids, points[:, :2])
        inside = ((points[:, :2] >= 0) & (points[:, :2] <= [width - 1, height - 1])).all(axis=1)
        seen = inside & (hits.depth > points[:, 2] - IN_FRONT)
        there[own] = np.where(seen[:, None], points[:, :2], np.nan)
    return there


def _write(home: Path, views: tuple[Drawing, Drawing], palette: bool) -> None:
    """Photos, flows, masks and corr.txt of a pair."""
    for number, (source, target) in enumerate((views, views[::-1]), 1):
        flow = flow_between(source, target)
        PIL.Image.fromarray(source.pixels).save(home / f"image{number}.png")
        write_flo(home / f"flow{number}.flo", flow.way, flow.valid)
        level = np.uint8(1 if palette else 255)
        mask = PIL.Image.fromarray(np.where(flow.valid, level, np.uint8(0)))
        if palette:
            mask.putpalette(PALETTE)
        mask.save(home / f"mask{number}.png")
        if number == 1:
            text = _rows(flow, target.size)
            (home / "corr.txt").write_text(text, encoding="utf-8")


def _rows(flow: Flow, target: tuple[int, int]) -> str:
    """Some of a flow as rows x1 y1 x2 y2, shares of width and height, with tabs."""
    rows, columns = flow.valid.nonzero()
    chosen = np.unique(np.linspace(0, len(rows) - 1, ROWS).astype(int))
    start = np.column_stack([columns, rows])[chosen]
    end = start + flow.way[rows, columns][chosen]
    height, width = flow.valid.shape
    table = np.column_stack([start / [width, height], end / [target[1], target[0]]])
    return "".join("\t".join(f"{one:.6f}" for one in row) + "\n" for row in table.tolist())
