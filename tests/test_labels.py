"""Labels in files: nothing is lost on the way to COCO JSON and CSV and back."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdcorr.annotations import Scheme
from sdcorr.coco import read_references
from sdcorr.errors import BadImage, BadRun
from sdcorr.geometry import Size
from sdcorr.labels import LabelFile, Line, labelled, read_labels, to_line
from sdcorr.lines import read_lines, to_lines
from sdcorr.transfer import Labels
from tests.annotated import draw_photo

NAMES = ("left eye", "right eye", "nose", "tail")
ABOUT = {"schema": "sdcorr.labels/1", "recipe": {"name": "sift"}}
SKIPPED = {"photo": "d/gone.png", "skipped": "no such file: d/gone.png"}

# Three photos by hand: all found; none of some; nothing sure
LINES: list[Line] = [
    {
        "photo": "a.png", "bytes": 9, "size": [60, 80],
        "predictions": [[1.5, 2.0], [4.0, 8.0], [9.25, 9.5], [30.0, 40.0]],
        "scores": [0.75, 0.5, 0.25, -0.5], "confidences": [0.875, 0.5, 0.25, 0.125],
        "matched": [True, True, True, False],
    },
    {
        "photo": "b/c.png", "bytes": 10, "size": [80, 60],
        "predictions": [None, [0.0, 0.0], [-0.5, 79.5], [3.0, 4.0]],
        "scores": [None, 0.5, 0.25, 0.5], "confidences": [None, 0.75, 0.5, 0.25],
        "matched": [False, True, True, True],
    },
    SKIPPED,
    {
        "photo": "e.png", "bytes": 11, "size": [7, 9],
        "predictions": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], None],
        "scores": [0.5, 0.5, 0.5, None], "confidences": [0.0, 0.25, 0.75, None],
        "matched": [False, False, False, False],
    },
]  # fmt: skip


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """One by one, as a run does."""
    with path.open("wb") as file:
        for line in lines:
            file.write(to_lines([line]))


def scheme(names: Sequence[str] = NAMES, **fields: Any) -> Scheme:
    category = {"id": 7, "name": "cat", "keypoints": list(names), "skeleton": [[1, 3]]}
    category |= {"symmetric": [[names[0], names[1]]], "supercategory": "animal"}
    return Scheme(category | fields, tuple(names), ((names[0], names[1]),))


def file(least: float | None = None, names: Sequence[str] = NAMES, **fields: Any) -> LabelFile:
    return LabelFile(scheme(names, **fields), ABOUT, least)


def written(tmp_path: Path, lines: Sequence[Line], how: LabelFile | None = None) -> Path:
    """The lines as COCO JSON."""
    write_lines(tmp_path / "lines.jsonl", lines)
    (how or file()).write_coco(tmp_path / "labels.json", tmp_path / "lines.jsonl")
    return tmp_path / "labels.json"


def table(tmp_path: Path, lines: Sequence[Line], how: LabelFile | None = None) -> list[list[str]]:
    """The lines as CSV, read with their header."""
    write_lines(tmp_path / "lines.jsonl", lines)
    (how or file()).write_csv(tmp_path / "labels.csv", tmp_path / "lines.jsonl")
    text = (tmp_path / "labels.csv").read_bytes().decode(errors="surrogateescape")
    return list(csv.reader(io.StringIO(text, newline="")))


def content(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_bytes())
    return read


def drawn(seed: int, calibrated: bool = True, keypoints: int = 4) -> Labels:
    """Numbers with all their bits, in float32 and float64; some keypoints unseen, some rejected."""
    draw = torch.Generator().manual_seed(seed)
    places = torch.rand(keypoints, 2, generator=draw, dtype=torch.float64) * 60
    score = torch.rand(keypoints, generator=draw) * 2 - 1
    confidence = torch.rand(keypoints, generator=draw)
    matched = torch.rand(keypoints, generator=draw) < 0.7
    unseen = torch.rand(keypoints, generator=draw) < 0.3
    unseen[0] = False
    places[unseen], score[unseen], confidence[unseen] = math.nan, math.nan, math.nan
    return Labels(
        places, score, confidence if calibrated else None, matched & ~unseen, Size(60, 80)
    )


# Lines


def test_a_line_by_hand():
    labels = Labels(
        torch.tensor([[1.5, 2.0], [math.nan, math.nan], [0.0, -0.5]], dtype=torch.float64),
        torch.tensor([0.75, math.nan, -0.25]),
        torch.tensor([0.5, math.nan, 0.0]),
        torch.tensor([True, False, False]),
        Size(height=60, width=80),
    )
    assert to_line("b/c.png", labels, 1234) == {
        "photo": "b/c.png",
        "bytes": 1234,  # of the file
        "size": [60, 80],  # height, width
        "predictions": [[1.5, 2.0], None, [0.0, -0.5]],
        "scores": [0.75, None, -0.25],
        "confidences": [0.5, None, 0.0],
        "matched": [True, False, False],
    }
    plain = Labels(labels.places, labels.score, None, labels.matched, labels.size)
    assert to_line("a", plain)["confidences"] is None
    assert to_line("d/gone.png", BadImage("no such file: d/gone.png")) == SKIPPED


def test_labelled_photos_are_those_that_were_not_skipped(tmp_path):
    write_lines(tmp_path / "lines.jsonl", iter(LINES))
    assert [line["photo"] for line in labelled(tmp_path / "lines.jsonl")] == [
        "a.png", "b/c.png", "e.png",
    ]  # fmt: skip
    assert list(read_lines(tmp_path / "lines.jsonl")) == LINES


# COCO


def test_a_coco_file_by_hand(tmp_path):
    found = content(written(tmp_path, LINES, file(0.5)))
    assert found["info"] == {
        "description": "keypoints transferred by sdcorr",
        "sdcorr": ABOUT
        | {
            "min_confidence": 0.5,
            "photos": 3,
            "skipped": {"d/gone.png": "no such file: d/gone.png"},
        },
    }
    assert found["categories"] == [scheme().category]
    assert found["images"] == [
        {"id": 1, "file_name": "a.png", "height": 60, "width": 80, "bytes": 9},
        {"id": 2, "file_name": "b/c.png", "height": 80, "width": 60, "bytes": 10},
        {"id": 3, "file_name": "e.png", "height": 7, "width": 9, "bytes": 11},
    ]
    first, second, third = found["annotations"]
    assert first == {
        "id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0,
        "keypoints": [1.5, 2.0, 2, 4.0, 8.0, 2, 0, 0, 0, 0, 0, 0], "num_keypoints": 2,
        "bbox": [1.5, 2.0, 2.5, 6.0], "area": 15.0,
        "keypoint_predictions": LINES[0]["predictions"],
        "keypoint_scores": LINES[0]["scores"],
        "keypoint_confidences": LINES[0]["confidences"],
        "keypoints_matched": LINES[0]["matched"],
    }  # fmt: skip
    assert (second["id"], second["image_id"]) == (2, 2)
    assert second["keypoints"] == [0, 0, 0, 0.0, 0.0, 2, -0.5, 79.5, 2, 0, 0, 0]
    assert (third["id"], third["num_keypoints"], third["area"]) == (3, 0, 0)
    assert third["keypoints"] == [0] * 12


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("least", [None, 0.6])
def test_labels_come_back_from_coco_to_the_last_bit(tmp_path, calibrated, least):
    if least is not None and not calibrated:
        return  # refused by the command line
    every = [drawn(seed, calibrated) for seed in range(40)]
    lines = [to_line(f"{seed}.png", labels) for seed, labels in enumerate(every)]
    path = written(tmp_path, [*lines[:20], SKIPPED, *lines[20:]], file(least))
    about, again = read_labels(path)
    again = list(again)
    assert again == lines
    assert about == ABOUT | {
        "min_confidence": least, "photos": 40,
        "skipped": {SKIPPED["photo"]: SKIPPED["skipped"]},
    }  # fmt: skip
    for labels, line in zip(every, again, strict=True):
        places = [place or [math.nan] * 2 for place in line["predictions"]]
        numbers = torch.tensor(places, dtype=torch.float64)
        assert torch.equal(numbers.nan_to_num(-9), labels.places.nan_to_num(-9))
        for name, values in (("scores", labels.score), ("confidences", labels.confidence)):
            if values is None:
                assert line[name] is None
                continue
            read = torch.tensor([math.nan if one is None else one for one in line[name]])
            assert torch.equal(read.nan_to_num(-9), values.nan_to_num(-9))
        assert line["matched"] == labels.matched.tolist()
        assert Size(*line["size"]) == labels.size
    first = path.read_bytes()
    assert written(tmp_path, [*again[:20], SKIPPED, *again[20:]], file(least)).read_bytes() == first


@pytest.mark.parametrize("lines", [[], [SKIPPED], LINES[:1], LINES], ids=len)
def test_any_number_of_photos_is_json(tmp_path, lines):
    found = content(written(tmp_path, lines))
    assert list(found) == ["info", "categories", "images", "annotations"]
    assert len(found["images"]) == len(found["annotations"]) == sum("size" in one for one in lines)
    assert list(read_labels(tmp_path / "labels.json")[1]) == [one for one in lines if "size" in one]


def test_what_counts_as_there_by_hand():
    """Matched, and at least as likely as asked; of a recipe that is not calibrated, matched."""
    line = LINES[0]
    assert file().visibility(line) == [2, 2, 2, 0]
    assert file(0.0).visibility(line) == [2, 2, 2, 0]
    assert file(0.5).visibility(line) == [2, 2, 0, 0]  # the second is just as likely
    assert file(0.51).visibility(line) == [2, 0, 0, 0]
    assert file(1.0).visibility(line) == [0, 0, 0, 0]
    assert file().visibility(LINES[1]) == [0, 2, 2, 2]
    unlikely = line | {"confidences": [0.0, 0.0, 0.5, 0.5]}
    assert file().visibility(unlikely) == [2, 2, 2, 0]  # nothing is asked of them
    for least in (None, 0.5):  # which the command line refuses
        assert file(least).visibility(line | {"confidences": None}) == [2, 2, 2, 0]


def test_a_least_confidence_moves_v_alone(tmp_path):
    """What was found stays in the file: another threshold needs no other run."""
    free, strict = (content(written(tmp_path, LINES, file(least))) for least in (None, 0.6))
    assert (free["images"], free["categories"]) == (strict["images"], strict["categories"])
    for one, other in zip(free["annotations"], strict["annotations"], strict=True):
        for name in set(one) - {"keypoints", "num_keypoints", "bbox", "area"}:
            assert one[name] == other[name], name
    assert [one["num_keypoints"] for one in free["annotations"]] == [3, 3, 0]
    assert [one["num_keypoints"] for one in strict["annotations"]] == [1, 1, 0]
    rows = [table(tmp_path, LINES, file(least)) for least in (None, 0.6)]
    columns = [list(zip(*some, strict=True)) for some in rows]
    same = [one == other for one, other in zip(*columns, strict=True)]
    assert same == [name != "v" for name in rows[0][0]]


def test_pycocotools_reads_labels_and_scores_them(tmp_path):
    """Against themselves: an average precision of 1, whatever the sigmas and areas."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    large = [  # COCO scores from 32 x 32 px on
        line | {"predictions": [one and [9 * x for x in one] for one in line["predictions"]]}
        for line in LINES[:2]
    ]
    path = written(tmp_path, [*large, SKIPPED], file(0.2))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        read = COCO(str(path))
        results = read.loadRes([one | {"score": 0.5} for one in read.dataset["annotations"]])
        judge = COCOeval(read, results, "keypoints")
        judge.params.kpt_oks_sigmas = np.full(len(NAMES), 0.05)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] == 1.0, said.getvalue()
    assert judge.stats[5] == 1.0  # recall
    (kind,) = read.loadCats(read.getCatIds(["cat"]))
    assert kind["keypoints"] == list(NAMES)
    assert [one["file_name"] for one in read.loadImgs(read.getImgIds())] == ["a.png", "b/c.png"]
    (ann,) = read.loadAnns(read.getAnnIds(imgIds=[2]))
    assert ann["keypoints"][3:6] == [0.0, 0.0, 2]


