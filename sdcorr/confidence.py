"""How likely a match is right, from the evidence that it carries: a small logistic model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sdcorr.errors import BadRecipe
from sdcorr.fields import check
from sdcorr.geometry import Size
from sdcorr.pairs import Threshold
from sdcorr.types import Matches

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
EVIDENCE = ("score", "margin", "peak", "cycle")
LARGEST = 1e6  # coefficient; beyond it, sums of finite ones are not
NO_ELSEWHERE = 1.0  # margin in place of an infinite one
UNIT = 0.01  # of the photo's longer side: cycle errors below it are all small


@dataclass(frozen=True)
class Calibration:
    """Coefficients of ``1 / (1 + exp(-(bias + sum of coefficient * evidence)))``.

    Args:
        bias: of the sum.
        score: coefficient of the similarity.
        margin: of the margin to the best place elsewhere.
        peak: of the peak above the mean.
        cycle: of ``log(1 + cycle error / 1 % of the source photo's longer side)``.
        alpha: a match counts as right whose error is at most this share of the side
        threshold: of the target's ``box``, the box around its ``keypoints``, or the ``image``.
        fitted: on what, in words.
        recipe: ``Recipe.digest`` of the recipe whose matches they were; empty is any.

    Raises:
        BadRecipe: a field is of another type, alpha is no share, or a coefficient is beyond 1e6.
    """

    bias: float
    score: float
    margin: float
    peak: float
    cycle: float
    alpha: float
    threshold: Threshold
    fitted: str = ""
    recipe: str = ""

    def __post_init__(self) -> None:
        check(self)
        if not 0 < self.alpha <= 1:
            raise BadRecipe(f"calibration: alpha must be above 0 and at most 1, got {self.alpha}")
        coefficients = (self.bias, self.score, self.margin, self.peak, self.cycle)
        if max(map(abs, coefficients)) > LARGEST:
            raise BadRecipe(f"calibration: coefficients must be within 1e6, got {coefficients}")

    def __call__(self, evidence: Floats) -> Floats:
        """Confidence ``(N,)``, 0 to 1, of evidence ``(N, 4)``, see ``evidence_of``."""
        coefficients = np.array([getattr(self, name) for name in EVIDENCE])
        logits: Floats = evidence @ coefficients + self.bias
        # exp of what is positive overflows
        odds = np.exp(-np.abs(logits))
        confidence: Floats = np.where(logits >= 0, 1, odds) / (1 + odds)
        return confidence

    def of(self, matches: Matches, source: Size) -> Tensor:
        """Confidence ``(N,)`` float32 of matches; ``source`` is the size of their photo."""
        evidence = evidence_of(
            matches.score.numpy(), matches.margin.numpy(), matches.peak.numpy(),
            matches.cycle_error.numpy(), float(max(source)),
        )  # fmt: skip
        return torch.from_numpy(self(evidence)).float()


def check_confidence(calibration: Calibration | None, least: object) -> None:
    """Refuse a least confidence that is none, or that no calibration could tell."""
    if least is None:
        return
    if calibration is None:
        raise BadRecipe(
            "these matches have no confidence to be compared with: either the recipe is not "
            "calibrated (run sdcorr calibrate on a benchmark run of it, and match with the recipe "
            "that it writes), or it was changed since, or a mask or box limits what may match, "
            "for which no calibration holds"
        )
    number = isinstance(least, int | float) and not isinstance(least, bool)
    if not number or not 0 <= least <= 1:  # type: ignore[operator]
        raise BadRecipe(f"expected a least confidence of 0 to 1, got {least!r}")


def evidence_of(
    score: npt.ArrayLike,
    margin: npt.ArrayLike,
    peak: npt.ArrayLike,
    cycle_error: npt.ArrayLike,
    side: npt.ArrayLike,
) -> Floats:
    """What a calibration reads, ``(N, 4)``, in the order of ``EVIDENCE``.

    Args:
        score: ``(N,)``, see ``Matches``; likewise margin and peak.
        margin: ``(N,)``, infinite where there is no elsewhere.
        peak: ``(N,)``.
        cycle_error: ``(N,)`` pixels of the source photo.
        side: of the source photo, the longer one, in pixels.

    Example:
        >>> evidence_of([0.9], [np.inf], [0.5], [0.0], 100.0).tolist()
        [[0.9, 1.0, 0.5, 0.0]]
    """
    margins = np.minimum(np.asarray(margin, np.float64), NO_ELSEWHERE)
    cycles = np.log1p(np.asarray(cycle_error, np.float64) / (UNIT * np.asarray(side)))
    columns = (np.asarray(score, np.float64), margins, np.asarray(peak, np.float64), cycles)
    return np.stack(np.broadcast_arrays(*columns), axis=-1)


def fit(
    evidence: Floats, right: npt.NDArray[np.bool_], alpha: float, threshold: Threshold
) -> Calibration:
    """The most likely coefficients, drawn a little towards 0 (one pseudo-observation each).

    Args:
        evidence: ``(N, 4)``.
        right: ``(N,)``, which matches are.
        alpha: what right meant, for the record.
        threshold: likewise.

    Raises:
        ValueError: all are right, or none: nothing can be learned.
    """
    if right.all() or not right.any():
        raise ValueError(f"all {len(right)} matches are {'right' if right.all() else 'wrong'}")
    from scipy.optimize import minimize  # half a second; only calibration needs it

    mean, deviation = evidence.mean(axis=0), evidence.std(axis=0)
    deviation[deviation < 1e-9] = 1  # says nothing: its coefficient stays 0
    standard = (evidence - mean) / deviation
    signs = np.where(right, 1.0, -1.0)

    def loss(values: Floats) -> tuple[float, Floats]:
        signed = signs * (standard @ values[1:] + values[0])
        slopes = -signs / (1 + np.exp(np.clip(signed, -500, 500)))
        penalty = np.concatenate([[0.0], values[1:]])
        gradient = np.concatenate([[slopes.sum()], slopes @ standard]) + penalty
        return float(np.logaddexp(0, -signed).sum() + (penalty**2).sum() / 2), gradient

    start = np.zeros(1 + len(EVIDENCE))
    start[0] = math.log(right.mean() / (1 - right.mean()))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    coefficients = found.x[1:] / deviation
    bias = float(found.x[0] - coefficients @ mean)
    named = dict(zip(EVIDENCE, coefficients.tolist(), strict=True))
    return Calibration(bias=bias, **named, alpha=alpha, threshold=threshold)
