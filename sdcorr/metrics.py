"""Keypoint errors and PCK, the percentage of correct keypoints, in float64.

A keypoint is correct when its error is at most alpha times the side of a threshold frame. PCK is
a family; every number states

* the frame: longer side of the target's ``box``, of the box around its ``keypoints``, or of the
  target ``image``, in original target pixels;
* the comparison: ``<=`` (SPair-71k, Min et al. 2019; HPF, Min et al. ICCV 2019), or ``<``;
* the mean: *per image* averages the share of correct keypoints of each pair over pairs, *per
  point* pools the keypoints of all pairs, *macro* averages categories with equal weight.

Convention:
    P pairs, K keypoints, A alphas, C categories, R bootstrap replicates. Points are (x, y).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FEWEST = 5  # images; fewer say nothing of how much a category varies


def keypoint_errors(predicted: npt.ArrayLike, annotated: npt.ArrayLike) -> Floats:
    """Euclidean distance in pixels between points ``(N, 2)``: ``(N,)``.

    Example:
        >>> keypoint_errors([[3.0, 4.0]], [[0.0, 0.0]]).tolist()
        [5.0]
    """
    gap = np.asarray(predicted, np.float64) - np.asarray(annotated, np.float64)
    return np.hypot(gap[:, 0], gap[:, 1])


def box_side(box: Sequence[float]) -> float:
    """Longer side of a box (x0, y0, x1, y1), without the +1 of pixel counting.

    Example:
        >>> box_side((36, 92, 500, 200))
        464.0
    """
    x0, y0, x1, y1 = map(float, box)
    return max(x1 - x0, y1 - y0)


def keypoint_box_side(points: npt.ArrayLike) -> float:
    """Longer side of the box around points ``(N, 2)``; 0 for a single point."""
    values = np.asarray(points, np.float64)
    return float((values.max(axis=0) - values.min(axis=0)).max())


def correct(
    errors: npt.ArrayLike, sides: npt.ArrayLike, alphas: npt.ArrayLike, strict: bool = False
) -> Bools:
    """Which keypoints are correct at which alpha: ``(K, A)``.

    Args:
        errors: ``(K,)`` pixels.
        sides: ``(K,)`` pixels, of the threshold frame.
        alphas: ``(A,)`` tolerances.
        strict: ``<`` in place of ``<=``.

    Example:
        An error of exactly the threshold:

        >>> correct([10.0], [100.0], [0.1]).tolist(), correct([10.0], [100.0], [0.1], True).tolist()
        ([[True]], [[False]])
    """
    thresholds = np.multiply.outer(np.asarray(sides, np.float64), np.asarray(alphas, np.float64))
    distances = np.asarray(errors, np.float64)[:, None]
    return distances < thresholds if strict else distances <= thresholds


def hits_of_pairs(is_correct: Bools, pair: Ints, pairs: int) -> tuple[Floats, Floats]:
    """Correct keypoints ``(P, A)`` and keypoints ``(P,)`` of each pair.

    Args:
        is_correct: ``(K, A)``.
        pair: ``(K,)`` index of each keypoint's pair, each of them in it at least once.
        pairs: P.
    """
    hits = np.zeros((pairs, is_correct.shape[1]))
    np.add.at(hits, pair, is_correct.astype(np.float64))
    return hits, np.bincount(pair, minlength=pairs).astype(np.float64)


def per_image(hits: Floats, counts: Floats) -> Floats:
    """PCK per image, 0 to 1: mean over pairs of the share of their correct keypoints, ``(A,)``.

    Example:
        2 of 3 and 4 of 4:

        >>> float(per_image(np.array([[2.0], [4.0]]), np.array([3.0, 4.0]))[0])
        0.8333333333333333
    """
    shares: Floats = hits / counts[:, None]
    mean: Floats = shares.mean(axis=0)
    return mean


def per_point(hits: Floats, counts: Floats) -> Floats:
    """PCK per point, 0 to 1: share of correct keypoints of all pairs together, ``(A,)``.

    Example:
        >>> float(per_point(np.array([[2.0], [4.0]]), np.array([3.0, 4.0]))[0])
        0.8571428571428571
    """
    share: Floats = hits.sum(axis=0) / counts.sum()
    return share


def roc_auc(scores: npt.ArrayLike, positive: Bools) -> float:
    """Area under the ROC curve: how often a positive has the higher score; ties count half.

    Args:
        scores: ``(K,)``.
        positive: ``(K,)``; NaN comes out where all or none are.

    Example:
        >>> roc_auc([0.9, 0.8, 0.3], np.array([True, False, True]))
        0.5
    """
    _, rank, count = np.unique(
        np.asarray(scores, np.float64), return_inverse=True, return_counts=True
    )
    ranks = (np.cumsum(count) - (count - 1) / 2)[rank]  # from 1, the mean of equals
    hits, misses = int(positive.sum()), int((~positive).sum())
    if hits == 0 or misses == 0:
        return float("nan")
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def risk_coverage(confidence: npt.ArrayLike, right: Bools) -> Floats:
    """Share of wrong matches among the k most confident ones, for k = 1 to K: ``(K,)``.

    Equal confidence is taken in the order of the mean: each of a group of equals counts as wrong
    as the group is. The mean of the curve is the area under it, AURC (Geifman et al., ICLR 2019).

    Example:
        >>> risk_coverage([0.9, 0.1, 0.5, 0.7], np.array([True, False, True, False])).tolist()
        [0.0, 0.5, 0.3333333333333333, 0.5]
    """
    _, group, count = np.unique(
        -np.asarray(confidence, np.float64), return_inverse=True, return_counts=True
    )
    wrong = np.bincount(group, weights=~right) / count
    risks: Floats = np.cumsum(wrong[np.sort(group)]) / np.arange(1, len(group) + 1)
    return risks


def calibration_error(confidence: npt.ArrayLike, right: Bools, bins: int = 10) -> float:
    """Expected calibration error: mean of |share of right - mean confidence| over equal bins.

    Bins are of equal width over 0 to 1 and weighted by their matches (Guo et al., ICML 2017).

    Example:
        Half of those of 0.7 are right:

        >>> round(calibration_error([0.7, 0.7], np.array([True, False])), 3)
        0.2
    """
    values = np.asarray(confidence, np.float64)
    which = np.minimum((values * bins).astype(np.int64), bins - 1)
    gap = np.bincount(which, weights=right - values, minlength=bins)
    return float(np.abs(gap).sum() / len(values))


@dataclass(frozen=True, eq=False)
class Sample:
    """Pairs as the bootstrap sees them.

    Args:
        hits: ``(P, A)`` correct keypoints.
        counts: ``(P,)`` keypoints.
        category: ``(P,)`` index of the category, each of 0..C-1 in it.
        source: ``(P,)`` index of the source image; an image may be source and target.
        target: ``(P,)`` index of the target image.
    """

    hits: Floats
    counts: Floats
    category: Ints
    source: Ints
    target: Ints


@dataclass(frozen=True, eq=False)
class Replicates:
    """PCK of each bootstrap draw, 0 to 1; NaN where a draw left no pair.

    Args:
        overall: ``(R, 4, A)``: per image, per point, and the macro mean of each.
        categories: ``(R, C, 2, A)``, per image and per point.
        images: ``(C,)`` images of each category.
    """

    overall: Floats
    categories: Floats
    images: Ints


def bootstrap(sample: Sample, replicates: int = 1000, seed: int = 0) -> Replicates:
    """PCK under resampling of images, with replacement, within each category.

    Images, not pairs: some 25 images of a category make several hundred pairs, which are far from
    independent. A pair of images drawn a and b times counts a * b times (the node bootstrap of
    Snijders and Borgatti, 1999; for two-way data Owen, 2007).

    Args:
        sample: the pairs.
        replicates: R.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    shares = sample.hits / sample.counts[:, None]  # (P, A)
    ones = np.ones_like(sample.counts)
    columns = np.column_stack([shares, ones, sample.hits, sample.counts])  # (P, 2A + 2)
    sums, images = [], []
    for category in range(int(sample.category.max()) + 1):
        member = sample.category == category
        ends = np.stack([sample.source[member], sample.target[member]])  # (2, P_c)
        names, index = np.unique(ends, return_inverse=True)
        source, target = index.reshape(ends.shape)
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
        weights = (drawn[:, source] * drawn[:, target]).astype(np.float64)  # (R, P_c)
        sums.append(weights @ columns[member])
        images.append(len(names))
    every = np.stack(sums, axis=1)  # (R, C, 2A + 2)
    categories = _means(every)
    with np.errstate(invalid="ignore"):
        macro = np.nansum(categories, axis=1) / np.isfinite(categories).sum(axis=1)
    overall = np.concatenate([_means(every.sum(axis=1)), macro], axis=1)
    return Replicates(overall, categories, np.array(images))


def interval(values: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Percentile interval over the first axis, draws that left no pair (NaN) set aside.

    NaN where all did.
    """
    tail = 50 * (1 - level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN
        low, high = np.nanpercentile(values, [tail, 100 - tail], axis=0)
    return low, high


def _means(sums: Floats) -> Floats:
    """Per image and per point, ``(..., 2, A)``, of the sums of ``bootstrap``, ``(..., 2A + 2)``."""
    half = sums.shape[-1] // 2
    image, point = sums[..., :half], sums[..., half:]
    with np.errstate(invalid="ignore"):  # 0 / 0: no pair
        return np.stack(
            [image[..., :-1] / image[..., -1:], point[..., :-1] / point[..., -1:]], axis=-2
        )
