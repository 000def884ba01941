"""Confidence fitted to the records of a run, and how it is judged."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcorr.backbones.sift import Sift
from sdcorr.benchmark import Benchmark, run_benchmark
from sdcorr.calibration import Evidence, calibrate, crossfit, judge, read_evidence
from sdcorr.confidence import Calibration, evidence_of, fit
from sdcorr.datasets.spair import Spair
from sdcorr.errors import BadRun, BadScore
from sdcorr.fusion import Group, MapUse
from sdcorr.lines import read_lines
from sdcorr.metrics import calibration_error, risk_coverage, roc_auc
from sdcorr.processes import World
from sdcorr.recipe import Recipe
from sdcorr.runs import RunFolder
from sdcorr.runtime import Runtime
from tests.annotated import write_spair

SIFT = Recipe("mine", (Group("sift", Sift(size=64, diameters=(16.0,)), (MapUse("rootsift"),)),))

# How often the better one is ranked higher, what is wrong of the first k, and how far off


def slow_auc(scores: list[float], positive: list[bool]) -> float:
    wins = [
        1.0 if hit > miss else 0.5 if hit == miss else 0.0
        for hit, good in zip(scores, positive, strict=True)
        for miss, bad in zip(scores, positive, strict=True)
        if good and not bad
    ]
    return sum(wins) / len(wins)


def slow_risks(confidence: list[float], right: list[bool]) -> list[float]:
    """Of the first k in the mean over all orders of equals."""
    risks, wrong = [], 0.0
    for level in sorted(set(confidence), reverse=True):
        equals = [good for one, good in zip(confidence, right, strict=True) if one == level]
        share = equals.count(False) / len(equals)
        for _ in equals:
            wrong += share
            risks.append(wrong / (len(risks) + 1))
    return risks


def slow_error(confidence: list[float], right: list[bool], bins: int) -> float:
    total = 0.0
    for index in range(bins):
        last = index == bins - 1
        own = [
            (one, good)
            for one, good in zip(confidence, right, strict=True)
            if index <= one * bins and (one * bins < index + 1 or last)
        ]
        if own:
            accuracy = sum(good for _, good in own) / len(own)
            total += len(own) * abs(accuracy - sum(one for one, _ in own) / len(own))
    return total / len(confidence)


@pytest.mark.parametrize("count", [2, 3, 17, 200])
@pytest.mark.parametrize("levels", [2, 5, 10**6], ids=["2 levels", "5 levels", "no ties"])
def test_measures_agree_with_slow_loops(count: int, levels: int):
    generator = np.random.default_rng(count * levels)
    for _ in range(5):
        confidence = generator.integers(0, levels + 1, count) / levels
        right = generator.random(count) < 0.3 + 0.4 * confidence
        right[:2] = True, False
        plain = confidence.tolist(), right.tolist()
        assert roc_auc(confidence, right) == pytest.approx(slow_auc(*plain))
        np.testing.assert_allclose(risk_coverage(confidence, right), slow_risks(*plain))
        for bins in (1, 4, 10):
            got = calibration_error(confidence, right, bins)
            assert got == pytest.approx(slow_error(*plain, bins))


def test_risk_of_equals_is_the_mean_over_their_orders():
    """Of two equals one is right: the first is right in half of the orders."""
    assert risk_coverage([0.5, 0.5, 0.9], np.array([True, False, True])).tolist() == [
        0,
        0.25,
        1 / 3,
    ]


def test_measures_at_the_ends():
    right = np.array([True, True, False])
    assert roc_auc([0.9, 0.8, 0.1], right) == 1.0
    assert roc_auc([0.1, 0.2, 0.9], right) == 0.0
    assert roc_auc([0.5, 0.5, 0.5], right) == 0.5
    for same in (np.ones(3, bool), np.zeros(3, bool)):
        assert math.isnan(roc_auc([0.9, 0.8, 0.1], same))
    assert risk_coverage([0.9, 0.8, 0.1], np.ones(3, bool)).tolist() == [0, 0, 0]
    assert risk_coverage([0.9, 0.8, 0.1], np.zeros(3, bool)).tolist() == [1, 1, 1]
    assert risk_coverage([], np.zeros(0, bool)).tolist() == []
    assert calibration_error([1.0, 1.0, 0.0], right) == 0.0  # 1 is in the last bin
    assert calibration_error([0.0, 0.0, 1.0], right) == 1.0
    assert calibration_error([0.3], np.array([True])) == pytest.approx(0.7)


# Evidence


def evidence(count: int, seed: int, lacking: int = 0) -> Evidence:
    """Two categories; scores tell what is right, the last ``lacking`` have no place."""
    generator = np.random.default_rng(seed)
    score = generator.random(count)
    right = generator.random(count) < score
    error = np.where(right, 5.0, 50.0)
    error[count - lacking :] = np.nan
    rest = generator.random((count, 3))
    sides = {
        "box": np.full(count, 100.0), "keypoints": np.full(count, 80.0),
        "image": np.full(count, 400.0),
    }  # fmt: skip
    return Evidence(np.column_stack([score, rest]), error, sides, ("a", "b"), np.arange(count) % 2)


def test_right_is_an_error_of_at_most_alpha_of_the_side():
    """Ties count; a part that the target lacks is never right."""
    error = np.array([10.0, 10.1, np.nan, 0.0])
    sides = {"box": np.array([100.0, 100.0, 100.0, 1.0]), "image": np.array([50, 101, 9, 9.0])}
    one = Evidence(np.zeros((4, 4)), error, sides, ("a",), np.zeros(4, int))
    assert one.right(0.1, "box").tolist() == [True, False, False, True]
    assert one.right(0.1, "image").tolist() == [False, True, False, True]
    assert one.right(1.0, "box").tolist() == [True, True, False, True]


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_alpha_is_a_share(alpha: float):
    with pytest.raises(BadScore, match="alpha must be a share of the side, above 0 and at most 1"):
        evidence(9, 0).right(alpha, "box")


@pytest.mark.parametrize("side", [0.0, math.nan])
def test_a_target_without_such_a_side_is_told(side: float):
    one = evidence(9, 0)
    one.sides["keypoints"][4] = side
    with pytest.raises(
        BadScore, match=r"no side of the kind 'keypoints'; .* box, keypoints, image"
    ):
        one.right(0.1, "keypoints")
    assert len(one.right(0.1, "box")) == 9


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run over 24 pairs, 24 of whose source keypoints the target lacks."""
    root = write_spair(tmp_path_factory.mktemp("spair"), images=4)
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert run_benchmark(Benchmark(Spair(root), SIFT, Runtime(), out), World())
    return RunFolder(out)


