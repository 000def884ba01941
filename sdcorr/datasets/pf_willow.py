"""PF-WILLOW (Ham, Cho, Schmid, Ponce, 2016), as published or repacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from sdcorr.datasets._reading import Report, find_photo, read_rows
from sdcorr.pairs import Pair, Threshold

LISTS = ("test_pairs.csv", "test_pairs_pf.csv")
POINTS = 10  # of every photo, all of them always annotated
IDS = tuple(map(str, range(POINTS)))


@dataclass(frozen=True)
class PfWillow:
    """PF-WILLOW: 10 classes of 10 photos, 900 pairs of 10 keypoints, one split.

    Reads the list ``test_pairs.csv`` or ``test_pairs_pf.csv`` and the photos it names, below
    ``PF-dataset`` or right below the root. 30 of the photos stand in two classes, so 780 of the
    pairs are distinct. There is no object box: the threshold is taken from the keypoints' box.

    Args:
        root: the folder with the list.
    """

    root: Path
    threshold: ClassVar[Threshold] = "keypoints"
    alphas: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.15)

    def pairs(self) -> list[Pair]:
        """The pairs in the order of the list; see ``Dataset.pairs``."""
        report = Report("PF-WILLOW", self.root)
        list_file = report.need_list(["."], LISTS)
        rows: list[list[str]] = []
        with report.damage(list_file):
            rows = read_rows(list_file)
            if wrong := [row for row in rows if len(row) != 2 + 4 * POINTS]:
                raise ValueError(f"expected {2 + 4 * POINTS} columns, got {len(wrong[0])}")
        report.close()
        photos = {name: find_photo(self.root, name) for row in rows for name in row[:2]}
        report.need_files("photos", list(photos.values()))
        pairs = []
        for row in rows:
            with report.damage(list_file):
                pairs.append(_pair(row, photos[row[0]][0], photos[row[1]][0]))
        report.close()
        return pairs


def _pair(row: Sequence[str], source: Path, target: Path) -> Pair:
    folder = source.parent.name
    values = np.array(list(map(float, row[2:]))).reshape(2, 2, POINTS)  # photo, axis, point
    return Pair(
        id=f"{source.stem}-{target.stem}:{folder}",
        category=folder,
        subject=folder.partition("(")[0],
        source=source,
        target=target,
        keypoint_ids=IDS,
        source_keypoints=values[0].T,
        target_keypoints=values[1].T,
    )


PLUGIN = PfWillow
