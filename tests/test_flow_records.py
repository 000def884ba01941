"""Records of dense flow: what they hold, and the scores that follow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sdcorr import load
from sdcorr.datasets.tss import Tss
from sdcorr.errors import BadRun, BadScore
from sdcorr.flow_records import (
    error_histogram,
    flow_pair_to_dict,
    flow_record,
    predict_flow,
    read_flow_records,
)
from sdcorr.hits import Rule
from sdcorr.lines import to_lines
from sdcorr.metrics import correct
from sdcorr.scores import by_difficulty, compare, compare_errors, mean_errors, score
from tests.annotated_tss import write_flo, write_tss

ALPHAS = tuple(k / 1000 for k in range(1, 201))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tss(tmp_path_factory.mktemp("tss"))


def drawn_errors(seed: int, count: int = 500) -> np.ndarray:
    """Errors of 0 to 0.3 sides of 97 px, some exactly on the edge of a bin."""
    generator = np.random.default_rng(seed)
    edges = generator.integers(0, 300, count // 5) / 1000 * 97
    return np.concatenate([generator.uniform(0, 0.3 * 97, count - len(edges)), edges])


@pytest.mark.parametrize("side", [1, 97, 300, 340, 499])
def test_the_histogram_tells_what_the_errors_tell_at_every_alpha(side):
    errors = drawn_errors(side) * side / 97
    edges = np.array([alpha * side for alpha in ALPHAS])
    errors = np.concatenate([errors, edges, np.nextafter(edges, 0), np.nextafter(edges, 1e9)])
    told = np.cumsum(error_histogram(errors, side))
    slow = [sum(error <= alpha * side for error in errors) for alpha in ALPHAS]
    assert told.tolist() == slow
    assert told.tolist() == correct(errors, np.full(len(errors), side), ALPHAS).sum(axis=0).tolist()


def test_a_line_by_hand(root):
    """Of 400 pixels, moved by (3, -2): 100 predicted exactly, 300 off by 3 and 4 px."""
    pair = Tss(root).pairs()[0]
    annotated, valid = pair.read()
    predicted = np.full((60, 80, 2), 1e6, np.float32)  # off the object nothing counts
    rows = np.flatnonzero(valid)
    predicted.reshape(-1, 2)[rows[:100]] = (3, -2)
    predicted.reshape(-1, 2)[rows[100:]] = (3 + 3, -2 + 4)
    line = flow_record(pair, predicted, annotated, valid)
    assert line["pair"] == "FG3DCar/001_005/1-2"
    assert line["pixels"] == 400
    assert line["epe"] == 300 * 5 / 400
    assert line["side"] == 80
    counts = {bin: count for bin, count in enumerate(line["histogram"]) if count}
    assert counts == {0: 100, 62: 300}  # 5 px are 0.0625 of 80: above 62, up to 63 thousandths


def test_predicted_flow_is_that_of_the_pipeline_at_each_pixel(root):
    """Agrees with the matcher asked for the cells, and bilinear reading written out."""
    model = load("same-position", device="cpu")
    pairs = Tss(root).pairs()
    lines = list(predict_flow(model, pairs))
    assert [line["pair"] for line in lines] == [pair.id for pair in pairs]
    for line in lines:  # the same position: everywhere off by the shift
        assert line["epe"] == pytest.approx(np.hypot(3, 2), abs=1e-6)
        assert line["histogram"][45] == 400  # 3.606 / 80


def test_sift_finds_every_pixel_of_a_copy_in_place(tmp_path):
    root = write_tss(tmp_path)
    home = root / "FG3DCar/001_005"
    (home / "image2.png").write_bytes((home / "image1.png").read_bytes())
    flat = np.zeros((60, 80, 2))
    for number in "12":
        write_flo(home / f"flow{number}.flo", flat)
    (home / "mask2.png").write_bytes((home / "mask1.png").read_bytes())
    pair = Tss(root).pairs()[0]
    (line,) = predict_flow(load("sift", device="cpu"), [pair])
    assert line["epe"] < 1e-3


@pytest.fixture
def files(root, tmp_path):
    """A run's two files, of invented errors, and the errors by pair."""
    pairs = Tss(root).pairs()
    errors = {pair.id: drawn_errors(index, 400) for index, pair in enumerate(pairs)}
    manifest, records = tmp_path / "pairs.jsonl", tmp_path / "records.jsonl"
    manifest.write_bytes(to_lines(flow_pair_to_dict(pair, root) for pair in pairs))
    records.write_bytes(to_lines(record_of(name, values) for name, values in errors.items()))
    return manifest, records, errors


