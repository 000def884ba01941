from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdcorr.errors import BadRun
from sdcorr.evaluation import Prediction
from sdcorr.geometry import Size
from sdcorr.lines import read_lines, to_lines
from sdcorr.pairs import Pair
from sdcorr.records import Records, pair_to_dict, prediction_to_dicts, read_records
from sdcorr.types import Image, Matches

ROOT = Path("/data/spair")


def two_points() -> Pair:
    """A pair with two joint keypoints and one that only the source shows."""
    return Pair(
        id="000158:cat",
        category="cat",
        subject="a cat",
        source=ROOT / "photos" / "one.jpg",
        target=ROOT / "photos" / "two.jpg",
        keypoint_ids=("0", "10"),
        source_keypoints=np.array([[1.0, 2.0], [3.0, 4.5]]),
        target_keypoints=np.array([[10.0, 20.0], [30.0, 25.0]]),
        source_only_ids=("7",),
        source_only=np.array([[5.0, 6.0]]),
        source_size=Size(48, 64),
        target_size=Size(60, 80),
        target_box=(5.0, 6.0, 47.0, 56.0),
        difficulty={"viewpoint": "hard"},
    )


def found(**changes: torch.Tensor) -> Matches:
    """Matches of ``two_points``: the first off by (3, 4), the second exact."""
    values: dict[str, Any] = {
        "source": torch.tensor([[1.0, 2.0], [3.0, 4.5], [5.0, 6.0]], dtype=torch.float64),
        "target": torch.tensor([[13.0, 24.0], [30.0, 25.0], [8.0, 9.0]], dtype=torch.float64),
        "score": torch.tensor([0.5, 0.75, 0.25]),
        "margin": torch.tensor([0.125, math.inf, 0.0]),
        "cycle_error": torch.tensor([0.0, 2.5, 9.0], dtype=torch.float64),
        "peak": torch.tensor([0.25, 0.5, 0.0]),
        "matched": torch.tensor([True, False, True]),
    }
    photo = Image(np.zeros((60, 80, 3), np.uint8))
    return Matches(**(values | changes), source_image=photo, target_image=photo)


def about(pair: str, category: str, source: str, target: str, **difficulty: str) -> dict[str, Any]:
    """A line of a manifest, as far as it is read."""
    return {
        "pair": pair,
        "category": category,
        "source": source,
        "target": target,
        "keypoints": ["2", "10"],
        "source_only": [],
        "difficulty": difficulty,
    }


def record(pair: str, keypoint: str, error: float | None, **sides: float | None) -> dict[str, Any]:
    """A line of the records, as far as it is read."""
    usual = {"box": 100.0, "keypoint_box": 40.0, "image": 500.0}
    return {"pair": pair, "keypoint": keypoint, "error": error, **usual, **sides}


MANIFEST = (
    about("p1", "dog", "dog/b.jpg", "dog/a.jpg", viewpoint="easy", occlusion="both"),
    about("p2", "cat", "cat/a.jpg", "cat/b.jpg", viewpoint="hard"),
    about("p3", "cat", "cat/b.jpg", "cat/c.jpg", viewpoint="medium"),
    about("p4", "dog", "dog/a.jpg", "dog/b.jpg", viewpoint="easy"),
)
RECORDS = (
    record("p1", "2", 1.5, image=400.0),
    record("p1", "10", 7.0, image=400.0),
    {"pair": "p2", "skipped": "cat/a.jpg cannot be read"},
    record("p3", "2", 0.0, box=None),
    record("p3", "10", 3.0, box=None),
    record("p4", "2", 12.0, keypoint_box=30.0),
    record("p4", "10", 4.0, keypoint_box=30.0),
)


def read(
    folder: Path, manifest: Sequence[dict[str, Any]], records: Sequence[dict[str, Any]]
) -> Records:
    files = folder / "pairs.jsonl", folder / "records.jsonl"
    for file, values in zip(files, (manifest, records), strict=True):
        file.write_text("".join(json.dumps(value) + "\n" for value in values))
    return read_records(*files)


def test_lines_come_back_as_they_were(tmp_path: Path):
    values = [{"pair": "ö:1", "error": None}, {"x": [0.1, 1e-17, 3], "deep": {"matched": True}}, {}]
    file = tmp_path / "some.jsonl"
    file.write_bytes(to_lines(values))
    assert file.read_bytes().count(b"\n") == 3
    assert list(read_lines(file)) == values


