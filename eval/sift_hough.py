"""PCK and confidence of recipe sift-hough on PF-WILLOW, nothing tuned on what it is judged by.

    python eval/sift_hough.py --root data/PF-WILLOW --out eval/results/pf_willow_sift_hough.json

Two folds by object, cars and ducks against motorbikes and bottles: 30 photos stand in two classes
each, so that folds by class would share photos. Settings are chosen on one fold, field after
field, and judged on the other; so is the calibration of confidence. Boxes and masks are not used.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sdcorr
from sdcorr.calibration import Evidence, crossfit, judge
from sdcorr.confidence import EVIDENCE, evidence_of
from sdcorr.datasets.pf_willow import PfWillow
from sdcorr.evaluation import Tally, by_affinity, predict
from sdcorr.metrics import (
    Floats,
    Sample,
    bootstrap,
    correct,
    interval,
    keypoint_box_side,
    keypoint_errors,
    per_image,
    per_point,
    roc_auc,
)
from sdcorr.pairs import Pair, Selection, select
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe

ALPHAS = (0.05, 0.1, 0.15)
CHOOSE_ON = 45  # pairs of each class, half of them
ALPHA = 0.1  # settings are chosen by, and confidence means, an error within it
OBJECTS = (("car", "duck"), ("motorbike", "winebottle"))

# Fields in the order in which they are chosen, each with the values tried; the first ones begin.
CHOICES: dict[str, tuple[Any, ...]] = {
    "signed": (True, False),
    "windows": ((36.0, 72.0, 144.0, 288.0), (24.0, 48.0, 96.0, 192.0, 384.0)),
    "near": (4.0, 6.0, 9.0),
    "temperature": (0.1, 0.07),
    "scales": ((0.7, 1.0, 1 / 0.7), (1.0,)),
}  # fmt: skip

Setting = tuple[Any, ...]  # a value of each field


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a setting gives on P pairs, which have K keypoints together."""

    hits: Floats  # (P, A) correct keypoints
    evidence: Evidence  # of K
    seconds: dict[str, float]


