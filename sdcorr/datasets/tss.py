"""TSS (Taniai, Sinha, Sato, CVPR 2016): dense flow between objects, in its official layout."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sdcorr.datasets._reading import Report
from sdcorr.flo import read_flo_size
from sdcorr.flow_pairs import FlowPair, read_mask_numbers
from sdcorr.geometry import Size
from sdcorr.pairs import Threshold

SUBSETS = ("FG3DCar", "JODS", "PASCAL")
FILES = (
    "image1.png", "image2.png", "flow1.flo", "flow2.flo", "mask1.png", "mask2.png", "flip_gt.txt",
)  # fmt: skip
FLIPS = {"0": "unflipped", "1": "flipped"}
WORDS = {"busd": "bus", "bike": "bicycle", "plane": "aeroplane", "suv": "car"}


@dataclass(frozen=True)
class Tss:
    """TSS: 400 pairs of photos in three subsets, the flow annotated in both directions.

    Reads every folder of pairs below ``FG3DCar``, ``JODS`` and ``PASCAL``, sorted, each in both
    directions: in ``JODS/car_01_02/1-2`` photo 1 is the source, and the flow of ``flow1.flo`` from
    it to photo 2 is judged where ``mask1.png`` is above 0. Tables go by subset. What a prompt may
    say is the name before the number: ``car`` for all of FG3DCar. Each pair's folder holds its own
    copy of both photos; copies with the same bytes are one photo, which is encoded once and drawn
    as one by the bootstrap.

    Args:
        root: the folder that holds the three.
    """

    root: Path
    threshold: ClassVar[Threshold] = "image"
    alphas: ClassVar[tuple[float, ...]] = (0.05,)

    def pairs(self) -> list[FlowPair]:
        """The pairs, sorted by subset and name; see ``Dataset.pairs``.

        Masks are read and ``.flo`` files looked at as far as their sizes: a cut file is found here.
        """
        report = Report("TSS", self.root)
        report.need_folders(*SUBSETS)
        homes = [home for subset in SUBSETS for home in self._homes(report, subset)]
        wanted = [(home, name) for home in homes for name in FILES]
        there = [(home / name, (home / name).is_file()) for home, name in wanted]
        report.need_files("files of pairs", there)
        report.close()
        photos: dict[Path, Path] = {}
        with report.damage(self.root):
            photos = _first_copies([home / f"image{end}.png" for home in homes for end in "12"])
        report.close()
        pairs: list[FlowPair] = []
        for home in homes:
            with report.damage(home):
                pairs += _both_ways(home, photos)
        report.close()
        return pairs

    def _homes(self, report: Report, subset: str) -> list[Path]:
        """The folders of a subset's pairs."""
        folder = self.root / subset
        homes = sorted(one for one in folder.glob("[!.]*") if one.is_dir())
        if folder.is_dir() and not homes:
            report.note(f"{subset} holds no folder of a pair")
        for inner in self.root.glob(f"*/{subset}") if not folder.is_dir() else ():
            report.note(f"did you mean its folder {inner.parent.name}?")
        return homes


def _first_copies(photos: Sequence[Path]) -> dict[Path, Path]:
    """For each photo the first that has the same bytes."""
    lengths = Counter(photo.stat().st_size for photo in photos)
    first: dict[str | Path, Path] = {}
    found = {}
    for photo in photos:
        key: str | Path = photo
        if lengths[photo.stat().st_size] > 1:
            with photo.open("rb") as file:
                key = hashlib.file_digest(file, "sha256").hexdigest()
        found[photo] = first.setdefault(key, photo)
    return found


def _both_ways(home: Path, photos: Mapping[Path, Path]) -> Iterator[FlowPair]:
    """A pair from photo 1 to photo 2, and back."""
    subset = home.parent.name
    kind = home.name.partition("_")[0]
    flip = (home / "flip_gt.txt").read_text(encoding="utf-8").strip()
    if flip not in FLIPS:
        raise ValueError(f"expected 0 or 1 in flip_gt.txt, got {flip[:20]!r}")
    sizes = {end: _size(home, end) for end in "12"}
    for source, target in ("12", "21"):
        yield FlowPair(
            id=f"{subset}/{home.name}/{source}-{target}",
            category=subset,
            subject="car" if subset == "FG3DCar" else WORDS.get(kind, kind),
            source=photos[home / f"image{source}.png"],
            target=photos[home / f"image{target}.png"],
            flow=home / f"flow{source}.flo",
            mask=home / f"mask{source}.png",
            source_size=sizes[source],
            target_size=sizes[target],
            difficulty={"flip": FLIPS[flip]},
        )


def _size(home: Path, end: str) -> Size:
    """Size of a photo as its flow and its mask have it."""
    size = read_flo_size(home / f"flow{end}.flo")
    mask = Size(*read_mask_numbers(home / f"mask{end}.png").shape)
    if mask != size:
        raise ValueError(
            f"mask{end}.png is {mask.height} x {mask.width} (high x wide), flow{end}.flo "
            f"{size.height} x {size.width}"
        )
    return size


PLUGIN = Tss
