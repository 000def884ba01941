"""Runs for reports: tiny ones that ``sdcorr eval`` makes, and some that are written by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdcorr.cli import _run
from sdcorr.metrics import box_side, keypoint_box_side, keypoint_errors
from sdcorr.report import Options
from sdcorr.runs import SCHEMA, file_digest
from tests.annotated import write_pf_willow, write_spair
from tests.annotated_tss import write_tss

FAST = Options(replicates=0)
ABOUT: dict[str, Any] = {
    "schema": SCHEMA,
    "dataset": {
        "name": "spair", "split": "test", "layout": "large", "threshold": "box", "alphas": [0.1],
        "only": [], "limit": None, "seed": 0, "pairs": 1,
    },
    "recipe": {"name": "mine", "about": "a test"},
    "weights": {"some/model": "abc123"},
    "told_category": False,
    "symmetric": {},
    "runtime": {"device": "cpu", "dtype": "float32", "versions": {"torch": "2"}},
    "root": None,
    "processes": [{"started": "2026-01-02T03:04:05+00:00", "device_name": "a chip"}],
}  # fmt: skip


def make_runs(folder: Path) -> dict[str, Path]:
    """Two recipes on SPair-71k's tiny copy, and on that of TSS, one on that of PF-WILLOW."""
    spair = write_spair(folder / "spair", images=4)
    willow = write_pf_willow(folder / "willow", classes=("car(G)",))
    tss = write_tss(folder / "tss")
    made = {}
    for name, data, root, recipe in (
        ("sift", "spair", spair, "sift"),
        ("same", "spair", spair, "same-position"),
        ("willow", "pf-willow", willow, "same-position"),
        ("tss", "tss", tss, "same-position"),
        ("tss-sift", "tss", tss, "sift"),
    ):
        out = folder / "runs" / name
        arguments = ["eval", data, "--root", str(root), "--recipe", recipe, "--out", str(out)]
        assert _run(arguments) == 0
        made[name] = out
    return made


def pair(name: str = "a", category: str = "cat", **changes: Any) -> dict[str, Any]:
    """A line of ``pairs.jsonl``: three keypoints, target's box 100 x 50."""
    return {
        "pair": name, "category": category, "subject": category, "source": "s.png",
        "target": "t.png", "source_size": [60, 120], "target_size": [80, 160],
        "target_box": [10, 10, 110, 60], "keypoints": ["0", "1", "2"],
        "source_points": [[10, 10], [20, 20], [30, 30]],
        "target_points": [[20, 20], [60, 40], [100, 50]], "source_only": [],
        "source_only_points": [], "difficulty": {"viewpoint": "easy"},
    } | changes  # fmt: skip


def write_run(
    folder: Path,
    pairs: Sequence[Mapping[str, Any]],
    predictions: Mapping[str, Sequence[Sequence[float]]],
    skipped: Mapping[str, str] | None = None,
    **about: Any,
) -> Path:
    """A finished run with these predictions, by pair."""
    folder.mkdir(parents=True)
    lines = []
    for one in pairs:
        name = one["pair"]
        if name in (skipped or {}):
            lines.append({"pair": name, "skipped": skipped[name]})
            continue
        errors = keypoint_errors(predictions[name], one["target_points"]).tolist()
        sides = {
            "box": box_side(one["target_box"]) if one["target_box"] else None,
            "keypoint_box": keypoint_box_side(one["target_points"]),
            "image": 160.0,
        }
        lines += [
            {"pair": name, "keypoint": part, "prediction": list(place), "error": error} | sides
            for part, place, error in zip(one["keypoints"], predictions[name], errors, strict=True)
        ]
    write_lines(folder / "pairs.jsonl", pairs)
    write_lines(folder / "records.jsonl", lines)
    told = copy.deepcopy(ABOUT) | about
    told["dataset"] = told["dataset"] | {"digest": file_digest(folder / "pairs.jsonl")}
    (folder / "run.json").write_text(json.dumps(told))
    return folder


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


# right, off by 6 px of a side of 100, off by 30
PREDICTED = [[20, 20], [66, 40], [100, 80]]
EXACT = [[20, 20], [60, 40], [100, 50]]