def test_no_values_make_no_lines(tmp_path: Path):
    file = tmp_path / "none.jsonl"
    file.write_bytes(to_lines([]))
    assert file.read_bytes() == b""
    assert list(read_lines(file)) == []


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_json_lacks_are_never_written(number: float):
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_lines([{"score": number}])


@pytest.mark.parametrize(
    "damaged",
    [b'{"pair": "p1", "er\n', b"\n", b"[1, 2]\n", b'{"pair": "\xff"}\n'],
    ids=["torn", "empty", "no object", "no text"],
)
def test_a_damaged_line_is_named_by_its_number(tmp_path: Path, damaged: bytes):
    file = tmp_path / "records.jsonl"
    file.write_bytes(b"{}\n{}\n" + damaged + b"{}\n")
    with pytest.raises(BadRun, match=r"records\.jsonl is damaged in line 3"):
        list(read_lines(file))


def test_a_file_that_is_not_there_cannot_be_read(tmp_path: Path):
    with pytest.raises(BadRun, match=r"cannot read .*gone\.jsonl: No such file"):
        list(read_lines(tmp_path / "gone.jsonl"))


def test_a_pair_is_written_with_its_whole_annotation():
    assert pair_to_dict(two_points(), ROOT) == {
        "pair": "000158:cat",
        "category": "cat",
        "subject": "a cat",
        "source": "photos/one.jpg",
        "target": "photos/two.jpg",
        "source_size": (48, 64),
        "target_size": (60, 80),
        "target_box": (5, 6, 47, 56),
        "keypoints": ("0", "10"),
        "source_points": [[1, 2], [3, 4.5]],
        "target_points": [[10, 20], [30, 25]],
        "source_only": ("7",),
        "source_only_points": [[5, 6]],
        "difficulty": {"viewpoint": "hard"},
    }


def test_what_a_data_set_does_not_give_is_null():
    bare = replace(
        two_points(),
        source_only_ids=(),
        source_only=np.empty((0, 2)),
        source_size=None,
        target_size=None,
        target_box=None,
        difficulty={},
    )
    line = json.loads(to_lines([pair_to_dict(bare, ROOT)]))
    assert [line[key] for key in ("source_size", "target_size", "target_box")] == [None] * 3
    assert [line[key] for key in ("source_only", "source_only_points")] == [[], []]
    assert line["difficulty"] == {}


def test_a_prediction_is_written_keypoint_by_keypoint():
    joint, exact, source_only = prediction_to_dicts(Prediction(two_points(), found()))
    assert joint == {
        "pair": "000158:cat",
        "keypoint": "0",
        "prediction": [13, 24],
        "score": 0.5,
        "margin": 0.125,
        "cycle_error": 0,
        "peak": 0.25,
        "confidence": None,
        "matched": True,
        "error": 5,
        "box": 50,  # 42 wide, 50 high
        "keypoint_box": 20,  # 20 wide, 5 high
        "image": 80,  # 80 wide, 60 high
        "source_image": 80,
    }
    assert (exact["keypoint"], exact["error"], exact["matched"]) == ("10", 0, False)
    assert (source_only["keypoint"], source_only["prediction"]) == ("7", [8, 9])
    assert list(exact) == list(source_only) == list(joint)


def test_a_keypoint_that_only_the_source_shows_has_no_error():
    lines = prediction_to_dicts(Prediction(two_points(), found()))
    assert [line["error"] for line in lines] == [5, 0, None]


def test_an_infinite_margin_is_null():
    lines = prediction_to_dicts(Prediction(two_points(), found()))
    assert [line["margin"] for line in lines] == [0.125, None, 0]


def test_a_target_without_a_box_has_a_null_box():
    pair = replace(two_points(), target_box=None)
    lines = prediction_to_dicts(Prediction(pair, found()))
    assert [line["box"] for line in lines] == [None] * 3
    assert [line["image"] for line in lines] == [80] * 3


def test_the_image_side_is_that_of_the_target():
    target = Image(np.zeros((90, 30, 3), np.uint8))
    matches = replace(found(), target_image=target)
    line = prediction_to_dicts(Prediction(two_points(), matches))[0]
    assert (line["image"], line["source_image"]) == (90, 80)