def test_labels_are_references_of_the_next_transfer(tmp_path):
    """The same points, as visible as written; photos that show none of them are passed over."""
    draw_photo(tmp_path / "a.png", 80, 60, seed=0)
    draw_photo(tmp_path / "b" / "c.png", 60, 80, seed=1)
    how = file(0.3)
    found = read_references(written(tmp_path, LINES, how))
    assert found.scheme == scheme()
    assert [one.photo for one in found.objects] == [tmp_path / "a.png", tmp_path / "b/c.png"]
    assert [one.size for one in found.objects] == [Size(60, 80), Size(80, 60)]
    for one, line in zip(found.objects, LINES[:2], strict=True):
        visible = [v == 2 for v in how.visibility(line)]
        assert one.visible.tolist() == visible
        expected = [
            place for place, shown in zip(line["predictions"], visible, strict=True) if shown
        ]
        assert one.points[one.visible].tolist() == expected


def test_drawn_labels_are_references_to_the_last_bit(tmp_path):
    every = [drawn(seed, keypoints=6) for seed in range(10)]
    for seed in range(10):
        draw_photo(tmp_path / f"{seed}.png", 80, 60, seed)
    names = tuple("abcdef")
    lines = [to_line(f"{seed}.png", labels) for seed, labels in enumerate(every)]
    found = {
        one.photo.name: one
        for one in read_references(written(tmp_path, lines, file(names=names))).objects
    }
    for seed, labels in enumerate(every):
        if labels.matched.any():
            one = found.pop(f"{seed}.png")
            assert torch.equal(one.visible, labels.matched)
            assert torch.equal(one.points[one.visible], labels.places[labels.matched])
    assert not found


