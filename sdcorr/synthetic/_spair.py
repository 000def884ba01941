"""Photos of figures with their keypoints, in the layout of SPair-71k."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from sdcorr.synthetic._categories import CATEGORIES, make
from sdcorr.synthetic._photos import random_cover, random_view
from sdcorr.synthetic._render import Drawing, draw, keypoints
from sdcorr.synthetic._solids import to_bytes

SPLITS = ("test", "val", "trn")
MIRRORED, COVERED = 0.3, 0.25  # shares of photos
MOST_PHOTOS = 30  # of a category in a split, unless its pairs need more
IDS = 30  # keypoints of an annotation, most of them null
POSES = ("Frontal", "Left", "Rear", "Right")
JPEG = {"quality": 92, "subsampling": 0}
VIEWPOINTS = (0, 0, 1, 1, 2)  # variation by the difference of azimuth ids, 0 to 4

Annotation = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Plan:
    """What a set is to hold.

    Args:
        seed: of all that is drawn.
        pairs: in the test split; the others get a quarter each, at least one.
    """

    seed: int
    pairs: int

    def per_category(self, split: str) -> dict[str, int]:
        """How many pairs of each category a split has: alike, the first ones one more."""
        total = self.pairs if split == "test" else max(1, self.pairs // 4)
        share, more = divmod(total, len(CATEGORIES))
        counts = {name: share + (index < more) for index, name in enumerate(CATEGORIES)}
        return {name: count for name, count in counts.items() if count}

    def photos(self) -> int:
        """How many photos are drawn, if all pairs have a keypoint in common."""
        counts = [count for split in SPLITS for count in self.per_category(split).values()]
        return sum(map(photos_for, counts))


def photos_for(pairs: int) -> int:
    """The photos of one category in one split: each stands in about four pairs, or in more.

    Example:
        >>> [photos_for(pairs) for pairs in (1, 2, 25, 100, 1500)]
        [2, 3, 13, 30, 56]
    """
    enough = 2
    while enough * (enough - 1) < 2 * pairs:
        enough += 1
    return max(min(-(-pairs // 2), MOST_PHOTOS), enough)


def write_spair(root: Path, plan: Plan, step: Callable[[], None]) -> None:
    """Write all folders below ``root``; ``step`` is called after each photo."""
    _write_json(root / "names.json", {name: names_of(name) for name in plan.per_category("test")})
    start = 0
    for split in SPLITS:
        lines: list[str] = []
        for category, count in plan.per_category(split).items():
            photos = _Photos(root, plan.seed, split, category, start, step)
            for source, target in photos.pairs(count):
                lines.append(_write_pair(root, split, len(lines) + 1, source, target))
            start += len(photos.annotations)
        for layout, kept in (("large", lines), ("small", lines[::2])):
            file = root / "Layout" / layout / f"{split}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def names_of(category: str) -> dict[str, dict[str, str]]:
    """What keypoints and parts of a category are called, by id and by number of the part map."""
    figure = make(category, np.random.default_rng(0), np.random.default_rng(0))
    return {
        "keypoints": {str(index): one.name for index, one in enumerate(figure.keypoints)},
        "parts": {str(index): one.name for index, one in enumerate(figure.parts, start=1)},
    }


@dataclass
class _Photos:
    """The photos of a category in a split, drawn when they are needed.

    Args:
        root: of the data set.
        seed: of all.
        split: which.
        category: of the figures.
        start: number of the photo before the first.
        step: called after each photo.
    """

    root: Path
    seed: int
    split: str
    category: str
    start: int
    step: Callable[[], None]

    def __post_init__(self) -> None:
        self.annotations: list[Annotation] = []

    def pairs(self, count: int) -> list[tuple[Annotation, Annotation]]:
        """Pairs with a common keypoint; photos that are neighbours in a circle come first."""
        for _ in range(photos_for(count)):
            self._draw()
        while True:
            found = [pair for pair in self._ordered() if joint(*pair)]
            if len(found) >= count:
                return found[:count]
            self._draw()

    def _ordered(self) -> Iterator[tuple[Annotation, Annotation]]:
        every = self.annotations
        for step in range(1, len(every)):
            for index, source in enumerate(every):
                yield source, every[(index + step) % len(every)]

    def _draw(self) -> None:
        number = len(self.annotations)
        key = (self.seed, SPLITS.index(self.split), CATEGORIES.index(self.category), number)
        name = f"0000_{self.start + number + 1:06d}"
        self.annotations.append(_write_photo(self.root, name, self.category, key))
        self.step()


def photograph(category: str, key: Sequence[int]) -> tuple[Drawing, float]:
    """A drawing of a figure and its azimuth in degrees, both as the photo shows them.

    Args:
        category: of the figure.
        key: whole numbers from 0 that tell all photos apart.
    """
    shape, pose, scene, paint = np.random.default_rng(key).spawn(4)
    figure = make(category, shape, pose)
    view = random_view(scene)
    mirrored = scene.random() < MIRRORED
    covered = scene.random() < COVERED
    cover = random_cover(scene, view.look_at(figure)) if covered else None
    drawing = draw(figure, view, paint, cover)
    return (drawing.mirror(), -view.azimuth) if mirrored else (drawing, view.azimuth)


def _write_photo(root: Path, name: str, category: str, key: Sequence[int]) -> Annotation:
    """Draw a photo and write its four files; returns its annotation."""
    drawing, azimuth = photograph(category, key)
    annotation = annotate(drawing, f"{name}.jpg", azimuth)
    mask = np.where(drawing.shown > 0, np.uint8(255), np.uint8(0))
    _save(root / "JPEGImages" / category / f"{name}.jpg", drawing.pixels, **JPEG)
    _save(root / "Segmentation" / category / f"{name}.png", mask)
    _save(root / "PartMaps" / category / f"{name}.png", part_map(drawing))
    _write_json(root / "ImageAnnotation" / category / f"{name}.json", annotation)
    return annotation


def _save(path: Path, pixels: npt.NDArray[np.uint8], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path, **options)


def annotate(drawing: Drawing, file: str, azimuth: float) -> Annotation:
    """The official fields of a photo's annotation."""
    height, width = drawing.size
    found, covered = keypoints(drawing)
    points = [None if one is None else list(one) for one in found]
    points += [None] * (IDS - len(points))
    return {
        "filename": file,
        "src_database": "drawn by sdcorr",
        "src_annotation": "drawn by sdcorr",
        "src_image": "drawn by sdcorr",
        "image_width": width,
        "image_height": height,
        "image_depth": 3,
        "category": drawing.figure.category,
        "pose": POSES[round(azimuth / 90) % 4],
        "truncated": int(drawing.truncated),
        "occluded": int(covered),
        "difficult": 0,
        "bndbox": box_of(drawing.shown > 0),
        "kps": {str(index): point for index, point in enumerate(points)},
        "azimuth_id": round(azimuth / 45) % 8,
    }


