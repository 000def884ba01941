"""What a benchmark run writes down: its pairs and its predictions, one JSON object a line.

``pairs.jsonl`` holds a line per pair with the whole annotation, ``records.jsonl`` a line per
keypoint with what was predicted, in the order of the pairs. A skipped pair has one line with
``pair`` and ``skipped``, the reason. Points are (x, y) in pixels of the original photos.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from sdcorr.columns import PairColumns, Texts, pair_columns
from sdcorr.errors import BadRun
from sdcorr.evaluation import Prediction
from sdcorr.lines import read_lines
from sdcorr.metrics import Floats, Ints, box_side, keypoint_box_side, keypoint_errors
from sdcorr.pairs import FARTHEST, Pair

SIDES = {"box": "box", "keypoints": "keypoint_box", "image": "image"}  # field by threshold


@dataclass(frozen=True, eq=False)
class Records(PairColumns):
    """A run's joint keypoints and pairs as columns, skipped pairs left out; see ``PairColumns``.

    Args:
        sides: ``(P,)`` pixels of the target by kind of threshold, NaN where there is none.
        pair: ``(K,)`` index of each keypoint's pair.
        keypoint: ``(K,)`` text, id of the part.
        error: ``(K,)`` pixels of the target.
    """

    sides: dict[str, Floats]
    pair: Ints
    keypoint: Texts
    error: Floats
    unit: ClassVar[str] = "keypoints"

    @property
    def counted(self) -> int:
        """Number of joint keypoints."""
        return len(self.error)

    def only(self, pairs: Set[str]) -> Self:
        """The records of some of the pairs, sorted by id, keypoints by pair and id."""
        order = self.sorted_places(pairs)
        place = np.full(len(self.pairs), -1)
        place[order] = np.arange(len(order))
        rows = np.flatnonzero(place[self.pair] >= 0)
        rows = rows[np.lexsort((self.keypoint[rows], place[self.pair[rows]]))]
        return self.taken(
            order,
            sides={kind: sides[order] for kind, sides in self.sides.items()},
            pair=place[self.pair[rows]],
            keypoint=self.keypoint[rows],
            error=self.error[rows],
        )


def pair_to_dict(pair: Pair, root: Path) -> dict[str, Any]:
    """The whole annotation of a pair, files relative to the root, sizes (height, width)."""
    return {
        "pair": pair.id,
        "category": pair.category,
        "subject": pair.subject,
        "source": pair.source.relative_to(root).as_posix(),
        "target": pair.target.relative_to(root).as_posix(),
        "source_size": pair.source_size,
        "target_size": pair.target_size,
        "target_box": pair.target_box,
        "keypoints": pair.keypoint_ids,
        "source_points": pair.source_keypoints.tolist(),
        "target_points": pair.target_keypoints.tolist(),
        "source_only": pair.source_only_ids,
        "source_only_points": pair.source_only.tolist(),
        "difficulty": dict(pair.difficulty),
    }


def prediction_to_dicts(prediction: Prediction) -> list[dict[str, Any]]:
    """One object per keypoint: the joint ones, then those that only the source shows.

    ``error`` is in pixels of the target, null where the target lacks the part. ``box``,
    ``keypoint_box`` and ``image`` are the longer sides of the target's object box (null where
    none is annotated), of the box around its joint keypoints, and of the photo. ``margin`` is
    null where there is no other place.
    """
    pair, matches, joint = prediction.pair, prediction.matches, prediction.joint
    if matches is None or joint is None:
        return [{"pair": pair.id, "skipped": prediction.skipped}]
    assert matches.source_image is not None
    assert matches.target_image is not None
    sides = {
        "box": box_side(pair.target_box) if pair.target_box else None,
        "keypoint_box": keypoint_box_side(pair.target_keypoints),
        "image": float(max(matches.target_image.size)),
        "source_image": float(max(matches.source_image.size)),
    }
    none = torch.full((len(matches),), torch.nan)
    confidence = none if matches.confidence is None else matches.confidence
    errors = keypoint_errors(joint.target.numpy(), pair.target_keypoints).tolist()
    columns = {
        "prediction": matches.target.tolist(),
        "score": matches.score.tolist(),
        "margin": _finite(matches.margin),
        "cycle_error": matches.cycle_error.tolist(),
        "peak": matches.peak.tolist(),
        "confidence": _finite(confidence),
        "matched": matches.matched.tolist(),
        "error": [*errors, *(None for _ in pair.source_only_ids)],
    }
    return [
        {"pair": pair.id, "keypoint": name}
        | {key: values[index] for key, values in columns.items()}
        | sides
        for index, name in enumerate((*pair.keypoint_ids, *pair.source_only_ids))
    ]


def _finite(values: Tensor) -> list[float | None]:
    """Numbers, None for those that are not finite."""
    return [number if math.isfinite(number) else None for number in values.tolist()]


def read_records(manifest: Path, records: Path) -> Records:
    """The columns of a finished run.

    Raises:
        BadRun: a file is missing or damaged, or the two do not fit each other.
    """
    about = {line["pair"]: line for line in read_lines(manifest)}
    sides: dict[str, dict[str, float | None]] = {}
    seen: dict[str, set[str]] = {}
    skipped: dict[str, str] = {}
    rows: list[tuple[int, str, float]] = []
    index: dict[str, int] = {}
    for number, line in enumerate(read_lines(records), start=1):
        try:
            name = str(line["pair"])
            annotation = about[name]
            if "skipped" in line:
                if name in skipped:
                    raise ValueError(f"pair {name} stands twice")
                skipped[name] = str(line["skipped"])
                continue
            keypoint, error = _keypoint_of(line, annotation)
            found = {key: _side(line[key]) for key in SIDES.values()}
            if keypoint in seen.setdefault(name, set()) or found != sides.setdefault(name, found):
                raise ValueError(f"keypoint {keypoint} of pair {name} stands twice, or differs")
        except KeyError as absent:
            what = f"line {number} does not fit its list: no {absent.args[0]!r}"
            raise BadRun(f"{records}: {what}") from absent
        except ValueError as wrong:
            raise BadRun(f"{records}, line {number}: {wrong}") from wrong
        seen[name].add(keypoint)
        index.setdefault(name, len(index))
        if error is not None:
            rows.append((index[name], keypoint, error))
    _check_whole(records, about, seen, skipped)
    if not rows:
        raise BadRun(f"{records} holds no keypoint: all {len(skipped)} pairs were skipped")
    return _columns([about[name] for name in index], list(sides.values()), rows, skipped)


def _keypoint_of(line: dict[str, Any], annotation: dict[str, Any]) -> tuple[str, float | None]:
    """Id and error of a record, which the annotation must know, and in which way."""
    keypoint, error = line["keypoint"], line["error"]
    if keypoint in annotation["source_only"] and error is None:
        return str(keypoint), None
    if keypoint not in annotation["keypoints"] or _number(error) is None:
        raise ValueError(f"keypoint {keypoint!r} with error {error!r} does not fit the annotation")
    return str(keypoint), float(error)


def _side(value: object) -> float | None:
    number = _number(value)
    if value is not None and number is None:
        raise ValueError(f"expected a length in pixels, got {value!r}")
    return number


def _number(value: object) -> float | None:
    """A finite number from 0, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < FARTHEST else None


