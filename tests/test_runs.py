from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sdcorr.errors import BadOutput, BadRun
from sdcorr.runs import SCHEMA, RunFolder
from sdcorr.shards import Shard, locked
from tests.test_shards import lines_of

ABOUT: dict[str, Any] = {
    "schema": SCHEMA,
    "dataset": {
        "name": "spair",
        "split": "test",
        "threshold": "box",
        "alphas": [0.1],
        "only": [],
        "limit": None,
        "seed": 0,
        "pairs": 3,
    },
    "recipe": {"name": "sift", "groups": [{"weight": 1.0}]},
    "weights": {"some/model": "abc"},
    "told_category": None,
    "runtime": {"device": "cpu", "dtype": "float32", "batch": 4, "versions": {"torch": "2"}},
    "root": "/somewhere",
    "processes": [],
}
PAIRS = [
    {"pair": "a", "keypoints": ["0"], "source_only": ["1"]},
    {"pair": "b", "keypoints": ["0"], "source_only": []},
    {"pair": "c", "keypoints": ["0", "1", "2"], "source_only": []},
]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "one")
    with folder.led():
        folder.begin(copy.deepcopy(ABOUT), PAIRS)
    return folder


def write_shard(run: RunFolder, name: str, *pairs: str) -> None:
    with Shard(run.shards, name, {}) as shard:
        for pair in pairs:
            shard.write(lines_of(pair))
    shard.note({"ended": "now"})


def test_a_new_run_is_described_and_listed(run: RunFolder) -> None:
    about = run.read_about()
    digest = about["dataset"].pop("digest")
    assert len(digest) == 64
    assert about == ABOUT
    assert run.lengths() == {"a": 2, "b": 1, "c": 3}
    assert run.parts() == []
    assert sorted(path.name for path in run.path.iterdir()) == [".lock", "pairs.jsonl", "run.json"]


def test_the_same_run_is_gone_on_with(run: RunFolder) -> None:
    before = run.about.read_bytes()
    moved = copy.deepcopy(ABOUT) | {"root": "/elsewhere"}
    with run.led():
        run.begin(moved, PAIRS)
    assert run.about.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": {"name": "sift", "groups": [{"weight": 2.0}]}}, r"groups\[0\]\.weight was 1.0"),
        ({"recipe": {"name": "sift", "groups": []}}, r"recipe\.groups was"),
        ({"told_category": True}, "told_category was null, now true"),
        ({"weights": {"some/model": "abd"}}, 'weights.some/model was "abc", now "abd"'),
        ({"runtime": {"device": "cuda", "batch": 4, "versions": {"torch": "3"}}}, "device was"),
        ({"dataset": {"name": "spair", "split": "val"}}, 'split was "test", now "val"'),
    ],
)
def test_a_run_made_in_another_way_is_refused(run: RunFolder, change: Any, message: str) -> None:
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    with run.led(), pytest.raises(BadRun, match=message):
        run.begin(copy.deepcopy(ABOUT) | change, PAIRS)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_run_on_other_annotations_is_refused(run: RunFolder) -> None:
    with run.led(), pytest.raises(BadRun, match=r"dataset\.digest was"):
        run.begin(copy.deepcopy(ABOUT), PAIRS[:2])
    assert run.lengths() == {"a": 2, "b": 1, "c": 3}


def test_a_start_that_was_killed_halfway_is_begun_anew(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.manifest.write_text('{"pair":')  # killed before run.json was there
    (tmp_path / ".sdcorr-0123.tmp").write_text("half")
    with folder.led():
        folder.begin(copy.deepcopy(ABOUT), PAIRS)
    assert list(folder.lengths()) == ["a", "b", "c"]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BadRun, match="holds no run of sdcorr"), RunFolder(tmp_path).led():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(BadOutput, match="cannot make"), RunFolder(tmp_path / "out").led():
        pass


def test_two_launches_in_one_folder_are_refused(run: RunFolder) -> None:
    with run.led(), pytest.raises(BadRun, match="another process is writing"), run.led():
        pass


def test_a_launch_waits_for_no_shard_of_another(run: RunFolder) -> None:
    run.shards.mkdir()
    with (
        locked(run.shards / "x-0001.lock"),
        pytest.raises(BadRun, match="another process is writing"),
        run.led(),
    ):
        pass


