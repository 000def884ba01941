"""Published rows beside ours: never a number that is not a run's, never without its remarks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdcorr import recipes
from sdcorr.published import published_of, published_rows
from sdcorr.report import _beside
from sdcorr.report._beside import published, remarks
from sdcorr.report._blocks import Heading, Table, Text
from sdcorr.report._runs import Run, read_runs
from tests.report.runs import ABOUT, EXACT, pair, write_run


def table_of(runs: list[Run[Any]]) -> Table:
    (table, *_) = [block for block in published(runs) if isinstance(block, Table)]
    return table


def cells(table: Table, method: str) -> list[dict[str, str]]:
    return [
        dict(zip(table.head, row, strict=True)) for row in table.rows if row[0].startswith(method)
    ]


def changed(path: Path, folder: Path, **about: Any) -> Run[Any]:
    """A copy of a run that says other things of itself."""
    shutil.copytree(path, folder)
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | about))
    return read_runs([folder])[0]


def digest_of(path: Path) -> str:
    digest: str = json.loads((path / "run.json").read_text())["dataset"]["digest"]
    return digest


def test_ours_is_scored_by_the_rule_of_the_row(made: dict[str, Path], tmp_path: Path):
    """An error of exactly a tenth of the box's side is wrong by ``<``, which the row has."""
    ties = write_run(
        tmp_path / "run", [pair()], {"a": [[20, 20], [70, 40], [100, 50]]},
        recipe=recipes.RECIPES["same-position"].describe(), told_category=None,
    )  # fmt: skip
    (row,) = cells(table_of(read_runs([made["sift"], ties])), "same position")
    assert row["published"] == "5.49"
    assert row["sign"] == "<"
    assert row["ours"] == "2 same-position: 66.67 (1 of 12234 pairs)"


def test_all_rows_of_the_data_set_stand_there_and_no_others(made: dict[str, Path]):
    table = table_of(read_runs([made["sift"]]))
    rows = [row for row in published_rows() if row.dataset == "spair"]
    assert len(table.rows) == sum(len(row.numbers) for row in rows)
    assert {row[4] for row in table.rows} == {"not measured"}
    assert sum("(supervised)" in row[0] for row in table.rows) == 3


def test_the_sign_of_runs_by_nobody_knows_whom_is_not_stated(made: dict[str, Path]):
    rows = [row for row in published_rows() if "attribution unverified" in row.source]
    again = [row.method for row in rows if row.method.endswith(", run again")]
    assert len(again) == 3
    table = table_of(read_runs([made["sift"]]))
    assert {row["sign"] for name in again for row in cells(table, name)} == {"not stated"}


def test_sources_are_numbered(made: dict[str, Path]):
    blocks = [one for one in published(read_runs([made["sift"]])) if isinstance(one, Table)]
    rows, sources, categories = blocks
    known = {number: (source, note) for number, source, note in sources.rows}
    image, point, _ = cells(rows, "SD 1.5 + DINOv2")  # the third is a re-run
    row = published_of("sd-dino")
    assert known[image["source"]] == known[point["source"]] == (row.source, row.note)
    assert (image["alpha"], image["published"]) == ("0.01 / 0.05 / 0.1", "7.9 / 44.7 / 59.9")
    assert (point["alpha"], point["published"]) == ("0.1", "64.0")
    assert ("aeroplane", "57.2", "72.7", "63.1", "73.0") in categories.rows


