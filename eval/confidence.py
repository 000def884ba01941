"""How well confidence tells right from wrong, and parts that are there from parts that are not.

    python eval/confidence.py runs/willow-sift --other runs/spair-mini-sift --out confidence.json

Both are runs of ``sdcorr eval`` with one recipe. On the first, confidence is cross-fitted: half of
the objects (categories up to a bracket, in order of name) is judged by what the other half taught.
The other run, of another data set, is judged by a fit to the whole first.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sdcorr.calibration import Evidence, calibrate, crossfit, judge, read_evidence
from sdcorr.confidence import EVIDENCE
from sdcorr.errors import SdcorrError
from sdcorr.metrics import Floats, risk_coverage, roc_auc
from sdcorr.runs import RunFolder

ALPHA = 0.1
COVERAGES = np.arange(1, 11) / 10


def main() -> None:
    """Judge, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--other", type=Path, help="run of another data set, with the same recipe")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    try:
        about, evidence = read(options.run)
        side = about["dataset"]["threshold"]
        objects = evidence.objects
        fold = (evidence.index >= len(objects) // 2).astype(np.int64)
        fitted = calibrate(evidence, ALPHA, side)
        result = {
            "recipe": about["recipe"]["name"],
            "right": f"error <= {ALPHA} of the side",
            "cross-fitted": {
                "dataset": about["dataset"]["name"],
                "threshold": side,
                "folds": [objects[: len(objects) // 2], objects[len(objects) // 2 :]],
                **describe(evidence, crossfit(evidence, fold, ALPHA, side), side),
            },
            "fitted_on_all": asdict(fitted),
        }
        if options.other is not None:
            about, evidence = read(options.other)
            side = about["dataset"]["threshold"]
            result["other"] = {
                "dataset": about["dataset"]["name"],
                "threshold": side,
                **describe(evidence, fitted(evidence.values), side),
            }
    except SdcorrError as error:
        parser.error(str(error))
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


def read(run: Path) -> tuple[dict[str, Any], Evidence]:
    """What a finished run says of itself, and its evidence."""
    folder = RunFolder(run)
    about, _ = folder.read_keypoints()
    return about, read_evidence(folder.manifest, folder.records)


def describe(evidence: Evidence, confidence: Floats, side: str) -> dict[str, Any]:
    """Quality, the risk-coverage curve, and the same AUC of each kind of evidence alone."""
    right, there = evidence.right(ALPHA, side), ~np.isnan(evidence.error)
    risks = risk_coverage(confidence, right)
    ends = np.ceil(COVERAGES * len(risks)).astype(int) - 1
    quality = judge(evidence, confidence, ALPHA, side)
    numbers = {
        key: round(value, 4) for key, value in asdict(quality).items() if not np.isnan(value)
    }
    return {
        **numbers,
        "parts_there": int(there.sum()),
        "parts_not_there": int((~there).sum()),
        "risk_at_coverage": {
            f"{coverage:.1f}": round(float(risks[end]), 4)
            for coverage, end in zip(COVERAGES, ends, strict=True)
        },
        "auc_of_one": {
            name: round(roc_auc(evidence.values[:, index], right), 4)
            for index, name in enumerate(EVIDENCE)
        },
    }


if __name__ == "__main__":
    main()
