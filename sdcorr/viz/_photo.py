"""What all pictures of photos share: how large, how thinned out, how written on."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.patheffects as effects
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
from matplotlib.axes import Axes
from matplotlib.transforms import Transform

from sdcorr.types import Image

# Okabe and Ito's palette without black: told apart by colour-blind readers; numbers tell the rest
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
HEIGHT = 4.5  # inches of each photo
WIDEST = 16.0  # inches of the figure
SHOWN = 1200  # px; larger photos are thinned out for the screen, not their coordinates
GREYS = (94, 185)  # of 255, L* of 40 and 75: of a photo under colours, which it must not drown


def thin_out(image: Image) -> PIL.Image.Image:
    """The photo, its longer side at most ``SHOWN`` px."""
    photo = PIL.Image.fromarray(image.pixels)
    photo.thumbnail((SHOWN, SHOWN))
    return photo


def pale(image: Image) -> npt.NDArray[np.uint8]:
    """The photo in grey of a middle range, thinned out: ``(H, W, 3)``, to lie under colours.

    Its darkest and lightest hundredth are at the ends of the range.
    """
    dark, light = GREYS
    level = np.asarray(PIL.ImageOps.autocontrast(thin_out(image).convert("L"), cutoff=1)) / 255
    grey = np.rint(dark + (light - dark) * level).astype(np.uint8)
    return np.dstack([grey, grey, grey])


def shares_of(images: Sequence[Image]) -> list[float]:
    """Widths of photos of one height; very flat and very tall ones still get a readable share."""
    return [min(max(image.size.width / image.size.height, 0.25), 4.0) for image in images]


def label(
    axes: Axes,
    point: Sequence[float],
    frame: Transform,
    name: str,
    offset: tuple[float, float] = (0.0, 0.0),
) -> None:
    """A name, readable on any ground, typographic points away from a place; y upwards."""
    axes.annotate(
        name, (point[0], point[1]), xycoords=frame, xytext=offset, textcoords="offset points",
        ha="center", va="center", color="white", fontsize=9, fontweight="bold",
        annotation_clip=False, zorder=3, parse_math=False,
        path_effects=[effects.withStroke(linewidth=2.5, foreground="black")],
    )  # fmt: skip