def _check_whole(
    records: Path,
    about: Mapping[str, Any],
    seen: Mapping[str, Set[str]],
    skipped: Mapping[str, str],
) -> None:
    """Each pair must be there, either skipped or with all its keypoints."""
    if missing := about.keys() - seen.keys() - skipped.keys():
        raise BadRun(f"{records} lacks {len(missing)} of {len(about)} pairs, first {min(missing)}")
    if both := seen.keys() & skipped.keys():
        raise BadRun(f"{records} is damaged: pair {min(both)} is both predicted and skipped")
    for name, keypoints in seen.items():
        wanted = len(about[name]["keypoints"]) + len(about[name]["source_only"])
        if len(keypoints) != wanted:
            raise BadRun(
                f"{records} is damaged: expected {wanted} records of pair {name}, got "
                f"{len(keypoints)}"
            )


def _columns(
    pairs: list[dict[str, Any]],
    sides: list[dict[str, float | None]],
    rows: list[tuple[int, str, float]],
    skipped: dict[str, str],
) -> Records:
    index, keypoint, error = zip(*rows, strict=True)
    return Records(
        **pair_columns(pairs, skipped),
        sides={
            kind: np.array([side[name] for side in sides], np.float64)
            for kind, name in SIDES.items()
        },
        pair=np.array(index),
        keypoint=np.array(keypoint),
        error=np.array(error, np.float64),
    )
