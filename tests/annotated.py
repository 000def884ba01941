"""Small copies of data sets in their official layouts, with drawn photos and known keypoints."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from scipy.io import savemat

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
    images: int | Sequence[int] = 3,
    pairs: int | Sequence[int] | None = None,
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
        images: of each category, one number or a number for each; names begin with 2008.
        pairs: at most so many of each category, likewise.
        split: which list is written.
        layouts: which layouts are.
        colon: what stands for ``:`` in the names of the files.
    """
    lines = []
    counts = [images] * len(categories) if isinstance(images, int) else images
    limits = [pairs] * len(categories) if pairs is None or isinstance(pairs, int) else pairs
    for category, count, limit in zip(categories, counts, limits, strict=True):
        names = [f"2008_{index:06d}" for index in range(count)]
        for index, name in enumerate(names):
            about = spair_image(category, name, index)
            draw_photo(
                root / "JPEGImages" / category / f"{name}.jpg",
                about["image_width"], about["image_height"], seed=hash_of(category, index),
            )  # fmt: skip
            write(root / "ImageAnnotation" / category / f"{name}.json", about)
        ordered = itertools.permutations(range(count), 2)
        for first, second in itertools.islice(ordered, limit):
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


WILLOW_CLASSES = ("car(G)", "car(M)", "duck(S)")
PASCAL_CLASSES = {"aeroplane": 1, "car": 7}  # the lists' numbers, 1-based


def write_pf_willow(
    root: Path,
    classes: Sequence[str] = WILLOW_CLASSES,
    images: int = 3,
    repacked: bool = False,
    list_name: str = "test_pairs.csv",
) -> Path:
    """PF-WILLOW: every ordered pair of each class's photos, with the points of ``willow_points``.

    Photo 1 of each class is upright, 60 x 80, the others 80 x 60; every class has the same names.

    Args:
        root: where the list and the folders are made.
        classes: their names.
        images: of each class.
        repacked: folders right below the root; the list names them below ``PF-dataset`` anyway.
        list_name: file name of the list.
    """
    header = [f"{axis}{photo}{n}" for photo in "AB" for axis in "XY" for n in range(1, 11)]
    rows = [["imageA", "imageB", *header]]
    for name in classes:
        photos = [f"PF-dataset/{name}/photo_{index:03d}a.png" for index in range(images)]
        for index, photo in enumerate(photos):
            file = root / (photo.removeprefix("PF-dataset/") if repacked else photo)
            draw_photo(file, *pf_size(index), seed=hash_of(name, index))
        for first, second in itertools.permutations(range(images), 2):
            points = [willow_points(index).T.ravel() for index in (first, second)]
            rows.append([photos[first], photos[second], *np.concatenate(points).tolist()])
    write_csv(root / list_name, rows)
    return root


def willow_points(index: int) -> np.ndarray:
    """The ten points ``(10, 2)`` of photo ``index`` of every class."""
    n = np.arange(10)
    return np.column_stack([4.25 + 4 * n + index, 50.5 - 3 * n - 2 * index])


def write_pf_pascal(
    root: Path,
    classes: Mapping[str, int] = PASCAL_CLASSES,
    images: int = 3,
    repacked: bool = False,
    inside: str = "",
) -> Path:
    """PF-PASCAL: every ordered pair of each class's photos, in all three splits.

    Photo i of class 7 is called 2008_00007i; photo 1 of each is upright, 60 x 80, the others
    80 x 60. The test list gives the joint points; the others name each pair twice, and twice
    mirrored.

    Args:
        root: where the lists and the folders are made.
        classes: numbers by name.
        images: of each class.
        repacked: folders right below the root and the lists' shorter names; the lists name photos
            below ``PF-dataset-PASCAL`` anyway.
        inside: folder of the lists.
    """
    home = root if repacked else root / "PF-dataset-PASCAL"
    ends = ["source_image", "target_image", "class"]
    test, train = [[*ends, "XA", "YA", "XB", "YB"]], [[*ends, "flip"]]
    for name, number in classes.items():
        stems = [f"2008_{10 * number + index:06d}" for index in range(images)]
        for index, stem in enumerate(stems):
            photo, about = f"JPEGImages/{stem}.jpg", f"Annotations/{name}/{stem}.mat"
            draw_photo(home / photo, *pf_size(index), seed=hash_of(name, index))
            write_mat(home / about, pascal_points(index), pascal_box(index))
        for first, second in itertools.permutations(range(images), 2):
            row = [f"PF-dataset-PASCAL/JPEGImages/{stems[one]}.jpg" for one in (first, second)]
            both = np.hstack([pascal_points(first), pascal_points(second)])
            cells = [";".join(map(str, x)) for x in both[np.isfinite(both).all(axis=1)].T.tolist()]
            test.append([*row, number, *cells])
            train += [[*row, number, mirrored] for mirrored in (0, 1)] * 2
    for split, rows in (("test", test), ("val", train), ("trn" if repacked else "train", train)):
        file = f"{split}_pairs.csv" if repacked else f"{split}_pairs_pf_pascal.csv"
        write_csv(root / inside / file, rows)
    return root


def pascal_points(index: int) -> np.ndarray:
    """Keypoints ``(5, 2)`` of photo ``index`` of every class; it does not show part index % 5."""
    n = np.arange(PARTS)
    points = np.column_stack([10.5 + 9 * n + index, 8.25 + 7 * n + 2 * index])
    points[index % PARTS] = np.nan
    return points


def pascal_box(index: int) -> list[int]:
    """The object's box (x0, y0, x1, y1) on photo ``index`` of every class."""
    return [5, 6, 50 + index, 45]


def pf_size(index: int) -> tuple[int, int]:
    """Width and height of photo ``index`` of every class."""
    return (60, 80) if index == 1 else (80, 60)


def write_mat(path: Path, points: np.ndarray, box: Sequence[float]) -> None:
    """A photo's annotation in PF-PASCAL, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"kps": points, "bbox": np.array([box], np.float64)})


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """A list, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