def record_of(name: str, errors: np.ndarray) -> dict:
    return {
        "pair": name, "pixels": len(errors), "epe": float(errors.mean()), "side": 97,
        "histogram": error_histogram(errors, 97).tolist(),
    }  # fmt: skip


def test_scores_are_those_of_the_errors(files):
    manifest, records, errors = files
    found = score(read_flow_records(manifest, records), Rule((0.05, 0.1), "image"), 0)
    for index, alpha in enumerate((0.05, 0.1)):
        shares = [np.mean(values <= alpha * 97) for values in errors.values()]
        assert found.overall.image[index].value == pytest.approx(np.mean(shares), abs=1e-12)
        assert found.overall.point[index].value == pytest.approx(np.mean(shares), abs=1e-12)
        by_subset = [np.mean(shares[start : start + 2]) for start in (0, 2, 4)]
        assert [row.image[index].value for row in found.categories] == pytest.approx(by_subset)
        assert found.macro.image[index].value == pytest.approx(np.mean(by_subset))
    assert [row.name for row in found.categories] == ["FG3DCar", "JODS", "PASCAL"]
    assert [row.keypoints for row in found.categories] == [800, 800, 800]


def test_pairs_of_more_pixels_weigh_more_per_point_only(files):
    manifest, records, errors = files
    first = next(iter(errors))
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    lines[0] = record_of(first, np.zeros(4000))
    records.write_bytes(to_lines(lines))
    found = score(read_flow_records(manifest, records), Rule((0.05,), "image"), 0).overall
    hits = [np.sum(values <= 0.05 * 97) for values in errors.values()]
    assert found.image[0].value == pytest.approx((1 + sum(hits[1:]) / 400) / 6)
    assert found.point[0].value == pytest.approx((4000 + sum(hits[1:])) / (4000 + 5 * 400))


def test_mean_errors_are_means_over_pairs(files):
    manifest, records, errors = files
    found = mean_errors(read_flow_records(manifest, records), 0)
    means = [values.mean() for values in errors.values()]
    assert list(found) == ["FG3DCar", "JODS", "PASCAL", "all", "macro"]
    assert found["JODS"].value == pytest.approx(np.mean(means[2:4]))
    assert found["all"].value == pytest.approx(np.mean(means))


def test_the_flip_subset_has_a_row_of_its_own(files):
    manifest, records, errors = files
    rows = by_difficulty(read_flow_records(manifest, records), Rule((0.05,), "image"))["flip"]
    assert [(row.name, row.pairs) for row in rows] == [("unflipped", 4), ("flipped", 2)]
    shares = [np.mean(values <= 0.05 * 97) for values in errors.values()]
    assert rows[0].image[0].value == pytest.approx(np.mean(shares[:4]))


def test_two_runs_are_compared_pair_by_pair(files, tmp_path):
    manifest, records, errors = files
    better = tmp_path / "better.jsonl"
    halved = {name: values / 2 for name, values in errors.items()}
    lines = [record_of(name, values) for name, values in halved.items()]
    better.write_bytes(to_lines(lines[::-1]))  # whatever the order
    first, second = (read_flow_records(manifest, path) for path in (better, records))
    rule = Rule((0.05,), "image")
    gap = compare(first, second, rule, 0).overall.image[0].value
    one, other = (score(run, rule, 0).overall.image[0].value for run in (first, second))
    assert gap == pytest.approx(one - other)
    assert gap > 0.1
    less = compare_errors(first, second, 0)["all"].value
    assert less == pytest.approx(-np.mean([values.mean() for values in errors.values()]) / 2)


@pytest.mark.parametrize("column", ["pixels", "side", "annotation"])
def test_runs_of_another_annotation_are_not_compared(files, column):
    manifest, records, _ = files
    run = read_flow_records(manifest, records)
    values = getattr(run, column)
    changed = np.array(["x"] * len(values)) if column == "annotation" else values + 1
    other = dataclasses.replace(run, **{column: changed})
    with pytest.raises(BadScore, match="annotate the same pairs differently"):
        compare(run, other, Rule((0.05,), "image"), 0)