@pytest.mark.parametrize("value", ["17", 10**30, -3])
def test_the_category_keeps_its_id(tmp_path, value):
    draw_photo(tmp_path / "a.png", 80, 60, seed=0)
    path = written(tmp_path, LINES[:1], file(id=value))
    assert content(path)["annotations"][0]["category_id"] == value
    assert read_references(path).scheme.category["id"] == value


# CSV


def test_csv_by_hand(tmp_path):
    rows = table(tmp_path, LINES, file(0.5))
    assert rows[0] == ["file_name", "keypoint", "x", "y", "v", "score", "confidence"]
    assert rows[1:5] == [
        ["a.png", "left eye", "1.5", "2.0", "2", "0.75", "0.875"],
        ["a.png", "right eye", "4.0", "8.0", "2", "0.5", "0.5"],
        ["a.png", "nose", "9.25", "9.5", "0", "0.25", "0.25"],
        ["a.png", "tail", "30.0", "40.0", "0", "-0.5", "0.125"],
    ]
    assert rows[5] == ["b/c.png", "left eye", "", "", "0", "", ""]
    assert rows[6] == ["b/c.png", "right eye", "0.0", "0.0", "2", "0.5", "0.75"]
    assert len(rows) == 1 + 3 * 4  # none of the skipped photo
    assert (tmp_path / "labels.csv").read_bytes().count(b"\r") == 0


