"""When a keypoint or a pixel is correct, and how many of each pair are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sdcorr.errors import BadScore
from sdcorr.flow_records import FlowRecords
from sdcorr.metrics import Bools, Floats, correct, hits_of_pairs
from sdcorr.records import Records

AnyRecords = Records | FlowRecords
FRAMES = {
    "box": "the target's box",
    "keypoints": "the box around the target's keypoints",
    "image": "the target image",
}


@dataclass(frozen=True)
class Rule:
    """When a keypoint is correct.

    Args:
        alphas: tolerances, shares of the side.
        threshold: side of the target's ``"box"``, the box around its ``"keypoints"``, or the
            ``"image"``; always the longer one.
        strict: error ``<`` alpha times side, in place of ``<=``.

    Raises:
        BadScore: no alpha, or one outside 0..1.
    """

    alphas: tuple[float, ...]
    threshold: str
    strict: bool = False

    def __post_init__(self) -> None:
        wrong = [alpha for alpha in self.alphas if not 0 < alpha <= 1]
        if wrong or not self.alphas:
            got = f"got {wrong[0]:g}" if wrong else "got none"
            raise BadScore(f"alpha must be a share of the side, above 0 and at most 1; {got}")

    @property
    def frame(self) -> str:
        """Whose longer side it is, in words."""
        return FRAMES[self.threshold]


def hits_of(records: AnyRecords, rule: Rule) -> tuple[Floats, Floats]:
    """Correct keypoints, or pixels, ``(P, A)`` and how many there are ``(P,)`` of each pair."""
    if isinstance(records, Records):
        return hits_of_pairs(correct_keypoints(records, rule), records.pair, len(records.pairs))
    if rule.threshold != "image" or rule.strict:
        raise BadScore(
            "records of dense flow tell errors <= a share of the target image's side; take "
            "threshold image, without strict"
        )
    return records.hits(rule.alphas), records.pixels


def correct_keypoints(records: Records, rule: Rule) -> Bools:
    """Which keypoints are correct: ``(K, A)``.

    Raises:
        BadScore: the threshold cannot be taken from these records.
    """
    if rule.threshold not in records.sides:
        raise BadScore(f"threshold must be one of {', '.join(records.sides)}")
    sides = records.sides[rule.threshold]
    if np.isnan(sides).any():
        raise BadScore(
            "these pairs have no annotated object box; take the threshold from keypoints or image"
        )
    if (sides <= 0).any():
        count = int((sides <= 0).sum())
        raise BadScore(
            f"in {count} of {len(sides)} pairs the longer side of {rule.frame} is 0; take the "
            "threshold from another"
        )
    return correct(records.error, sides[records.pair], rule.alphas, rule.strict)


def same_annotation(one: AnyRecords, other: AnyRecords, rule: Rule) -> bool:
    """Whether two records of the same pairs, in one order, are of the same annotation."""
    same = one.categories == other.categories and np.array_equal(one.category, other.category)
    if isinstance(one, FlowRecords) and isinstance(other, FlowRecords):
        return same and all(
            np.array_equal(getattr(one, name), getattr(other, name))
            for name in ("annotation", "pixels", "side")
        )
    return (
        same
        and isinstance(one, Records)
        and isinstance(other, Records)
        and np.array_equal(one.pair, other.pair)
        and np.array_equal(one.keypoint, other.keypoint)
        and np.array_equal(one.sides[rule.threshold], other.sides[rule.threshold], equal_nan=True)
    )