def test_a_mean_that_is_not_stated_stands_beside_both_of_ours(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    rows = [replace(row, recipe="same-position") for row in published_rows()]
    monkeypatch.setattr(_beside, "published_rows", lambda: tuple(rows))
    (row,) = cells(table_of(read_runs([made["willow"]])), "SIFT Flow")
    assert row["mean"] == "mean not stated"
    assert row["ours"].startswith("1 same-position: per image ")
    assert "; per point " in row["ours"]


def test_the_whole_list_needs_no_remark(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    (run,) = read_runs([made["same"]])
    row = published_of("same-position")
    assert list(remarks(row, run)) == ["24 of 12234 pairs"]
    monkeypatch.setattr(_beside, "pairs_of", lambda _: 24)
    assert list(remarks(row, run)) == []
    monkeypatch.setattr(_beside, "pairs_of", lambda _: None)
    assert list(remarks(row, run)) == ["24 pairs of a list of our own"]


def test_what_was_done_otherwise_is_remarked(made: dict[str, Path], tmp_path: Path):
    about = json.loads((made["same"] / "run.json").read_text())
    run = changed(
        made["same"], tmp_path / "run", told_category=False, symmetric={"cat": [["0", "1"]]},
        dataset=about["dataset"] | {"only": ["cat", "dog"]},
    )  # fmt: skip
    run = replace(run, records=replace(run.records, categories=("cat", "sphinx")))
    row = published_of("same-position")
    assert list(remarks(row, run))[1:] == [
        "other categories, such as sphinx", "only cat, dog", "the category not told",
        "with lists of left and right",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model", "/somewhere/else", ["other weights"]),
        ("size", 490, ["other settings than recipe dinov2-b"]),
        ("block", 9, ["other settings than recipe dinov2-b"]),
        ("", "", []),
    ],
)
def test_other_weights_and_other_settings_are_remarked(
    made: dict[str, Path], tmp_path: Path, field: str, value: Any, words: list[str]
):
    described = recipes.RECIPES["dinov2-b"].describe()
    if field:
        described["groups"][0]["backbone"][field] = value
    run = changed(made["same"], tmp_path / "run", recipe=described)
    assert list(remarks(published_of("dinov2-b"), run))[1:] == words


@pytest.mark.parametrize(
    ("lost", "words"),
    [(("flip",), []), (("groups", 0, "backbone", "facet"), []), (("groups", 0, "backbone"), None)],
)
def test_a_setting_that_is_left_out_has_its_default(
    made: dict[str, Path], tmp_path: Path, lost: tuple[Any, ...], words: list[str] | None
):
    described = recipes.RECIPES["dinov2-b"].describe()
    place: Any = described
    for key in lost[:-1]:
        place = place[key]
    del place[lost[-1]]
    run = changed(made["same"], tmp_path / "run", recipe=described)
    expected = ["other settings than recipe dinov2-b"] if words is None else words
    assert list(remarks(published_of("dinov2-b"), run))[1:] == expected


@pytest.mark.parametrize(
    "more", [{"a setting of a later version": 1}, {"matcher": {"kind": "somewhere.else"}}]
)
def test_a_recipe_that_cannot_be_read_has_other_settings(
    made: dict[str, Path], tmp_path: Path, more: dict[str, Any]
):
    described = recipes.RECIPES["dinov2-b"].describe() | more
    run = changed(made["same"], tmp_path / "run", recipe=described)
    words = ["other settings than recipe dinov2-b"]
    assert list(remarks(published_of("dinov2-b"), run))[1:] == words


@pytest.mark.parametrize(
    ("more", "words"),
    [({"crowd": None}, ["no list of crowds"]), ({"crowd": "a1b2"}, []), ({}, [])],
)
def test_ap10k_with_its_crowds_is_remarked(
    made: dict[str, Path], tmp_path: Path, more: dict[str, Any], words: list[str]
):
    dataset = ABOUT["dataset"] | {"name": "ap10k", "digest": digest_of(made["same"])} | more
    described = recipes.RECIPES["dinov2-b"].describe()
    run = changed(made["same"], tmp_path / "run", dataset=dataset, recipe=described)
    (first, *others) = remarks(published_of("dinov2-b", "ap10k"), run)
    assert first == "24 pairs of a list of our own"
    assert others == words


def test_drawn_pairs_stand_beside_no_row(made: dict[str, Path], tmp_path: Path):
    drawn = json.loads((made["same"] / "run.json").read_text())["dataset"]
    drawn |= {"drawn": {"seed": 0, "pairs": 24}}
    run = changed(made["same"], tmp_path / "run", dataset=drawn)
    words = "These pairs are drawn. Published rows are of the real spair, so none stands here."
    assert list(published([run])) == [Heading("Published"), Text(words)]
    (real,) = read_runs([made["same"]])
    (row,) = cells(table_of([run, real]), "same position")
    (alone,) = cells(table_of([real]), "same position")
    assert row == alone
    assert row["ours"].endswith("(24 of 12234 pairs)")


def test_another_part_of_the_data_set_has_no_rows(made: dict[str, Path], tmp_path: Path):
    about = json.loads((made["same"] / "run.json").read_text())
    dataset = about["dataset"] | {"split": "val"}
    run = changed(made["same"], tmp_path / "run", dataset=dataset)
    texts = [block for block in published([run]) if isinstance(block, Text)]
    assert [text.words for text in texts] == ["The published rows are of another part: split test."]


def test_a_data_set_without_published_rows_has_no_such_part(tmp_path: Path):
    path = write_run(
        tmp_path / "run", [pair()], {"a": EXACT},
        dataset=ABOUT["dataset"] | {"name": "mine"},
    )  # fmt: skip
    assert list(published(read_runs([path]))) == []


def test_a_row_whose_side_a_run_lacks_is_not_measured(made: dict[str, Path], tmp_path: Path):
    path = write_run(
        tmp_path / "run", [pair(target_box=None)], {"a": EXACT},
        recipe={"name": "same-position"},
    )  # fmt: skip
    (row,) = cells(table_of(read_runs([path])), "same position")
    assert row["ours"] == "not measured"