def test_csv_without_confidence_has_empty_cells(tmp_path):
    rows = table(tmp_path, [LINES[0] | {"confidences": None}])
    assert [row[4:] for row in rows[1:]] == [
        ["2", "0.75", ""], ["2", "0.5", ""], ["2", "0.25", ""], ["0", "-0.5", ""],
    ]  # fmt: skip


def test_every_number_comes_back_from_csv(tmp_path):
    every = [drawn(seed) for seed in range(20)]
    lines = [to_line(f"{seed}.png", labels) for seed, labels in enumerate(every)]
    rows = table(tmp_path, lines)[1:]
    cells = [[float(cell) if cell else math.nan for cell in row[2:]] for row in rows]
    numbers = torch.tensor(cells, dtype=torch.float64).reshape(20, 4, 5)
    for labels, own in zip(every, numbers, strict=True):
        assert torch.equal(own[:, :2].nan_to_num(-9), labels.places.nan_to_num(-9))
        assert torch.equal(own[:, 2] == 2, labels.matched)
        assert torch.equal(own[:, 3].float().nan_to_num(-9), labels.score.nan_to_num(-9))
        assert torch.equal(own[:, 4].float().nan_to_num(-9), labels.confidence.nan_to_num(-9))


# Names


ODD = (
    "a,b", 'a "quoted" b', "two\nlines", "two\r\nlines", "a\rb", " ", "Ohr größer 耳 👁", "'", "\\",
    "</script>", "\x00\x1b", "=1+1", "null", "\u2028",
)  # fmt: skip
NO_UTF8 = os.fsdecode(b"gr\xfc\xdfe \xff.png")  # a file name in Latin-1 on Linux


