"""Scripts of ``eval/`` that print ours beside what others published."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sdcorr.cli import _run
from sdcorr.hits import Rule
from sdcorr.published import pairs_of
from sdcorr.runs import RunFolder
from sdcorr.scores import score
from sdcorr.synthetic import write_synthetic
from tests.report.runs import EXACT, pair, write_run

EVAL = Path(__file__).parents[1] / "eval"
WRONG = [[150, 70]] * 3


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tried_{name}", EVAL / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_gap_of_means_is_of_the_same_categories(tmp_path: Path) -> None:
    pairs = [pair("a", "cat"), pair("b", "sphinx")]
    _, records = RunFolder(write_run(tmp_path / "run", pairs, {"a": EXACT, "b": WRONG})).read()
    text = script("check").table("dinov2-b", score(records, Rule((0.1,), "box"), 0))
    (line,) = [one for one in text.splitlines() if one.startswith("mean")]
    ours, theirs = map(float, line.split()[1:3])
    assert (ours, theirs) == (100.0, 71.1)  # of cats; no sphinx was published
    assert "ours pooled is of 2 categories, theirs of all 18" in text


def result(**changes: Any) -> dict[str, Any]:
    """As ``sdcorr score --json`` writes it, of the whole test split unless changed."""
    data = {"name": "spair", "split": "test", "pairs": pairs_of("spair")}
    number = [{"value": 0.5}]
    return {
        "run": {
            "recipe": {"name": changes.pop("recipe", "dinov2-b")},
            "dataset": data | {k: v for k, v in changes.items() if k != "threshold"},
        },
        "scores": {
            "rule": {"alphas": [0.1], "threshold": changes.get("threshold", "box")},
            "overall": {"image": number, "point": number},
        },
    }


def test_ours_of_the_whole_test_split_stands_in_the_table(tmp_path, monkeypatch) -> None:
    shown = ours(tmp_path, monkeypatch, result())
    assert shown.count("50.0") == 2


@pytest.mark.parametrize(
    "changes",
    [{"pairs": 1}, {"split": "val"}, {"recipe": "mine"}, {"threshold": "image"},
     {"drawn": {"seed": 0, "pairs": 12234}}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_any_other_number_is_refused(tmp_path, monkeypatch, changes) -> None:
    with pytest.raises(SystemExit, match="is not of dinov2-b on the whole test split by the box"):
        ours(tmp_path, monkeypatch, result(**changes))


def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: dict[str, Any]) -> str:
    table = script("recipe_table")
    home = tmp_path / "eval" / "results"
    home.mkdir(parents=True)
    (home / "spair-dinov2-b.json").write_text(json.dumps(value))
    monkeypatch.setattr(table, "ROOT", tmp_path)
    return table._ours("dinov2-b")


def test_a_run_on_a_drawn_set_says_so(tmp_path, capfd) -> None:
    write_synthetic(tmp_path / "set", seed=3, pairs=2)
    words = ["--recipe", "same-position", "--out", str(tmp_path / "run")]
    assert _run(["eval", "spair", "--root", str(tmp_path / "set" / "spair"), *words]) == 0
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["dataset"]["drawn"] == {"seed": 3, "pairs": 2}
    assert "on spair, test, large, drawn (seed 3)\n" in capfd.readouterr().out
