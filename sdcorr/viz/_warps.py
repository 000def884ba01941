"""Dense flow between two photos, and an object swapped along it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdcorr.geometry import Grid, Size
from sdcorr.types import Image
from sdcorr.viz._photo import SHOWN, WIDEST, thin_out

HEIGHT = 4.0  # inches of each photo
HIGHEST = 10.0  # inches of the figure
TITLE, TITLED, GAP = 0.3, 2.4, 0.08  # inches: above a photo, width of a title, between photos
COLOURED = 0.7  # of a pixel is its place's colour, the rest is the photo in grey
STRIPES = 40  # along the side of a square photo, where ways disagree

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def plot_flow(
    source: Image,
    target: Image,
    colours: tuple[Pixels, Pixels],
    warped: Pixels,
    valid: Mask,
) -> Figure:
    """Four panels that show a dense flow from the target to the source.

    The source under the colours of its places; the target under the colours of the places that
    it matches; the source warped onto the target; and the target itself. Where both ways do not
    agree, stripes stand in place of colours and warped pixels, and over the target.

    Args:
        source: ``(H', W')``.
        target: ``(H, W)``.
        colours: of both photos, ``(H', W', 3)`` and ``(H, W, 3)``.
        warped: ``(H, W, 3)`` the source as the target sees it.
        valid: ``(H, W)`` where both ways agree.
    """
    figure, panels = _panels([source.size, target.size, target.size, target.size])
    titles = ("places of the source", "where the target finds them", "the source, warped",
              "striped: both ways disagree")  # fmt: skip
    _show_coloured(panels[0], source, colours[0])
    _show_coloured(panels[1], target, colours[1])
    _show(panels[2], warped, target.size)
    _show(panels[3], target.pixels, target.size)
    for panel in panels[1:]:
        stripes = _stripes(valid, opaque=panel is not panels[3])
        panel.imshow(stripes, extent=target.size.extent)
    for panel, title in zip(panels, titles, strict=True):
        _finish(panel, title, source.size if panel is panels[0] else target.size)
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
        _finish(panel, title, size)
    return figure


def _panels(sizes: list[Size]) -> tuple[Figure, list[Axes]]:
    """A panel for each photo, all of one height, in as many columns as make them largest."""
    # very flat and very tall photos still get a readable share
    shares = [min(max(size.width / size.height, 0.25), 8.0) for size in sizes]
    count = len(shares)
    layouts = [_layout(shares, columns) for columns in (count, 2, 1) if count % columns == 0]
    height, widths = max(layouts, key=lambda layout: layout[0])
    rows = count // len(widths)
    wide, high = sum(widths) + GAP * (len(widths) + 1), (height + TITLE + GAP) * rows
    figure = Figure(figsize=(wide, high), dpi=150)
    panels = []
    for index in range(count):
        row, column = divmod(index, len(widths))
        left = GAP * (column + 1) + sum(widths[:column])
        bottom = high - (row + 1) * (height + TITLE) - row * GAP
        box = (left / wide, bottom / high, widths[column] / wide, height / high)
        panels.append(figure.add_axes(box))
    return figure, panels


def _layout(shares: list[float], columns: int) -> tuple[float, list[float]]:
    """Height of the photos and width of each column, in inches."""
    widest = [max(shares[column::columns]) for column in range(columns)]
    height = min(HEIGHT, WIDEST / sum(widest), HIGHEST * columns / len(shares) - TITLE)
    return height, [max(height * share, TITLED) for share in widest]


def _show(panel: Axes, pixels: Pixels, size: Size) -> None:
    panel.imshow(_thin(PIL.Image.fromarray(pixels)), extent=size.extent)


def _show_coloured(panel: Axes, photo: Image, colours: Pixels) -> None:
    """The photo in grey, under colours."""
    grey = thin_out(photo).convert("L")
    panel.imshow(grey, extent=photo.size.extent, cmap="gray", vmin=0, vmax=255)
    layer = _thin(PIL.Image.fromarray(colours))
    panel.imshow(layer, extent=photo.size.extent, alpha=COLOURED)


def _stripes(valid: Mask, opaque: bool) -> PIL.Image.Image:
    """Stripes where a mask is False, nothing elsewhere; on opaque grey, or on what lies below."""
    mask = np.asarray(_thin(PIL.Image.fromarray(valid.astype(np.uint8) * 255))) < 128
    y, x = np.indices(mask.shape)
    step = max(1, round(mask.size**0.5 / STRIPES))
    dark = (x + y) // step % 2 == 0
    grey = np.where(dark, 120, 200).astype(np.uint8)
    cover = np.where(mask, np.where(dark | opaque, 255, 110), 0).astype(np.uint8)
    return PIL.Image.fromarray(np.dstack([grey, grey, grey, cover]))


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


def _finish(panel: Axes, title: str, size: Size) -> None:
    left, right, bottom, top = size.extent
    panel.set(xlim=(left, right), ylim=(bottom, top))
    panel.set_axis_off()
    panel.set_title(title, fontsize=10, pad=4)


def _thin(picture: PIL.Image.Image) -> PIL.Image.Image:
    picture.thumbnail((SHOWN, SHOWN))
    return picture
