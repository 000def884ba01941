from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from sdcorr.datasets.pf_pascal import PfPascal
from sdcorr.errors import BadDataset, UnknownName
from sdcorr.pairs import Pair
from tests.annotated import pascal_box, pascal_points, write_csv, write_mat, write_pf_pascal

LIST = "test_pairs_pf_pascal.csv"
HOME = "PF-dataset-PASCAL"
# The order of PASCAL VOC, in which the lists number the classes from 1.
VOC = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
]  # fmt: skip
SPLITS = ("test", "val", "trn")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by many tests, changed by none."""
    return write_pf_pascal(tmp_path_factory.mktemp("pascal"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """To be changed."""
    return write_pf_pascal(tmp_path)


def edit_list(root: Path, edit: Callable[[list[list[str]]], object], name: str = LIST) -> None:
    """Change a list's rows, the header among them, in place."""
    with (root / name).open(newline="") as file:
        rows = list(csv.reader(file))
    edit(rows)
    write_csv(root / name, rows)


def annotation(name: str, stem: str) -> str:
    return f"{HOME}/Annotations/{name}/{stem}.mat"


def ids(pairs: list[Pair]) -> list[str]:
    return [pair.id for pair in pairs]


def complaint(root: Path, split: str = "test") -> str:
    """What the user reads of a root that is not whole."""
    with pytest.raises(BadDataset) as error:
        PfPascal(root, split).pairs()
    return str(error.value)


@pytest.mark.parametrize("split", SPLITS)
def test_the_first_pair_by_hand(whole, split):
    """Photo 0 lacks part 0, photo 1 lacks part 1: ids are rows of the annotation."""
    pair = PfPascal(whole, split).pairs()[0]
    assert pair.id == "2008_000010-2008_000011:aeroplane"
    assert (pair.category, pair.subject) == ("aeroplane", "aeroplane")
    assert pair.source == whole / HOME / "JPEGImages/2008_000010.jpg"
    assert pair.target == whole / HOME / "JPEGImages/2008_000011.jpg"
    assert pair.keypoint_ids == ("2", "3", "4")
    assert pair.source_keypoints.tolist() == [[28.5, 22.25], [37.5, 29.25], [46.5, 36.25]]
    assert pair.target_keypoints.tolist() == [[29.5, 24.25], [38.5, 31.25], [47.5, 38.25]]
    assert pair.source_only_ids == ("1",)
    assert pair.source_only.tolist() == [[19.5, 15.25]]
    assert pair.target_box == (5, 6, 51, 45)
    assert (pair.source_size, pair.target_size) == (None, None)


def test_the_box_is_the_targets(whole):
    for pair in PfPascal(whole).pairs():
        assert pair.target_box == tuple(pascal_box(int(pair.target.stem[-1])))


def test_no_point_is_nan(whole):
    for pair in PfPascal(whole).pairs():
        assert np.isfinite(pair.source_keypoints).all()
        assert np.isfinite(pair.source_only).all()
        assert {*pair.keypoint_ids, *pair.source_only_ids} == {
            str(part) for part in range(5) if part != int(pair.source.stem[-1])
        }


def test_a_keypoint_with_half_a_coordinate_is_absent(root):
    points = pascal_points(1)
    points[4, 0] = np.nan
    write_mat(root / annotation("aeroplane", "2008_000011"), points, pascal_box(1))
    pair = PfPascal(root, "val").pairs()[0]
    assert pair.keypoint_ids == ("2", "3")
    assert pair.source_only_ids == ("1", "4")


@pytest.mark.parametrize("split", ["val", "trn"])
def test_mirrored_rows_are_left_out_and_repeated_ones_stand_once(whole, split):
    """Each of the 12 pairs stands in four rows: twice as it is, twice mirrored."""
    assert ids(PfPascal(whole, split).pairs()) == ids(PfPascal(whole, "test").pairs())
    assert len(PfPascal(whole, split).pairs()) == 12


