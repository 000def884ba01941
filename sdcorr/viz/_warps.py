"""Dense flow between two photos, and an object swapped along it."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import numpy.typing as npt
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdcorr.geometry import Grid, Size
from sdcorr.types import Image
from sdcorr.viz._photo import GREYS, SHOWN, WIDEST, pale

HEIGHT, WIDTH = 4.0, 2.0  # inches of each photo; higher if it would not be so wide
HIGHEST = 10.0  # inches of the figure
TITLE, LINE, GAP = 0.3, 0.16, 0.08  # inches: above a photo, more for a second line, between photos
TITLED, LETTERS = 1.9, 23  # width of the narrowest panel in inches, letters of its title in a line
LENGTHY = 3.3  # inches; in panels so wide every title has one line
COLOURED = 0.85  # of a pixel is its place's colour, the rest is the photo in grey
STRIPES = 40  # along the side of a square photo, where ways disagree
LONGEST = 40.0  # times as long as wide is the longest panel
STRIPED = 400  # px along that side, at least: a stripe is some pixels wide
UNASKED, DIMMED = round(sum(GREYS) / 2), 200  # of 255: grey where nothing was asked, its cover

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def plot_flow(
    source: Image,
    target: Image,
    colours: tuple[Pixels, Pixels],
    warped: Pixels,
    valid: Mask,
    asked: Mask | None = None,
) -> Figure:
    """Four panels that show a dense flow from the target to the source.

    The source under the colours of its places; the target under the colours of the places that
    it matches; the source warped onto the target; and the target itself. Where both ways do not
    agree, stripes stand in place of colours and warped pixels, and over the target. Where nothing
    was asked there are neither: the target fades into grey, and nothing is warped.

    Args:
        source: ``(H', W')``.
        target: ``(H, W)``.
        colours: of both photos, ``(H', W', 3)`` and ``(H, W, 3)``.
        warped: ``(H, W, 3)`` the source as the target sees it.
        valid: ``(H, W)`` where both ways agree.
        asked: ``(H, W)`` where the target was to be matched, its mask; None is everywhere.
    """
    figure, panels = _panels([source.size, target.size, target.size, target.size])
    titles = ("places of the source", "where the target finds them", "the source, warped",
              "striped: both ways disagree")  # fmt: skip
    if asked is not None:
        titles = (*titles[:3], "striped: ways disagree; faded: left out")
    within = np.ones(target.size, np.bool_) if asked is None else asked
    _show_coloured(panels[0], source, colours[0], np.ones(source.size, np.bool_))
    _show_coloured(panels[1], target, colours[1], within)
    _show(panels[2], warped, target.size)
    _show(panels[3], target.pixels, target.size)
    for panel in panels[1:]:
        opaque = panel is not panels[3]
        panel.imshow(_stripes(within & ~valid, opaque), extent=target.size.extent)
        if asked is not None:
            cover = _plain(~asked, 255 if panel is panels[2] else DIMMED)
            panel.imshow(cover, extent=target.size.extent)
    for panel, title in zip(panels, titles, strict=True):
        _finish(figure, panel, title, source.size if panel is panels[0] else target.size)
    return figure


def plot_swap(
    source: Image, source_mask: Mask, target: Image, target_mask: Mask, result: Pixels
) -> Figure:
    """Three panels: source and target with their objects outlined, and the swapped photo.

    Args:
        source: ``(H', W')``.
        source_mask: ``(H', W')`` its object.
        target: ``(H, W)``.
        target_mask: ``(H, W)`` its object.
        result: ``(H, W, 3)`` the target with the source's object.
    """
    figure, panels = _panels([source.size, target.size, target.size])
    _show(panels[0], source.pixels, source.size)
    _show(panels[1], target.pixels, target.size)
    _show(panels[2], result, target.size)
    _outline(panels[0], source_mask)
    _outline(panels[1], target_mask)
    sizes = (source.size, target.size, target.size)
    titles = ("source", "target", "target with the source's object")
    for panel, title, size in zip(panels, titles, sizes, strict=True):
        _finish(figure, panel, title, size)
    return figure


def _panels(sizes: list[Size]) -> tuple[Figure, list[Axes]]:
    """A panel for each photo, all of one height, in as many columns as make them largest."""
    shares = _shares(sizes)
    count = len(shares)
    layouts = [_layout(shares, columns) for columns in (count, 2, 1) if count % columns == 0]
    height, widths = max(layouts, key=lambda layout: layout[0])
    rows = count // len(widths)
    title = TITLE if min(widths) >= LENGTHY else TITLE + LINE
    wide, high = sum(widths) + GAP * (len(widths) + 1), (height + title + GAP) * rows
    figure = Figure(figsize=(wide, high), dpi=150)
    panels = []
    for index in range(count):
        row, column = divmod(index, len(widths))
        left = GAP * (column + 1) + sum(widths[:column])
        bottom = high - (row + 1) * (height + title) - row * GAP
        box = (left / wide, bottom / high, widths[column] / wide, height / high)
        panels.append(figure.add_axes(box))
    return figure, panels


def _shares(sizes: list[Size]) -> list[float]:
    """Widths of photos of one height; beside others a very flat or tall one is readable, too.

    Where all are flat, or all are tall, each has its own: its panel has no white space.
    """
    shares = [size.width / size.height for size in sizes]
    least = max(min(0.25, max(shares)), 1 / LONGEST)
    most = min(max(4.0, min(shares)), LONGEST)
    return [min(max(share, least), most) for share in shares]


def _layout(shares: list[float], columns: int) -> tuple[float, list[float]]:
    """Height of the photos and width of each column, in inches."""
    widest = [max(shares[column::columns]) for column in range(columns)]
    high = max(HEIGHT, WIDTH / max(widest))
    height = min(high, WIDEST / sum(widest), HIGHEST * columns / len(shares) - TITLE - LINE)
    return height, [max(height * share, TITLED) for share in widest]


def _show(panel: Axes, pixels: Pixels, size: Size) -> None:
    panel.imshow(_thin(PIL.Image.fromarray(pixels)), extent=size.extent)


def _show_coloured(panel: Axes, photo: Image, colours: Pixels, where: Mask) -> None:
    """The photo in grey, under colours where a mask is True."""
    panel.imshow(pale(photo), extent=photo.size.extent)
    layer = _thin(PIL.Image.fromarray(colours))
    layer.putalpha(PIL.Image.fromarray(_thin_mask(where) * np.uint8(round(COLOURED * 255))))
    panel.imshow(layer, extent=photo.size.extent)


def _stripes(where: Mask, opaque: bool) -> PIL.Image.Image:
    """Stripes where a mask is True, nothing elsewhere; on opaque grey, or on what lies below."""
    mask = _thin_mask(where)
    factor = math.ceil(STRIPED / mask.size**0.5)
    mask = mask.repeat(factor, axis=0).repeat(factor, axis=1)
    y, x = np.indices(mask.shape)
    step = round(mask.size**0.5 / STRIPES)
    dark = (x + y) // step % 2 == 0
    grey = np.where(dark, 120, 200).astype(np.uint8)
    cover = np.where(mask, np.where(dark | opaque, 255, 110), 0).astype(np.uint8)
    return PIL.Image.fromarray(np.dstack([grey, grey, grey, cover]))


def _plain(where: Mask, cover: int) -> PIL.Image.Image:
    """Plain grey where a mask is True, nothing elsewhere."""
    mask = _thin_mask(where)
    grey = np.full(mask.shape, UNASKED, np.uint8)
    return PIL.Image.fromarray(np.dstack([grey, grey, grey, mask * np.uint8(cover)]))


def _outline(panel: Axes, mask: Mask) -> None:
    """The edge of a mask, white on black: to be seen on any ground."""
    height, width = mask.shape
    thin = np.asarray(_thin(PIL.Image.fromarray(mask.astype(np.uint8) * 255))) / 255
    rows, columns = thin.shape
    stride = (width / columns, height / rows)
    # one more cell on each side, so that what reaches the photo's edge is closed there
    around = Grid((rows + 2, columns + 2), stride, (-stride[0], -stride[1]), Size(height, width))
    for colour, line in (("black", 3.5), ("white", 1.5)):
        panel.contour(
            np.pad(thin, 1), levels=[0.5], colors=colour, linewidths=line, extent=around.extent,
            origin="upper",
        )  # fmt: skip


def _finish(figure: Figure, panel: Axes, title: str, size: Size) -> None:
    left, right, bottom, top = size.extent
    panel.set(xlim=(left, right), ylim=(bottom, top))
    panel.set_axis_off()
    wide = panel.get_position(original=True).width * figure.get_figwidth()
    lines = textwrap.fill(title, max(LETTERS, int(wide / TITLED * LETTERS)))
    panel.set_title(lines, fontsize=10, pad=4)


def _thin_mask(mask: Mask) -> Mask:
    thin: Mask = np.asarray(_thin(PIL.Image.fromarray(mask.astype(np.uint8) * 255))) >= 128
    return thin


def _thin(picture: PIL.Image.Image) -> PIL.Image.Image:
    picture.thumbnail((SHOWN, SHOWN))
    return picture