@pytest.mark.parametrize("name", [*ODD, NO_UTF8], ids=ascii)
def test_any_file_name_survives(tmp_path, name):
    line = LINES[0] | {"photo": f"b/{name}"}
    skipped = {"photo": f"{name}2", "skipped": f"no such file: {name}2"}
    path = written(tmp_path, [line, skipped])
    about, lines = read_labels(path)
    assert list(lines) == [line]
    assert about["skipped"] == {f"{name}2": f"no such file: {name}2"}
    rows = table(tmp_path, [line, skipped])
    assert [row[0] for row in rows[1:]] == [f"b/{name}"] * 4
    assert [row[2:] for row in rows[1:]] == [row[2:] for row in table(tmp_path, LINES[:1])[1:]]


def test_a_photo_whose_name_is_no_utf8_is_a_reference(tmp_path):
    draw_photo(tmp_path / "a.png", 80, 60, seed=0)
    (tmp_path / "a.png").rename(tmp_path / NO_UTF8)
    (one,) = read_references(written(tmp_path, [LINES[0] | {"photo": NO_UTF8}])).objects
    assert one.photo == tmp_path / NO_UTF8


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_any_keypoint_name_survives(tmp_path, name):
    draw_photo(tmp_path / "a.png", 80, 60, seed=0)
    how = file(names=(name, "b", "c", "d"))
    path = written(tmp_path, LINES[:1], how)
    assert read_references(path).scheme == how.scheme
    assert [row[1] for row in table(tmp_path, LINES[:1], how)[1:]] == [name, "b", "c", "d"]


def test_a_keypoint_name_that_is_no_unicode_survives_csv(tmp_path):
    r"""JSON may hold half of a pair, "\ud83d"."""
    rows = table(tmp_path, LINES[:1], file(names=("\ud83d", "b", "c", "d")))
    assert [row[2:4] for row in rows[1:]] == [["1.5", "2.0"], ["4.0", "8.0"], ["9.25", "9.5"],
                                              ["30.0", "40.0"]]  # fmt: skip


# What is read back


def test_labels_that_cannot_be_opened_are_told(tmp_path):
    with pytest.raises(BadRun, match=r"cannot read \S+labels\.json: No such file"):
        read_labels(tmp_path / "labels.json")


def without(*path: Any) -> str:
    """A file of labels that lacks something."""
    line = LINES[0]
    annotation = {
        "id": 1, "image_id": 1, "keypoint_predictions": line["predictions"],
        "keypoint_scores": line["scores"], "keypoint_confidences": None,
        "keypoints_matched": line["matched"],
        "keypoints": [1.5, 2.0, 2, 4.0, 8.0, 2, 9.25, 9.5, 2, 0, 0, 0],
    }  # fmt: skip
    whole: Any = {
        "info": {"sdcorr": ABOUT},
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80, "bytes": 9}],
        "annotations": [annotation],
        "categories": [dict(scheme().category)],
    }
    part = whole
    for key in path[:-1]:
        part = part[key]
    if path:
        del part[path[-1]]
    return json.dumps(whole)


