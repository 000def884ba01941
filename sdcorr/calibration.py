"""Fit a recipe's confidence to the records of a benchmark run, and say how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdcorr.confidence import Calibration, evidence_of, fit
from sdcorr.errors import BadRun, BadScore
from sdcorr.lines import read_lines
from sdcorr.metrics import Bools, Floats, Ints, calibration_error, risk_coverage, roc_auc
from sdcorr.pairs import Threshold
from sdcorr.records import SIDES


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a run's matches carry, one row per keypoint, those that the target lacks included.

    Args:
        values: ``(K, 4)``, see ``confidence.evidence_of``.
        error: ``(K,)`` pixels of the target, NaN where it lacks the part.
        sides: ``(K,)`` pixels of the target by kind of threshold, NaN where there is none.
        objects: what the pairs show, sorted: their categories, up to a bracket, as car(G) and
            car(S) of PF-WILLOW show like things and in part the same photos.
        index: ``(K,)`` into ``objects``.
    """

    values: Floats
    error: Floats
    sides: dict[str, Floats]
    objects: tuple[str, ...]
    index: Ints

    def right(self, alpha: float, threshold: Threshold) -> Bools:
        """Which matches are within ``alpha`` of a side; none whose part the target lacks.

        Raises:
            BadScore: alpha is no share, or a pair has no such side.
        """
        if not 0 < alpha <= 1:
            raise BadScore(f"alpha must be a share of the side, above 0 and at most 1; got {alpha}")
        sides = self.sides[threshold]
        if not (sides > 0).all():
            raise BadScore(
                f"some targets have no side of the kind {threshold!r}; take the threshold from "
                f"another: {', '.join(SIDES)}"
            )
        within: Bools = self.error <= alpha * sides  # NaN is not
        return within


@dataclass(frozen=True)
class Quality:
    """How well confidence tells right from wrong.

    Args:
        matches: judged.
        accuracy: share that is right.
        half: share that is right of the more confident half.
        auc: area under the ROC curve, right against wrong.
        no_match_auc: likewise, parts that the target shows against parts that it lacks; NaN where
            it lacks none.
        aurc: area under the risk-coverage curve.
        error: expected calibration error.
    """

    matches: int
    accuracy: float
    half: float
    auc: float
    no_match_auc: float
    aurc: float
    error: float


def read_evidence(manifest: Path, records: Path) -> Evidence:
    """The evidence of a finished run, which must be whole: see ``runs.RunFolder.read``.

    Raises:
        BadRun: a file is damaged, or of a version that did not record what is needed.
    """
    objects_of = {line["pair"]: line["category"].partition("(")[0] for line in read_lines(manifest)}
    lines = [line for line in read_lines(records) if "skipped" not in line]
    try:
        columns: dict[str, Any] = {
            key: np.array([line[key] for line in lines], np.float64)
            for key in ("score", "peak", "cycle_error", "source_image")
        }
        if not all(np.isfinite(column).all() for column in columns.values()):
            raise ValueError("score, peak, cycle_error and source_image must be numbers")
        columns |= {key: _column(lines, key) for key in ("margin", "error")}
        sides = {kind: _column(lines, key) for kind, key in SIDES.items()}
        shown = [objects_of[line["pair"]] for line in lines]
    except KeyError as absent:
        raise BadRun(
            f"{records} lacks {absent.args[0]!r}, which calibration needs; run the benchmark again"
        ) from absent
    except (TypeError, ValueError) as error:
        raise BadRun(f"{records} is damaged: {error}") from error
    margin = np.nan_to_num(columns["margin"], nan=np.inf)
    values = evidence_of(
        columns["score"], margin, columns["peak"], columns["cycle_error"], columns["source_image"]
    )
    objects, index = np.unique(shown, return_inverse=True)
    return Evidence(values, columns["error"], sides, tuple(objects.tolist()), index)


def _column(lines: Sequence[Mapping[str, Any]], key: str) -> Floats:
    """Numbers, NaN for null."""
    return np.array([np.nan if line[key] is None else line[key] for line in lines], np.float64)


def calibrate(evidence: Evidence, alpha: float, threshold: Threshold) -> Calibration:
    """The confidence that a match's error is at most ``alpha`` of a side.

    Raises:
        BadScore: alpha or threshold cannot be taken, or all matches are right, or none.
    """
    try:
        return fit(evidence.values, evidence.right(alpha, threshold), alpha, threshold)
    except ValueError as error:
        raise BadScore(f"nothing to learn confidence from: {error}") from error


def crossfit(evidence: Evidence, fold: Ints, alpha: float, threshold: Threshold) -> Floats:
    """Confidence ``(K,)`` of each match, fitted on all folds but its own.

    Args:
        evidence: of K matches.
        fold: ``(K,)``.
        alpha: see ``calibrate``.
        threshold: likewise.

    Raises:
        BadScore: see ``calibrate``; of the other folds.
    """
    confidence = np.empty(len(fold))
    for one in np.unique(fold):
        own = fold == one
        others = Evidence(
            evidence.values[~own], evidence.error[~own],
            {kind: sides[~own] for kind, sides in evidence.sides.items()},
            evidence.objects, evidence.index[~own],
        )  # fmt: skip
        confidence[own] = calibrate(others, alpha, threshold)(evidence.values[own])
    return confidence


def judge(evidence: Evidence, confidence: Floats, alpha: float, threshold: Threshold) -> Quality:
    """How good a confidence ``(K,)`` is."""
    right = evidence.right(alpha, threshold)
    risks = risk_coverage(confidence, right)
    return Quality(
        matches=len(right),
        accuracy=float(right.mean()),
        half=1 - float(risks[(len(right) - 1) // 2]),
        auc=roc_auc(confidence, right),
        no_match_auc=roc_auc(confidence, ~np.isnan(evidence.error)),
        aurc=float(risks.mean()),
        error=calibration_error(confidence, right),
    )
