"""``sdcorr calibrate``, and masks, boxes and least confidence of ``sdcorr match``, as typed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import sdcorr.recipes
from sdcorr.backbones.sift import Sift
from sdcorr.calibration import calibrate, crossfit, judge, read_evidence
from sdcorr.confidence import Calibration
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from sdcorr.runs import RunFolder
from tests.annotated import write_pf_willow, write_spair
from tests.conftest import Command, Done

SIFT = ("match", "a.png", "b.png", "--recipe", "sift")
SURE = ("match", "a.png", "b.png", "--recipe", "sure.json")


def small(size: int) -> Recipe:
    """SIFT of one size on photos of ``size`` px, not calibrated."""
    recipe = sdcorr.recipes.RECIPES["sift"]
    (group,) = recipe.groups
    group = dataclasses.replace(group, backbone=Sift(size=size, diameters=(16.0,)))
    return dataclasses.replace(recipe, groups=(group,), calibration=None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spair(tmp_path_factory.mktemp("data") / "spair", images=4)


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path, photo: Any, other_photo: Any
) -> Path:
    """The working folder: two photos, 157 x 104 and 100 x 136, a data set, and small SIFT."""
    PIL.Image.fromarray(photo).resize((157, 104)).save(tmp_path / "a.png")
    PIL.Image.fromarray(other_photo).resize((100, 136)).save(tmp_path / "b.png")
    (tmp_path / "spair").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    recipe = small(157)
    monkeypatch.setitem(sdcorr.recipes.RECIPES, "sift", recipe)
    sure = Calibration(-16.0, 20.0, 0.0, 0.0, 0.0, alpha=0.1, threshold="box", fitted="words")
    described = dataclasses.replace(recipe, name="sure", calibration=sure).describe()
    Path("sure.json").write_text(json.dumps(described))
    return tmp_path


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of small SIFT over both categories, 96 keypoints, a quarter of them lacking."""
    from sdcorr.benchmark import Benchmark, run_benchmark
    from sdcorr.datasets.spair import Spair
    from sdcorr.processes import World
    from sdcorr.runtime import Runtime

    out = tmp_path_factory.mktemp("runs") / "sift"
    assert run_benchmark(Benchmark(Spair(data), small(64), Runtime(), out), World())
    return out


@pytest.fixture
def run_folder(finished: Path, folder: Path) -> Path:
    shutil.copytree(finished, folder / "runs" / "sift")
    return folder / "runs" / "sift"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def nothing_left(folder: Path) -> Iterator[None]:
    """The command leaves no file behind, and all others as they were."""
    before = contents(folder)
    yield
    assert contents(folder) == before


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdcorr.recipes.load", lambda *_, **__: pytest.fail("loaded a model"))


def refused(done: Done) -> str:
    """The sentence of a mistake."""
    assert (done.status, done.out) == (2, "")
    assert "Traceback" not in done.err
    return done.err


# Calibrate


def test_calibrate_writes_the_run_s_recipe_with_a_calibration(
    run: Command, run_folder: Path
) -> None:
    done = run("calibrate", "runs/sift", "--out", "mine.json", "--alpha", "0.3")
    assert (done.status, done.err) == (0, "")
    folder = RunFolder(run_folder)
    fitted = calibrate(read_evidence(folder.manifest, folder.records), 0.3, "box")
    written = find_recipe("mine.json")
    assert written.calibration == dataclasses.replace(
        fitted, fitted="spair, 96 matches", recipe=written.digest
    )
    assert written.own_calibration == written.calibration
    bare = find_recipe(str(folder.about))
    assert dataclasses.replace(written, calibration=None) == bare
    assert bare.calibration is None


