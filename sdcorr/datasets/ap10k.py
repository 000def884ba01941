"""AP-10K (Yu et al., 2021), paired by the rules of Zhang et al., 2024."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sdcorr.datasets._ap10k_files import HOME, PHOTOS, read_crowd, read_lists
from sdcorr.datasets._ap10k_rules import (
    LEAST,
    MOST,
    PROTOCOLS,
    SLICES,
    Couple,
    category_of,
    find_couples,
    name_of,
    of_split,
)
from sdcorr.datasets._reading import Report, check_part
from sdcorr.errors import BadDataset
from sdcorr.pairs import Pair, Threshold


@dataclass(frozen=True)
class Ap10k:
    """AP-10K: photos of 54 species of 23 families, paired by rule.

    Reads ``annotations/ap10k-{train,test,val}-split1.json`` as one list, and names photos in
    ``data``. There is no list of pairs: they follow from the annotations alone, sorted.

    * A photo counts for its first annotation, in the order train, test, val of the files, if
      that one says ``num_keypoints`` >= 3. A part is shown where its v is 1 or 2.
    * Of each species, by image id, the last 30 photos are test, the 20 before them val, the rest
      trn. A species with fewer photos lacks trn, then val.
    * The two photos of a pair show at least 3 parts both; the one with the lower id is the source.

    Published lists were drawn in the order of a folder, which differs from disk to disk: the rules
    are theirs, the draw is not. Where there are more pairs than the rule takes, it takes those
    whose SHA-256 of ``42:id`` is lowest. Coordinates are used as they stand.

    Args:
        root: the folder with ``annotations`` and ``data``.
        split: ``"test"``, ``"val"`` or ``"trn"``; only pairs within a species have the last.
        protocol: ``"intra-species"``, all pairs within a species (of trn at most 50 for each photo
            that the species has there); ``"cross-species"``, at most 900 of test and 400 of val in
            each family; or ``"cross-family"``, at most 30 and 20 for every two families.
        crowd: text file of image ids, one a line, whose photos show several animals and are left
            out; None leaves none out. Published numbers left out 1847 photos.

    Raises:
        UnknownName: there is no such split or protocol.
        BadDataset: the protocol does not have the split.
    """

    root: Path
    split: str = "test"
    protocol: str = "intra-species"
    crowd: Path | None = None
    threshold: ClassVar[Threshold] = "box"
    alphas: ClassVar[tuple[float, ...]] = (0.1, 0.05, 0.01)

    def __post_init__(self) -> None:
        check_part("split", self.split, tuple(SLICES))
        check_part("protocol", self.protocol, PROTOCOLS)
        if self.split not in MOST.get(self.protocol, SLICES):
            raise BadDataset(
                f"AP-10K has no {self.protocol} pairs of split {self.split}; choose split test or "
                "val, or protocol intra-species"
            )

    def pairs(self) -> list[Pair]:
        """The pairs, sorted by category and image ids; see ``Dataset.pairs``."""
        report = Report("AP-10K", self.root)
        report.need_folders(HOME, PHOTOS)
        crowd = frozenset() if self.crowd is None else read_crowd(self.crowd)
        lists = read_lists(report, self.root)
        if strange := sorted(crowd - lists.images):
            more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
            raise BadDataset(
                f"{self.crowd} lists {strange[0]}{more}, no image of {self.root}; expected ids of "
                "images, not of annotations"
            )
        counted = []
        for one in lists.photos:
            with report.damage(one.file):
                if one.id not in crowd and one.shown >= LEAST:
                    counted.append(one)
        photos = []
        for one in of_split(counted, self.split):
            with report.damage(one.file):
                photos.append(one.read(self.root, len(lists.keypoints)))
        report.close()
        couples = find_couples(photos, self.protocol, self.split)
        if not couples:
            raise BadDataset(
                f"{self.root} has no {self.protocol} pairs of split {self.split}: of each species, "
                "the last 30 photos are test, the 20 before them val, the rest trn"
            )
        self._check_photos(report, couples)
        return [_pair(one, self.protocol, lists.keypoints) for one in couples]

    def _check_photos(self, report: Report, couples: list[Couple]) -> None:
        used = {photo.id: photo.path for couple in couples for photo in couple}
        paths = [used[key] for key in sorted(used)]
        there = [(path, report.find(path.parent, path.name) is not None) for path in paths]
        report.need_files(PHOTOS, there)
        report.close()


def _pair(couple: Couple, protocol: str, keypoints: tuple[str, ...]) -> Pair:
    source, target = couple
    joint = source.visible & target.visible
    alone = source.visible & ~joint
    return Pair(
        id=name_of(couple, protocol),
        category=category_of(source, protocol),
        # one prompt goes to both photos, and these show different species
        subject=source.species if source.species == target.species else "animal",
        source=source.path,
        target=target.path,
        keypoint_ids=tuple(name for name, one in zip(keypoints, joint, strict=True) if one),
        source_keypoints=source.keypoints[joint],
        target_keypoints=target.keypoints[joint],
        source_only_ids=tuple(name for name, one in zip(keypoints, alone, strict=True) if one),
        source_only=source.keypoints[alone],
        source_size=source.size,
        target_size=target.size,
        target_box=target.box,
    )


PLUGIN = Ap10k