def test_a_pair_that_is_only_mirrored_is_no_pair(root):
    def mirror_the_first(rows):
        for row in rows[1:5]:
            row[3] = "1"

    edit_list(root, mirror_the_first, "val_pairs_pf_pascal.csv")
    assert ids(PfPascal(root, "val").pairs()) == ids(PfPascal(root).pairs())[1:]


def test_pairs_come_in_the_order_of_the_list(root):
    before = ids(PfPascal(root).pairs())
    edit_list(root, lambda rows: rows.append(rows.pop(1)))
    assert ids(PfPascal(root).pairs()) == [*before[1:], before[0]]


def test_classes_are_numbered_from_one(tmp_path):
    numbers = {name: index + 1 for index, name in enumerate(VOC)}
    root = write_pf_pascal(tmp_path, numbers, images=2)
    pairs = PfPascal(root).pairs()
    assert [pair.category for pair in pairs] == [name for name in VOC for _ in range(2)]
    assert [int(pair.source.stem[5:-1]) for pair in pairs[::2]] == list(range(1, 21))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("inside", ["", "image_pairs"])
@pytest.mark.parametrize("repacked", [False, True])
def test_both_layouts_give_the_same_pairs(tmp_path, whole, repacked, inside, split):
    root = write_pf_pascal(tmp_path, repacked=repacked, inside=inside)
    assert (root / HOME).exists() != repacked
    found, expected = PfPascal(root, split).pairs(), PfPascal(whole, split).pairs()
    assert ids(found) == ids(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.target_keypoints, other.target_keypoints)
        assert one.target.read_bytes() == other.target.read_bytes()


def test_the_third_name_of_the_training_list(root):
    (root / "train_pairs_pf_pascal.csv").rename(root / "train_pairs.csv")
    assert len(PfPascal(root, "trn").pairs()) == 12


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_needs_no_other_list(root, split):
    kept = {"test": LIST, "val": "val_pairs_pf_pascal.csv", "trn": "train_pairs_pf_pascal.csv"}
    for file in root.glob("*.csv"):
        if file.name != kept[split]:
            file.unlink()
    assert len(PfPascal(root, split).pairs()) == 12


def test_photos_that_no_row_names_are_not_needed(root):
    edit_list(root, lambda rows: rows.__delitem__(slice(7, None)))  # the header and six aeroplanes
    for file in [*root.rglob("*00007*.jpg"), *root.rglob("*00007*.mat")]:
        file.unlink()
    assert {pair.category for pair in PfPascal(root).pairs()} == {"aeroplane"}


def test_what_a_mac_adds_to_the_archive_does_not_matter(root):
    (root / "__MACOSX").mkdir()
    (root / HOME / "Annotations/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert len(PfPascal(root).pairs()) == 12


def test_a_list_with_crlf_is_read(root):
    file = root / LIST
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert len(PfPascal(root).pairs()) == 12


def test_the_points_of_a_list_may_stand_in_another_order(root):
    def turn(rows):
        for row in rows[1:]:
            row[3:] = [";".join(reversed(cell.split(";"))) for cell in row[3:]]

    expected = PfPascal(root).pairs()
    edit_list(root, turn)
    found = PfPascal(root).pairs()
    assert ids(found) == ids(expected)
    assert found[0].keypoint_ids == expected[0].keypoint_ids
    assert np.array_equal(found[0].source_keypoints, expected[0].source_keypoints)


def test_the_points_of_a_list_may_be_rounded(root):
    def round_down(rows):
        for row in rows[1:]:
            row[3:] = [";".join(str(int(float(x))) for x in cell.split(";")) for cell in row[3:]]

    edit_list(root, round_down)
    assert PfPascal(root).pairs()[0].source_keypoints[0].tolist() == [28.5, 22.25]


@pytest.mark.parametrize("cell", [3, 4, 5, 6])
def test_points_of_a_list_that_are_not_those_of_the_annotations_are_an_error(root, cell):
    def move(rows):
        first, *others = rows[1][cell].split(";")
        rows[1][cell] = ";".join([str(float(first) + 2), *others])

    edit_list(root, move)
    message = complaint(root)
    assert f"{LIST}: its points of 2008_000010-2008_000011:aeroplane are not those" in message
    assert "are both of one release?" in message


def test_a_list_with_the_points_of_source_and_target_swapped_is_an_error(root):
    def swap(rows):
        for row in rows[1:]:
            row[3:] = row[5:] + row[3:5]

    edit_list(root, swap)
    assert "are not those of Annotations; are both of one release?" in complaint(root)


@pytest.mark.parametrize("change", [lambda points: points[1:], lambda points: [*points, "1"]])
def test_a_list_with_fewer_or_more_points_is_an_error(root, change):
    def edit(rows):
        rows[1][3:] = [";".join(change(cell.split(";"))) for cell in rows[1][3:]]

    edit_list(root, edit)
    assert "are not those of Annotations; are both of one release?" in complaint(root)


def test_a_pair_without_a_common_keypoint_is_an_error(root):
    points = np.full((5, 2), np.nan)
    points[0] = 3  # the one part that photo 0 lacks
    write_mat(root / annotation("aeroplane", "2008_000011"), points, pascal_box(1))
    message = complaint(root, "val")
    assert "pair 2008_000010-2008_000011:aeroplane: expected as many" in message
    assert "at least one" in message


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tets", r"^no split called 'tets'; did you mean 'test'\? known: test, val, trn$"),
        ("train", r"^no split called 'train'; did you mean 'trn'\?"),
    ],
)
def test_an_unknown_split_is_told_what_was_meant(whole, split, message):
    with pytest.raises(UnknownName, match=message):
        PfPascal(whole, split)


