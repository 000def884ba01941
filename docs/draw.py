"""Draw the pictures of the documentation: python docs/draw.py [FOLDER].

Everything that has a place or a number is computed by sdcorr itself: grids by ``Canvas.grid``,
windows by ``merge_windows``, similarities by ``fusion.join``, PCK by ``metrics``. So a picture
changes when the code does. Same code, same pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import sketch
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from sketch import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SKY

from sdcorr import Group, Image, MapUse, Recipe, Size, load, load_image
from sdcorr.backbones._windows import merge_windows, window_starts
from sdcorr.backbones.dense_sift import DenseSift
from sdcorr.fused import Fused
from sdcorr.fusion import FusedSimilarity, join
from sdcorr.geometry import Grid
from sdcorr.maps import joint_pca, standardize, unit
from sdcorr.matchers._rows import best_elsewhere
from sdcorr.metrics import (
    box_side,
    calibration_error,
    correct,
    keypoint_box_side,
    keypoint_errors,
    per_image,
    per_point,
    risk_coverage,
)
from sdcorr.preprocess import fit
from sdcorr.recipes import RECIPES

HERE = Path(__file__).parent
ASSETS = HERE.parent / "assets"
PHOTOS = (ASSETS / "astronaut.png", ASSETS / "hopper.jpg")

# in the turned and darkened copy of the portrait that the confidence page judges
DEGREES, GAMMA = 35.0, 2.5

# places on the two photos, set by hand for these pages
SOURCE = {
    "eye": (205, 104), "other eye": (247, 104), "nose": (226, 126), "mouth": (228, 148),
    "chin": (226, 172), "top": (225, 28),
}  # fmt: skip
TARGET = {
    "eye": (222, 188), "other eye": (307, 188), "nose": (270, 232), "mouth": (272, 275),
    "chin": (272, 322), "top": (262, 32),
}  # fmt: skip
HEAD = (152.0, 22.0, 376.0, 336.0)  # box of the head on the target photo


def draw_grid() -> Figure:
    """A letterboxed photo with its cells, and the corner of the photo, pixel by pixel."""
    image = load_image(PHOTOS[1])
    canvas = fit(image, 840, "letterbox")
    grid = canvas.grid((12, 12), 70.0)
    figure, (left, right) = sketch.new_figure(4.6, 1, 2, width_ratios=(1.12, 1))
    left.imshow(sketch.faded(Image(canvas.pixels), 0.4), extent=grid.extent)
    sketch.cells(left, grid)
    sketch.box(left, image.size.extent, color=RED, linewidth=2)
    sketch.limits(left, grid.extent, margin=8)
    inside = int(grid.inside().sum())
    left.set_title(f"letterbox: 12 x 12 cells, the centres of {inside} on the photo")
    left.set_xlabel("x, pixels of the photo")
    left.set_ylabel("y")

    small = Image(sketch.shrunk(image, (9, 10), box=(232, 170, 322, 280)))
    cells = Grid((6, 6), (2.0, 2.0), (-2.0, 0.0), small.size)
    right.set_facecolor("#777777")
    right.imshow(sketch.faded(small, 0.45), extent=small.size.extent, interpolation="nearest")
    for x in range(small.size.width):
        for y in range(small.size.height):
            right.plot(x, y, "+", color=GREY, markersize=5, markeredgewidth=0.8)
    sketch.cells(right, cells)
    sketch.box(right, small.size.extent, color=RED, linewidth=2)
    sketch.limits(right, (-2.9, 5.4, 5.45, -2.3))
    right.set_title("the corner of a photo, cells of 2 x 2 pixels")
    sketch.note(right, "(0, 0): centre of the\ntop-left pixel", (0, 0), (-0.2, -1.6))
    sketch.note(right, "x = -0.5:\nthe edge", (-0.5, 3.2), (-2.75, 5.15))
    sketch.note(right, "(2.5, 2.5): centre of a cell", cells.centers()[8].tolist(), (0.2, 4.9))
    sketch.note(right, "a cell on\npadding", cells.centers()[0].tolist(), (-2.7, -1.6))
    right.set_xticks(range(-2, 6))
    right.set_yticks(range(-2, 6))
    right.set_xlabel("x, pixels of the photo")
    return figure


def draw_windows() -> Figure:
    """Four overlapping windows over a canvas, and how their maps are averaged."""
    image = load_image(PHOTOS[1])
    size, window, overlap, cell = 960, 512, 64, 16
    starts = window_starts(size, window, overlap)
    canvas = fit(image, size, "letterbox")
    figure, (left, right) = sketch.new_figure(4.4, 1, 2)
    on_canvas = Size(size, size).extent
    left.imshow(sketch.faded(Image(canvas.pixels), 0.35), extent=on_canvas)
    colours = (ORANGE, SKY, GREEN, PINK)
    corners = [(x, y) for y in starts for x in starts]
    for (x, y), colour in zip(corners, colours, strict=True):
        edges = (x + 4, x + window - 4, y + window - 4, y + 4)  # so that no side hides another
        sketch.box(left, edges, edgecolor=colour, linewidth=3)
        label = f"{window} x {window}\nfrom ({x}, {y})"
        at = (x + window * (0.40 if x == 0 else 0.60), y + window * (0.4 if y == 0 else 0.6))
        sketch.label(left, label, at, colour)
    left.set_title(f"canvas {size} px, windows {window} px, overlap {overlap} px")
    left.set_xlabel("pixels of the canvas")

    maps = torch.ones(4, 3, window // cell, window // cell)
    maps *= torch.tensor([sketch.rgb(colour) for colour in colours])[:, :, None, None]
    merged = merge_windows(maps, starts, window, size)  # (3, 60, 60)
    cells = merged.shape[-1]
    right.imshow(merged.permute(1, 2, 0).numpy(), extent=(0, cells, cells, 0))
    right.set_title(f"their maps, {cells} x {cells} cells together")
    sketch.label(right, "one window", (12, 12), INK)
    sketch.label(right, "mean of two", (30, 14), INK)
    sketch.label(right, "mean of four", (30, 30), INK)
    right.set_xlabel("cells")
    for axes, step in ((left, 192), (right, 12)):
        axes.set_xticks(range(0, 5 * step + 1, step))
        axes.set_yticks(range(0, 5 * step + 1, step))
    return figure


def draw_fusion() -> Figure:
    """One point, its similarity by two groups apart and by both together."""
    groups = (
        Group("coarse", DenseSift(stride=32, windows=(192.0, 384.0)), (MapUse("gradients"),)),
        Group("fine", DenseSift(stride=8, windows=(48.0,)), (MapUse("gradients"),), weight=1.5),
    )
    both = _joined(groups)
    maps = both.source.maps, both.target.maps
    parts = [join((replace(group, weight=1.0),), *maps) for group in groups]
    grid = both.similarity.source
    index = grid.cell_of(torch.tensor([SOURCE["chin"]]))
    point = grid.centers()[index]  # between centres, bilinear reading moves the shares a little
    cell = both.similarity.rows(point)[0].argmax()
    place = both.similarity.target.centers()[cell]
    cells = both.similarity.target
    cosines = [_cosines_at(one, cells, point)[cell].item() for one in (*parts, both.similarity)]
    weights = [group.weight**2 for group in groups]
    mean = sum(w * c for w, c in zip(weights, cosines[:2], strict=True)) / sum(weights)
    assert abs(mean - cosines[2]) < 1e-4, (mean, cosines)  # what the page says
    figure, axes = sketch.new_figure(3.3, 1, 4)
    image = both.source.image
    axes[0].imshow(sketch.faded(image, 0), extent=image.size.extent)
    sketch.dot(axes[0], point[0].tolist())
    axes[0].set_title("source: a point")
    titles = [f"{g.name}, {'x'.join(map(str, p.target.shape))} cells, w = {g.weight:g}"
              for g, p in zip(groups, parts, strict=True)]  # fmt: skip
    for one, title, axis, cosine in zip(
        (*parts, both.similarity), (*titles, "fused"), axes[1:], cosines, strict=True
    ):
        sketch.heat(axis, one, both.target.image, point)
        sketch.dot(axis, place.tolist(), hollow=True)
        axis.set_title(title)
        axis.set_xlabel(f"cosine in the ring: {cosine:.3f}")
    for axis in axes:
        sketch.bare(axis)
    words = " + ".join(f"{g.weight:g}² x {c:.3f}" for g, c in zip(groups, cosines, strict=False))
    below = " + ".join(f"{group.weight:g}²" for group in groups)
    figure.supxlabel(f"({words}) / ({below}) = {mean:.3f}", fontsize=11)
    return figure


def draw_pca() -> Figure:
    """Three principal components as colours: of both photos together, and of each alone."""
    backbone = DenseSift(stride=8, windows=(96.0,))
    model = load(Recipe("drawn", (Group("sift", backbone, (MapUse("gradients"),)),)))
    pair = [model.encode(photo) for photo in PHOTOS]
    maps = standardize(*(one.maps["sift/gradients"] for one in pair))
    joint = joint_pca(maps, 3)
    alone = [joint_pca([one], 3)[0] for one in maps]
    figure, axes = sketch.new_figure(5.5, 2, 3, width_ratios=(1, 1, 1))
    for row, encoding in enumerate(pair):
        axes[row][0].imshow(encoding.image.pixels, extent=encoding.size.extent)
        for column, reduced in ((1, joint), (2, alone)):
            shown = reduced[row]
            values = shown.values
            if column == 1:  # one scale for both photos
                values = torch.cat([one.values.flatten(1) for one in joint], dim=1)
            low, high = values.flatten(1).min(dim=1).values, values.flatten(1).max(dim=1).values
            colour = (shown.values - low[:, None, None]) / (high - low)[:, None, None]
            axes[row][column].imshow(colour.permute(1, 2, 0).numpy(), extent=shown.grid.extent)
            sketch.limits(axes[row][column], encoding.size.extent)
    titles = ("photos", "PCA of both together:\none colour, one kind of place",
              "PCA of each on its own:\ncolours do not agree")  # fmt: skip
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        sketch.bare(axis)
    return figure


def draw_pck() -> Figure:
    """Predictions, and the circles of two thresholds in which they count as correct."""
    model, names = load("sift-hough"), list(SOURCE)
    found = model.match(*PHOTOS, SOURCE).target.numpy()
    wanted = np.array([TARGET[name] for name in names], float)
    errors = keypoint_errors(found, wanted)
    image = load_image(PHOTOS[1])
    frames = (
        ("the object's box", HEAD, box_side(HEAD)),
        ("the box around the keypoints", (*wanted.min(axis=0), *wanted.max(axis=0)),
         keypoint_box_side(wanted)),
        ("the image", (0, 0, image.size.width, image.size.height), float(max(image.size))),
    )  # fmt: skip
    figure, axes = sketch.new_figure(3.8, 1, 3)
    alpha = 0.1
    for axis, (name, (x0, y0, x1, y1), side) in zip(axes, frames, strict=True):
        axis.imshow(sketch.faded(image, 0.5), extent=image.size.extent)
        right = correct(errors, np.full(len(errors), side), [alpha])[:, 0]
        axis.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=BLUE, linewidth=1.8)
        )
        for place, end, hit in zip(wanted, found, right, strict=True):
            colour = BLUE if hit else RED
            axis.add_patch(Circle(place, alpha * side, fill=False, edgecolor=colour, linewidth=1.5))
            axis.plot(*zip(place, end, strict=True), "-", color=INK, linewidth=1)
            axis.plot(*place, "+", color=INK, markersize=7, markeredgewidth=1.6)
            axis.plot(*end, "o" if hit else "X", color=colour, markersize=7.5)
        axis.set_title(f"{name}:\nlonger side {side:.0f} px")
        axis.set_xlabel(f"radius {alpha} x {side:.0f} = {alpha * side:.1f} px:\n"
                        f"{right.sum()} of {len(right)} correct")  # fmt: skip
        left, right_edge, bottom, top = image.size.extent
        sketch.limits(axis, (left + 60, right_edge - 60, bottom - 180, top))
        sketch.bare(axis)
    return figure


def draw_means() -> Figure:
    """Per image and per point, of two pairs with very different numbers of keypoints."""
    shown = ((1, 3), (9, 10))
    hits = np.array([[float(right)] for right, _ in shown])
    counts = np.array([float(count) for _, count in shown])
    figure, axis = sketch.new_figure(1.3, 1, 1)
    for row, (right, count) in enumerate(shown):
        for index in range(count):
            hit = index < right
            axis.plot(index, -row, "o" if hit else "X", color=BLUE if hit else RED, markersize=11)
        axis.text(-0.7, -row, f"pair {row + 1}", ha="right", va="center")
        axis.text(9.8, -row, f"{right} of {count}: {100 * right / count:.1f} %", va="center")
    image, point = (100 * float(mean(hits, counts)[0]) for mean in (per_image, per_point))
    shares = " + ".join(f"{100 * right / count:.1f}" for right, count in shown)
    axis.text(14, 0, f"per image: ({shares}) / 2 = {image:.1f} %", va="center", fontweight="bold")
    total = f"{sum(r for r, _ in shown)} of {sum(c for _, c in shown)}"
    axis.text(14, -1, f"per point: {total} = {point:.1f} %", va="center", fontweight="bold")
    axis.set(xlim=(-2.2, 24), ylim=(-1.5, 0.5))
    axis.set_axis_off()
    return figure


def draw_evidence() -> Figure:
    """One match with its margin, peak and cycle error."""
    pair = _joined(RECIPES["sift"].groups)
    point = SOURCE["eye"]
    match = pair.match([point])
    grid = pair.similarity.target
    row = pair.similarity.rows(match.source)
    cell = grid.cell_of(match.target)
    score, other = match.score.item(), best_elsewhere(row, cell, grid).item()
    elsewhere = grid.centers()[(row[0] == other).nonzero()[0, 0]].tolist()
    back = pair.matcher(pair.similarity.swap(), match.target).target[0].tolist()
    figure, (left, right) = sketch.new_figure(4.4, 1, 2)
    left.imshow(sketch.faded(pair.source.image, 0.2), extent=pair.source.size.extent)
    sketch.dot(left, point)
    sketch.dot(left, back, hollow=True)
    left.plot(*zip(point, back, strict=True), "--", color=INK, linewidth=1.5)
    sketch.note(left, "the point", point, (60, 40))
    sketch.note(left, f"where its match leads back to:\ncycle error "
          f"{match.cycle_error.item():.0f} px", back, (130, 400))  # fmt: skip
    left.set_title("source")
    sketch.heat(right, pair.similarity, pair.target.image, match.source)
    found = match.target[0].tolist()
    sketch.dot(right, found)
    sketch.dot(right, elsewhere, hollow=True)
    sketch.note(right, f"the match:\nscore {score:.3f}", found, (340, 90))
    sketch.note(right, f"best more than two cells away: {other:.3f}\n"
          f"margin {score - other:.3f}", elsewhere, (40, 540))  # fmt: skip
    mean = score - match.peak.item()
    right.set_title(f"target; mean of all cells {mean:.3f}, peak {match.peak.item():.3f}")
    for axis in (left, right):
        sketch.bare(axis)
    return figure


def draw_confidence() -> Figure:
    """Risk against coverage, and how confidence compares with what is right."""
    confidence, right = _judged()
    risks = 100 * risk_coverage(confidence, right)
    count = len(right)
    coverage = 100 * np.arange(1, count + 1) / count
    figure, (left, axis) = sketch.new_figure(3.7, 1, 2)
    left.plot(coverage, risks, color=BLUE, linewidth=2)
    left.axhline(risks[-1], color=GREY, linestyle="--", linewidth=1.2)
    left.text(2, risks[-1] + 1.5, f"of all {count} matches {risks[-1]:.0f} % are wrong", color=INK)
    half = (count - 1) // 2
    left.plot(coverage[half], risks[half], "o", color=RED, markersize=8)
    sketch.note(left, f"of the more confident half\n{risks[half]:.0f} % are wrong",
          (coverage[half], risks[half]), (55, 5))  # fmt: skip
    left.set(xlabel="coverage: share of matches kept, most confident first (%)",
             ylabel="risk: share of them that is wrong (%)",
             xlim=(0, 100), ylim=(0, risks[-1] + 8))  # fmt: skip
    left.set_title("risk against coverage")
    bins = np.minimum((confidence * 10).astype(int), 9)
    axis.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1.2)
    for one in np.unique(bins):
        members = bins == one
        said, true = 100 * confidence[members].mean(), 100 * right[members].mean()
        axis.plot([said, said], [said, true], color=GREY, linewidth=1)
        axis.plot(said, true, "o", color=BLUE, markersize=3 + 14 * np.sqrt(members.mean()))
    axis.text(52, 36, "as confident as right", rotation=45, color=GREY, rotation_mode="anchor")
    axis.set(xlabel="mean confidence of matches in a bin (%)", ylabel="right (%)",
             xlim=(0, 100), ylim=(0, 105))  # fmt: skip
    axis.set_title(f"calibration error {calibration_error(confidence, right):.3f}")
    return figure


def draw_pixels() -> Figure:
    """A photo four pixels wide: centres, edges, row and column."""
    photo = Size(3, 4)
    figure, axis = sketch.new_figure(3.4, 1, 1)
    shades = np.array([[[0.93], [0.86], [0.93], [0.86]], [[0.86], [0.93], [0.86], [0.93]]] * 2)
    axis.imshow(np.repeat(shades[:3], 3, axis=2), extent=photo.extent, interpolation="nearest")
    for y in range(photo.height):
        for x in range(photo.width):
            axis.plot(x, y, "o", color=BLUE, markersize=5)
            axis.text(x, y + 0.19, f"({x}, {y})", ha="center", va="center", color=BLUE)
            axis.text(x, y - 0.22, f"[{y}, {x}]", ha="center", va="center", color=RED)
    left, right, bottom, top = photo.extent
    sketch.box(axis, photo.extent, color=INK, linewidth=1.6)
    for x, label in ((left, f"x = {left}"), (right, f"x = {right}")):
        axis.text(x, top - 0.12, label, ha="center")
    axis.text(left - 0.12, top + 0.05, f"y = {top}", ha="right", va="center")
    axis.text(left - 0.12, bottom, f"y = {bottom}", ha="right", va="center")
    axis.text(4.1, 0.1, "(x, y)  what sdcorr reads and writes", color=BLUE)
    axis.text(4.1, 0.6, "[row, column]  of the array: pixels[y, x]", color=RED)
    axis.text(4.1, 1.1, "size (height, width) = (3, 4)", color=INK)
    axis.text(4.1, 1.6, "the photo spans x from -0.5 to 3.5,\ny from -0.5 to 2.5", va="top")
    axis.set(xlim=(-1.3, 8.4), ylim=(2.7, -0.95))
    axis.set_axis_off()
    return figure


def _joined(groups: Sequence[Group]) -> Fused:
    """Both photos of ``assets/``, joined by these groups."""
    model = load(Recipe("drawn", tuple(groups)))
    return model.fuse(*PHOTOS)


def _cosines_at(similarity: FusedSimilarity, grid: Grid, point: torch.Tensor) -> torch.Tensor:
    """Cosines of a point at the centres of another grid, ``(h*w,)``, as fusion resamples."""
    queries = unit(similarity.source_map.sample(point), dim=1)
    keys = unit(similarity.target_map.sample(grid.centers()), dim=1)
    return (queries @ keys.T)[0]


def _judged() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Confidence of matches between the portrait and a turned, darkened copy; which are right.

    Right is an error of at most a tenth of the photo's side; the true places are known.
    """
    photo = PIL.Image.open(PHOTOS[0]).convert("RGB")
    dark = photo.point(lambda level: round(255 * (level / 255) ** GAMMA))
    turned = dark.rotate(DEGREES, PIL.Image.Resampling.BICUBIC)
    size = Size(photo.height, photo.width)
    places = Grid((26, 26), (16.0, 16.0), (48.0, 48.0), size).centers()
    model = load("sift")
    matches = model.match(photo, turned, places)
    angle = np.deg2rad(DEGREES)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (np.array(photo.size) - 1) / 2
    true = (places.numpy() - middle) @ turn.T + middle
    errors = keypoint_errors(matches.target, true)
    assert matches.confidence is not None
    right = correct(errors, np.full(len(errors), max(size)), [0.1])[:, 0]
    kept = matches.matched.numpy()
    return matches.confidence.double().numpy()[kept], right[kept]


DRAWINGS: dict[str, Callable[[], Figure]] = {
    "grid": draw_grid,
    "windows": draw_windows,
    "fusion": draw_fusion,
    "pca": draw_pca,
    "pck": draw_pck,
    "means": draw_means,
    "evidence": draw_evidence,
    "confidence": draw_confidence,
    "pixels": draw_pixels,
}


def main() -> None:
    """Draw all, and say how large each is."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "drawings"
    folder.mkdir(parents=True, exist_ok=True)
    for name in DRAWINGS:
        path = folder / f"{name}.png"
        sketch.few_colours(DRAWINGS[name]).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