def test_the_last_process_to_end_merges(run: RunFolder) -> None:
    write_shard(run, "x-0001", "c", "a")
    assert not run.merge(["x-0000", "x-0001"])
    assert not run.records.exists()
    with Shard(run.shards, "x-0000", {"rank": 0}) as shard:
        shard.write(lines_of("b"))
        assert not run.merge(["x-0000", "x-0001"])  # it has not said that it is done
    shard.note({"ended": "now"})
    assert run.merge(["x-0000", "x-0001"])
    assert run.records.read_bytes() == lines_of("a") + lines_of("b") + lines_of("c")
    assert [one["name"] for one in run.read_about()["processes"]] == ["x-0000", "x-0001"]
    assert not run.shards.exists()
    assert not run.merge(["x-0000", "x-0001"])  # another was first


def test_a_merge_that_was_killed_before_tidying_is_repeated(run: RunFolder) -> None:
    write_shard(run, "x-0000", "a", "b", "c")
    assert run.merge(["x-0000"])
    before = run.records.read_bytes()
    write_shard(run, "x-0000", "a", "b")  # as if it were still there
    run.join()
    assert run.records.read_bytes() == before
    assert [one["name"] for one in run.read_about()["processes"]] == ["x-0000"]


def test_shards_stay_where_a_pair_is_missing(run: RunFolder) -> None:
    write_shard(run, "x-0000", "a", "c")
    with pytest.raises(BadRun, match="lacks 1 of 3 results, first b"):
        run.merge(["x-0000"])
    assert len(run.parts()) == 1


def test_an_unfinished_run_cannot_be_scored(run: RunFolder) -> None:
    with pytest.raises(BadRun, match="is not finished"):
        run.read()


def test_a_changed_list_cannot_be_scored(run: RunFolder) -> None:
    run.records.write_bytes(b"")
    run.manifest.write_bytes(run.manifest.read_bytes().replace(b'"0"', b'"9"'))
    with pytest.raises(BadRun, match=r"is not the list that run\.json was written for"):
        run.read()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({"schema": "sdcorr.run/0"}), "this version of sdcorr reads 'sdcorr.run/1'"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is damaged"),
    ],
)
def test_another_schema_or_a_damaged_run_is_said(run: RunFolder, text: str, message: str) -> None:
    run.about.write_text(text)
    with pytest.raises(BadRun, match=message):
        run.read()


def test_no_run_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadRun, match=r"is no run: it has no run\.json; make one with sdcorr eval"):
        RunFolder(tmp_path / "nowhere").read()


def test_records_without_their_run_are_damaged(run: RunFolder) -> None:
    run.records.write_bytes(b"")
    run.about.unlink()
    with run.led(), pytest.raises(BadRun, match=r"run\.json is missing"):
        run.begin(copy.deepcopy(ABOUT), PAIRS)


GONE = object()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("dataset", 7), ("dataset.name", GONE), ("dataset.threshold", []),
        ("dataset.threshold", "side"), ("dataset.alphas", GONE), ("dataset.alphas", "x"),
        ("dataset.alphas", []), ("dataset.alphas", ["x"]), ("dataset.alphas", [True]),
        ("dataset.only", 7), ("dataset.limit", "many"), ("dataset.pairs", None),
        ("dataset.digest", GONE), ("dataset.drawn", 1), ("recipe", []), ("recipe.name", GONE),
        ("weights", None), ("told_category", "x"), ("told_category", GONE), ("symmetric", 7),
        ("runtime", None), ("runtime.dtype", 16), ("runtime.versions", None), ("root", 7),
        ("processes", [1]), ("processes", None),
    ],
)  # fmt: skip
def test_a_field_that_is_not_as_expected_is_named(run: RunFolder, path: str, value: Any) -> None:
    about = json.loads(run.about.read_text())
    *above, name = path.split(".")
    place = about[above[0]] if above else about
    if value is GONE:
        del place[name]
    else:
        place[name] = value
    run.about.write_text(json.dumps(about))
    with pytest.raises(
        BadRun, match=rf"is damaged: {re.escape(path)} is not as expected; "
    ) as said:
        run.read_about()
    assert ("it is missing" if value is GONE else f"got {value!r}") in str(said.value)


@pytest.mark.parametrize("path", ["symmetric", "root"])
def test_a_run_of_an_older_version_may_lack_a_field(run: RunFolder, path: str) -> None:
    about = json.loads(run.about.read_text())
    about.pop(path, None)
    run.about.write_text(json.dumps(about))
    assert run.read_about() == about