def test_calibrate_prints_how_good_it_is(run: Command, run_folder: Path) -> None:
    done = run("calibrate", "runs/sift", "--out", "mine.json", "--alpha", "0.3")
    evidence = read_evidence(run_folder / "pairs.jsonl", run_folder / "records.jsonl")
    fitted = calibrate(evidence, 0.3, "box")(evidence.values)
    crossed = crossfit(evidence, evidence.index, 0.3, "box")  # of two objects
    lines = done.out.splitlines()
    assert lines[0] == "right is an error of at most 0.3 of the box side"
    assert lines[7] == "few to learn from: only 45 of the rarer kind, right or wrong"
    assert lines[-1] == "wrote mine.json"
    for first, confidence, how in (
        (1, fitted, "judged on what it was fitted on"),
        (8, crossed, "judged on the objects not fitted on"),
    ):
        quality = judge(evidence, confidence, 0.3, "box")
        assert lines[first] == f"{how} (96 matches, {quality.accuracy:.1%} right):"
        assert [re.split(r" {2,}", line.strip()) for line in lines[first + 1 : first + 6]] == [
            ["right in the more confident half", f"{quality.half:.1%}"],
            ["ROC AUC, right against wrong", f"{quality.auc:.3f}"],
            ["ROC AUC, part there or not", f"{quality.no_match_auc:.3f}"],
            ["area under risk-coverage", f"{quality.aurc:.3f}"],
            ["expected calibration error", f"{quality.error:.3f}"],
        ]
    assert len(lines) == 15


def test_of_one_category_none_is_left_to_judge_on(run: Command) -> None:
    done = run("eval", "spair", "--root", "spair", "--recipe", "sift", "--only", "cat",
               "--out", "runs/cat")  # fmt: skip
    assert done.status == 0
    done = run("calibrate", "runs/cat", "--out", "mine.json", "--alpha", "0.3")
    assert (done.status, done.err) == (0, "")
    assert "not fitted on" not in done.out
    assert find_recipe("mine.json").calibration.fitted == "spair, 48 matches"


def test_the_threshold_is_the_data_set_s_own_or_as_given(
    run: Command, run_folder: Path, folder: Path
) -> None:
    for side in ("keypoints", "image"):
        done = run("calibrate", "runs/sift", "--out", "mine.json", "--threshold", side)
        assert done.status == 0
        assert done.out.startswith(f"right is an error of at most 0.1 of the {side} side")
        fitted = find_recipe("mine.json").calibration
        assert (fitted.alpha, fitted.threshold) == (0.1, side)
    write_pf_willow(folder / "willow")
    base = ("eval", "pf-willow", "--root", "willow", "--recipe", "sift", "--out", "runs/willow")
    assert run(*base).status == 0
    about = RunFolder(folder / "runs" / "willow").read_about()
    done = run("calibrate", "runs/willow", "--out", "mine.json", "--alpha", "0.4")
    assert done.status == 0
    assert f"of the {about['dataset']['threshold']} side" in done.out
    assert about["dataset"]["threshold"] != "box"
    assert "part there or not" not in done.out  # PF-WILLOW has all parts in all photos


def test_what_is_written_matches_with_confidence(run: Command, run_folder: Path) -> None:
    assert run("calibrate", "runs/sift", "--out", "mine.json", "--alpha", "0.3").status == 0
    base = ("match", "a.png", "b.png", "--recipe", "mine.json", "--point", "20", "30")
    found = json.loads(run(*base, "--json", "-").out)
    (match,) = found["matches"]
    assert 0 < match["confidence"] < 1
    assert found["recipe"]["calibration"]["alpha"] == 0.3
    assert find_recipe("mine.json").describe() == found["recipe"]
    shown = run("recipes", "show", "mine.json").out
    assert "  confidence of error <= 0.3 of the box side, fitted on spair, 96 matches" in shown
    assert "  confidence uncalibrated" in run("recipes", "show", "sift").out


def test_a_calibrated_recipe_is_calibrated_anew(run: Command, folder: Path) -> None:
    done = run("eval", "spair", "--root", "spair", "--recipe", "sure.json", "--out", "runs/sure")
    assert done.status == 0
    assert run("calibrate", "runs/sure", "--out", "mine.json", "--alpha", "0.3").status == 0
    old, new = find_recipe("sure.json").calibration, find_recipe("mine.json").calibration
    assert (old.alpha, new.alpha) == (0.1, 0.3)
    assert old.score != new.score


def test_an_older_file_is_replaced_whole(run: Command, run_folder: Path) -> None:
    Path("mine.json").write_text("an older file")
    run("calibrate", "runs/sift", "--out", "mine.json")
    assert find_recipe("mine.json").calibration is not None
    assert not list(Path().glob(".sdcorr*"))