def test_without_a_list_all_its_names_are_told(root):
    (root / "val_pairs_pf_pascal.csv").unlink()
    assert complaint(root, "val") == (
        f"{root} is not a whole PF-PASCAL: no list val_pairs_pf_pascal.csv or val_pairs.csv or "
        "image_pairs/val_pairs_pf_pascal.csv or image_pairs/val_pairs.csv"
    )


def test_half_unpacked_photos_are_counted_and_the_first_named(root):
    for number in (70, 72):
        (root / HOME / f"JPEGImages/2008_0000{number}.jpg").unlink()
    assert complaint(root) == (
        f"{root} is not a whole PF-PASCAL: photos: 2 of 6 files are missing, first "
        f"{HOME}/JPEGImages/2008_000070.jpg"
    )


def test_of_a_repacked_copy_only_what_is_missing_is_said_to_be(tmp_path):
    root = write_pf_pascal(tmp_path, repacked=True)
    (root / "JPEGImages/2008_000070.jpg").unlink()
    message = complaint(root)
    assert "photos: 1 of 6 files are missing" in message
    assert "Annotations" not in message  # they are all there


def test_missing_annotations_are_counted_and_the_first_named(root):
    for stem in ("2008_000010", "2008_000012"):
        (root / annotation("aeroplane", stem)).unlink()
    assert complaint(root) == (
        f"{root} is not a whole PF-PASCAL: Annotations: 2 of 6 files are missing, first "
        f"{annotation('aeroplane', '2008_000010')}"
    )


def test_missing_photos_and_annotations_are_told_at_once(root):
    (root / HOME / "JPEGImages/2008_000070.jpg").unlink()
    (root / annotation("aeroplane", "2008_000010")).unlink()
    message = complaint(root)
    assert message.count(str(root)) == 1
    assert "photos: 1 of 6 files are missing, first " in message
    assert f"files are missing, first {annotation('aeroplane', '2008_000010')}" in message