def test_confidence_is_written_where_there_is_one():
    matches = replace(found(), confidence=torch.tensor([0.5, 0.25, 0.0]))
    lines = prediction_to_dicts(Prediction(two_points(), matches))
    assert [line["confidence"] for line in lines] == [0.5, 0.25, 0.0]


def test_a_skipped_pair_is_one_line_with_the_reason():
    lines = prediction_to_dicts(Prediction(two_points(), None, skipped="one.jpg is no photo"))
    assert lines == [{"pair": "000158:cat", "skipped": "one.jpg is no photo"}]


def test_what_is_written_is_read_back_as_columns(tmp_path: Path):
    pair = two_points()
    manifest, records = tmp_path / "pairs.jsonl", tmp_path / "records.jsonl"
    manifest.write_bytes(to_lines([pair_to_dict(pair, ROOT)]))
    records.write_bytes(to_lines(prediction_to_dicts(Prediction(pair, found()))))
    columns = read_records(manifest, records)
    assert columns.pairs == ("000158:cat",)
    assert columns.keypoint.tolist() == ["0", "10"]
    assert columns.error.tolist() == [5, 0]
    sides = {kind: values.tolist() for kind, values in columns.sides.items()}
    assert sides == {"box": [50], "keypoints": [20], "image": [80]}
    assert columns.difficulty["viewpoint"].tolist() == ["hard"]


def test_records_are_read_into_columns(tmp_path: Path):
    columns = read(tmp_path, MANIFEST, RECORDS)
    assert columns.pairs == ("p1", "p3", "p4")
    assert columns.categories == ("cat", "dog")
    assert columns.category.tolist() == [1, 0, 1]
    assert columns.pair.tolist() == [0, 0, 1, 1, 2, 2]
    assert columns.keypoint.tolist() == ["2", "10"] * 3
    assert columns.error.tolist() == [1.5, 7, 0, 3, 12, 4]
    assert columns.error.dtype == np.float64


def test_a_photo_has_one_number_as_source_and_as_target(tmp_path: Path):
    columns = read(tmp_path, MANIFEST, RECORDS)
    (b_to_a, b_to_c, a_to_b) = zip(columns.source.tolist(), columns.target.tolist(), strict=True)
    assert b_to_a == a_to_b[::-1]
    assert len({*b_to_a, *b_to_c}) == 4


def test_sides_are_read_by_kind_and_nan_without_a_box(tmp_path: Path):
    sides = read(tmp_path, MANIFEST, RECORDS).sides
    assert list(sides) == ["box", "keypoints", "image"]
    np.testing.assert_array_equal(sides["box"], [100, math.nan, 100])
    assert sides["keypoints"].tolist() == [40, 40, 30]
    assert sides["image"].tolist() == [400, 500, 500]


def test_a_kind_of_difficulty_that_a_pair_lacks_is_empty_text(tmp_path: Path):
    difficulty = read(tmp_path, MANIFEST, RECORDS).difficulty
    levels = {kind: values.tolist() for kind, values in difficulty.items()}
    assert levels == {"viewpoint": ["easy", "medium", "easy"], "occlusion": ["both", "", ""]}


def test_skipped_pairs_are_left_out_and_reported(tmp_path: Path):
    columns = read(tmp_path, MANIFEST, RECORDS)
    assert "p2" not in columns.pairs
    assert columns.skipped == {"p2": "cat/a.jpg cannot be read"}


def test_a_category_whose_pairs_were_all_skipped_is_left_out(tmp_path: Path):
    skipped = [{"pair": name, "skipped": "no photo"} for name in ("p2", "p3")]
    lines = [line for line in RECORDS if line["pair"] not in ("p2", "p3")]
    columns = read(tmp_path, MANIFEST, [*skipped, *lines])
    assert columns.categories == ("dog",)
    assert columns.category.tolist() == [0, 0]
    assert sorted(columns.skipped) == ["p2", "p3"]