BAD_CALIBRATE = {
    "no run": ("nowhere --out o.json", "nowhere is no run: it has no run.json; make one with"),
    "no out": ("runs/sift", "Missing option '--out'"),
    "out in no folder": ("runs/sift --out no/o.json", "there is no folder no; make it first"),
    "out is the run": ("runs/sift --out runs/sift/run.json", "it is one of the files to be read"),
    "out is records": ("runs/sift --out runs/sift/records.jsonl", "one of the files to be read"),
    "out is a folder": ("runs/sift --out runs", "it is a folder; give a file name"),
    "alpha 0": ("runs/sift --out o.json --alpha 0", "alpha must be a share of the side, above 0"),
    "alpha 10": ("runs/sift --out o.json --alpha 10", "above 0 and at most 1; got 10.0"),
    "alpha nan": ("runs/sift --out o.json --alpha nan", "alpha must be a share of the side"),
    "no number": ("runs/sift --out o.json --alpha x", "'x' is not a valid float"),
    "threshold": ("runs/sift --out o.json --threshold eyes", "'eyes' is not one of 'box', 'keypo"),
    "all wrong": ("runs/sift --out o.json --alpha 1e-9", "nothing to learn confidence from: all 9"),
}


@pytest.mark.parametrize("case", BAD_CALIBRATE)
@pytest.mark.usefixtures("run_folder", "nothing_left", "no_loading")
def test_what_cannot_be_calibrated_is_told_and_nothing_written(run: Command, case: str) -> None:
    line, message = BAD_CALIBRATE[case]
    assert message in refused(run("calibrate", *line.split()))


@pytest.mark.usefixtures("no_loading")
def test_a_run_that_is_not_whole_is_told(run: Command, run_folder: Path) -> None:
    lines = (run_folder / "records.jsonl").read_text().splitlines()
    for broken, message in (
        (lines[:-4], "lacks 1 of 24 pairs"),
        ([re.sub(r',"source_image":[\d.]+', "", line) for line in lines], "run the benchmark ag"),
        ([*lines[:5], "{", *lines[6:]], "is damaged in line 6"),
    ):
        (run_folder / "records.jsonl").write_text("\n".join(broken))
        assert message in refused(run("calibrate", "runs/sift", "--out", "o.json"))
    (run_folder / "records.jsonl").unlink()
    told = refused(run("calibrate", "runs/sift", "--out", "o.json"))
    assert "is not finished; give its sdcorr eval command again" in told
    assert not Path("o.json").exists()


def test_a_recipe_with_a_plug_in_is_asked_for(run: Command, run_folder: Path) -> None:
    about = json.loads((run_folder / "run.json").read_text())
    about["recipe"]["matcher"] = {"kind": "tests.matcher_of_mine"}
    (run_folder / "run.json").write_text(json.dumps(about))
    told = refused(run("calibrate", "runs/sift", "--out", "o.json"))
    assert "add --allow-plugins" in told
    assert not Path("o.json").exists()


# Least confidence


def sigmoid(score: float) -> float:
    return 1 / (1 + np.exp(16 - 20 * score))


def test_the_table_shows_confidence_and_what_is_rejected(run: Command) -> None:
    points = [word for x in range(10, 150, 30) for word in ("--point", str(x), "50")]
    done = run(*SURE, *points, "--json", "free.json")
    assert (done.status, done.err) == (0, "")
    rows = [row.split() for row in done.out.splitlines()]
    assert rows[0] == ["source", "x", "y", "target", "x", "y", "score", "confidence"]
    matches = json.loads(Path("free.json").read_text())["matches"]
    for row, match in zip(rows[1:-1], matches, strict=True):
        assert match["confidence"] == pytest.approx(sigmoid(match["score"]), abs=1e-5)
        assert row[-1] == f"{match['confidence']:.2f}"
        assert match["matched"] is True
    least = sorted(match["confidence"] for match in matches)[2]
    done = run(*SURE, *points, "--json", "o.json", "--min-confidence", str(least - 1e-6))
    rejected = [not match["matched"] for match in json.loads(Path("o.json").read_text())["matches"]]
    assert rejected == [match["confidence"] < least for match in matches]
    assert rejected.count(True) == 2
    assert [row.endswith("  no match") for row in done.out.splitlines()[1:-1]] == rejected


