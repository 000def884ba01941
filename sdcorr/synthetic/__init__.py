"""A drawn data set: figures of solids with exact keypoints and exact flow, no download.

Eight categories of small articulated models (bird, boat, car, chair, doll, fish, plane,
quadruped), each of ellipsoids, boxes and cylinders with a pattern of its own that moves with the
part. Individuals differ in proportions, tones and patterns; photos in pose, viewpoint, size, place,
light and background; some figures leave the frame, some have something in front of them, some
photos are mirrored. Left and right parts are alike, so that only the viewpoint tells them apart; on
a mirrored photo, left is what looks left.

``spair/`` has the layout of SPair-71k, ``tss/`` that of TSS. All is drawn from the seed: the same
seed gives the same photos with the same versions of sdcorr, NumPy and Pillow.

How: ``_solids`` finds which solid is in front of a pixel, ``_looks`` paints its surface,
``_figures`` names parts and keypoints, ``_animals`` and ``_things`` put figures together,
``_render`` draws one in front of ``_backgrounds``, as ``_photos`` chooses; ``_spair`` and ``_tss``
write files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdcorr import __version__
from sdcorr.errors import BadDataset
from sdcorr.synthetic._categories import CATEGORIES
from sdcorr.synthetic._folder import new_folder, write_mark
from sdcorr.synthetic._folder import read_mark as read_mark
from sdcorr.synthetic._solids import to_directions as to_directions
from sdcorr.synthetic._spair import Plan, write_spair
from sdcorr.synthetic._tss import tss_pairs, write_tss

MOST_PAIRS = 100_000


@dataclass(frozen=True)
class Written:
    """What a drawn set holds.

    Args:
        photos: with keypoints, in all splits.
        pairs: of the test split.
        categories: that have some.
        flow_pairs: of two views of one figure.
    """

    photos: int
    pairs: int
    categories: int
    flow_pairs: int


def write_synthetic(
    out: Path, seed: int = 0, pairs: int = 200, watch: Callable[[int, int], None] = lambda *_: None
) -> Written:
    """Draw a set into a new folder, which appears when it is whole.

    Args:
        out: a folder that is not there yet, or empty.
        seed: of all that is drawn, at least 0.
        pairs: of the test split, 1 to ``MOST_PAIRS``. The other splits have a quarter of it each,
            and there are a tenth as many pairs with flow, at least 3.
        watch: told how many of how many pictures are drawn, after each.

    Raises:
        BadDataset: the seed or the number of pairs is out of range.
        BadOutput: the folder holds something, or cannot be written.
    """
    if seed < 0:
        raise BadDataset(f"expected a seed of at least 0, got {seed}")
    if not 1 <= pairs <= MOST_PAIRS:
        raise BadDataset(f"expected 1 to {MOST_PAIRS} pairs, got {pairs}")
    plan, flows = Plan(seed, pairs), tss_pairs(pairs)
    drawn, total = 0, plan.photos() + flows

    def step() -> None:
        nonlocal drawn
        drawn += 1
        watch(drawn, max(drawn, total))

    with new_folder(out) as folder:
        write_spair(folder / "spair", plan, step)
        photos = drawn
        write_tss(folder / "tss", seed, flows, step)
        for root in ("spair", "tss"):
            write_mark(folder / root, seed, pairs)
        (folder / "README.md").write_text(_readme(plan, flows), encoding="utf-8")
    return Written(photos, pairs, len(plan.per_category("test")), flows)


def _readme(plan: Plan, flows: int) -> str:
    """What the folder says of itself."""
    return f"""# Drawn figures with exact correspondence

Drawn by sdcorr {__version__}, `sdcorr data synth --seed {plan.seed} --pairs {plan.pairs}`: no
photo was taken, nothing was fetched. To the extent possible under law, all rights are waived
(CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/).

* `spair/`: the layout of SPair-71k. {plan.pairs} pairs in the test split, a quarter of it in val
  and in trn, of {", ".join(CATEGORIES)}.
* `spair/Segmentation`: 255 where the figure shows, 0 elsewhere.
* `spair/PartMaps`, which SPair-71k does not have: red is the number of the part, 0 is background;
  green and blue are the direction of the place from the part's centre, in the frame of its half
  axes, as `sdcorr.synthetic.to_directions` reads them.
* `spair/names.json`, likewise: what keypoints and parts are called, by id and number.
* `drawn.json` in both: that they are drawn, so that runs on them are told from others.
* `tss/`: the layout of TSS. {flows} pairs of two views of one figure; the masks are where both show
  it, and there the flow is exact.
"""
