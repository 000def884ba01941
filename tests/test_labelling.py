"""Folders labelled by one process or several, stopped, killed, and gone on with."""

from __future__ import annotations

import csv
import dataclasses
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from sdcorr.backbones.sift import Sift
from sdcorr.cache import DiskStore
from sdcorr.cli import _run
from sdcorr.coco import read_references
from sdcorr.confidence import Calibration
from sdcorr.errors import BadAnnotations, BadOutput, BadRecipe, BadRun, OutOfMemory
from sdcorr.labelling import Labelling, Progress, label
from sdcorr.photos import find_photos
from sdcorr.pipeline import Pipeline
from sdcorr.processes import World
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from sdcorr.runtime import Runtime
from sdcorr.shards import Shard, locked
from sdcorr.transfer import Annotator
from tests.annotated import draw_photo

ALONE = World()
PHOTOS = 12
NAMES = ("nose", "left ear", "right ear", "tail", "paw")  # no reference shows the paw
STARS = tuple(f"photo{index:02d}.png" for index in range(PHOTOS))


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No launcher around, and no process left."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    yield
    for process in multiprocessing.active_children():
        process.kill()


# What is labelled


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two references and twelve photos of noise, every third one upright."""
    home = tmp_path_factory.mktemp("source")
    for index, name in enumerate(STARS):
        draw_photo(home / "photos" / name, *((60, 80) if index % 3 == 1 else (80, 60)), seed=index)
    for index in range(2):
        draw_photo(home / f"cat{index}.png", 80, 60, seed=100 + index)
    write_references(home / "cats.json")
    (home / "recipe.json").write_text(json.dumps(RECIPE.describe()))
    return home


@pytest.fixture
def home(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of them."""
    shutil.copytree(source, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def write_references(path: Path, nose: float = 20.0) -> None:
    """Two annotated photos, one of which does not show the tail."""
    points = [[nose, 15, 2, 10, 5, 2, 30, 5, 2, 70, 50, 2, 0, 0, 0]]
    points.append([25, 18, 2, 15, 8, 2, 35, 8, 1, 0, 0, 0, 0, 0, 0])
    about = {
        "images": [
            {"id": index, "file_name": f"cat{index}.png", "height": 60, "width": 80}
            for index in range(2)
        ],
        "annotations": [
            {"id": index, "image_id": index, "category_id": 7, "keypoints": numbers}
            for index, numbers in enumerate(points)
        ],
        "categories": [
            {"id": 7, "name": "cat", "keypoints": list(NAMES), "skeleton": [[1, 2], [1, 3]]}
        ],
    }
    path.write_text(json.dumps(about))


def _small() -> Recipe:
    """sift for small photos, calibrated: confidences spread from 0 to 1."""
    (group,) = find_recipe("sift").groups
    group = dataclasses.replace(group, backbone=Sift(size=64, diameters=(16.0,)))
    spread = Calibration(-2.0, 1.0, 40.0, 2.0, -0.5, alpha=0.1, threshold="keypoints")
    return dataclasses.replace(
        find_recipe("sift"), name="small", groups=(group,), calibration=spread
    )


RECIPE = _small()


def labelling(out: str = "labels.json", *, photos: Any = ("photos",), **changes: Any) -> Labelling:
    """In the working folder."""
    values: dict[str, Any] = {"recipe": RECIPE, "runtime": Runtime(), "out": Path(out)}
    root = changes.pop("root", None)
    references = read_references(Path("cats.json"))
    return Labelling(references, find_photos(photos, root), **(values | changes))


def read(path: str = "labels.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_bytes())
    return found


def names_of(path: str = "labels.json") -> list[str]:
    return [image["file_name"] for image in read(path)["images"]]


def listed() -> set[str]:
    return set(os.listdir())


def stop_after(photos: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.done == photos:
            raise KeyboardInterrupt

    return watch


class Counts:
    """A watch that keeps how much there was to do."""

    before = photos = done = gone = -1

    def __call__(self, progress: Progress) -> None:
        self.before, self.photos, self.done = progress.before, progress.photos, progress.done
        self.gone = progress.gone


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """File names of the photos that are encoded from now on."""
    names: list[str] = []
    encode = Pipeline.encode_batch

    def listen(self: Pipeline, images: Any, *rest: Any, **options: Any) -> Any:
        names.extend(image.path.name for image in images)
        return encode(self, images, *rest, **options)

    monkeypatch.setattr(Pipeline, "encode_batch", listen)
    return names


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The labels of one process that nothing happened to."""
    before = os.getcwd()
    os.chdir(source)
    try:
        out = tmp_path_factory.mktemp("whole") / "labels.json"
        label(labelling(str(out)), ALONE)
    finally:
        os.chdir(before)
    return out.read_bytes()


# One process


def test_labels_are_coco_keypoints_of_each_photo(home: Path) -> None:
    assert label(labelling(), ALONE) == {}
    found = read()
    assert set(found) == {"info", "categories", "images", "annotations"}
    assert found["categories"] == json.loads(Path("cats.json").read_text())["categories"]
    assert names_of() == list(STARS)
    sizes = {(image["width"], image["height"]) for image in found["images"]}
    assert sizes == {(80, 60), (60, 80)}
    assert [image["id"] for image in found["images"]] == list(range(1, PHOTOS + 1))
    annotator = Annotator(Pipeline(RECIPE, Runtime()), read_references(Path("cats.json")))
    for image, one in zip(found["images"], found["annotations"], strict=True):
        assert (one["id"], one["image_id"], one["category_id"]) == (image["id"], image["id"], 7)
        expected = annotator(Path("photos") / image["file_name"])
        assert (image["height"], image["width"]) == expected.size
        assert one["keypoint_predictions"][:4] == expected.places[:4].tolist()
        assert one["keypoint_scores"][:4] == expected.score[:4].tolist()
        assert one["keypoint_confidences"][:4] == expected.confidence[:4].tolist()
        last = (one["keypoint_predictions"], one["keypoint_scores"], one["keypoint_confidences"])
        assert [values[4] for values in last] == [None] * 3
        assert one["keypoints_matched"] == expected.matched.tolist()
        triples = [one["keypoints"][start : start + 3] for start in range(0, 15, 3)]
        for triple, place, matched in zip(
            triples, one["keypoint_predictions"], one["keypoints_matched"], strict=True
        ):
            assert triple == ([*place, 2] if matched else [0, 0, 0])
        assert one["num_keypoints"] == sum(one["keypoints_matched"]) == 4


def test_labels_say_how_they_were_made(home: Path) -> None:
    label(labelling(min_confidence=0.25), ALONE)
    about = read()["info"]["sdcorr"]
    assert about["schema"] == "sdcorr.labels/1"
    assert about["references"]["category"] == "cat"
    assert about["references"]["objects"] == 2
    assert about["recipe"] == json.loads(json.dumps(RECIPE.describe()))
    assert (about["weights"], about["min_confidence"], about["skipped"]) == ({}, 0.25, {})
    assert (about["runtime"]["device"], about["runtime"]["dtype"]) == ("cpu", "float32")
    assert about["runtime"]["versions"]["torch"]


def test_the_same_photos_get_the_same_bytes_wherever_they_lie(home: Path, whole: bytes) -> None:
    assert b"/" not in whole.partition(b'"images"')[2]
    label(labelling(), ALONE)
    assert Path("labels.json").read_bytes() == whole
    label(labelling("other.json", photos=(home / "photos",)), ALONE)
    assert Path("other.json").read_bytes() == whole


def test_nothing_but_the_files_is_left(home: Path) -> None:
    before = listed()
    label(labelling(csv=Path("labels.csv"), review=Path("labels.html")), ALONE)
    assert listed() - before == {"labels.json", "labels.csv", "labels.html"}


def test_the_table_says_the_same_as_the_json(home: Path) -> None:
    label(labelling(csv=Path("labels.csv"), min_confidence=0.3), ALONE)
    with open("labels.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["file_name", "keypoint", "x", "y", "v", "score", "confidence"]
    assert len(rows) == PHOTOS * len(NAMES)
    found, kept = read(), set()
    for index, (name, keypoint, x, y, v, score, confidence) in enumerate(rows):
        one, part = found["annotations"][index // 5], index % 5
        assert (name, keypoint) == (found["images"][index // 5]["file_name"], NAMES[part])
        kept.add(v)
        assert int(v) == one["keypoints"][3 * part + 2]
        place = one["keypoint_predictions"][part]
        assert [x, y] == (["", ""] if place is None else [str(number) for number in place])
        for text, values in (
            (score, one["keypoint_scores"]),
            (confidence, one["keypoint_confidences"]),
        ):
            assert text == ("" if values[part] is None else str(values[part]))
    assert kept == {"0", "2"}


def test_without_a_calibration_there_is_no_confidence_and_none_can_be_asked_for(home: Path) -> None:
    bare = dataclasses.replace(RECIPE, calibration=None)
    label(labelling(recipe=bare, csv=Path("labels.csv"), photos=("photos/photo00.png",)), ALONE)
    (one,) = read()["annotations"]
    assert one["keypoint_confidences"] is None
    assert one["num_keypoints"] == 4
    assert Path("labels.csv").read_text().splitlines()[1].endswith(",")
    before = listed()
    with pytest.raises(BadRecipe, match="these matches have no confidence to be compared with"):
        label(labelling("other.json", recipe=bare, min_confidence=0.5), ALONE)
    assert listed() == before


def test_labels_are_the_next_references(home: Path) -> None:
    label(labelling(), ALONE)
    again = read_references(Path("labels.json"), images=Path("photos"))
    assert len(again.objects) == PHOTOS
    assert again.never_visible == ["paw"]
    job = dataclasses.replace(labelling("second.json"), references=again)
    label(dataclasses.replace(job, photos=find_photos(["photos/photo03.png"])), ALONE)
    # the photo is one of its references, and 12 of noise do not agree by chance
    first, (second,) = read()["annotations"][3], read("second.json")["annotations"]
    assert second["keypoints"][:2] == pytest.approx(first["keypoints"][:2], abs=2)


# Going on


def test_a_run_that_was_stopped_ends_like_one_that_was_not(
    home: Path, whole: bytes, encoded: list[str]
) -> None:
    for photos in (3, 1, 4):
        with pytest.raises(KeyboardInterrupt):
            label(labelling(), ALONE, stop_after(photos))
        assert "labels.json" not in listed()
    label(labelling(), ALONE, counts := Counts())
    assert (counts.before, counts.photos, counts.done) == (8, 4, 4)
    assert Path("labels.json").read_bytes() == whole
    assert "labels.json.parts" not in listed()
    for name in STARS:  # a photo after the last one may have been read and encoded ahead
        assert encoded.count(name) <= 2
    assert sum(encoded.count(name) for name in STARS) <= PHOTOS + 3


def test_a_run_cut_at_any_byte_ends_like_one_that_was_not(home: Path, whole: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        label(labelling(), ALONE, stop_after(PHOTOS))
    (shard,) = Path("labels.json.parts", "shards").glob("*.jsonl")
    lines = shard.read_bytes()
    last = lines.splitlines(keepends=True)[-1]
    shutil.copytree("labels.json.parts", "kept")
    # in the last line, so that one photo alone is computed anew
    for cut in (1, len(last) // 2, len(last) - 1, len(last)):
        shutil.rmtree("labels.json.parts", ignore_errors=True)
        Path("labels.json").unlink(missing_ok=True)
        shutil.copytree("kept", "labels.json.parts")
        Path("labels.json.parts", "shards", shard.name).write_bytes(lines[:-cut])
        label(labelling(), ALONE, counts := Counts())
        assert counts.photos == 1
        assert Path("labels.json").read_bytes() == whole


@pytest.mark.parametrize("step", ["join_shards", "write_coco", "write_csv", "write_review", "end"])
def test_a_run_killed_while_it_writes_the_files_loses_nothing(
    home: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    places = {
        "join_shards": "sdcorr.parts.join_shards",
        "write_coco": "sdcorr.labels.LabelFile.write_coco",
        "write_csv": "sdcorr.labels.LabelFile.write_csv",
        "write_review": "sdcorr.labelling.write_review",
        "end": "sdcorr.parts.Parts.delete",
    }
    job = labelling(csv=Path("labels.csv"), review=Path("labels.html"))
    with monkeypatch.context() as patch:
        patch.setattr(places[step], die)
        with pytest.raises(KeyboardInterrupt):
            label(job, ALONE)
    label(job, ALONE, counts := Counts())
    assert counts.photos == 0
    assert Path("labels.json").read_bytes() == whole
    assert {"labels.csv", "labels.html"} < listed()
    assert "labels.json.parts" not in listed()


def test_the_same_command_again_computes_nothing(
    home: Path, whole: bytes, encoded: list[str]
) -> None:
    label(labelling(), ALONE)
    encoded.clear()
    assert label(labelling(), ALONE, counts := Counts()) == {}
    assert (counts.before, counts.photos) == (PHOTOS, 0)
    assert encoded == []
    assert Path("labels.json").read_bytes() == whole


def test_photos_added_later_are_added_and_the_others_not_computed_again(
    home: Path, whole: bytes, encoded: list[str]
) -> None:
    Path("later").mkdir()
    for name in (STARS[0], STARS[5], STARS[11]):
        Path("photos", name).rename(Path("later", name))
    label(labelling(), ALONE)
    assert len(names_of()) == PHOTOS - 3
    for name in (STARS[0], STARS[5], STARS[11]):
        Path("later", name).rename(Path("photos", name))
    encoded.clear()
    label(labelling(), ALONE, counts := Counts())
    assert (counts.before, counts.photos) == (PHOTOS - 3, 3)
    assert sorted(encoded) == ["cat0.png", "cat1.png", STARS[0], STARS[5], STARS[11]]
    assert Path("labels.json").read_bytes() == whole


def test_a_skipped_photo_is_named_and_tried_again(home: Path, whole: bytes) -> None:
    good = Path("photos", STARS[4]).read_bytes()
    Path("photos", STARS[4]).write_bytes(good[:-200])
    Path("photos", STARS[7]).write_text("no photo")
    skipped = label(labelling(), ALONE, counts := Counts())
    assert set(skipped) == {STARS[4], STARS[7]}
    assert "is damaged" in skipped[STARS[4]]
    assert "is no photo" in skipped[STARS[7]]
    assert (counts.photos, counts.done) == (PHOTOS, PHOTOS)
    assert names_of() == [name for name in STARS if name not in skipped]
    assert read()["info"]["sdcorr"]["skipped"] == skipped
    Path("photos", STARS[4]).write_bytes(good)
    draw_photo(Path("photos", STARS[7]), 60, 80, seed=7)
    assert label(labelling(), ALONE, counts) == {}
    assert (counts.before, counts.photos) == (PHOTOS - 2, 2)
    assert Path("labels.json").read_bytes() == whole


def test_a_photo_skipped_before_a_stop_is_tried_again(home: Path, whole: bytes) -> None:
    good = Path("photos", STARS[0]).read_bytes()
    Path("photos", STARS[0]).write_bytes(b"")
    with pytest.raises(KeyboardInterrupt):
        label(labelling(), ALONE, stop_after(3))
    Path("photos", STARS[0]).write_bytes(good)
    assert label(labelling(), ALONE) == {}
    assert Path("labels.json").read_bytes() == whole


def test_a_photo_skipped_again_is_skipped_for_the_reason_of_now(home: Path) -> None:
    Path("photos", STARS[0]).write_bytes(b"")
    with pytest.raises(KeyboardInterrupt):
        label(labelling(), ALONE, stop_after(2))
    Path("photos", STARS[0]).write_text("no photo")
    skipped = label(labelling(), ALONE)
    assert "is no photo that can be read" in skipped[STARS[0]]


def test_where_all_photos_are_skipped_the_files_are_empty_and_can_be_filled(
    home: Path, whole: bytes
) -> None:
    kept = {name: Path("photos", name).read_bytes() for name in STARS}
    for name in STARS:
        Path("photos", name).write_bytes(b"")
    job = labelling(csv=Path("labels.csv"), review=Path("labels.html"))
    assert set(label(job, ALONE)) == set(STARS)
    assert read()["images"] == read()["annotations"] == []
    assert len(Path("labels.csv").read_text().splitlines()) == 1
    assert "0 of 0 photos" in Path("labels.html").read_text()
    for name, content in kept.items():
        Path("photos", name).write_bytes(content)
    assert label(labelling(), ALONE) == {}
    assert Path("labels.json").read_bytes() == whole


def test_another_least_confidence_changes_what_counts_without_computing(
    home: Path, whole: bytes, encoded: list[str]
) -> None:
    label(labelling(), ALONE)
    before = read()["annotations"]
    sure = [value for one in before for value in one["keypoint_confidences"] if value is not None]
    middle = sorted(sure)[len(sure) // 2]
    encoded.clear()
    label(labelling(min_confidence=middle), ALONE, counts := Counts())
    assert counts.photos == 0
    assert encoded == []
    after = read()["annotations"]
    for one, other in zip(before, after, strict=True):
        for part, likely in enumerate(other["keypoint_confidences"]):
            there = likely is not None and likely >= middle
            kept = one["keypoints"][3 * part : 3 * part + 3] if there else [0, 0, 0]
            assert other["keypoints"][3 * part : 3 * part + 3] == kept
        assert other["num_keypoints"] == sum(v > 0 for v in other["keypoints"][2::3])
        for key in ("id", "image_id", "keypoint_predictions", "keypoint_scores"):
            assert one[key] == other[key]
    assert 0 < sum(one["num_keypoints"] for one in after) < len(sure)
    assert read()["info"]["sdcorr"]["min_confidence"] == middle
    label(labelling(), ALONE)
    assert Path("labels.json").read_bytes() == whole


def test_maps_kept_on_disk_give_the_same_labels(home: Path, whole: bytes) -> None:
    for name in ("first.json", "second.json"):
        store = DiskStore(home / "cache")
        label(labelling(name, store=store), ALONE)
        assert Path(name).read_bytes() == whole
    assert store.hits == PHOTOS + 2


# What is refused, and stays as it is


CHANGES: dict[str, dict[str, Any]] = {
    "recipe.matcher.mutual was false, now true": {
        "recipe": dataclasses.replace(
            RECIPE, matcher=dataclasses.replace(RECIPE.matcher, mutual=True)
        )
    },
    'recipe.name was "small", now "same-position"': {"recipe": find_recipe("same-position")},
    'runtime.dtype was "float32", now "bfloat16"': {"runtime": Runtime(dtype=torch.bfloat16)},
}


@pytest.mark.parametrize("message", CHANGES)
def test_labels_made_in_another_way_are_refused_and_stay(home: Path, message: str) -> None:
    one = ("photos/photo00.png",)
    label(labelling(photos=one), ALONE)
    kept, before = Path("labels.json").read_bytes(), listed()
    with pytest.raises(BadRun, match=r"labels\.json was made in another way: ") as refused:
        label(labelling(photos=one, **CHANGES[message]), ALONE)
    assert message in str(refused.value)
    assert "choose another --out, or delete it" in str(refused.value)
    assert Path("labels.json").read_bytes() == kept
    assert listed() == before


def test_an_unfinished_run_in_another_way_is_refused_and_stays(home: Path, whole: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        label(labelling(), ALONE, stop_after(5))
    for message, change in CHANGES.items():
        with pytest.raises(BadRun, match=r"labels\.json\.parts was made in another way") as refused:
            label(labelling(**change), ALONE)
        assert message in str(refused.value)
    label(labelling(), ALONE, counts := Counts())
    assert counts.before == 5
    assert Path("labels.json").read_bytes() == whole


def test_other_references_are_refused(home: Path) -> None:
    one = ("photos/photo00.png",)
    label(labelling(photos=one), ALONE)
    kept = Path("labels.json").read_bytes()
    write_references(Path("cats.json"), nose=21)
    with pytest.raises(BadRun, match=r"the references are others"):
        label(labelling(photos=one), ALONE)
    write_references(Path("cats.json"))
    draw_photo(Path("cat1.png"), 80, 60, seed=3)
    with pytest.raises(BadRun, match=r"the references are others"):
        label(labelling(photos=one), ALONE)
    assert Path("labels.json").read_bytes() == kept


FOREIGN = {
    "empty": b"",
    "text": b"labels\n",
    "a list": b"[]",
    "a number": b"3",
    "references": None,  # cats.json
    "COCO with an info": b'{"info": {"year": 2017}, "images": [], "annotations": []}',
    "no info": b'{"info": null, "images": [], "annotations": []}',
    "a deep list": b"[" * 100_000,
    "not UTF-8": b"\xff\xfe{}",
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_somebody_else_is_refused_and_stays(home: Path, case: str) -> None:
    content = FOREIGN[case] if FOREIGN[case] is not None else Path("cats.json").read_bytes()
    Path("labels.json").write_bytes(content)
    before = listed()
    with pytest.raises(BadRun, match=r"labels\.json exists and was not written by sdcorr transfer"):
        label(labelling(), ALONE)
    assert Path("labels.json").read_bytes() == content
    assert listed() == before


@pytest.mark.parametrize("about", ["[]", '"x"', "null", "3"])
def test_labels_that_say_in_no_object_how_they_were_made_are_refused(
    home: Path, about: str
) -> None:
    content = f'{{"info": {{"sdcorr": {about}}}, "images": [], "annotations": []}}'
    Path("labels.json").write_text(content)
    with pytest.raises(BadRun, match=r"labels\.json exists and was not written by sdcorr transfer"):
        label(labelling(), ALONE)
    assert Path("labels.json").read_text() == content


def test_labels_that_lack_how_they_were_made_are_refused_in_few_words(home: Path) -> None:
    content = {"info": {"sdcorr": {"schema": "sdcorr.labels/1"}}, "images": [], "annotations": []}
    Path("labels.json").write_text(json.dumps(content))
    with pytest.raises(BadRun, match=r"labels\.json") as refused:
        label(labelling(), ALONE)
    assert len(str(refused.value)) < 500


def test_labels_cut_at_any_byte_are_refused_and_stay(home: Path, whole: bytes) -> None:
    before = listed() | {"labels.json"}
    for cut in random.Random(0).sample(range(len(whole) - 2), 40):
        Path("labels.json").write_bytes(whole[:cut])
        with pytest.raises(BadRun, match="was not written by sdcorr transfer, or is damaged"):
            label(labelling(), ALONE)
        assert Path("labels.json").read_bytes() == whole[:cut]
    assert listed() == before


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "a value less": lambda one: one["keypoint_scores"].pop(),
    "a match less": lambda one: one["keypoints_matched"].pop(),
    "a word": lambda one: one.update(keypoint_predictions="x"),
    "a place of three": lambda one: one["keypoint_predictions"][0].append(1),
    "a word for a confidence": lambda one: one.update(keypoint_confidences=["x"] * 5),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_values_are_refused_and_stay(home: Path, whole: bytes, case: str) -> None:
    content = json.loads(whole)
    DAMAGE[case](content["annotations"][2])
    Path("labels.json").write_text(json.dumps(content))
    kept = Path("labels.json").read_bytes()
    with pytest.raises(BadRun, match="was not written by sdcorr transfer, or is damaged"):
        label(labelling(min_confidence=0.1, csv=Path("labels.csv")), ALONE)
    assert Path("labels.json").read_bytes() == kept


def test_labels_that_were_corrected_by_hand_are_not_lost(home: Path, whole: bytes) -> None:
    content = json.loads(whole)
    content["annotations"][2]["keypoints"][:3] = [12, 34, 2]
    Path("labels.json").write_text(json.dumps(content))
    draw_photo(Path("photos", "photo99.png"), 80, 60, seed=99)
    with suppress(BadRun, BadOutput):
        label(labelling(), ALONE)
    assert read()["annotations"][2]["keypoints"][:3] == [12, 34, 2]


def test_a_keypoint_that_was_struck_out_by_hand_does_not_come_back(home: Path) -> None:
    label(labelling(), ALONE)
    content = read()
    content["annotations"][2]["keypoints"][:3] = [0, 0, 0]
    Path("labels.json").write_text(json.dumps(content))
    with pytest.raises(BadRun, match=r"was changed since it was written \(annotation 3 was"):
        label(labelling(), ALONE)


def test_a_keypoint_that_was_restored_by_hand_does_not_go_away(home: Path) -> None:
    label(labelling(min_confidence=1.0), ALONE)
    content = read()
    one = content["annotations"][2]
    one["keypoints"][:3] = [*one["keypoint_predictions"][0], 2]
    Path("labels.json").write_text(json.dumps(content))
    with pytest.raises(BadRun, match=r"was changed since it was written \(annotation 3 was"):
        label(labelling(min_confidence=1.0), ALONE)


def test_the_number_of_windows_at_once_is_no_other_way(home: Path) -> None:
    """As OutOfMemory advises, after many photos."""
    with pytest.raises(KeyboardInterrupt):
        label(labelling(), ALONE, stop_after(3))
    job = labelling()
    job = dataclasses.replace(job, runtime=dataclasses.replace(job.runtime, batch=1))
    label(job, ALONE, counts := Counts())
    assert counts.before == 3


def test_a_photo_whose_label_was_deleted_by_hand_does_not_come_back(
    home: Path, whole: bytes
) -> None:
    content = json.loads(whole)
    del content["annotations"][2]
    Path("labels.json").write_text(json.dumps(content))
    with suppress(BadRun, BadOutput):
        label(labelling(), ALONE)
    assert len(read()["annotations"]) == PHOTOS - 1


# Which photos are meant


def test_labels_of_photos_not_asked_for_are_kept(home: Path, whole: bytes) -> None:
    label(labelling(), ALONE)
    with pytest.raises(
        BadRun, match=r"labels\.json also labels 10 photos that are not asked for now, first "
        r"photo02\.png; name them, too, or choose another --out",
    ):  # fmt: skip
        label(labelling(photos=("photos/photo00.png", "photos/photo01.png")), ALONE)
    assert Path("labels.json").read_bytes() == whole
    label(labelling(), ALONE, counts := Counts())
    assert counts.photos == 0
    assert Path("labels.json").read_bytes() == whole


def test_labels_of_deleted_photos_are_dropped(home: Path) -> None:
    label(labelling(), ALONE)
    Path("photos", STARS[3]).unlink()
    label(labelling(), ALONE, counts := Counts())
    assert counts.photos == 0
    assert counts.gone == 1
    assert names_of() == [name for name in STARS if name != STARS[3]]
    assert [one["id"] for one in read()["annotations"]] == list(range(1, PHOTOS))


def test_labels_of_a_folder_do_not_pass_for_those_of_another(home: Path) -> None:
    """A name is below a root: the same name in another folder is another photo."""
    Path("other").mkdir()
    for index, name in enumerate(STARS[:3]):
        draw_photo(Path("other", name), 80, 60, seed=50 + index)
    label(labelling("right.json", photos=("other",)), ALONE)
    for name in STARS[3:]:
        Path("photos", name).unlink()
    label(labelling(), ALONE)
    try:
        label(labelling(photos=("other",)), ALONE)
    except BadRun:
        return
    assert read()["annotations"] == read("right.json")["annotations"]


def test_a_photo_that_was_replaced_does_not_keep_the_label_of_the_old_one(home: Path) -> None:
    one = ("photos/photo00.png",)
    label(labelling(photos=one), ALONE)
    draw_photo(Path(*one), 60, 80, seed=77)
    label(labelling("right.json", photos=one), ALONE)
    try:
        label(labelling(photos=one), ALONE)
    except BadRun:
        return
    assert read()["annotations"] == read("right.json")["annotations"]


def test_photos_are_not_computed_again_because_the_root_has_moved(
    home: Path, encoded: list[str]
) -> None:
    """One more folder moves the root up, and every name changes."""
    label(labelling(), ALONE)
    Path("more").mkdir()
    draw_photo(Path("more", "a.png"), 80, 60, seed=1)
    encoded.clear()
    try:
        label(labelling(photos=("photos", "more")), ALONE)
    except BadRun:
        return
    assert [name for name in encoded if name in STARS] == []


def test_what_was_done_of_photos_not_asked_for_now_is_kept(home: Path, whole: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        label(labelling(), ALONE, stop_after(8))
    with pytest.raises(BadRun, match="that are not asked for now"):
        label(labelling(photos=("photos/photo00.png",)), ALONE)
    label(labelling(), ALONE, counts := Counts())
    assert counts.before == 8
    assert Path("labels.json").read_bytes() == whole


# What lies where the parts are kept


def test_a_folder_of_the_user_in_the_place_of_the_parts_is_not_deleted(home: Path) -> None:
    Path("labels.json.parts").mkdir()
    Path("labels.json.parts", "precious.txt").write_text("mine")
    with suppress(BadRun, BadOutput):
        label(labelling(photos=("photos/photo00.png",)), ALONE)
    assert Path("labels.json.parts", "precious.txt").read_text() == "mine"


def test_a_file_in_the_place_of_the_parts_is_said(home: Path) -> None:
    Path("labels.json.parts").write_text("mine")
    with pytest.raises(BadOutput, match=r"cannot make labels\.json\.parts: File exists"):
        label(labelling(), ALONE)


def test_leftover_parts_that_do_not_say_how_they_were_made_are_not_taken(home: Path) -> None:
    """As a process leaves them that is killed while it deletes them."""
    one = ("photos/photo00.png",)
    same = find_recipe("same-position")
    with pytest.raises(KeyboardInterrupt):
        label(labelling(photos=one, recipe=same), ALONE, stop_after(1))
    Path("labels.json.parts", "about.json").unlink()
    try:
        label(labelling(photos=one), ALONE)
    except BadRun:
        return
    label(labelling("right.json", photos=one), ALONE)
    assert read()["annotations"] == read("right.json")["annotations"]


def test_a_damaged_note_of_the_parts_is_said(home: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        label(labelling(), ALONE, stop_after(1))
    Path("labels.json.parts", "about.json").write_text("{")
    with pytest.raises(BadRun, match=r"labels\.json\.parts/about\.json is damaged"):
        label(labelling(), ALONE)


def test_a_start_that_fails_leaves_nothing_that_refuses_the_next(home: Path) -> None:
    """The photo is of another size than annotated; the user puts the right one there."""
    right = Path("cat0.png").read_bytes()
    draw_photo(Path("cat0.png"), 40, 30, seed=5)
    with pytest.raises(BadAnnotations, match=r"reference cat0\.png is 40 x 30"):
        label(labelling(), ALONE)
    Path("cat0.png").write_bytes(right)
    assert label(labelling(), ALONE) == {}


# Two launches at once


def test_a_second_launch_is_refused_while_the_first_works(home: Path, whole: bytes) -> None:
    def watch(progress: Progress) -> None:
        if progress.done in (0, 3, PHOTOS):
            with pytest.raises(
                BadRun, match=r"another process is writing to labels\.json\.parts; wait for it to"
            ):
                label(labelling(), ALONE)

    label(labelling(), ALONE, watch)
    assert Path("labels.json").read_bytes() == whole


def test_a_launch_is_refused_while_one_process_of_another_still_works(home: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        label(labelling(), ALONE, stop_after(1))
    with (
        locked(Path("labels.json.parts", "shards", "x-0001.lock")),
        pytest.raises(BadRun, match="another process is writing to"),
    ):
        label(labelling(), ALONE)
    label(labelling(), ALONE)


def test_a_launch_that_is_refused_leaves_the_other_alone(home: Path) -> None:
    """The other's first process had nothing to do, its second has no result yet."""
    shards = Path("labels.json.parts", "shards")
    with Shard(shards, "x-0001", {}):
        with pytest.raises(BadRun, match="another process is writing to"):
            label(labelling(), ALONE)
        assert (shards / "x-0001.jsonl").exists()


def test_a_process_that_fails_at_once_leaves_the_others_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, plan = Path("labels.json.parts", "shards"), {}
    with ExitStack() as other:

        def fail(*_arguments: Any) -> None:
            other.enter_context(Shard(shards, "x-0001", {}))
            raise OutOfMemory("the first GPU is full")

        monkeypatch.setattr("sdcorr.labelling.Annotator", fail)
        with pytest.raises(OutOfMemory):
            label(labelling(), Side(0, plan))
        assert (shards / "x-0001.jsonl").exists()


class Overtaken(Labelling):
    """A launch that another overtakes after it has looked at ``out`` and before it has locked."""

    others: list[Labelling] = []  # noqa: RUF012

    @property
    def parts(self) -> Path:
        while self.others:
            label(self.others.pop(), ALONE)
        return super().parts


def test_labels_written_between_a_look_and_the_lock_are_not_replaced(home: Path) -> None:
    one = ("photos/photo00.png",)
    job = labelling(photos=one, recipe=find_recipe("same-position"))
    fields = {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}
    Overtaken.others.append(labelling(photos=one))
    with pytest.raises(BadRun, match="was made in another way"):
        label(Overtaken(**fields), ALONE)
    assert read()["info"]["sdcorr"]["recipe"]["name"] == "small"


# Several processes, and processes that die


class Side(World):
    """One of two processes of a launch that take their turns in this one."""

    def __init__(self, rank: int, plan: dict[str, Any]) -> None:
        super().__init__(rank, 2)
        self._told = plan

    def lead(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self.rank == 0:
            self._told.update(work())
        return self._told


@pytest.mark.parametrize("change", ["a photo comes", "a photo goes"])
def test_a_folder_that_changes_while_processes_start_is_no_trouble(home: Path, change: str) -> None:
    plan: dict[str, Any] = {}
    leader = labelling()
    if change == "a photo comes":
        draw_photo(Path("photos", "photo99.png"), 80, 60, seed=99)
        other = labelling()
    else:
        kept = Path("photos", STARS[0]).read_bytes()
        Path("photos", STARS[0]).unlink()
        other = labelling()
        Path("photos", STARS[0]).write_bytes(kept)
    assert label(leader, Side(0, plan)) is None
    assert label(other, Side(1, plan)) == {}
    assert names_of() == list(STARS)


FORKS = multiprocessing.get_context("forkserver")  # imports once, then starts them at once
FORKS.set_forkserver_preload(["torch.distributed", "sdcorr.labelling", "sdcorr.recipes", "cv2"])


def command(out: str, *more: str) -> list[str]:
    return ["transfer", "cats.json", "photos", "--recipe", "recipe.json", "--out", out, *more]


@dataclasses.dataclass(frozen=True)
class Started:
    """One process of the command line."""

    process: Any
    said: Path

    @property
    def status(self) -> int:
        """At its end; one that hangs fails its test and no other."""
        self.process.join(60)
        if self.process.exitcode is None:
            self.process.kill()
            pytest.fail(f"hangs: {self.said.read_text()}")
        return int(self.process.exitcode)


def start(home: Path, arguments: list[str], **options: Any) -> Started:
    said = home.parent / f"said-{random.getrandbits(64):x}"
    process = FORKS.Process(target=_child, args=(home, arguments, said), kwargs=options)
    process.start()
    return Started(process, said)


def _child(
    home: Path,
    arguments: list[str],
    said: Path,
    environment: dict[str, str] | None = None,
    largest: int | None = None,
    pause: float = 0.03,
) -> None:
    """The command line, in a process of its own that has imported nearly all."""
    os.chdir(home)
    os.environ.update(environment or {})
    torch.set_num_threads(1)
    output = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    if largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    import sdcorr.labelling

    to_line = sdcorr.labelling.to_line

    def slowly(*arguments: Any) -> dict[str, Any]:
        time.sleep(pause)  # a test that kills a process must find it at work
        return to_line(*arguments)

    sdcorr.labelling.to_line = slowly
    status = _run(arguments)
    sys.stdout.flush()
    os._exit(status)


def start_several(home: Path, processes: int, *arguments: list[str]) -> list[Started]:
    """As torchrun starts them, with like arguments or some for each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    return [
        start(
            home, arguments[rank % len(arguments)],
            environment=place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(processes)
    ]  # fmt: skip


def lines_written(home: Path, out: str = "labels.json") -> int:
    shards = (home / f"{out}.parts" / "shards").glob("*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in shards)


def wait_for_lines(home: Path, lines: int, started: Started) -> None:
    deadline = time.monotonic() + 60
    while lines_written(home) < lines:
        assert started.process.is_alive(), started.said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_write_the_labels_of_one(
    home: Path, whole: bytes, processes: int
) -> None:
    several = start_several(home, processes, command("labels.json", "--csv", "labels.csv"))
    assert [one.status for one in several] == [0] * processes
    assert Path("labels.json").read_bytes() == whole
    assert "labels.json.parts" not in listed()
    said = "".join(one.said.read_text() for one in several)
    assert said.count("wrote labels.json") == 1  # one of them says so
    assert said.count(f"labelled {PHOTOS} of {PHOTOS} photos") == 1
    assert said.count(f"{processes} processes, ") == 1


def test_more_processes_than_photos_are_no_trouble(home: Path, whole: bytes) -> None:
    label(labelling(photos=tuple(f"photos/{name}" for name in STARS[1:])), ALONE)
    for _ in range(2):  # then there is none
        several = start_several(home, 3, command("labels.json"))
        assert [one.status for one in several] == [0] * 3
        assert Path("labels.json").read_bytes() == whole
        assert "labels.json.parts" not in listed()


def test_a_run_that_is_killed_three_times_ends_like_one_that_was_not(
    home: Path, whole: bytes
) -> None:
    moments = random.Random(7)
    for _ in range(3):
        started = start(home, command("labels.json"))
        wait_for_lines(home, moments.randint(1, 3), started)
        time.sleep(moments.uniform(0, 0.02))
        started.process.kill()
        assert started.status == -signal.SIGKILL
        assert "labels.json" not in listed()
    label(labelling(), ALONE, counts := Counts())
    assert 0 < counts.photos < PHOTOS
    assert Path("labels.json").read_bytes() == whole
    assert "labels.json.parts" not in listed()


def _killed_while_it_writes(home: Path, arguments: list[str], said: Path) -> None:
    from sdcorr.labels import LabelFile

    LabelFile._annotation = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    _child(home, arguments, said)


def test_a_process_killed_while_it_writes_the_labels_leaves_no_file(
    home: Path, whole: bytes
) -> None:
    before, said = listed(), home.parent / "said"
    process = FORKS.Process(
        target=_killed_while_it_writes, args=(home, command("labels.json"), said)
    )
    process.start()
    assert Started(process, said).status == -signal.SIGKILL
    assert "labels.json" not in listed()
    label(labelling(), ALONE, counts := Counts())
    assert counts.photos == 0
    assert Path("labels.json").read_bytes() == whole
    assert listed() - before == {"labels.json"}


def test_what_a_dead_process_left_is_finished_by_one_alone(home: Path, whole: bytes) -> None:
    several = start_several(home, 2, command("labels.json"))
    wait_for_lines(home, 2, several[0])
    several[1].process.kill()
    assert [one.status for one in several] == [0, -signal.SIGKILL]
    assert "labels.json" not in listed()
    assert "wrote" not in several[0].said.read_text()
    label(labelling(), ALONE, counts := Counts())
    assert counts.photos < PHOTOS
    assert Path("labels.json").read_bytes() == whole


def test_processes_that_were_told_different_things_refuse(home: Path) -> None:
    other = command("labels.json")
    other[other.index("recipe.json")] = "same-position"
    first, second = start_several(home, 2, command("labels.json"), other)
    assert [first.status, second.status] == [2, 2]
    assert "process 0 of 2: another process could not start; it says why" in first.said.read_text()
    assert 'recipe.name was "same-position", now "small"' not in second.said.read_text()
    assert "process 1 of 2: " in second.said.read_text()
    assert 'recipe.name was "small", now "same-position"' in second.said.read_text()
    assert "labels.json" not in listed()


def test_ctrl_c_is_130_and_the_same_command_resumes(home: Path, whole: bytes) -> None:
    started = start(home, command("labels.json"), pause=0.3)
    wait_for_lines(home, 2, started)
    os.kill(started.process.pid, signal.SIGINT)
    assert started.status == 130
    assert "interrupted; the same command resumes" in started.said.read_text()
    assert "Traceback" not in started.said.read_text()
    label(labelling(), ALONE, counts := Counts())
    assert 2 <= counts.before < PHOTOS
    assert Path("labels.json").read_bytes() == whole


# A full disk: no file may become larger than so many bytes


def full(home: Path, largest: int, *more: str) -> str:
    """What is said, and that is one sentence."""
    started = start(home, command("labels.json", *more), largest=largest)
    assert started.status == 2, started.said.read_text()
    (line,) = [
        line for line in started.said.read_text().splitlines() if line.startswith("sdcorr: ")
    ]
    assert "Traceback" not in started.said.read_text()
    return line


def test_a_disk_that_is_full_while_photos_are_labelled_costs_none_of_them(
    home: Path, whole: bytes
) -> None:
    label(labelling("about.json", photos=("photos/photo00.png",)), ALONE)
    # room for about.json, and for some lines
    told = full(home, 3000)
    assert "File too large; what was done before is kept: give the same command again" in told
    assert "labels.json" not in listed()
    kept = lines_written(home)
    assert 2 < kept < PHOTOS
    label(labelling(), ALONE, counts := Counts())
    assert counts.before == kept
    assert Path("labels.json").read_bytes() == whole


def test_a_disk_that_is_full_while_the_labels_are_written_costs_nothing(
    home: Path, whole: bytes
) -> None:
    told = full(home, len(whole) - 10, "--csv", "labels.csv")
    assert "cannot write labels.json: File too large" in told
    assert not {"labels.json", "labels.csv"} & listed()
    label(labelling(csv=Path("labels.csv")), ALONE, counts := Counts())
    assert counts.photos == 0
    assert Path("labels.json").read_bytes() == whole


def test_a_disk_that_is_full_leaves_the_labels_of_before(home: Path, whole: bytes) -> None:
    label(labelling(photos=tuple(f"photos/{name}" for name in STARS[1:])), ALONE)
    before, files = Path("labels.json").read_bytes(), listed()
    assert "cannot write labels.json: File too large" in full(home, len(before))
    assert Path("labels.json").read_bytes() == before
    assert listed() == files | {"labels.json.parts"}
    label(labelling(), ALONE, counts := Counts())
    assert counts.photos == 0
    assert Path("labels.json").read_bytes() == whole
