"""SPair-71k (Min, Lee, Ponce, Cho, 2019), in its official layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sdcorr.datasets._reading import LONGEST, Report, check_part, read_json, to_points
from sdcorr.geometry import Size
from sdcorr.pairs import Pair, Points, Threshold, no_points

SPLITS = ("test", "val", "trn")
LAYOUTS = ("large", "small")
GRADES = ("easy", "medium", "hard")
ENDS = ("none", "source", "target", "both")
# each difficulty flag: our word for it, and what its numbers mean, from 0
FLAGS = {
    "viewpoint_variation": ("viewpoint", GRADES),
    "scale_variation": ("scale", GRADES),
    "truncation": ("truncation", ENDS),
    "occlusion": ("occlusion", ENDS),
}


@dataclass(frozen=True)
class Spair:
    """SPair-71k: 18 categories of PASCAL VOC, 12,234 test pairs.

    Reads ``Layout/LAYOUT/SPLIT.txt``, ``PairAnnotation/SPLIT``, ``ImageAnnotation`` of the sources
    (for points that only they show) and ``JPEGImages``. A pair's id is the line of the layout file;
    where a file system takes no ``:``, the pair's file may be written with ``%3A``. Boxes are
    1-based and points 0-based in the files; both are used as they stand, as everywhere.

    Args:
        root: the folder with ``JPEGImages``.
        split: ``"test"``, ``"val"`` or ``"trn"``.
        layout: ``"large"``, or ``"small"``, a subset.

    Raises:
        UnknownName: there is no such split or layout.
    """

    root: Path
    split: str = "test"
    layout: str = "large"
    threshold: ClassVar[Threshold] = "box"
    alphas: ClassVar[tuple[float, ...]] = (0.1, 0.05, 0.01)

    def __post_init__(self) -> None:
        check_part("split", self.split, SPLITS)
        check_part("layout", self.layout, LAYOUTS)

    def pairs(self) -> list[Pair]:
        """The pairs in the order of the layout file; see ``Dataset.pairs``."""
        report = Report("SPair-71k", self.root)
        pair_folder = f"PairAnnotation/{self.split}"
        report.need_folders("JPEGImages", "ImageAnnotation", pair_folder)
        list_file = report.need_list([f"Layout/{self.layout}"], [f"{self.split}.txt"])
        names: list[str] = []
        with report.damage(list_file):
            lines = list_file.read_text(encoding="utf-8").split()
            names = list(dict.fromkeys(line.replace("%3A", ":") for line in lines))
            if not names:
                raise ValueError("it lists no pairs")
        annotations = self._read_annotations(report, pair_folder, names)
        keypoints = self._read_keypoints(report, [one for _, one in annotations.values()])
        report.close()
        pairs = []
        for name, (file, one) in annotations.items():
            with report.damage(file):
                pairs.append(_pair(self.root, name, one, keypoints[_photos(one)[0]]))
        report.close()
        return pairs

    def _read_annotations(
        self, report: Report, folder: str, names: Sequence[str]
    ) -> dict[str, tuple[Path, dict[str, Any]]]:
        """File and content of each pair's annotation, by name."""
        home = self.root / folder
        files = {
            name: report.find(home, f"{name}.json", f"{name.replace(':', '%3A')}.json")
            for name in names
        }
        there = [(home / f"{name}.json", file is not None) for name, file in files.items()]
        report.need_files(folder, there)
        found = {}
        for name, file in files.items():
            if file is not None:
                with report.damage(file):
                    annotation = read_json(file)
                    _photos(annotation)
                    found[name] = (file, annotation)
        return found

    def _read_keypoints(
        self, report: Report, annotations: Sequence[dict[str, Any]]
    ) -> dict[tuple[str, str], dict[str, Points]]:
        """All keypoints of each source photo, ``(1, 2)`` by id; those that are null left out."""
        photos = dict.fromkeys(photo for one in annotations for photo in _photos(one))
        report.need_files("JPEGImages", self._there(report, "JPEGImages", photos))
        sources = list(dict.fromkeys(_photos(one)[0] for one in annotations))
        names = [(category, f"{Path(name).stem}.json") for category, name in sources]
        files = self._there(report, "ImageAnnotation", names)
        report.need_files("ImageAnnotation", files)
        found = {}
        for source, (file, there) in zip(sources, files, strict=True):
            if there:
                with report.damage(file):
                    every = read_json(file)["kps"].items()
                    found[source] = {
                        name: to_points([point]) for name, point in every if point is not None
                    }
        return found

    def _there(
        self, report: Report, folder: str, names: Iterable[tuple[str, str]]
    ) -> list[tuple[Path, bool]]:
        homes = [(self.root / folder / category, name) for category, name in names]
        return [(home / name, report.find(home, name) is not None) for home, name in homes]


def _photos(annotation: dict[str, Any]) -> tuple[tuple[str, str], tuple[str, str]]:
    """Category and file name of source and target."""
    names = [annotation[key] for key in ("category", "src_imname", "trg_imname")]
    if not all(isinstance(name, str) and name == Path(name[:LONGEST]).name for name in names):
        raise ValueError(f"expected a category and two photos, got {str(names)[:200]}")
    category, source, target = names
    return (category, source), (category, target)


def _pair(root: Path, name: str, annotation: dict[str, Any], every: dict[str, Points]) -> Pair:
    category = annotation["category"]
    photos = root / "JPEGImages" / category
    ids = tuple(map(str, annotation["kps_ids"]))
    lacking = {key: point for key, point in every.items() if key not in ids}
    x0, y0, x1, y1 = map(float, annotation["trg_bndbox"])
    return Pair(
        id=name,
        category=category,
        subject=category,
        source=photos / annotation["src_imname"],
        target=photos / annotation["trg_imname"],
        keypoint_ids=ids,
        source_keypoints=to_points(annotation["src_kps"]),
        target_keypoints=to_points(annotation["trg_kps"]),
        source_only_ids=tuple(lacking),
        source_only=np.concatenate([no_points(), *lacking.values()]),
        source_size=_size(annotation["src_imsize"]),
        target_size=_size(annotation["trg_imsize"]),
        target_box=(x0, y0, x1, y1),
        difficulty=_difficulty(*(annotation[field] for field in FLAGS)),
    )


def _size(values: Sequence[int]) -> Size:
    width, height = values[:2]
    return Size(int(height), int(width))


@cache  # thousands of pairs share some hundred combinations
def _difficulty(*levels: int) -> dict[str, str]:
    words = {}
    for (field, (kind, scale)), level in zip(FLAGS.items(), levels, strict=True):
        if level not in range(len(scale)):
            raise ValueError(f"expected {field} in 0..{len(scale) - 1}, got {level!r}")
        words[kind] = scale[level]
    return words


PLUGIN = Spair
