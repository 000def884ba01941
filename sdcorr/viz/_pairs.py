"""Matches and similarities of two photos."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import matplotlib as mpl
import matplotlib.patheffects as effects
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.transforms import Transform

from sdcorr.errors import SdcorrError
from sdcorr.similarities import heat_of
from sdcorr.types import Image, Matches, Similarity
from sdcorr.viz._photo import COLOURS, GREYS, HEIGHT, WIDEST, label, pale, shares_of, thin_out

# where a name may stand around its dot, best first: x to the right, y upwards
SIDES = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)])
NAMED = 100  # matches
HEAT = 0.65  # of a pixel is heat, the rest is the photo in grey
SCALE, SCALED, LOWEST = 0.15, 1.0, 1.5  # inches: the bar, the bar with its numbers, its height
NARROWEST = 0.01  # range of cosines that has all colours: less is noise


def plot_matches(matches: Matches) -> Figure:
    """Both photos side by side, each match in its colour with number (or name) and line.

    Dashed lines are matches that the matcher rejects (``matched`` is False). Names are left out
    where there are more than 100: they would cover the photos.

    Raises:
        SdcorrError: the matches carry no photos.
    """
    figure, left, right = _two_photos(*_photos_of(matches))
    overlay = figure.add_axes((0, 0, 1, 1), zorder=2)  # so that no line hides a number
    overlay.set_axis_off()
    names = matches.names or tuple(str(number + 1) for number in range(len(matches)))
    ends = ((left.transData, matches.source.tolist()), (right.transData, matches.target.tolist()))
    for index, colour in zip(range(len(matches)), cycle(COLOURS), strict=False):
        line = ConnectionPatch(
            xyA=ends[0][1][index], xyB=ends[1][1][index], coordsA=ends[0][0], coordsB=ends[1][0],
            color=colour, linewidth=1.6, linestyle="-" if matches.matched[index] else "--",
            path_effects=[effects.withStroke(linewidth=3.0, foreground="black", alpha=0.5)],
            zorder=1,
        )  # fmt: skip
        overlay.add_artist(line)
        for frame, points in ends:
            _dot(overlay, points[index], frame, colour)
    if len(matches) > NAMED:
        return figure
    places = np.concatenate(
        [frame.transform(np.reshape(points, (-1, 2))) for frame, points in ends]
    )
    offsets = label_offsets(places * 72 / figure.dpi, names * 2, figure.get_size_inches() * 72)
    marks = [(frame, point) for frame, points in ends for point in points]
    for (frame, point), name, offset in zip(marks, names * 2, offsets, strict=True):
        label(overlay, point, frame, name, offset)
    return figure


def label_offsets(
    places: npt.NDArray[np.float64], names: Sequence[str], page: npt.NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Where names stand beside their dots, so that they cover neither dots nor other names.

    Greedy, in order: of eight sides the first with room, else the one that covers least.

    Args:
        places: ``(N, 2)`` dots in typographic points from the page's lower left corner.
        names: N of them.
        page: width and height in typographic points.

    Returns:
        N offsets from dot to the middle of the name, in typographic points, y upwards.
    """
    letter, high, dot = 6.0, 10.0, 9.0
    taken = np.hstack([places, np.full_like(places, dot)])  # boxes: middle x, y, width, height
    offsets = []
    for place, name in zip(places, names, strict=True):
        size = np.array([letter * max(1, len(name)), high])
        aside = SIDES * (size + dot) / 2  # (8, 2)
        middle = place + aside
        gaps = (np.abs(middle[:, None] - taken[:, :2]) - (size + taken[:, 2:]) / 2).max(axis=2)
        edges = np.minimum(middle - size / 2, page - middle - size / 2).min(axis=1)
        others = np.append(gaps, edges[:, None], axis=1)
        others[:, np.flatnonzero((taken[: len(places), :2] == place).all(axis=1))] = 0
        room = np.minimum(others.min(axis=1), 0)
        best = int(room.argmax())
        offsets.append((float(aside[best, 0]), float(aside[best, 1])))
        taken = np.vstack([taken, [*middle[best], *size]])
    return offsets


def plot_heatmap(similarity: Similarity, match: Matches) -> Figure:
    """One source point, its cosine similarity over the target photo, and where it was found.

    Args:
        similarity: of the two photos.
        match: one match, with its photos.

    Raises:
        SdcorrError: the match carries no photos.
    """
    source, target = _photos_of(match)
    figure, left, right = _two_photos(source, target, aside=SCALED)
    grid, heat = similarity.target, heat_of(similarity, match.source)
    norm = Normalize(min(heat.low, heat.high - NARROWEST), heat.high)
    right.images[0].set_data(pale(target))
    right.imshow(
        heat.values.numpy(), extent=grid.extent, cmap="cividis", alpha=HEAT, norm=norm,
        interpolation="bilinear",
    )  # fmt: skip
    left_edge, right_edge, bottom, top = grid.image.extent
    right.set(xlim=(left_edge, right_edge), ylim=(bottom, top))  # cut padding off
    _dot(left, match.source[0].tolist(), left.transData, COLOURS[5])
    _dot(right, match.target[0].tolist(), right.transData, COLOURS[5])
    _scale(figure, right, norm)
    return figure


def _scale(figure: Figure, beside: Axes, norm: Normalize) -> None:
    """The bar of a heat map, in the colours that its heat has over the middle grey of a photo."""
    page, photo = figure.get_size_inches(), beside.get_position()
    high = max(photo.height, LOWEST / page[1])  # that of a very flat photo holds no numbers
    box = (1 - (SCALED - SCALE / 2) / page[0], photo.y0 + (photo.height - high) / 2)
    axes = figure.add_axes((*box, SCALE / page[0], high))
    pure = mpl.colormaps["cividis"](np.linspace(0, 1, 256))[:, :3]
    seen = ListedColormap(HEAT * pure + (1 - HEAT) * np.mean(GREYS) / 255)
    below = "min" if norm.vmin is not None and norm.vmin > -1 else "neither"
    figure.colorbar(ScalarMappable(norm, seen), cax=axes, extend=below, label="cosine similarity")


def _photos_of(matches: Matches) -> tuple[Image, Image]:
    if matches.source_image is None or matches.target_image is None:
        raise SdcorrError("these matches carry no photos; make them with Pipeline.match")
    return matches.source_image, matches.target_image


def _two_photos(source: Image, target: Image, aside: float = 0.0) -> tuple[Figure, Axes, Axes]:
    """A figure with both photos at one height, laid out: where they lie on the page is known.

    Args:
        source: on the left.
        target: on the right.
        aside: inches that are left free to the right of both.
    """
    shares = shares_of([source, target])
    height = min(HEIGHT, WIDEST / sum(shares))
    wide = height * sum(shares) + aside
    figure = Figure(figsize=(wide, height), dpi=150)
    # a layout engine would draw all of it once more to find the same places
    margins = {"left": 0.005, "right": 0.995 - aside / wide, "bottom": 0.01, "top": 0.99}
    margins["wspace"] = 0.01
    left, right = figure.subplots(1, 2, width_ratios=shares, gridspec_kw=margins)
    for axes, image in ((left, source), (right, target)):
        axes.imshow(thin_out(image), extent=image.size.extent)
        axes.set_axis_off()
        axes.apply_aspect()
    return figure, left, right


def _dot(axes: Axes, point: Sequence[float], frame: Transform, colour: str) -> None:
    axes.plot(
        *point, "o", transform=frame, markersize=7, color=colour, markeredgecolor="black",
        markeredgewidth=1.0, clip_on=False, zorder=2,
    )  # fmt: skip