def box_of(mask: npt.NDArray[np.bool_]) -> list[int]:
    """[xmin, ymin, xmax, ymax] of what is True, from 1 as the official boxes.

    Example:
        >>> box_of(np.array([[False, False, False], [False, True, True]]))
        [2, 2, 3, 2]
    """
    rows, columns = np.nonzero(mask)
    ends = (columns.min(), rows.min(), columns.max(), rows.max())
    return [int(one) + 1 for one in ends]


def joint(source: Annotation, target: Annotation) -> list[str]:
    """Ids of the keypoints that both show, ascending."""
    return [
        key
        for key, point in source["kps"].items()
        if point is not None and target["kps"][key] is not None
    ]


def pair_fields(number: int, source: Annotation, target: Annotation) -> Annotation:
    """The official fields of a pair's annotation."""
    ids = joint(source, target)
    ends = {"src": source, "trg": target}
    stems = [Path(one["filename"]).stem for one in (source, target)]
    fields = {
        "pair_id": number,
        "filename": f"{number:06d}-{stems[0]}-{stems[1]}:{source['category']}",
        **{f"{end}_imname": one["filename"] for end, one in ends.items()},
        **{f"{end}_imsize": _imsize(one) for end, one in ends.items()},
        **{f"{end}_bndbox": one["bndbox"] for end, one in ends.items()},
        "category": source["category"],
        **{f"{end}_pose": one["pose"] for end, one in ends.items()},
        **{f"{end}_kps": [one["kps"][key] for key in ids] for end, one in ends.items()},
        "kps_ids": ids,
        "mirror": 0,
    }
    apart = abs(source["azimuth_id"] - target["azimuth_id"])
    areas = sorted(_area(one["bndbox"]) for one in (source, target))
    ratio = areas[1] / areas[0]
    return fields | {
        "viewpoint_variation": VIEWPOINTS[min(apart, 8 - apart)],
        "scale_variation": (ratio >= 2) + (ratio > 4),
        "truncation": source["truncated"] + 2 * target["truncated"],
        "occlusion": source["occluded"] + 2 * target["occluded"],
    }


def part_map(drawing: Drawing) -> npt.NDArray[np.uint8]:
    """Part number, and the place on the part in two bytes: ``(H, W, 3)``, 0 is background."""
    number = drawing.shown
    places = np.where(number[..., None] > 0, to_bytes(drawing.place), np.uint8(0))
    return np.dstack([number, places])


def _imsize(one: Annotation) -> list[int]:
    return [one["image_width"], one["image_height"], one["image_depth"]]


def _area(box: Sequence[int]) -> int:
    x0, y0, x1, y1 = box
    return (x1 - x0 + 1) * (y1 - y0 + 1)


def _write_pair(root: Path, split: str, number: int, source: Annotation, target: Annotation) -> str:
    """Write a pair's file; returns its line of the layout."""
    fields = pair_fields(number, source, target)
    _write_json(root / "PairAnnotation" / split / f"{fields['filename']}.json", fields)
    return str(fields["filename"])


def _write_json(path: Path, value: Annotation) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
