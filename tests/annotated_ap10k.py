"""A small AP-10K in its official layout, with drawn photos and known keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.annotated import draw_photo, pf_size, write

KEYPOINTS = (
    "left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow",
    "left_front_paw", "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee",
    "left_back_paw", "right_hip", "right_knee", "right_back_paw",
)  # fmt: skip
FAMILIES = {"Canidae": ("dog", "wolf"), "Felidae": ("cat", "lion")}
PARTS = 5  # a photo shows the first five keypoints but one
FILES = {part: f"annotations/ap10k-{part}-split1.json" for part in ("train", "val", "test")}


def write_ap10k(
    root: Path,
    families: Mapping[str, Sequence[str]] = FAMILIES,
    images: int | Sequence[int] = 3,
    drawn: bool = True,
) -> Path:
    """AP-10K's photos and the three files of split 1, images dealt to them in turn.

    Ids count from 1, species by species. Photo i of a species does not show part i % 5; photo 1
    is upright, 60 x 80, the others 80 x 60.

    Args:
        root: where the folders are made.
        families: species by family.
        images: of each species, one number or a number for each.
        drawn: draw the photos; else they are empty files.
    """
    species = [(name, family) for family, names in families.items() for name in names]
    counts = [images] * len(species) if isinstance(images, int) else images
    categories = [
        {"id": key, "name": name, "supercategory": family, "keypoints": list(KEYPOINTS)}
        for key, (name, family) in enumerate(species, start=1)
    ]
    lists: dict[str, dict[str, Any]] = {
        part: {"images": [], "annotations": [], "categories": categories} for part in FILES
    }
    number = 0
    for category, count in zip(categories, counts, strict=True):
        for index in range(count):
            number += 1
            part = lists[tuple(FILES)[number % 3]]
            width, height = pf_size(index)
            name = f"{number:012d}.jpg"
            part["images"].append(
                {"id": number, "file_name": name, "width": width, "height": height}
            )
            part["annotations"].append(annotation(number, category["id"], index))
            if drawn:
                draw_photo(root / "data" / name, width, height, seed=number)
            else:
                (root / "data").mkdir(parents=True, exist_ok=True)
                (root / "data" / name).touch()
    for part, content in lists.items():
        write(root / FILES[part], content)
    return root


def annotation(image: int, category: int, index: int) -> dict[str, Any]:
    """The official fields of photo ``index`` of a species; its id is 1000 more than the image's."""
    numbers = [
        [9 + 8 * part + index % 4, 7 + 9 * part + index % 3, 1 + part % 2]
        if part < PARTS and part != index % PARTS
        else [0, 0, 0]
        for part in range(len(KEYPOINTS))
    ]
    return {
        "id": 1000 + image, "image_id": image, "category_id": category, "iscrowd": 0,
        "bbox": [4, 5, 44 + index % 4, 40], "area": 40 * (44 + index % 4),
        "num_keypoints": PARTS - 1, "keypoints": [one for point in numbers for one in point],
    }  # fmt: skip
