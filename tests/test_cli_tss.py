"""``sdcorr eval tss`` and ``sdcorr score`` of its run, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from sdcorr.cli import cli
from sdcorr.errors import BadDataset, BadRun, BadScore
from tests.annotated_tss import write_mask, write_tss


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tss")
    write_tss(home / "data")
    result = run(
        "eval", "tss", "--root", home / "data", "--recipe", "same-position", "--out", home / "run"
    )
    assert result.exit_code == 0, result.output
    (home / "printed.txt").write_text(result.output)
    return home


def test_eval_prints_pck_and_end_point_errors(home):
    printed = (home / "printed.txt").read_text()
    assert "6 pairs of 6 images, 2400 pixels;" in printed
    assert "<= alpha x longer side of the target image" in printed
    assert "per point: all pixels together" in printed
    assert "category  pairs  pixels  per img@0.05  per pt@0.05\nFG3DCar       2     800" in printed
    assert "AEPE     pixels\nFG3DCar    3.61\n" in printed


def test_the_run_says_what_its_records_are(home):
    about = json.loads((home / "run/run.json").read_text())["dataset"]
    assert (about["bins"], about["bins_a_side"], about["threshold"]) == (200, 1000, "image")
    assert "keypoints" not in about
    lines = (home / "run/records.jsonl").read_text().splitlines()
    assert len(lines) == 6  # one a pair


def test_a_finished_run_is_not_done_again(home):
    before = (home / "run/records.jsonl").read_bytes()
    result = run(
        "eval", "tss", "--root", home / "data", "--recipe", "same-position", "--out", home / "run"
    )
    assert result.exit_code == 0
    assert "6 pairs were predicted before" in result.output
    assert (home / "run/records.jsonl").read_bytes() == before


def test_score_at_other_alphas_and_by_flip(home):
    out = home / "scores.json"
    result = run("score", home / "run", "--alpha", "0.045", "0.046", "--by", "flip", "--json", out)
    assert result.exit_code == 0, result.output
    assert "per image           0.00  100.00" in result.output  # 3.606 / 80 = 0.04507
    assert "flipped        2     800" in result.output
    written = json.loads(out.read_text())
    assert written["end_point_error"]["all"]["value"] == pytest.approx(13**0.5)
    assert [row["name"] for row in written["by"]["flip"]] == ["unflipped", "flipped"]


def test_a_run_compared_with_itself_differs_by_nothing(home):
    result = run("score", home / "run", "--compare", home / "run")
    assert result.exit_code == 0
    assert "AEPE     pixels\nFG3DCar   +0.00" in result.output


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (
            ["score", "run", "--by", "keypoint"],
            BadScore,
            "has no keypoints; leave --by keypoint out",
        ),
        (["score", "run", "--by", "viewpoint"], BadScore, "has no viewpoint flags"),
        (["score", "run", "--strict"], BadScore, "without strict"),
        (
            ["calibrate", "run", "--out", "c.json"],
            BadRun,
            "is a run on dense flow; expected one on k",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_dense_flow_has_not_is_refused(home, monkeypatch, words, kind, message):
    monkeypatch.chdir(home)
    result = run(*words)
    assert isinstance(result.exception, kind)
    assert message in str(result.exception)
    assert not (home / "c.json").exists()


def test_lists_of_left_and_right_have_nothing_to_exchange(home, tmp_path):
    file = tmp_path / "pairs.json"
    file.write_text('{"JODS": [["0", "1"]]}')
    result = run(
        "eval", "tss", "--root", home / "data", "--recipe", "sift", "--flip",
        "--symmetric", file, "--out", tmp_path / "run",
    )  # fmt: skip
    assert isinstance(result.exception, BadDataset)
    assert "dense flow have no keypoints to exchange" in str(result.exception)
    assert not (tmp_path / "run").exists()


def moved_flow(root: Path) -> None:
    """Another flow in one file, of the same size and pixels."""
    path = root / "JODS/busd_01_02/flow1.flo"
    data = path.read_bytes()
    values = np.frombuffer(data[12:], "<f4").copy()
    values[values < 1e9] += 40
    path.write_bytes(data[:12] + values.tobytes())


def half_a_mask(root: Path) -> None:
    on = np.zeros((60, 80), bool)
    on[20:30, 10:30] = True
    write_mask(root / "JODS/busd_01_02/mask1.png", on, palette=True)


@pytest.mark.parametrize("change", [moved_flow, half_a_mask])
def test_a_run_on_another_annotation_is_another_run(tmp_path, change):
    root = write_tss(tmp_path / "data")
    words = ["eval", "tss", "--root", root, "--recipe", "same-position", "--out"]
    assert run(*words, tmp_path / "one").exit_code == 0
    change(root)
    refused = run(*words, tmp_path / "one")
    assert isinstance(refused.exception, BadRun)
    assert "dataset.digest was" in str(refused.exception)
    assert run(*words, tmp_path / "two").exit_code == 0
    compared = run("score", tmp_path / "two", "--compare", tmp_path / "one")
    assert isinstance(compared.exception, BadScore)
    assert "annotate the same pairs differently" in str(compared.exception)
