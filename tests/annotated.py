"""Small copies of data sets in their official layouts, with drawn photos and known keypoints."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

CATEGORIES = ("cat", "dog")
PARTS = 5  # keypoints that a drawn photo may show; ids 0, 2, 4, ...


def draw_photo(path: Path, width: int, height: int, seed: int) -> None:
    """A photo of coloured noise, smooth enough that JPEG keeps it."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC).save(path)


def write_spair(
    root: Path,
    categories: Sequence[str] = CATEGORIES,
    images: int = 3,
    pairs: int | None = None,
    split: str = "test",
    layouts: Sequence[str] = ("large", "small"),
    colon: str = ":",
) -> Path:
    """SPair-71k's folders: every ordered pair of each category's images that share a keypoint.

    Image 1 of each category is upright, 60 x 80, the others 80 x 60. Image i does not show part
    i % PARTS (null); the last part lies outside the box. ``small`` holds the first half of
    ``large``.

    Args:
        root: where the folders are made.
        categories: their names.
        images: of each category; their names begin with 2008.
        pairs: at most so many of each category.
        split: which list is written.
        layouts: which layouts are.
        colon: what stands for ``:`` in the names of the files.
    """
    lines = []
    for category in categories:
        names = [f"2008_{index:06d}" for index in range(images)]
        for index, name in enumerate(names):
            about = spair_image(category, name, index)
            draw_photo(
                root / "JPEGImages" / category / f"{name}.jpg",
                about["image_width"], about["image_height"], seed=hash_of(category, index),
            )  # fmt: skip
            write(root / "ImageAnnotation" / category / f"{name}.json", about)
        ordered = itertools.permutations(range(images), 2)
        for first, second in itertools.islice(ordered, pairs):
            stem = f"{len(lines) + 1:06d}-{names[first]}-{names[second]}:{category}"
            ends = [spair_image(category, names[index], index) for index in (first, second)]
            file = root / "PairAnnotation" / split / f"{stem.replace(':', colon)}.json"
            write(file, spair_pair(len(lines) + 1, stem, *ends))
            lines.append(stem)
    for layout in layouts:
        kept = lines if layout == "large" else lines[: max(1, len(lines) // 2)]
        file = root / "Layout" / layout / f"{split}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in kept))
    return root


def spair_image(category: str, name: str, index: int) -> dict[str, Any]:
    """The official fields of an image annotation."""
    width, height = (60, 80) if index == 1 else (80, 60)
    points: dict[str, list[int] | None] = {str(key): None for key in range(30)}
    for part in range(PARTS):
        if part != index % PARTS:
            points[str(2 * part)] = [5 + 9 * part + index % 4, 7 + 8 * part + index % 3]
    return {
        "filename": f"{name}.jpg", "src_database": "The VOC2008 Database",
        "src_annotation": "PASCAL VOC2008", "src_image": "flickr", "image_width": width,
        "image_height": height, "image_depth": 3, "category": category, "pose": "Left",
        "truncated": 0, "occluded": index % 2, "difficult": 0, "bndbox": [1, 2, 35 + index, 33],
        "kps": points, "azimuth_id": index % 8,
    }  # fmt: skip


def spair_pair(
    number: int, stem: str, source: dict[str, Any], target: dict[str, Any]
) -> dict[str, Any]:
    """The official fields of a pair annotation: the keypoints that both show."""
    joint = [
        key
        for key, point in source["kps"].items()
        if point is not None and target["kps"][key] is not None
    ]
    return {
        "pair_id": number, "filename": stem,
        "src_imname": source["filename"], "trg_imname": target["filename"],
        "src_imsize": [source["image_width"], source["image_height"], 3],
        "trg_imsize": [target["image_width"], target["image_height"], 3],
        "src_bndbox": source["bndbox"], "trg_bndbox": target["bndbox"],
        "category": source["category"], "src_pose": "Left", "trg_pose": "Left",
        "src_kps": [source["kps"][key] for key in joint],
        "trg_kps": [target["kps"][key] for key in joint], "kps_ids": joint, "mirror": 0,
        "viewpoint_variation": number % 3, "scale_variation": 0, "truncation": 0,
        "occlusion": source["occluded"] + 2 * target["occluded"],
    }  # fmt: skip


def write(path: Path, value: dict[str, Any]) -> None:
    """A JSON file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def hash_of(category: str, index: int) -> int:
    """A seed that is the same in every process."""
    return sum(map(ord, category)) * 1000 + index