@pytest.fixture
def folder(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy that may be damaged."""
    shutil.copytree(finished.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def edit(folder: RunFolder, change: Callable[[int, dict[str, Any]], None]) -> None:
    lines = list(read_lines(folder.records))
    for number, line in enumerate(lines):
        change(number, line)
    folder.records.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_evidence_of_a_run_agrees_with_a_slow_loop(finished: RunFolder):
    found = read_evidence(finished.manifest, finished.records)
    pairs = {line["pair"]: line for line in read_lines(finished.manifest)}
    lines = list(read_lines(finished.records))
    assert len(found.values) == len(lines) == 24 * 4
    for row, line in enumerate(lines):
        pair = pairs[line["pair"]]
        margin = 1.0 if line["margin"] is None else min(line["margin"], 1.0)
        cycle = math.log(1 + line["cycle_error"] / (0.01 * max(pair["source_size"])))
        expected = [line["score"], margin, line["peak"], cycle]
        assert found.values[row].tolist() == pytest.approx(expected)
        lacking = line["keypoint"] in pair["source_only"]
        assert math.isnan(found.error[row]) == lacking
        assert lacking or found.error[row] == line["error"]
        x0, y0, x1, y1 = pair["target_box"]
        points = np.array(pair["target_points"])
        assert found.sides["box"][row] == max(x1 - x0, y1 - y0)
        assert found.sides["keypoints"][row] == np.ptp(points, axis=0).max()
        assert found.sides["image"][row] == max(pair["target_size"])
        assert found.objects[found.index[row]] == pair["category"]


def test_records_say_how_large_the_source_is(finished: RunFolder):
    sizes = {line["pair"]: line["source_size"] for line in read_lines(finished.manifest)}
    for line in read_lines(finished.records):
        assert line["source_image"] == max(sizes[line["pair"]])
        assert line["confidence"] is None  # the recipe is not calibrated


def test_a_calibrated_recipe_records_its_confidence(finished: RunFolder, tmp_path: Path):
    root = write_spair(tmp_path / "spair", images=3, categories=["cat"])
    sure = Calibration(-3.0, 4.0, 0.5, 1.0, -0.5, alpha=0.1, threshold="box")
    recipe = dataclasses.replace(SIFT, calibration=sure)
    run_benchmark(Benchmark(Spair(root), recipe, Runtime(), tmp_path / "out"), World())
    folder = RunFolder(tmp_path / "out")
    lines = list(read_lines(folder.records))
    expected = sure(read_evidence(folder.manifest, folder.records).values)
    assert [line["confidence"] for line in lines] == pytest.approx(expected.tolist(), abs=1e-6)
    folder.read()  # columns that records did not have before trouble no reader


def test_parts_that_the_target_lacks_count_as_wrong(finished: RunFolder):
    found = read_evidence(finished.manifest, finished.records)
    lacking = np.isnan(found.error)
    assert lacking.sum() == 24
    assert not found.right(1.0, "image")[lacking].any()
    assert found.right(1.0, "image")[~lacking].all()
    fitted = calibrate(found, 1.0, "image")  # so that "no match" is learned
    assert judge(found, fitted(found.values), 1.0, "image").accuracy == 0.75


def test_an_infinite_margin_is_read_as_none_elsewhere(folder: RunFolder):
    edit(folder, lambda number, line: line.update(margin=None if number % 2 else 0.25))
    found = read_evidence(folder.manifest, folder.records)
    assert found.values[:4, 1].tolist() == [0.25, 1.0, 0.25, 1.0]


def test_skipped_pairs_are_left_out(folder: RunFolder):
    lines = list(read_lines(folder.records))
    first = lines[0]["pair"]
    kept = [line for line in lines if line["pair"] != first]
    kept.append({"pair": first, "skipped": "no photo"})
    folder.records.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
    assert len(read_evidence(folder.manifest, folder.records).error) == len(lines) - 4


@pytest.mark.parametrize("column", ["source_image", "peak", "margin", "cycle_error", "score"])
def test_records_of_an_older_version_are_told(folder: RunFolder, column: str):
    edit(folder, lambda number, line: line.pop(column) if number == 7 else None)
    with pytest.raises(BadRun, match=rf"records\.jsonl lacks '{column}', .* run the benchmark ag"):
        read_evidence(folder.manifest, folder.records)


@pytest.mark.parametrize("value", ["high", [1, 2], {}], ids=str)
def test_damaged_records_are_told(folder: RunFolder, value: object):
    edit(folder, lambda number, line: line.update(peak=value) if number == 7 else None)
    with pytest.raises(BadRun, match=r"records\.jsonl is damaged"):
        read_evidence(folder.manifest, folder.records)


# Fitted, crossed, judged


def test_calibrate_fits_what_is_right():
    one = evidence(300, 0, lacking=40)
    found = calibrate(one, 0.1, "box")
    assert found == fit(one.values, one.right(0.1, "box"), 0.1, "box")
    assert (found.alpha, found.threshold) == (0.1, "box")
    assert calibrate(one, 0.2, "image").threshold == "image"


@pytest.mark.parametrize(("alpha", "word"), [(1e-3, "wrong"), (1.0, "right")])
def test_nothing_is_learned_of_all_alike(alpha: float, word: str):
    with pytest.raises(
        BadScore, match=f"nothing to learn confidence from: all 50 matches are {word}"
    ):
        calibrate(evidence(50, 0), alpha, "image")


def test_a_fold_is_judged_by_what_was_fitted_on_the_others():
    one = evidence(120, 0)
    fold = np.arange(120) % 3
    crossed = crossfit(one, fold, 0.1, "box")
    right = one.right(0.1, "box")
    for part in range(3):
        own = fold == part
        found = fit(one.values[~own], right[~own], 0.1, "box")
        np.testing.assert_array_equal(crossed[own], found(one.values[own]))


def test_what_a_fold_holds_does_not_change_its_own_confidence():
    """Its errors turned around, and its confidence stays; that of the others does not."""
    one, fold = evidence(120, 0), np.arange(120) // 60
    before = crossfit(one, fold, 0.1, "box")
    error = one.error.copy()
    error[fold == 0] = 55 - error[fold == 0]  # right is wrong
    after = crossfit(
        Evidence(one.values, error, one.sides, one.objects, one.index), fold, 0.1, "box"
    )
    np.testing.assert_array_equal(after[fold == 0], before[fold == 0])
    assert np.abs(after[fold == 1] - before[fold == 1]).max() > 0.1


def test_judge_by_hand():
    """Four matches of confidence 0.9, 0.7, 0.4, 0.2: right, wrong, right, and a part that is not
    there. Right against wrong: 0.9 beats both, 0.4 beats 0.2 alone, 3 of 4. Of the part: 3 of 3.
    Wrong of the first k: 0, 1/2, 1/3, 1/2."""
    one = Evidence(
        np.zeros((4, 4)), np.array([1.0, 99.0, 2.0, np.nan]), {"box": np.full(4, 100.0)},
        ("a",), np.zeros(4, int),
    )  # fmt: skip
    quality = judge(one, np.array([0.9, 0.7, 0.4, 0.2]), 0.1, "box")
    assert (quality.matches, quality.accuracy, quality.half) == (4, 0.5, 0.5)
    assert (quality.auc, quality.no_match_auc) == (0.75, 1.0)
    assert quality.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert quality.error == pytest.approx((0.1 + 0.7 + 0.6 + 0.2) / 4)


def test_of_an_odd_number_the_middle_one_is_in_the_more_confident_half():
    one = Evidence(
        np.zeros((3, 4)), np.array([1.0, 99.0, 1.0]), {"box": np.full(3, 100.0)}, ("a",),
        np.zeros(3, int),
    )  # fmt: skip
    quality = judge(one, np.array([0.9, 0.5, 0.1]), 0.1, "box")
    assert quality.half == 0.5
    assert math.isnan(quality.no_match_auc)  # no part is lacking
    side = {"box": np.array([100.0])}
    alone = Evidence(one.values[:1], one.error[:1], side, ("a",), np.zeros(1, int))
    assert judge(alone, np.array([0.9]), 0.1, "box").half == 1.0


def test_confidence_tells_right_from_wrong_where_evidence_does():
    one = evidence(2000, 3, lacking=100)
    quality = judge(one, calibrate(one, 0.1, "box")(one.values), 0.1, "box")
    assert quality.auc > 0.75
    assert quality.half > quality.accuracy + 0.15
    assert quality.aurc < 1 - quality.accuracy - 0.15
    assert quality.error < 0.05
    assert 0.4 < quality.no_match_auc < 0.6  # nothing tells these


def test_evidence_is_the_same_from_records_and_from_matches():
    """Both ways go through one function; this is what it must take: lists, arrays, a number."""
    lists = evidence_of([0.5, 0.6], [0.1, math.inf], [0.2, 0.3], [1.0, 2.0], 100.0)
    arrays = evidence_of(*map(np.array, ([0.5, 0.6], [0.1, math.inf], [0.2, 0.3], [1.0, 2.0])),
                         np.array([100.0, 100.0]))  # fmt: skip
    np.testing.assert_array_equal(lists, arrays)


def test_an_object_is_what_stands_before_the_bracket(tmp_path: Path):
    """car(G) and car(S) show like things: they must not judge each other."""
    names = {"1": "car(G)", "2": "duck(S)", "3": "car(S)"}
    line = {
        "score": 0.5, "margin": None, "peak": 0.1, "cycle_error": 2.0, "source_image": 100.0,
        "error": 1.0, "box": None, "keypoint_box": 50.0, "image": 80.0,
    }  # fmt: skip
    manifest, records = tmp_path / "pairs.jsonl", tmp_path / "records.jsonl"
    for path, lines in (
        (manifest, [{"pair": pair, "category": name} for pair, name in names.items()]),
        (records, [line | {"pair": pair} for pair in ("3", "2", "1", "2")]),
    ):
        path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    found = read_evidence(manifest, records)
    assert found.objects == ("car", "duck")
    assert found.index.tolist() == [0, 1, 0, 1]
