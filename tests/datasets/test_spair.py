from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcorr.datasets.spair import Spair
from sdcorr.errors import BadDataset, UnknownName
from sdcorr.metrics import box_side, correct, hits_of_pairs, keypoint_errors, per_image, per_point
from sdcorr.pairs import Pair
from sdcorr.preprocess import read_size
from tests.annotated import write, write_spair

# Test pair 000158 of SPair-71k, as it stands in the official file.
OFFICIAL_158 = """
{"pair_id": 158, "filename": "000158-2008_007604-2008_004100:aeroplane", "src_imname":
"2008_007604.jpg", "trg_imname": "2008_004100.jpg", "src_imsize": [333, 500, 3], "trg_imsize":
[500, 332, 3], "src_bndbox": [1, 25, 333, 494], "trg_bndbox": [36, 92, 500, 200], "category":
"aeroplane", "src_pose": "Frontal", "trg_pose": "Left", "src_kps": [[62, 462], [100, 311],
[105, 275]], "trg_kps": [[39, 145], [93, 106], [112, 96]], "kps_ids": ["0", "1", "2"], "mirror": 0,
"viewpoint_variation": 0, "scale_variation": 1, "truncation": 3, "occlusion": 2}
"""
# Validation pair 000001, as it stands there but for the eight points after the first.
OFFICIAL_1 = """
{"pair_id": 1, "filename": "000001-2008_001546-2008_004704:aeroplane", "src_imname":
"2008_001546.jpg", "trg_imname": "2008_004704.jpg", "src_imsize": [500, 297, 3], "trg_imsize":
[500, 322, 3], "src_bndbox": [29, 41, 495, 216], "trg_bndbox": [3, 1, 500, 322], "category":
"aeroplane", "src_pose": "Left", "trg_pose": "Frontal", "src_kps": [[36, 163], [1, 2], [3, 4],
[5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16]], "trg_kps": [[291, 214], [21, 22],
[23, 24], [25, 26], [27, 28], [29, 30], [31, 32], [33, 34], [35, 36]], "kps_ids": ["0", "1", "2",
"3", "4", "5", "7", "17", "22"], "mirror": 0, "viewpoint_variation": 1, "scale_variation": 0,
"truncation": 2, "occlusion": 0}
"""
FIRST = "000001-2008_000000-2008_000001:cat"  # what write_spair's first pair is called
FIRST_FILE = f"PairAnnotation/test/{FIRST}.json"
FIELDS = (
    "category", "src_imname", "trg_imname", "src_imsize", "trg_imsize", "trg_bndbox", "src_kps",
    "trg_kps", "kps_ids", "viewpoint_variation", "scale_variation", "truncation", "occlusion",
)  # fmt: skip
DAMAGED = {
    "truncated": b'{"pair_id": 1, "src_kps": [[3',
    "empty": b"",
    "zero bytes": b"\0" * 512,
    "a list": b"[1, 2]",
    "no text": b"\xff\xd8\xff\xe0",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by many tests, changed by none."""
    return write_spair(tmp_path_factory.mktemp("spair"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """To be changed."""
    return write_spair(tmp_path, categories=("cat",))


def write_official(root: Path, text: str, split: str, kps: dict[str, Any]) -> None:
    """The folders around one official pair; ``kps`` are all keypoints of its source."""
    pair = json.loads(text)
    write(root / "PairAnnotation" / split / f"{pair['filename']}.json", pair)
    (root / "Layout" / "large").mkdir(parents=True)
    (root / "Layout" / "large" / f"{split}.txt").write_text(f"{pair['filename']}\n")
    for name, points in ((pair["src_imname"], kps), (pair["trg_imname"], {})):
        photo = root / "JPEGImages" / pair["category"] / name
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.touch()  # photos are not opened
        annotation = root / "ImageAnnotation" / pair["category"] / name
        write(annotation.with_suffix(".json"), {"kps": points})


def change(root: Path, edit: Callable[[dict[str, Any]], Any], name: str = FIRST_FILE) -> None:
    """Edit a JSON file in place."""
    value = json.loads((root / name).read_text())
    edit(value)
    write(root / name, value)


def ids(pairs: list[Pair]) -> list[str]:
    return [pair.id for pair in pairs]


def complaint(root: Path, **part: str) -> str:
    """What the user reads of a root that is not whole."""
    with pytest.raises(BadDataset) as error:
        Spair(root, **part).pairs()
    return str(error.value)


def test_official_pair_158_to_the_last_field(tmp_path):
    kps = {"0": [62, 462], "1": [100, 311], "2": [105, 275], "3": None, "9": [70, 300]}
    write_official(tmp_path, OFFICIAL_158, "test", kps)
    (pair,) = Spair(tmp_path).pairs()
    assert pair.id == "000158-2008_007604-2008_004100:aeroplane"
    assert (pair.category, pair.subject) == ("aeroplane", "aeroplane")
    assert pair.source == tmp_path / "JPEGImages/aeroplane/2008_007604.jpg"
    assert pair.target == tmp_path / "JPEGImages/aeroplane/2008_004100.jpg"
    assert pair.keypoint_ids == ("0", "1", "2")
    assert pair.source_keypoints.tolist() == [[62, 462], [100, 311], [105, 275]]
    assert pair.target_keypoints.tolist() == [[39, 145], [93, 106], [112, 96]]
    assert pair.source_only_ids == ("9",)
    assert pair.source_only.tolist() == [[70, 300]]
    assert pair.source_size == (500, 333)  # the file says width first
    assert pair.target_size == (332, 500)
    assert pair.target_box == (36, 92, 500, 200)
    assert box_side(pair.target_box) == 464
    assert pair.difficulty == {
        "viewpoint": "easy", "scale": "medium", "truncation": "both", "occlusion": "target",
    }  # fmt: skip


def test_official_pair_1_of_the_validation_split(tmp_path):
    names = json.loads(OFFICIAL_1)["kps_ids"]
    write_official(tmp_path, OFFICIAL_1, "val", {name: [1, 1] for name in names} | {"6": None})
    (pair,) = Spair(tmp_path, split="val").pairs()
    assert pair.id == "000001-2008_001546-2008_004704:aeroplane"
    assert pair.keypoint_ids == ("0", "1", "2", "3", "4", "5", "7", "17", "22")
    assert pair.source_keypoints.shape == pair.target_keypoints.shape == (9, 2)
    assert pair.source_keypoints[[0, -1]].tolist() == [[36, 163], [15, 16]]
    assert pair.target_keypoints[[0, -1]].tolist() == [[291, 214], [35, 36]]
    assert pair.source_only_ids == ()
    assert (pair.source_size, pair.target_size) == ((297, 500), (322, 500))
    assert pair.target_box == (3, 1, 500, 322)
    assert pair.difficulty == {
        "viewpoint": "medium", "scale": "easy", "truncation": "target", "occlusion": "none",
    }  # fmt: skip


def test_pairs_come_in_the_order_of_the_layout_file(tmp_path):
    root = write_spair(tmp_path)
    file = root / "Layout/large/test.txt"
    lines = file.read_text().split()
    file.write_text("\r\n".join(lines[::-1]))
    assert len(lines) == 12
    assert ids(Spair(root).pairs()) == lines[::-1]


def test_a_line_that_is_repeated_is_one_pair(root):
    file = root / "Layout/large/test.txt"
    file.write_text(file.read_text() * 2)
    assert len(Spair(root).pairs()) == 6


def test_the_small_layout_is_the_part_that_its_file_lists(whole):
    large, small = (ids(Spair(whole, layout=name).pairs()) for name in ("large", "small"))
    assert small == large[:6]


def test_only_what_the_listed_pairs_need_must_be_there(tmp_path):
    """The small layout lists the pairs of cats; nothing of the dogs is left, nor of ``large``."""
    root = write_spair(tmp_path)
    expected = ids(Spair(root, layout="small").pairs())
    for folder in ("JPEGImages/dog", "ImageAnnotation/dog", "Layout/large"):
        shutil.rmtree(root / folder)
    for file in (root / "PairAnnotation/test").glob("*:dog.json"):
        file.unlink()
    assert ids(Spair(root, layout="small").pairs()) == expected
    assert {path.name for path in root.iterdir()} == {
        "ImageAnnotation", "JPEGImages", "Layout", "PairAnnotation",
    }  # fmt: skip


@pytest.mark.parametrize("split", ["trn", "val"])
def test_a_split_needs_no_other_split(tmp_path, split):
    root = write_spair(tmp_path, categories=("cat",), split=split)
    assert len(Spair(root, split=split).pairs()) == 6
    assert "no folder PairAnnotation/test" in complaint(root)


def test_a_layout_without_a_list_of_the_split_is_named(root):
    (root / "Layout/small/test.txt").unlink()
    expected = f"{root} is not a whole SPair-71k: no list Layout/small/test.txt"
    assert complaint(root, layout="small") == expected
    assert len(Spair(root, layout="large").pairs()) == 6


@pytest.mark.parametrize("line", [":", "%3A"])
def test_files_without_colons_give_the_same_pairs(tmp_path, whole, line):
    root = write_spair(tmp_path, colon="%3A")
    for file in (root / "Layout").rglob("test.txt"):
        file.write_text(file.read_text().replace(":", line))
    assert not list(root.rglob("*:*"))
    assert ids(Spair(root).pairs()) == ids(Spair(whole).pairs())
    assert ids(Spair(root).pairs())[0] == FIRST


def test_the_category_is_that_of_the_annotation_not_of_the_file_name(tmp_path):
    root = write_spair(tmp_path)
    change(root, lambda pair: pair.update(category="dog"))
    pair = Spair(root).pairs()[0]
    assert pair.id == FIRST
    assert (pair.category, pair.subject) == ("dog", "dog")
    assert pair.source == root / "JPEGImages/dog/2008_000000.jpg"


def test_photos_of_one_name_in_two_categories_are_two(whole):
    pairs = Spair(whole).pairs()
    first = {pair.category: pair.source for pair in pairs if pair.source.stem == "2008_000000"}
    assert first["cat"] != first["dog"]
    assert all(path.parent.name == category for category, path in first.items())


def test_joint_and_source_only_points_by_hand(whole):
    """Photo 0 lacks part 0, photo 1 lacks id 2 and has x + 1, y + 1; the others are null."""
    pair = Spair(whole).pairs()[0]
    assert pair.keypoint_ids == ("4", "6", "8")
    assert pair.source_keypoints.tolist() == [[23, 23], [32, 31], [41, 39]]
    assert pair.target_keypoints.tolist() == [[24, 24], [33, 32], [42, 40]]
    assert pair.source_only_ids == ("2",)
    assert pair.source_only.tolist() == [[14, 15]]


def test_points_outside_the_box_stay_where_they_are(whole):
    pair = Spair(whole).pairs()[0]
    assert pair.target_box == (1, 2, 36, 33)
    assert pair.target_keypoints[-1].tolist() == [42, 40]


def test_upright_photos_are_higher_than_wide(whole):
    pair = Spair(whole).pairs()[0]
    assert (pair.source_size, pair.target_size) == ((60, 80), (80, 60))
    assert read_size(pair.target) == pair.target_size


def test_a_pair_of_one_keypoint(root):
    def keep_one(pair):
        pair.update(src_kps=[[23, 23]], trg_kps=[[24, 24]], kps_ids=["4"])

    change(root, keep_one)
    pair = Spair(root).pairs()[0]
    assert pair.keypoint_ids == ("4",)
    assert pair.target_keypoints.tolist() == [[24, 24]]
    assert pair.source_only_ids == ("2", "6", "8")


def test_without_source_only_points_there_are_none(root):
    change(
        root, lambda photo: photo["kps"].update({"2": None}), "ImageAnnotation/cat/2008_000000.json"
    )
    pair = Spair(root).pairs()[0]
    assert pair.source_only_ids == ()
    assert pair.source_only.shape == (0, 2)


@pytest.mark.parametrize(
    ("field", "kind", "words"),
    [
        ("viewpoint_variation", "viewpoint", ("easy", "medium", "hard")),
        ("scale_variation", "scale", ("easy", "medium", "hard")),
        ("truncation", "truncation", ("none", "source", "target", "both")),
        ("occlusion", "occlusion", ("none", "source", "target", "both")),
    ],
)
def test_levels_of_difficulty_in_words(root, field, kind, words):
    found = []
    for level in range(len(words)):
        change(root, lambda pair, level=level: pair.update({field: level}))
        found.append(Spair(root).pairs()[0].difficulty[kind])
    assert found == list(words)


@pytest.mark.parametrize("level", [-1, 4, None, "1"])
def test_a_level_that_does_not_exist_is_damage(root, level):
    change(root, lambda pair: pair.update(truncation=level))
    assert FIRST_FILE in complaint(root)


def test_the_real_mini_set_is_read_whole(shared_data):
    pairs = Spair(shared_data / "SPair-71k-mini").pairs()
    assert len(pairs) == 22
    assert sum(len(pair.keypoint_ids) for pair in pairs) == 168
    assert sum(len(pair.source_only_ids) for pair in pairs) == 68
    assert len({photo for pair in pairs for photo in (pair.source, pair.target)}) == 14
    for pair in pairs:
        assert read_size(pair.source) == pair.source_size
        assert read_size(pair.target) == pair.target_size


def test_the_same_position_on_the_real_mini_set(shared_data):
    """Regression numbers, measured by independent code; no exact ties occur."""
    pairs = Spair(shared_data / "SPair-71k-mini").pairs()
    errors = [keypoint_errors(pair.source_keypoints, pair.target_keypoints) for pair in pairs]
    index = np.repeat(np.arange(22), [len(one) for one in errors])
    sides = np.array([box_side(pair.target_box) for pair in pairs])
    right = correct(np.concatenate(errors), sides[index], (0.05, 0.1, 0.2))
    hits, counts = hits_of_pairs(right, index, len(pairs))
    assert (100 * per_image(hits, counts)).round(4).tolist() == [0, 2.3864, 8.5552]
    assert (100 * per_point(hits, counts)).round(4).tolist() == [0, 2.9762, 7.7381]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"split": "tets"}, r"no split called 'tets'; did you mean 'test'\? known: test, val, trn"),
        ({"split": "train"}, r"no split called 'train'; did you mean 'trn'\?"),
        (
            {"layout": "lagre"},
            r"no layout called 'lagre'; did you mean 'large'\? known: large, small",
        ),
    ],
)
def test_an_unknown_part_is_told_what_was_meant(whole, part, message):
    with pytest.raises(UnknownName, match=message):
        Spair(whole, **part)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("JPEGImages", "no folder JPEGImages"),
        ("ImageAnnotation", "no folder ImageAnnotation"),
        ("PairAnnotation", "no folder PairAnnotation/test"),
        ("Layout", "no list Layout/large/test.txt"),
    ],
)
def test_a_missing_folder_is_named(root, folder, message):
    shutil.rmtree(root / folder)
    assert complaint(root) == f"{root} is not a whole SPair-71k: {message}"


def test_of_two_folders_inside_the_whole_one_is_meant(tmp_path):
    (tmp_path / "aaa" / "JPEGImages").mkdir(parents=True)
    write_spair(tmp_path / "SPair-71k", categories=("cat",))
    message = complaint(tmp_path)
    assert "no folder JPEGImages" in message
    assert "did you mean its folder SPair-71k?" in message


def test_half_unpacked_photos_are_counted_and_the_first_named(root):
    for name in ("2008_000001.jpg", "2008_000002.jpg"):
        (root / "JPEGImages/cat" / name).unlink()
    assert complaint(root) == (
        f"{root} is not a whole SPair-71k: JPEGImages: 2 of 3 files are missing, first "
        "JPEGImages/cat/2008_000001.jpg"
    )


def test_missing_photo_annotations_are_counted(root):
    shutil.rmtree(root / "ImageAnnotation/cat")
    message = complaint(root)
    assert "ImageAnnotation: 3 of 3 files are missing, first ImageAnnotation/cat/2008_00" in message


def test_missing_pair_annotations_are_counted(root):
    (root / FIRST_FILE).unlink()
    assert complaint(root) == (
        f"{root} is not a whole SPair-71k: PairAnnotation/test: 1 of 6 files are missing, first "
        f"{FIRST_FILE}"
    )


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
@pytest.mark.parametrize("name", [FIRST_FILE, "ImageAnnotation/cat/2008_000000.json"])
def test_damaged_json_is_named(root, name, content):
    (root / name).write_bytes(content)
    assert name in complaint(root)


@pytest.mark.parametrize("field", FIELDS)
def test_a_pair_that_lacks_a_field_is_named_with_it(root, field):
    change(root, lambda pair: pair.pop(field))
    assert f"{FIRST_FILE} lacks '{field}'" in complaint(root)


def test_a_damaged_file_without_a_colon_is_named_as_it_lies_on_disk(tmp_path):
    root = write_spair(tmp_path, categories=("cat",), colon="%3A")
    name = FIRST_FILE.replace(":", "%3A")
    change(root, lambda pair: pair.pop("kps_ids"), name)
    assert f"{name} lacks 'kps_ids'" in complaint(root)


@pytest.mark.parametrize("field", ["category", "src_imname", "trg_imname"])
def test_a_field_that_is_null_is_damage(root, field):
    change(root, lambda pair: pair.update({field: None}))
    assert FIRST_FILE in complaint(root)


@pytest.mark.parametrize("kps", [None, [[1, 2]], {"2": [14]}, {"2": "far"}])
def test_a_photo_annotation_with_other_keypoints_is_named(root, kps):
    name = "ImageAnnotation/cat/2008_000000.json"
    change(root, lambda photo: photo.update(kps=kps), name)
    assert name in complaint(root)


def test_a_photo_annotation_that_lacks_keypoints_is_named(root):
    name = "ImageAnnotation/cat/2008_000000.json"
    change(root, lambda photo: photo.pop("kps"), name)
    message = complaint(root)
    assert name in message
    assert "'kps'" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kps_ids", ["4", "6"]),
        ("kps_ids", ["4", "4", "6"]),
        ("src_kps", [[23, 23], [32, 31]]),
        ("trg_kps", [[24, 24], [33, 32], None]),
        ("trg_kps", [24, 33, 42]),
        ("trg_bndbox", [1, 2, 36]),
        ("trg_imsize", [60]),
    ],
)
def test_values_that_do_not_fit_each_other_are_damage(root, field, value):
    change(root, lambda pair: pair.update({field: value}))
    assert FIRST_FILE in complaint(root)


def test_everything_that_is_wrong_is_told_at_once(root):
    (root / FIRST_FILE).unlink()
    (root / "PairAnnotation/test/000002-2008_000000-2008_000002:cat.json").write_text("{")
    (root / "JPEGImages/cat/2008_000001.jpg").unlink()
    (root / "ImageAnnotation/cat/2008_000002.json").unlink()
    message = complaint(root)
    assert message.count(str(root)) == 1
    assert f"PairAnnotation/test: 1 of 6 files are missing, first {FIRST_FILE}" in message
    assert "PairAnnotation/test/000002-2008_000000-2008_000002:cat.json: " in message
    assert "JPEGImages: 1 of 3 files are missing, first JPEGImages/cat/2008_000001.jpg" in message
    assert "ImageAnnotation: 1 of 2 files are missing, first ImageAnnotation/cat/2008_" in message


def test_after_eight_damaged_files_the_others_are_counted(tmp_path):
    root = write_spair(tmp_path, categories=("cat",), images=4)
    for file in (root / "PairAnnotation/test").iterdir():
        file.write_text("[]")
    message = complaint(root)
    assert message.count("expected a JSON object") == 8
    assert message.endswith("; and 4 more")


def test_damaged_photo_annotations_are_all_named_however_many_pairs_use_them(tmp_path):
    """Each is the source of nine pairs."""
    root = write_spair(tmp_path, categories=("cat",), images=10)
    damaged = [f"ImageAnnotation/cat/2008_00000{index}.json" for index in (0, 1)]
    for name in damaged:
        (root / name).write_text("{")
    message = complaint(root)
    assert [name for name in damaged if name in message] == damaged
