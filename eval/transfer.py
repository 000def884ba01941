"""How well annotations transfer from one and from five reference photos, on PF-WILLOW.

    python eval/transfer.py --root data/PF-WILLOW --out eval/results/transfer-willow.json

*One*: each photo of a class is the only reference of the other nine, the 900 pairs of the
benchmark. *Five*: the five photos of each half of a class, by name, label the other five; beside it
the mean over the same references taken one at a time. The labels are written by what
``sdcorr transfer`` runs, and PCK@alpha of the keypoints' box is computed twice: with the
benchmark's prediction and metrics, or from the places in memory, and by a plain loop over the JSON.
The two must be equal.

How references vote was chosen while looking at these very photos (see eval/README.md).
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import sdcorr
from sdcorr.annotations import References
from sdcorr.coco import read_references
from sdcorr.datasets.pf_willow import PfWillow
from sdcorr.evaluation import by_affinity, predict
from sdcorr.labelling import Labelling, label
from sdcorr.metrics import calibration_error, correct, keypoint_box_side, keypoint_errors, roc_auc
from sdcorr.pairs import Pair
from sdcorr.photos import Photos
from sdcorr.preprocess import read_size
from sdcorr.processes import World
from sdcorr.recipes import find_recipe
from sdcorr.transfer import Annotator

ALPHAS = (0.05, 0.1, 0.15)
Annotated = Mapping[Path, Any]  # keypoints (K, 2) of each photo of a class


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print a table, save; returns what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="of PF-WILLOW")
    parser.add_argument("--recipe", default="sift-hough")
    parser.add_argument("--only", nargs="*", metavar="CLASS")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    model = sdcorr.load(find_recipe(options.recipe), device="cpu")
    pairs = by_affinity(PfWillow(options.root).pairs())
    names = options.only or sorted({pair.category for pair in pairs})
    found = {name: measure(model, [p for p in pairs if p.category == name]) for name in names}
    classes = {name: {rule: one[rule].scores() for rule in RULES} for name, one in found.items()}
    result = {
        "recipe": options.recipe,
        "threshold": "longer side of the box around the keypoints",
        "runtime": model.runtime.describe(),
        "classes": classes,
        "all": {rule: pooled([one[rule] for one in found.values()]).scores() for rule in RULES},
    }
    for name, rules in (*classes.items(), ("all", result["all"])):
        for rule in RULES:
            row = "  ".join(f"{key} {value:.3f}" for key, value in rules[rule].items())
            print(f"{name:16} {rule:24} {row}")
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    return result


RULES = ("one reference", "one reference, of five", "five references")


@dataclass
class Rows:
    """What was found, a row per photo labelled.

    Args:
        errors: of each keypoint, share of the longer side of the keypoints' box.
        confidence: of each keypoint, NaN without.
        seconds: of each photo, encoding included; empty where not taken.
    """

    errors: list[list[float]] = field(default_factory=list)
    confidence: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def scores(self) -> dict[str, float]:
        """PCK per image, how well confidence tells right from wrong at 0.1, median seconds."""
        errors, sure = np.array(self.errors), np.array(self.confidence).ravel()
        right = (errors <= 0.1).ravel()
        scores = {f"PCK@{alpha}": float((errors <= alpha).mean()) for alpha in ALPHAS}
        if not np.isnan(sure).any():
            scores["calibration error"] = calibration_error(sure, right)
            if 0 < right.sum() < len(right):
                scores["ROC AUC"] = roc_auc(sure, right)
        if self.seconds:
            scores["seconds a photo"] = float(np.median(self.seconds))
        return scores | {"photos": float(len(errors))}


def pooled(parts: Sequence[Rows]) -> Rows:
    """All rows together."""
    whole = Rows()
    for part in parts:
        whole.errors += part.errors
        whole.confidence += part.confidence
        whole.seconds += part.seconds
    return whole


def measure(model: sdcorr.Pipeline, pairs: Sequence[Pair]) -> dict[str, Rows]:
    """What was labelled in one class, by each of ``RULES``."""
    photos = {p.source: p.source_keypoints for p in pairs}
    photos |= {p.target: p.target_keypoints for p in pairs}
    order = sorted(photos)
    half = len(order) // 2
    halves = (order[:half], order[half:])
    found = {(p.pair.source, p.pair.target): p.joint for p in predict(model, pairs)}
    one = Judged(model, photos)
    for source in order:
        targets = [photo for photo in order if (source, photo) in found]
        one.transfer([source], targets)
        for target in targets:
            joint = found[source, target]
            one.compare(target, joint.target.numpy())
            one.of.append((source, target))
    chosen = [i for i, (source, target) in enumerate(one.of) if across(source, target, halves)]
    within = Rows(*([rows[i] for i in chosen] for rows in (one.rows.errors, one.rows.confidence)))
    five = Judged(model, photos)
    for references, targets in (halves, halves[::-1]):
        five.transfer(references, targets)
        annotator = Annotator(model, five.references)
        for target in targets:
            start = time.perf_counter()
            labels = annotator(target)
            five.rows.seconds.append(time.perf_counter() - start)
            five.compare(target, labels.places.numpy())
    return dict(zip(RULES, (one.rows, within, five.rows), strict=True))


def across(source: Path, target: Path, halves: Sequence[Sequence[Path]]) -> bool:
    """Whether the two are of different halves."""
    return (source in halves[0]) != (target in halves[0])


class Judged:
    """Photos of a class labelled from references, and how right that was.

    Args:
        model: a loaded recipe.
        photos: annotated keypoints of each.
    """

    def __init__(self, model: sdcorr.Pipeline, photos: Annotated) -> None:
        self.model, self.photos = model, photos
        self.references: References
        self.of: list[tuple[Path, Path]] = []  # reference and photo of each row
        self.rows = Rows()
        self._labels: dict[Path, dict[str, Any]] = {}

    def transfer(self, references: Sequence[Path], targets: Sequence[Path]) -> None:
        """Label photos and read the JSON back."""
        root = targets[0].parent
        with tempfile.TemporaryDirectory() as folder:
            annotations, out = Path(folder, "references.json"), Path(folder, "labels.json")
            annotations.write_text(json.dumps(to_coco(references, self.photos)))
            self.references = read_references(annotations, root)
            names = tuple(photo.name for photo in targets)
            recipe, runtime = self.model.recipe, self.model.runtime
            label(Labelling(self.references, Photos(root, names), recipe, runtime, out), World())
            content = json.loads(out.read_text())
        images = {image["id"]: root / image["file_name"] for image in content["images"]}
        self._labels = {images[one["image_id"]]: one for one in content["annotations"]}

    def compare(self, target: Path, places: np.ndarray) -> None:
        """Judge the JSON by a plain loop; places in memory by the benchmark's functions."""
        annotated, label = self.photos[target], self._labels[target]
        plain = [
            math.sqrt((x - u) ** 2 + (y - v) ** 2)
            for (x, y), (u, v) in zip(label["keypoint_predictions"], annotated, strict=True)
        ]
        own = keypoint_errors(places, annotated)
        xs, ys = zip(*annotated, strict=True)
        side = max(max(xs) - min(xs), max(ys) - min(ys))
        shares = [sum(error <= alpha * side for error in plain) / len(plain) for alpha in ALPHAS]
        theirs = correct(own, np.full(len(own), keypoint_box_side(annotated)), ALPHAS).mean(axis=0)
        if shares != theirs.tolist():
            raise SystemExit(f"{target}: {shares} from the JSON, {theirs} by the benchmark's code")
        self.rows.errors.append([error / side for error in plain])
        self.rows.confidence.append(label["keypoint_confidences"] or [math.nan] * len(plain))


def to_coco(references: Sequence[Path], photos: Annotated) -> dict[str, Any]:
    """Annotated photos as COCO keypoints JSON."""
    sizes = [read_size(photo) for photo in references]
    points = [[n for x, y in photos[photo].tolist() for n in (x, y, 2)] for photo in references]
    names = [str(index) for index in range(len(points[0]) // 3)]
    return {
        "images": [
            {"id": index, "file_name": photo.name, "height": size.height, "width": size.width}
            for index, (photo, size) in enumerate(zip(references, sizes, strict=True))
        ],
        "annotations": [
            {"id": index, "image_id": index, "category_id": 1, "keypoints": some}
            for index, some in enumerate(points)
        ],
        "categories": [{"id": 1, "name": "object", "keypoints": names}],
    }


if __name__ == "__main__":
    main()