def test_without_a_calibration_the_table_has_no_confidence(run: Command) -> None:
    done = run(*SIFT, "--point", "20", "30", "--json", "o.json")
    assert done.out.splitlines()[0].split()[-1] == "score"
    assert json.loads(Path("o.json").read_text())["matches"][0]["confidence"] is None


def test_unlikely_confident_matches_are_left_out(run: Command) -> None:
    free = json.loads(run(*SURE, "--json", "-").out)["matches"]
    least = sorted(match["confidence"] for match in free)[len(free) // 2]
    kept = json.loads(run(*SURE, "--json", "-", "--min-confidence", str(least - 1e-6)).out)
    assert kept["matches"] == [match for match in free if match["confidence"] >= least]
    assert 0 < len(kept["matches"]) < len(free)
    done = run(*SURE, "--min-confidence", "1", "--out", "none.png")
    assert done.status == 0
    assert len(done.out.splitlines()) == 2  # the heading, and what was written
    assert Path("none.png").exists()


# Masks and boxes


def draw_mask(path: str, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    """White in the box (x0, y0, x1, y1), edges included."""
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[box[1] : box[3] + 1, box[0] : box[2] + 1] = 255
    PIL.Image.fromarray(pixels).save(path)


def test_matches_lie_in_the_boxes(run: Command) -> None:
    boxes = ("--source-box", "20", "10", "110", "90", "--target-box", "10", "20", "60", "120")
    found = json.loads(run(*SIFT, *boxes, "--json", "-").out)["matches"]
    assert len(found) >= 2
    for match in found:
        (sx, sy), (tx, ty) = match["source"], match["target"]
        # a cell of 8 px counts by the pixel at its centre
        assert 20 <= round(sx) <= 110
        assert 10 <= round(sy) <= 90
        assert 10 <= round(tx) <= 60
        assert 20 <= round(ty) <= 120


def test_a_mask_is_as_the_box_that_it_shows(run: Command) -> None:
    draw_mask("s.png", (157, 104), (20, 10, 110, 90))
    draw_mask("t.png", (100, 136), (10, 20, 60, 120))
    source = ("--source-mask", "s.png"), ("--source-box", "20", "10", "110", "90")
    target = ("--target-mask", "t.png"), ("--target-box", "10", "20", "60", "120")
    free = json.loads(run(*SIFT, "--json", "-").out)["matches"]
    found = [
        json.loads(run(*SIFT, *one, *other, "--json", "-").out)["matches"]
        for one in source
        for other in target
    ]
    assert found[0] == found[1] == found[2] == found[3] != free
    for side in (source, target):
        alone = [json.loads(run(*SIFT, *one, "--json", "-").out)["matches"] for one in side]
        assert alone[0] == alone[1]
        assert alone[0] not in (free, found[0])


def test_a_point_s_match_lies_in_the_target_s_box(run: Command) -> None:
    box = ("--target-box", "0", "0", "50", "135", "--json", "-")
    points = [word for x in range(10, 150, 20) for word in ("--point", str(x), "50")]
    found = json.loads(run(*SIFT, *points, *box).out)["matches"]
    assert all(round(match["target"][0]) <= 50 for match in found)
    free = json.loads(run(*SIFT, *points, "--json", "-").out)["matches"]
    assert any(match["target"][0] > 51 for match in free)


BAD_MATCH = {
    "no calibration": (SIFT, "--min-confidence 0.5", "have no confidence to be compared with"),
    "above 1": (SURE, "--min-confidence 1.5", "expected a least confidence of 0 to 1, got 1.5"),
    "percent": (SURE, "--min-confidence 50", "expected a least confidence of 0 to 1, got 50.0"),
    "below 0": (SURE, "--min-confidence -0.1", "expected a least confidence of 0 to 1, got -0.1"),
    "nan": (SURE, "--min-confidence nan", "expected a least confidence of 0 to 1, got nan"),
    "no number": (SURE, "--min-confidence high", "'high' is not a valid float"),
    "both of source": (SIFT, "--source-mask s.png --source-box 0 0 9 9", "--source-mask or --sour"),
    "both of target": (SIFT, "--target-mask s.png --target-box 0 0 9 9", "--target-mask or --targ"),
    "no file": (SIFT, "--source-mask no.png", "no such file: no.png"),
    "text": (SIFT, "--target-mask text.png", "text.png"),
    "folder": (SIFT, "--target-mask folder", "folder is a folder"),
    "size": (SIFT, "--target-mask s.png", "mask s.png: expected 136 x 100 (high x wide) as the p"),
    "black": (SIFT, "--source-mask black.png", "mask black.png covers no pixel: nothing could be"),
    "beyond": (SIFT, "--source-box 0 0 157 103", "box 0 0 157 103 reaches beyond the photo, which"),
    "of the other": (SIFT, "--target-box 0 0 120 90", "box 0 0 120 90 reaches beyond the photo"),
    "reversed": (SIFT, "--source-box 50 0 10 90", "box 50 0 10 90: expected x0 < x1 and y0 < y1"),
    "negative": (SIFT, "--source-box -5 0 10 90", "box -5 0 10 90 reaches beyond the photo"),
    "box nan": (SIFT, "--source-box nan 0 9 9", "expected a box of four finite numbers"),
    "three": (SIFT, "--source-box 0 0 9", "Option '--source-box' requires 4 arguments"),
    "words": (SIFT, "--source-box a b c d", "'a' is not a valid float"),
    "point": (SIFT, "--source-box 0 0 9 9 --point 5 5 --point 10 5", "point 2 (10, 5) lies outsid"),
    "point in mask": (SIFT, "--source-mask s.png --point 5 5", "point 1 (5, 5) lies outside the s"),
    "over the mask": (SIFT, "--source-mask s.png --out s.png", "it is one of the files to be read"),
    "json over it": (SIFT, "--source-mask s.png --json s.png", "it is one of the files to be read"),
}


@pytest.fixture
def clutter(folder: Path) -> None:
    draw_mask("s.png", (157, 104), (20, 10, 110, 90))
    PIL.Image.new("L", (157, 104)).save("black.png")
    Path("text.png").write_text("no picture")
    Path("folder").mkdir()


@pytest.mark.parametrize("case", BAD_MATCH)
@pytest.mark.usefixtures("clutter", "no_loading", "nothing_left_of_match")
def test_a_mistake_is_told_before_any_work(run: Command, case: str) -> None:
    line, options, message = BAD_MATCH[case]
    told = refused(run(*line, *options.split()))
    assert message in told
    if "Usage: " not in told:
        assert len(told.splitlines()) == 1


@pytest.fixture
def nothing_left_of_match(clutter: None, folder: Path) -> Iterator[None]:
    before = contents(folder)
    yield
    assert contents(folder) == before


def test_a_photo_and_its_mask_may_be_the_same_file(run: Command) -> None:
    """All of a.png that is not black."""
    done = run(*SIFT, "--source-mask", "a.png", "--point", "20", "30", "--json", "-")
    assert done.status == 0
    assert sorted(os.listdir()) == ["a.png", "b.png", "spair", "sure.json"]


def test_help_names_the_options(run: Command) -> None:
    words = run("match", "--help").out
    for option in ("--source-mask FILE", "--source-box X0 Y0 X1 Y1", "--target-mask FILE",
                   "--target-box X0 Y0 X1 Y1", "--min-confidence P"):  # fmt: skip
        assert option in words
    assert words.index("--source-mask") < words.index("--target-mask")
    assert "--threshold [box|keypoints|image]" in run("calibrate", "--help").out


def test_a_recipe_s_file_is_not_written_over(run: Command, folder: Path) -> None:
    (folder / "mine.json").write_text(json.dumps(find_recipe("sift").describe()))
    before = (folder / "mine.json").read_bytes()
    done = run("match", "a.png", "b.png", "--recipe", "./mine.json", "--json", "mine.json")
    assert done.status == 2
    assert (folder / "mine.json").read_bytes() == before