@pytest.mark.parametrize("content", ["", "zeros", "half", "text"])
@pytest.mark.parametrize("index", [0, 1], ids=["source", "target"])
def test_a_damaged_annotation_is_named_and_no_whole_one(root, index, content):
    edit_list(root, lambda rows: rows.__delitem__(slice(2, None)))  # one pair
    names = [annotation("aeroplane", f"2008_00001{number}") for number in (0, 1)]
    file = root / names[index]
    raw = file.read_bytes()
    contents = {"": b"", "zeros": bytes(len(raw)), "half": raw[: len(raw) // 2], "text": b"kps"}
    file.write_bytes(contents[content])
    message = complaint(root)
    assert names[index] in message
    assert names[1 - index] not in message


@pytest.mark.parametrize("field", ["kps", "bbox"])
@pytest.mark.parametrize("index", [0, 1], ids=["source", "target"])
def test_an_annotation_that_lacks_a_field_is_named_with_it(root, index, field):
    edit_list(root, lambda rows: rows.__delitem__(slice(2, None)))
    name = annotation("aeroplane", f"2008_00001{index}")
    values = {"kps": pascal_points(index), "bbox": np.array([pascal_box(index)])}
    del values[field]
    savemat(root / name, values)
    assert f"{name} lacks '{field}'" in complaint(root)


@pytest.mark.parametrize(
    ("points", "box"),
    [
        (pascal_points(1)[:4], pascal_box(1)),
        (pascal_points(1).T, pascal_box(1)),
        (pascal_points(1), [5, 6, 51]),
    ],
    ids=["four parts", "2 x N", "three numbers"],
)
def test_an_annotation_of_another_shape_is_named(root, points, box):
    name = annotation("aeroplane", "2008_000011")
    write_mat(root / name, points, box)
    assert name in complaint(root)


def test_damaged_annotations_are_all_named_however_many_pairs_use_them(tmp_path):
    """Each is part of eighteen pairs."""
    root = write_pf_pascal(tmp_path, {"car": 7}, images=10)
    damaged = [annotation("car", f"2008_00007{index}") for index in (0, 9)]
    for name in damaged:
        (root / name).write_bytes(b"")
    message = complaint(root)
    assert [name for name in damaged if name in message] == damaged


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["d/a.jpg", "d/b.jpg"], "expected photos, class and flip or points, got d/a.jpg,d/b.jpg"),
        (
            ["d/a.jpg", "d/b.jpg", "1", "0", "0"],
            "expected photos, class and flip or points, got d/a.jp",
        ),
        (
            ["d/a.jpg", "d/b.jpg", "car", "0"],
            "expected photos, class and flip or points, got d/a.jpg,d",
        ),
        (
            ["d/a.jpg", "d/b.jpg", *["1.5"] * 40],
            "expected photos, class and flip or points, got d/a.j",
        ),
        (["d/a.jpg", "d/b.jpg", "0", "0"], "expected a class in 1..20, got 0"),
        (["d/a.jpg", "d/b.jpg", "21", "0"], "expected a class in 1..20, got 21"),
    ],
)
def test_a_row_of_other_columns_is_told(root, row, message):
    edit_list(root, lambda rows: rows.insert(3, row))
    assert f"{LIST}: {message}" in complaint(root)


@pytest.mark.parametrize("flip", ["", "yes", "2", "0.5"])
def test_a_flip_that_is_neither_0_nor_1_is_told(root, flip):
    name = "val_pairs_pf_pascal.csv"
    edit_list(root, lambda rows: rows[3].__setitem__(3, flip), name)
    assert name in complaint(root, "val")


@pytest.mark.parametrize("cell", ["", "1;far;3", "1;2"])
def test_a_cell_of_other_points_is_damage(root, cell):
    edit_list(root, lambda rows: rows[1].__setitem__(4, cell))
    assert "is not a whole PF-PASCAL: " in complaint(root)


def test_a_cell_of_points_that_is_no_number_names_the_list(root):
    """The annotations are right; the list is not."""
    edit_list(root, lambda rows: rows[1].__setitem__(4, "1;far;3"))
    assert LIST in complaint(root)


@pytest.mark.parametrize(
    "name", ["2008_000010.jpg", "/no/such/folder/2008_000010.jpg", "../2008_000010.jpg", ""]
)
def test_a_photo_outside_the_folders_of_the_set_is_told(root, name):
    edit_list(root, lambda rows: rows[1].__setitem__(0, name))
    assert f"{LIST}: expected photos like FOLDER/NAME.png, got {name!r}" in complaint(root)