def test_the_file_that_lacks_nothing_is_read(tmp_path):
    (tmp_path / "labels.json").write_text(without())
    assert list(read_labels(tmp_path / "labels.json")[1]) == [LINES[0] | {"confidences": None}]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", "null", "{}", '{"info": {}}', '{"info": []}', '{"info": null}',
        '{"info": {"sdcorr": {}}, "images": [3], "annotations": []}',
        without("info"), without("info", "sdcorr"), without("images"), without("annotations"),
        without("images", 0), without("images", 0, "id"), without("images", 0, "file_name"),
        without("images", 0, "width"), without("images", 0, "height"),
        without("images", 0, "bytes"), without("categories"), without("categories", 0),
        *(without("annotations", 0, name) for name in (
            "image_id", "keypoint_predictions", "keypoint_scores", "keypoint_confidences",
            "keypoints_matched",
        )),
    ],
)  # fmt: skip
def test_other_files_are_not_taken_for_labels(tmp_path, text):
    """They are the user's own, and would be overwritten."""
    (tmp_path / "labels.json").write_text(text)
    words = r"labels\.json exists and was not written by sdcorr transfer, or is damaged; choose"
    with pytest.raises(BadRun, match=words):
        read_labels(tmp_path / "labels.json")


@pytest.mark.parametrize("about", ["text", None, 3, []])
def test_what_says_how_labels_were_made_must_be_an_object(tmp_path, about):
    whole = json.loads(without()) | {"info": {"sdcorr": about}}
    (tmp_path / "labels.json").write_text(json.dumps(whole))
    with pytest.raises(BadRun, match="was not written by sdcorr transfer"):
        read_labels(tmp_path / "labels.json")


def test_corrections_are_not_undone_by_the_next_run(tmp_path):
    """Which keeps the labels that are there: refused or kept, but not dropped in silence."""
    path = written(tmp_path, LINES[:1])
    corrected = content(path)
    corrected["annotations"][0]["keypoints"][:3] = [7.5, 8.5, 2]
    path.write_text(json.dumps(corrected))
    try:
        _, lines = read_labels(path)
    except BadRun:
        return
    again = content(written(tmp_path, list(lines)))
    assert again["annotations"][0]["keypoints"][:3] == [7.5, 8.5, 2]


@pytest.mark.parametrize("half", ["labels.json", "labels.csv"])
def test_a_file_that_cannot_be_finished_is_not_touched(tmp_path, half):
    """Lines that are damaged in the middle: what was there stays, and nothing is left over."""
    (tmp_path / half).write_text("before")
    write = file().write_coco if half == "labels.json" else file().write_csv
    for damaged, error in (("{", BadRun), ('{"photo": "f.png", "size": [60, 80]}', KeyError)):
        write_lines(tmp_path / "lines.jsonl", iter(LINES))
        with (tmp_path / "lines.jsonl").open("a") as lines:
            lines.write(f"{damaged}\n")
        with pytest.raises(error):
            write(tmp_path / half, tmp_path / "lines.jsonl")
        assert (tmp_path / half).read_text() == "before"
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([half, "lines.jsonl"])


# Memory


def peak_of_writing(folder: Path, photos: int) -> int:
    """Bytes that Python allocates at most, while the three files are written."""
    tracemalloc.start()
    try:
        write_lines(
            folder / "lines.jsonl", (LINES[0] | {"photo": f"{n:08d}"} for n in range(photos))
        )
        file().write_coco(folder / "labels.json", folder / "lines.jsonl")
        file().write_csv(folder / "labels.csv", folder / "lines.jsonl")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path):
    """Photo by photo: eight times as many take no more but noise, of buffers and interned text."""
    few = peak_of_writing(tmp_path, 250)
    size = (tmp_path / "labels.json").stat().st_size
    many = peak_of_writing(tmp_path, 2000)
    assert (tmp_path / "labels.json").stat().st_size > 7 * size > 7 * 100_000
    assert many < few + 50_000


def test_photos_are_read_back_in_their_order(tmp_path):
    lines = [LINES[0] | {"photo": f"{n}.png"} for n in (3, 1, 2, 10, 0)]
    assert list(read_labels(written(tmp_path, lines))[1]) == lines
