"""Draw the sheet of docs/how-to/synthetic.md: python docs/figures.py [FILE].

A column for each category of `sdcorr data synth`, a row for each individual; on the lowest row,
the keypoints that show, those of left parts in orange, of right parts in blue, others in white.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw

from sdcorr.synthetic import CATEGORIES
from sdcorr.synthetic._categories import make
from sdcorr.synthetic._photos import whole_view
from sdcorr.synthetic._render import Drawing, draw, keypoints

OUT = Path(__file__).parent / "how-to" / "figures.jpg"
SEED, ROWS = 7, 4
SIDE, SHOWN = 390, 130  # px, of a photo as drawn and on the sheet
QUALITY = 74
COLOURS = {"left": "#E69F00", "right": "#0072B2"}


def sheet() -> PIL.Image.Image:
    """All columns and rows."""
    page = PIL.Image.new("RGB", (SHOWN * len(CATEGORIES), SHOWN * ROWS))
    for column, category in enumerate(CATEGORIES):
        for row in range(ROWS):
            drawing = photo(category, row)
            tile = PIL.Image.fromarray(drawing.pixels)
            if row == ROWS - 1:
                mark(tile, drawing)
            tile = tile.resize((SHOWN, SHOWN), PIL.Image.Resampling.LANCZOS)
            page.paste(tile, (SHOWN * column, SHOWN * row))
    return page


def photo(category: str, row: int) -> Drawing:
    """A square photo of an individual, whole and in the middle."""
    shape, pose, scene, paint = np.random.default_rng(
        [SEED, CATEGORIES.index(category), row]
    ).spawn(4)
    view = replace(whole_view(scene), size=(SIDE, SIDE), fill=0.9, place=(1 / 2, 1 / 2))
    return draw(make(category, shape, pose), view, paint)


def mark(tile: PIL.Image.Image, drawing: Drawing) -> None:
    """Dots on the keypoints that show."""
    pen, radius = PIL.ImageDraw.Draw(tile), SIDE / 55
    pixels, _ = keypoints(drawing)
    for point, pixel in zip(drawing.figure.keypoints, pixels, strict=True):
        if pixel is not None:
            colour = COLOURS.get(point.name.split("_")[0], "white")
            pen.circle(pixel, radius, fill=colour, outline="black", width=2)


def main() -> None:
    """Draw, and say how large it is."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    sheet().save(out, quality=QUALITY, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