def test_keypoints_that_only_the_source_shows_are_left_out(tmp_path: Path):
    manifest = [line | {"source_only": ["5"]} for line in MANIFEST[:1]]
    lines = [RECORDS[0], RECORDS[0] | {"keypoint": "5", "error": None}, RECORDS[1]]
    columns = read(tmp_path, manifest, lines)
    assert columns.keypoint.tolist() == ["2", "10"]
    assert columns.error.tolist() == [1.5, 7]
    assert columns.pair.tolist() == [0, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"error": None}, {"error": -5}, {"error": True}, {"error": math.nan}, {"error": math.inf},
        {"error": "1.5"}, {"error": [1]}, {"error": 10**400}, {"keypoint": "99"},
        {"keypoint": None}, {"keypoint": 2}, {"keypoint": ["2"]}, {"box": math.inf},
        {"box": "10"}, {"image": -1}, {"box": 10**9}, {"keypoint": "10"},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_that_was_changed_by_hand_is_refused(tmp_path: Path, change: Any) -> None:
    with pytest.raises(BadRun, match=r"records\.jsonl"):
        read(tmp_path, MANIFEST, [RECORDS[0] | change, *RECORDS[1:]])


def by_pair(columns: Records) -> dict[str, Any]:
    """All that is known of each pair, without the numbers it goes by in these columns."""
    pairs: dict[str, Any] = {}
    for index, name in enumerate(columns.pairs):
        mine = (columns.pair == index).nonzero()[0].tolist()
        points = sorted((str(columns.keypoint[row]), float(columns.error[row])) for row in mine)
        sides = {kind: str(values[index]) for kind, values in columns.sides.items()}
        levels = {kind: str(values[index]) for kind, values in columns.difficulty.items()}
        ends = int(columns.source[index]), int(columns.target[index])
        category = columns.categories[columns.category[index]]
        pairs[name] = (points, sides, levels, ends, category)
    return pairs


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_lines_does_not_change_what_belongs_to_a_pair(tmp_path: Path, seed: int):
    ordered = read(tmp_path, MANIFEST, RECORDS)
    order = np.random.default_rng(seed).permutation(len(RECORDS))
    shuffled = read(tmp_path, MANIFEST[::-1], [RECORDS[index] for index in order])
    assert len(by_pair(ordered)) == 3
    assert by_pair(shuffled) == by_pair(ordered)
    assert shuffled.skipped == ordered.skipped


def test_a_pair_without_records_is_missing(tmp_path: Path):
    lines = [line for line in RECORDS if line["pair"] not in ("p3", "p4")]
    with pytest.raises(BadRun, match=r"records\.jsonl lacks 2 of 4 pairs, first p3"):
        read(tmp_path, MANIFEST, lines)


def test_a_record_of_an_unknown_pair_does_not_fit(tmp_path: Path):
    with pytest.raises(BadRun, match=r"line 8 does not fit its list: no 'p5'"):
        read(tmp_path, MANIFEST, [*RECORDS, record("p5", "2", 1.0)])


def test_a_skipped_pair_that_is_unknown_does_not_fit(tmp_path: Path):
    with pytest.raises(BadRun, match=r"does not fit .*: no 'p5'"):
        read(tmp_path, MANIFEST, [*RECORDS, {"pair": "p5", "skipped": "no photo"}])


@pytest.mark.parametrize("field", ["pair", "keypoint", "error", "box", "keypoint_box", "image"])
def test_a_record_without_a_field_does_not_fit(tmp_path: Path, field: str):
    torn = {key: value for key, value in RECORDS[0].items() if key != field}
    with pytest.raises(BadRun, match=f"does not fit .*: no '{field}'"):
        read(tmp_path, MANIFEST, [torn, *RECORDS[1:]])


@pytest.mark.parametrize("lines", [RECORDS[:-1], (*RECORDS, RECORDS[-1])], ids=["missing", "twice"])
def test_a_pair_with_another_number_of_records_than_keypoints_does_not_fit(
    tmp_path: Path, lines: tuple[dict[str, Any], ...]
):
    with pytest.raises(BadRun, match="p4"):
        read(tmp_path, MANIFEST, lines)


def test_a_run_that_skipped_all_pairs_holds_no_keypoint(tmp_path: Path):
    lines = [{"pair": line["pair"], "skipped": "no photo"} for line in MANIFEST]
    with pytest.raises(BadRun, match="holds no keypoint: all 4 pairs were skipped"):
        read(tmp_path, MANIFEST, lines)


def test_records_that_are_not_there_cannot_be_read(tmp_path: Path):
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_bytes(to_lines(MANIFEST))
    with pytest.raises(BadRun, match=r"cannot read .*records\.jsonl"):
        read_records(manifest, tmp_path / "records.jsonl")
