"""A page of labelled photos, the least certain first, to be looked through before they are used."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from pathlib import Path
from string import Template

import PIL.Image

from sdcorr.errors import BadImage
from sdcorr.files import replacing
from sdcorr.geometry import Size
from sdcorr.labels import LabelFile, Line, labelled
from sdcorr.photos import Photos
from sdcorr.preprocess import load_image

MOST = 500  # photos on a page; 20 kB each
SIDE = 360  # px of a photo on the page
# vermillion, sky, dark blue of Okabe and Ito: doubtful, fair, sure; of equal thirds from 0 to 1
COLOURS = ("#D55E00", "#56B4E9", "#0072B2")


def write_review(
    path: Path, file: LabelFile, lines: Path, photos: Photos, most: int = MOST
) -> None:
    """Write a self-contained HTML page, replacing it when it is whole.

    A photo stands by its least confident keypoint, or by that of the lowest score if the recipe is
    not calibrated. A photo that was deleted meanwhile has its keypoints on an empty ground.

    Args:
        path: of the page.
        file: how the labels are read.
        lines: of all photos.
        photos: where they lie.
        most: photos shown; the page says how many there are.
    """
    order = sorted((_least(line), line["photo"]) for line in labelled(lines))
    places = {name: place for place, (_, name) in enumerate(order[:most])}
    figures = [""] * len(places)
    for line in labelled(lines):
        if line["photo"] in places:
            figures[places[line["photo"]]] = _figure(line, file, photos)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as page:
        page.write(
            PAGE.substitute(
                category=html.escape(file.scheme.name).encode(errors="replace").decode(),
                count=f"{len(figures)} of {len(order)}",
                measure="confidence"
                if _calibrated(lines)
                else "score (the recipe is uncalibrated)",
                figures="\n".join(figures).encode(errors="replace").decode(),
            )
        )


def _calibrated(lines: Path) -> bool:
    return any(line["confidences"] is not None for line in labelled(lines))


def _least(line: Line) -> float:
    """The lowest confidence of a photo's keypoints, else score."""
    values: list[float | None] = line["confidences"] or line["scores"]
    return min(value for value in values if value is not None)


def _figure(line: Line, file: LabelFile, photos: Photos) -> str:
    """One photo with its keypoints, as HTML."""
    size = Size(*line["size"])
    left, right, bottom, top = size.extent
    scale = SIDE / max(size)
    wide, high = max(1, round(size.width * scale)), max(1, round(size.height * scale))
    unit = 1 / scale  # of the page's pixels, in those of the photo
    marks = "\n".join([*_bones(line, file, unit), *_dots(line, file, unit)])
    name = html.escape(line["photo"])
    return (
        f'<figure><svg viewBox="{left} {top} {right - left} {bottom - top}" '
        f'width="{wide}" height="{high}">'
        f'<image href="{_thumbnail(photos.path(line["photo"]))}" x="{left}" y="{top}" '
        f'width="{size.width}" height="{size.height}" preserveAspectRatio="none"/>\n{marks}</svg>'
        f"<figcaption><b>{name}</b><br>{_doubts(line, file)}</figcaption></figure>"
    )


def _bones(line: Line, file: LabelFile, unit: float) -> Iterator[str]:
    """The skeleton's lines between keypoints that are there."""
    seen = file.visibility(line)
    for one, other in file.scheme.skeleton:
        if seen[one] and seen[other]:
            (x0, y0), (x1, y1) = line["predictions"][one], line["predictions"][other]
            yield (
                f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" stroke="white" '
                f'stroke-width="{1.5 * unit}"/>'
            )


def _dots(line: Line, file: LabelFile, unit: float) -> Iterator[str]:
    """A disc for each keypoint, a ring for one that counts as not there, each with its name."""
    sure = line["confidences"] or line["scores"]
    for name, place, v, value in zip(
        file.scheme.keypoints, line["predictions"], file.visibility(line), sure, strict=True
    ):
        if place is None:
            continue
        colour = COLOURS[max(0, min(2, int(3 * value)))]
        look = f'fill="{colour}" stroke="white"' if v else f'fill="none" stroke="{colour}"'
        radius = (7 if value < 1 / 3 else 5) * unit
        yield (
            f'<circle cx="{place[0]}" cy="{place[1]}" r="{radius}" {look} '
            f'stroke-width="{1.5 * unit}"><title>{html.escape(name)}: {value:.2f}</title></circle>'
        )


def _doubts(line: Line, file: LabelFile) -> str:
    """The three least certain keypoints in words."""
    sure = line["confidences"] or line["scores"]
    known = sorted(
        (value, name, v)
        for value, name, v in zip(sure, file.scheme.keypoints, file.visibility(line), strict=True)
        if value is not None
    )
    return ", ".join(
        f"{html.escape(name)} {value:.2f}{'' if v else ' (not there)'}"
        for value, name, v in known[:3]
    )


def _thumbnail(path: Path) -> str:
    """A small copy as a data URL; empty where the photo is gone."""
    if not path.exists():
        return ""
    try:
        photo = PIL.Image.fromarray(load_image(path).pixels)
    except BadImage:
        return ""
    photo.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    photo.save(buffer, "jpeg", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Review of $category</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #f6f6f4; }
main { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1rem; }
figure { margin: 0; padding: .5rem; background: white; border: 1px solid #ddd; max-width: 360px; }
figcaption { margin-top: .4rem; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; background: #ddd; }
.disc { color: #0072B2 } .fair { color: #56B4E9 } .doubt { color: #D55E00 }
</style>
<h1>$category</h1>
<p>$count photos, by the lowest $measure of their keypoints, least certain first. Discs:
<span class="doubt">&#9679; large, below 0.33</span>, <span class="fair">&#9679; below 0.67</span>,
<span class="disc">&#9679; above</span>; a ring is a keypoint that counts as not there (v = 0).
Hover over one for its name. Below each photo: its three least certain keypoints.</p>
<main>
$figures
</main>
""")
