"""SPair-71k (Min, Lee, Ponce, Cho, 2019), in its official layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from sdcorr.datasets._reading import Report, check_part, read_json, to_points
from sdcorr.geometry import Size
from sdcorr.pairs import Pair, Threshold

SPLITS = ("test", "val", "trn")
LAYOUTS = ("large", "small")
GRADES = ("easy", "medium", "hard")  # of viewpoint and scale variation, 0 to 2
ENDS = ("none", "source", "target", "both")  # who is truncated or occluded, 0 to 3


@dataclass(frozen=True)
class Spair:
    """SPair-71k: 18 categories of PASCAL VOC, 12,234 test pairs.

    Reads ``Layout/LAYOUT/SPLIT.txt``, ``PairAnnotation/SPLIT``, ``ImageAnnotation`` (for points
    that only the source shows) and ``JPEGImages``. A pair's id is the line of the layout file;
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
        annotated = self.root / "PairAnnotation" / self.split
        report.need_folders("JPEGImages", "ImageAnnotation", "PairAnnotation", "Layout")
        report.need_folders(f"PairAnnotation/{self.split}")
        list_file = report.need_list([self.root / "Layout" / self.layout], [f"{self.split}.txt"])
        lines = list_file.read_text(encoding="utf-8").split()
        names = list(dict.fromkeys(line.replace("%3A", ":") for line in lines))
        files = {
            name: report.find(annotated, f"{name}.json", f"{name.replace(':', '%3A')}.json")
            for name in names
        }
        report.need_files(
            f"PairAnnotation/{self.split}",
            [(annotated / f"{name}.json", file is not None) for name, file in files.items()],
        )
        found = {}
        for name, file in files.items():
            if file is not None:
                with report.damage(file):
                    found[name] = read_json(file)
                    found[name]["category"], found[name]["src_imname"], found[name]["trg_imname"]
        self._need_photos(report, list(found.values()))
        report.close()
        pairs = []
        keypoints = cache(self._keypoints)
        for name, annotation in found.items():
            with report.damage(annotated / f"{name}.json"):
                every = keypoints(annotation["category"], annotation["src_imname"])
                pairs.append(_pair(self.root, name, annotation, every))
        report.close()
        return pairs

    def _need_photos(self, report: Report, annotations: Sequence[dict[str, Any]]) -> None:
        for folder, ending in (("JPEGImages", ".jpg"), ("ImageAnnotation", ".json")):
            wanted = []
            for one in annotations:
                for name in (one["src_imname"], one["trg_imname"]):
                    home = self.root / folder / one["category"]
                    file = f"{Path(name).stem}{ending}" if folder == "ImageAnnotation" else name
                    wanted.append((home / file, report.find(home, file) is not None))
            report.need_files(folder, wanted)

    def _keypoints(self, category: str, photo: str) -> dict[str, Any]:
        """All keypoints of a photo by id, without those that are null."""
        file = self.root / "ImageAnnotation" / category / f"{Path(photo).stem}.json"
        try:
            every = read_json(file)["kps"]
            return {name: point for name, point in every.items() if point is not None}
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{file} holds no keypoints: {error}") from error


def _pair(root: Path, name: str, annotation: dict[str, Any], every: dict[str, Any]) -> Pair:
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
        source_only=to_points(list(lacking.values())),
        source_size=_size(annotation["src_imsize"]),
        target_size=_size(annotation["trg_imsize"]),
        target_box=(x0, y0, x1, y1),
        difficulty=_difficulty(
            annotation["viewpoint_variation"], annotation["scale_variation"],
            annotation["truncation"], annotation["occlusion"],
        ),
    )  # fmt: skip


def _size(values: Sequence[int]) -> Size:
    width, height = values[:2]
    return Size(int(height), int(width))


@cache  # thousands of pairs share some hundred combinations
def _difficulty(viewpoint: int, scale: int, truncation: int, occlusion: int) -> dict[str, str]:
    return {
        "viewpoint": GRADES[viewpoint],
        "scale": GRADES[scale],
        "truncation": ENDS[truncation],
        "occlusion": ENDS[occlusion],
    }


PLUGIN = Spair