def main() -> None:
    """Choose on each fold, judge on the other, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of PF-WILLOW")
    parser.add_argument("--per-category", type=int, help="at most so many pairs of each; all else")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begun = time.perf_counter()
    selection = Selection(limit=options.per_category)
    pairs = by_affinity(select(PfWillow(options.root).pairs(), selection))
    fold = np.array([fold_of(pair) for pair in pairs])
    drawn = {pair.id for pair in select(pairs, Selection(limit=CHOOSE_ON))}
    halves = [[pair for pair, one in zip(pairs, fold, strict=True) if one == k] for k in (0, 1)]

    @cache
    def hits_of(setting: Setting, half: int) -> Floats:
        some = [pair for pair in halves[half] if pair.id in drawn]
        found = evaluate(recipe_of(setting), some).hits
        print(OBJECTS[half], named(setting), (10 * found.mean(axis=0)).round(1), flush=True)
        return found

    chosen = [choose(lambda setting, half=half: hits_of(setting, 1 - half)) for half in (0, 1)]
    shipped = choose(lambda one: np.concatenate([hits_of(one, half) for half in (0, 1)]))
    judged = [evaluate(recipe_of(one), halves[half]) for half, one in enumerate(chosen)]
    pairs = [*halves[0], *halves[1]]
    hits = np.concatenate([one.hits for one in judged])
    result = {
        **shares(hits, pairs),
        "intervals": "95 %, resampling photos within class",
        "distinct_pairs": distinct(hits, pairs),
        "folds": {
            "+".join(OBJECTS[half]): {
                "settings": named(setting),
                "chosen_on": "+".join(OBJECTS[1 - half]),
                **shares(judged[half].hits, halves[half]),
            }
            for half, setting in enumerate(chosen)
        },
        "chosen_on_all": named(shipped),
        "confidence": confidence(judged),
        "seconds": {
            key: round(float(np.mean([one.seconds[key] for one in judged])), 3)
            for key in judged[0].seconds
        },
        "threads": torch.get_num_threads(),
        "tried": {name: list(values) for name, values in CHOICES.items()},
        "recipe": recipe_of(shipped).describe(),
        "versions": {"sdcorr": sdcorr.__version__, "torch": torch.__version__},
        "minutes": round((time.perf_counter() - begun) / 60, 1),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


def fold_of(pair: Pair) -> int:
    """0 or 1, by what the photos show."""
    (one,) = (half for half, names in enumerate(OBJECTS) if pair.subject in names)
    return one


def recipe_of(setting: Setting) -> Recipe:
    """sift-hough with these values, and without a calibration, which is fitted here."""
    recipe = find_recipe("sift-hough")
    values = named(setting)
    group, matcher = recipe.groups[0], recipe.matcher
    # as fine over half a turn as over a whole one
    backbone: Any = replace(
        group.backbone, windows=values["windows"], signed=values["signed"],
        orientations=16 if values["signed"] else 8,
    )  # fmt: skip
    fields = {name: values[name] for name in ("near", "temperature", "scales")}
    return replace(
        recipe,
        groups=(replace(group, backbone=backbone),),
        matcher=replace(matcher, **fields),
        calibration=None,
    )


def named(setting: Setting) -> dict[str, Any]:
    """The values by field."""
    return dict(zip(CHOICES, setting, strict=True))


def choose(hits_of: Any) -> Setting:
    """The best values, field after field, by PCK per image at ``ALPHA``; the first of equals."""
    setting = [values[0] for values in CHOICES.values()]
    for index, values in enumerate(CHOICES.values()):
        candidates = [(*setting[:index], value, *setting[index + 1 :]) for value in values]
        setting = list(max(candidates, key=lambda one: hits_of(one)[:, ALPHAS.index(ALPHA)].sum()))
    return tuple(setting)


def evaluate(recipe: Recipe, pairs: Sequence[Pair]) -> Outcome:
    """Predict every keypoint of the pairs."""
    model, tally = sdcorr.load(recipe), Tally()
    hits, rows = [], []
    for prediction in predict(model, pairs, tally=tally):
        matches, pair = prediction.joint, prediction.pair
        assert matches is not None
        assert matches.source_image is not None
        errors = keypoint_errors(matches.target.numpy(), pair.target_keypoints)
        side = keypoint_box_side(pair.target_keypoints)
        hits.append(correct(errors, np.full(len(errors), side), ALPHAS).sum(axis=0))
        values = evidence_of(
            matches.score.numpy(), matches.margin.numpy(), matches.peak.numpy(),
            matches.cycle_error.numpy(), float(max(matches.source_image.size)),
        )  # fmt: skip
        rows.append((values, errors, np.full(len(errors), side)))
    values, errors, sides = (np.concatenate(column) for column in zip(*rows, strict=True))
    index = np.zeros(len(errors), np.int64)
    evidence = Evidence(values, errors, {"keypoints": sides}, ("this fold",), index)
    seconds = {
        "matching_a_pair": tally.matching / len(pairs),
        "encoding_a_photo": tally.encoding / tally.encoded,
    }
    return Outcome(np.array(hits, np.float64), evidence, seconds)


def shares(hits: Floats, pairs: Sequence[Pair]) -> dict[str, Any]:
    """PCK of pairs at each alpha, with the interval of the mean over pairs."""
    counts = np.array([float(len(pair.keypoint_ids)) for pair in pairs])
    names = sorted({photo for pair in pairs for photo in (pair.source, pair.target)})
    categories = sorted({pair.category for pair in pairs})
    sample = Sample(
        hits, counts, np.array([categories.index(pair.category) for pair in pairs]),
        np.array([names.index(pair.source) for pair in pairs]),
        np.array([names.index(pair.target) for pair in pairs]),
    )  # fmt: skip
    low, high = interval(bootstrap(sample).overall[:, 0])
    means, points = per_image(hits, counts), per_point(hits, counts)
    result: dict[str, Any] = {"pairs": len(pairs)}
    for index, alpha in enumerate(ALPHAS):
        result[f"pck_{alpha:.2f}_per_image"] = round(float(means[index]), 4)
        result[f"pck_{alpha:.2f}_per_image_interval"] = [
            round(float(end[index]), 4) for end in (low, high)
        ]
        result[f"pck_{alpha:.2f}_per_point"] = round(float(points[index]), 4)
    return result


def distinct(hits: Floats, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The same over pairs of distinct photos: of those in two classes, the first."""
    seen: dict[tuple[str, str], int] = {}
    for index, pair in enumerate(pairs):
        seen.setdefault((pair.source.name, pair.target.name), index)
    kept = sorted(seen.values())
    return shares(hits[kept], [pairs[index] for index in kept])


def confidence(judged: Sequence[Outcome]) -> dict[str, Any]:
    """How well confidence, fitted on the other fold, tells right from wrong; over both folds."""
    first, second = (one.evidence for one in judged)
    both = Evidence(
        np.concatenate([first.values, second.values]),
        np.concatenate([first.error, second.error]),
        {"keypoints": np.concatenate([first.sides["keypoints"], second.sides["keypoints"]])},
        tuple("+".join(names) for names in OBJECTS),
        np.repeat([0, 1], [len(first.error), len(second.error)]),
    )
    crossed = crossfit(both, both.index, ALPHA, "keypoints")
    quality = judge(both, crossed, ALPHA, "keypoints")
    right = both.right(ALPHA, "keypoints")
    alone = {name: roc_auc(both.values[:, i], right) for i, name in enumerate(EVIDENCE)}
    return {
        "points": quality.matches,
        "right": round(quality.accuracy, 4),
        "right_in_the_more_confident_half": round(quality.half, 4),
        "roc_auc": round(quality.auc, 4),
        "area_under_risk_coverage": round(quality.aurc, 4),
        "expected_calibration_error": round(quality.error, 4),
        "roc_auc_of_one": {name: round(auc, 4) for name, auc in alone.items()},
    }


if __name__ == "__main__":
    main()