def test_intervals_come_of_images(files):
    """Six pairs of two images each have none; the same pairs of ten photos have."""
    manifest, records, _ = files
    run = read_flow_records(manifest, records)
    assert mean_errors(run)["all"].low is None
    many = dataclasses.replace(
        run, categories=("all",), category=np.zeros(6, int), source=np.arange(6),
        target=np.arange(6) + 6,
    )  # fmt: skip
    value = mean_errors(many)["all"]
    assert value.low < value.value < value.high


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule((0.05,), "box"), "take threshold image, without strict"),
        (Rule((0.05,), "image", strict=True), "take threshold image, without strict"),
        (Rule((0.0505,), "image"), r"whole thousandths of the side up to 0\.2; got alpha 0\.0505"),
        (Rule((0.3,), "image"), r"up to 0\.2; got alpha 0\.3"),
        (Rule((1e-10,), "image"), r"up to 0\.2; got alpha 1e-10"),
    ],
)
def test_what_a_histogram_cannot_tell_is_refused(files, rule, message):
    manifest, records, _ = files
    with pytest.raises(BadScore, match=message):
        score(read_flow_records(manifest, records), rule, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"pixels": 0}, {"side": 0}, {"side": None}, {"pixels": 399}, {"pixels": "400"},
        {"epe": None}, {"epe": -1},
        {"epe": float("1e300")}, {"histogram": [1] * 199}, {"histogram": [-1] + [0] * 199},
        {"histogram": [0.5] * 200}, {"histogram": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_line_that_contradicts_itself_is_damage(files, change):
    manifest, records, errors = files
    lines = [record_of(name, np.full(400, 1.0)) for name in errors]
    lines[3] |= change
    records.write_bytes(to_lines(lines))
    with pytest.raises(BadRun, match="line 4: pair JODS/busd_01_02/2-1 has no error and histogram"):
        read_flow_records(manifest, records)


def test_a_pair_that_is_missing_stands_twice_or_is_unknown_is_damage(files):
    manifest, records, errors = files
    lines = [record_of(name, values) for name, values in errors.items()]
    records.write_bytes(to_lines(lines[:-1]))
    with pytest.raises(BadRun, match="lacks 1 of 6 pairs, first PASCAL/bike_01_03/2-1"):
        read_flow_records(manifest, records)
    records.write_bytes(to_lines([*lines, lines[0]]))
    with pytest.raises(BadRun, match="line 7: pair 'FG3DCar/001_005/1-2' is not listed, or stands"):
        read_flow_records(manifest, records)
    records.write_bytes(to_lines([lines[0] | {"pair": "x"}]))
    with pytest.raises(BadRun, match="line 1: pair 'x' is not listed"):
        read_flow_records(manifest, records)


def test_skipped_pairs_are_left_out_and_told(files):
    manifest, records, errors = files
    names = list(errors)
    lines = [record_of(name, values) for name, values in errors.items()]
    lines[2] = {"pair": names[2], "skipped": "gone"}
    records.write_bytes(to_lines(lines))
    run = read_flow_records(manifest, records)
    assert run.skipped == {names[2]: "gone"}
    assert len(run.pairs) == 5
    records.write_bytes(to_lines({"pair": name, "skipped": "gone"} for name in names))
    with pytest.raises(BadRun, match="holds no flow: all 6 pairs were skipped"):
        read_flow_records(manifest, records)


def test_a_photo_that_cannot_be_read_is_skipped_where_asked(tmp_path):
    root = write_tss(tmp_path)
    (root / "JODS/busd_01_02/image1.png").write_bytes(b"no photo")
    lines = list(
        predict_flow(load("same-position", device="cpu"), Tss(root).pairs(), skip_bad=True)
    )
    assert [set(line) == {"pair", "skipped"} for line in lines] == [False] * 2 + [True] * 2 + [
        False
    ] * 2


def test_torch_has_no_part_in_a_record(root):
    line = next(iter(predict_flow(load("same-position", device="cpu"), Tss(root).pairs()[:1])))
    assert not any(isinstance(value, torch.Tensor) for value in line.values())
    assert json.loads(json.dumps(line)) == line
