"""PF-PASCAL (Ham, Cho, Schmid, Ponce, 2016), as published or repacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sdcorr.datasets._reading import Report, check_part, find_photo, read_rows, to_points
from sdcorr.pairs import Box, Pair, Points, Threshold

CATEGORIES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
LISTS = {
    "test": ("test_pairs_pf_pascal.csv", "test_pairs.csv"),
    "val": ("val_pairs_pf_pascal.csv", "val_pairs.csv"),
    "trn": ("train_pairs_pf_pascal.csv", "trn_pairs.csv", "train_pairs.csv"),
}
CLOSE = 1.0  # px; how far a list's points may lie from the annotations'


@dataclass(frozen=True)
class PfPascal:
    """PF-PASCAL: 20 categories of PASCAL VOC, 299 test pairs.

    Reads a split's list (beside or inside ``image_pairs``), the photos it names, and their
    ``Annotations/CATEGORY/NAME.mat``, below ``PF-dataset-PASCAL`` or right below the root. A
    keypoint is joint where both annotations have it. The photos are the rescaled ones of the
    data set, at most some 300 px; originals of PASCAL VOC do not fit the annotations. Lists for
    training name pairs more than once and mirrored; here each pair stands once, unmirrored.

    Args:
        root: the folder with the list.
        split: ``"test"``, ``"val"`` or ``"trn"``; many test photos are also in the other two.

    Raises:
        UnknownName: there is no such split.
    """

    root: Path
    split: str = "test"
    threshold: ClassVar[Threshold] = "image"
    alphas: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15)

    def __post_init__(self) -> None:
        check_part("split", self.split, tuple(LISTS))

    def pairs(self) -> list[Pair]:
        """The pairs in the order of the list; see ``Dataset.pairs``."""
        report = Report("PF-PASCAL", self.root)
        list_file = report.need_list([".", "image_pairs"], LISTS[self.split])
        rows: list[_Row] = []
        with report.damage(list_file):
            rows = [_Row.read(cells) for cells in read_rows(list_file)]
        report.close()
        rows = list(dict.fromkeys(row for row in rows if not row.mirrored))
        photos = {name: find_photo(self.root, name) for row in rows for name in row.photos}
        report.need_files("photos", photos.values())
        annotations = _read_annotations(report, rows, photos)
        report.close()
        pairs = []
        for row in rows:
            source, target = (annotations[name, row.category] for name in row.photos)
            paths = [photos[name][0] for name in row.photos]
            with report.damage(target.file):
                pair = _pair(row, paths, source, target)
                pairs.append(pair)
                with report.damage(list_file):
                    row.check(pair)
        report.close()
        return pairs


@dataclass(frozen=True)
class _Row:
    """A line of a list; ``listed`` holds XA, YA, XB, YB, each ``;``-joined, in test lists."""

    photos: tuple[str, str]
    category: str
    mirrored: bool
    listed: tuple[str, ...]

    @classmethod
    def read(cls, cells: Sequence[str]) -> _Row:
        if len(cells) not in (4, 7) or not cells[2].strip().isdecimal():
            raise ValueError(f"expected photos, class and flip or points, got {','.join(cells)}")
        number = int(cells[2])  # 1-based
        if not 1 <= number <= len(CATEGORIES):
            raise ValueError(f"expected a class in 1..{len(CATEGORIES)}, got {number}")
        listed = tuple(cells[3:]) if len(cells) == 7 else ()
        if not listed and float(cells[3]) not in (0, 1):
            raise ValueError(f"expected flip 0 or 1, got {cells[3]!r}")
        mirrored = not listed and float(cells[3]) == 1
        return cls((cells[0], cells[1]), CATEGORIES[number - 1], mirrored, listed)

    def check(self, pair: Pair) -> None:
        """Raise ValueError where the list's own points are not those of the annotations."""
        if not self.listed:
            return
        values = [[float(number) for number in cell.split(";")] for cell in self.listed]
        if len({len(numbers) for numbers in values}) > 1:
            raise ValueError(f"as many XA, YA, XB and YB are expected for {pair.id}")
        listed = np.array(values).T  # (N, 4)
        annotated = np.hstack([pair.source_keypoints, pair.target_keypoints])
        gaps = np.abs(listed[:, None] - annotated[None]).max(axis=2)  # (N, N)
        if len(listed) != len(annotated) or (gaps.min(axis=1) > CLOSE).any():
            raise ValueError(
                f"its points of {pair.id} are not those of Annotations; are both of one release?"
            )


@dataclass(frozen=True, eq=False)
class _Annotation:
    """Keypoints ``(N, 2)`` of a photo, NaN where a part is not seen, and the object's box."""

    file: Path
    keypoints: Points
    box: Box

    @classmethod
    def read(cls, file: Path) -> _Annotation:
        from scipy.io import loadmat

        values: dict[str, Any] = loadmat(file)
        x0, y0, x1, y1 = np.asarray(values["bbox"], np.float64).ravel().tolist()
        return cls(file, to_points(values["kps"]), (x0, y0, x1, y1))


def _read_annotations(
    report: Report, rows: Sequence[_Row], photos: Mapping[str, tuple[Path, bool]]
) -> dict[tuple[str, str], _Annotation]:
    """By photo and category, for a photo may stand in several; missing photos have none."""
    files = {}
    for row in rows:
        for name in row.photos:
            photo, there = photos[name]
            if there:
                home = photo.parent.parent / "Annotations" / row.category
                files[name, row.category] = home / f"{photo.stem}.mat"
    report.need_files("Annotations", [(file, file.is_file()) for file in files.values()])
    found = {}
    for key, file in files.items():
        if file.is_file():
            with report.damage(file):
                found[key] = _Annotation.read(file)
    return found


def _pair(row: _Row, photos: Sequence[Path], source: _Annotation, target: _Annotation) -> Pair:
    here, other = source.keypoints, target.keypoints
    if len(here) != len(other):
        raise ValueError(f"{len(other)} keypoints, but {len(here)} in {source.file.name}")
    there = np.isfinite(here).all(axis=1)
    joint = there & np.isfinite(other).all(axis=1)
    alone = there & ~joint
    return Pair(
        id=f"{photos[0].stem}-{photos[1].stem}:{row.category}",
        category=row.category,
        subject=row.category,
        source=photos[0],
        target=photos[1],
        keypoint_ids=tuple(map(str, np.flatnonzero(joint))),
        source_keypoints=here[joint],
        target_keypoints=other[joint],
        source_only_ids=tuple(map(str, np.flatnonzero(alone))),
        source_only=here[alone],
        target_box=target.box,
    )


PLUGIN = PfPascal
