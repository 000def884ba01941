"""Pictures. Every function returns a figure and shows nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import matplotlib.patheffects as effects
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.transforms import Transform

from sdcorr.errors import SdcorrError
from sdcorr.types import Image, Matches, Similarity

# Okabe and Ito's palette without black: told apart by colour-blind readers; numbers tell the rest
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
HEIGHT = 4.5  # inches of each photo
WIDEST = 16.0  # inches of the figure
SHOWN = 1200  # px; larger photos are thinned out for the screen, not their coordinates


def plot_matches(matches: Matches) -> Figure:
    """Both photos side by side, each match in its colour with number (or name) and line.

    Dashed lines are matches that the matcher rejects (``matched`` is False).

    Raises:
        SdcorrError: the matches carry no photos.
    """
    figure, left, right = _two_photos(*_photos_of(matches))
    overlay = figure.add_axes((0, 0, 1, 1), zorder=2)  # so that no line hides a number
    overlay.set_axis_off()
    names = matches.names or tuple(str(number + 1) for number in range(len(matches)))
    kept = matches.matched.tolist()
    ends = zip(matches.source.tolist(), matches.target.tolist(), names, kept, strict=True)
    for (start, end, name, accepted), colour in zip(ends, cycle(COLOURS), strict=False):
        line = ConnectionPatch(
            xyA=start, xyB=end, coordsA=left.transData, coordsB=right.transData,
            color=colour, linewidth=1.6, linestyle="-" if accepted else "--", zorder=1,
            path_effects=[effects.withStroke(linewidth=3.0, foreground="black", alpha=0.5)],
        )  # fmt: skip
        overlay.add_artist(line)
        _mark(overlay, start, left.transData, name, colour)
        _mark(overlay, end, right.transData, name, colour)
    return figure


def plot_heatmap(similarity: Similarity, match: Matches) -> Figure:
    """One source point, its cosine similarity over the target photo, and where it was found.

    Args:
        similarity: of the two photos.
        match: one match, with its photos.

    Raises:
        SdcorrError: the match carries no photos.
    """
    figure, left, right = _two_photos(*_photos_of(match))
    grid = similarity.target
    row = similarity.rows(match.source)[0].cpu()
    inside = row[grid.inside()]
    heat = right.imshow(
        row.reshape(grid.shape).numpy(), extent=grid.extent, cmap="cividis", alpha=0.65,
        vmin=inside.min().item(), vmax=inside.max().item(), interpolation="bilinear",
    )  # fmt: skip
    left_edge, right_edge, bottom, top = grid.image.extent
    right.set(xlim=(left_edge, right_edge), ylim=(bottom, top))  # cut padding off
    _mark(left, match.source[0].tolist(), left.transData, "", COLOURS[5])
    _mark(right, match.target[0].tolist(), right.transData, "", COLOURS[5])
    figure.colorbar(heat, ax=[left, right], label="cosine similarity", fraction=0.03, pad=0.01)
    return figure


def _photos_of(matches: Matches) -> tuple[Image, Image]:
    if matches.source_image is None or matches.target_image is None:
        raise SdcorrError("these matches carry no photos; make them with Pipeline.match")
    return matches.source_image, matches.target_image


def _two_photos(source: Image, target: Image) -> tuple[Figure, Axes, Axes]:
    """A figure with both photos at one height."""
    ratios = [image.size.width / image.size.height for image in (source, target)]
    # very flat and very tall photos still get a readable share
    shares = [min(max(ratio, 0.25), 4.0) for ratio in ratios]
    height = min(HEIGHT, WIDEST / sum(shares))
    figure = Figure(figsize=(height * sum(shares), height), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=shares)
    for axes, image in ((left, source), (right, target)):
        axes.imshow(_thin_out(image), extent=image.size.extent)
        axes.set_axis_off()
    return figure, left, right


def _thin_out(image: Image) -> PIL.Image.Image:
    photo = PIL.Image.fromarray(image.pixels)
    photo.thumbnail((SHOWN, SHOWN))
    return photo


def _mark(axes: Axes, point: Sequence[float], frame: Transform, name: str, colour: str) -> None:
    """A dot and a name at a point of the frame, drawn on the axes."""
    axes.plot(
        *point, "o", transform=frame, markersize=7, color=colour, markeredgecolor="black",
        markeredgewidth=1.0, clip_on=False, zorder=2,
    )  # fmt: skip
    axes.annotate(
        name, (point[0], point[1]), xycoords=frame, xytext=(5, 5), textcoords="offset points",
        color="white", fontsize=9, fontweight="bold", annotation_clip=False, zorder=3,
        parse_math=False,
        path_effects=[effects.withStroke(linewidth=2.5, foreground="black")],
    )  # fmt: skip
