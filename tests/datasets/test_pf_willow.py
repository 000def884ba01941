from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sdcorr.datasets.pf_willow import PfWillow
from sdcorr.errors import BadDataset
from sdcorr.metrics import (
    Floats,
    correct,
    hits_of_pairs,
    keypoint_box_side,
    keypoint_errors,
    per_image,
    per_point,
)
from sdcorr.pairs import Pair
from sdcorr.preprocess import read_size
from tests.annotated import willow_points, write_csv, write_pf_willow

ALPHAS = (0.05, 0.1, 0.15, 0.2)
SAME_POSITION = [6.0667, 18.8222, 34.6778, 50.3556]
SCALED_POSITION = [12.2, 27.0444, 41.6889, 57.5111]
CAR = "PF-dataset/car(G)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by many tests, changed by none."""
    return write_pf_willow(tmp_path_factory.mktemp("willow"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """To be changed."""
    return write_pf_willow(tmp_path)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[Pair]:
    return PfWillow(shared_data / "PF-WILLOW").pairs()


def edit_list(root: Path, edit: Callable[[list[list[str]]], object]) -> None:
    """Change the list's rows, the header among them, in place."""
    with (root / "test_pairs.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    edit(rows)
    write_csv(root / "test_pairs.csv", rows)


def complaint(root: Path) -> str:
    """What the user reads of a root that is not whole."""
    with pytest.raises(BadDataset) as error:
        PfWillow(root).pairs()
    return str(error.value)


def test_the_first_pair_by_hand(whole):
    pair = PfWillow(whole).pairs()[0]
    assert pair.id == "photo_000a-photo_001a:car(G)"
    assert pair.source == whole / CAR / "photo_000a.png"
    assert pair.target == whole / CAR / "photo_001a.png"
    assert pair.keypoint_ids == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert pair.source_keypoints[[0, 9]].tolist() == [[4.25, 50.5], [40.25, 23.5]]
    assert pair.target_keypoints[[0, 9]].tolist() == [[5.25, 48.5], [41.25, 21.5]]
    assert pair.source_only.shape == (0, 2)
    assert (pair.source_size, pair.target_size, pair.target_box) == (None, None, None)


def test_all_x_come_before_all_y_in_a_row(whole):
    for pair in PfWillow(whole).pairs():
        source, target = (int(photo.stem[6:9]) for photo in (pair.source, pair.target))
        assert np.array_equal(pair.source_keypoints, willow_points(source))
        assert np.array_equal(pair.target_keypoints, willow_points(target))


def test_the_category_keeps_its_bracket_and_the_subject_is_a_word(whole):
    words = {(pair.category, pair.subject) for pair in PfWillow(whole).pairs()}
    assert words == {("car(G)", "car"), ("car(M)", "car"), ("duck(S)", "duck")}


def test_names_with_square_brackets_are_taken_as_they_are(tmp_path):
    root = write_pf_willow(tmp_path, classes=("car[G]",))
    assert {pair.category for pair in PfWillow(root).pairs()} == {"car[G]"}


def test_pairs_come_in_the_order_of_the_list(root):
    before = [pair.id for pair in PfWillow(root).pairs()]
    edit_list(root, lambda rows: rows.append(rows.pop(1)))
    assert [pair.id for pair in PfWillow(root).pairs()] == [*before[1:], before[0]]


def test_one_photo_name_in_two_classes_makes_two_pairs(whole):
    pairs = PfWillow(whole).pairs()
    assert len(pairs) == len({pair.id for pair in pairs}) == 18
    assert len({pair.source.name for pair in pairs}) == 3


@pytest.mark.parametrize("list_name", ["test_pairs.csv", "test_pairs_pf.csv"])
@pytest.mark.parametrize("repacked", [False, True])
def test_both_layouts_and_both_list_names_give_the_same_pairs(tmp_path, whole, repacked, list_name):
    root = write_pf_willow(tmp_path, repacked=repacked, list_name=list_name)
    assert (root / "PF-dataset").exists() != repacked
    found, expected = PfWillow(root).pairs(), PfWillow(whole).pairs()
    assert [pair.id for pair in found] == [pair.id for pair in expected]
    assert [pair.category for pair in found] == [pair.category for pair in expected]
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.source_keypoints, other.source_keypoints)
        assert one.source.read_bytes() == other.source.read_bytes()


def test_a_list_saved_by_a_spreadsheet_is_read(root):
    """With a byte order mark, CRLF, and an empty last line."""
    file = root / "test_pairs.csv"
    text = file.read_text().replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert len(PfWillow(root).pairs()) == 18


def test_the_real_set_is_read_whole(real):
    assert len(real) == len({pair.id for pair in real}) == 900
    assert len({photo for pair in real for photo in (pair.source, pair.target)}) == 100
    counts = {pair.category: 0 for pair in real}
    for pair in real:
        counts[pair.category] += 1
        assert pair.source_keypoints.shape == (10, 2)
    assert len(counts) == 10
    assert set(counts.values()) == {90}
    assert {pair.subject for pair in real} == {"car", "duck", "motorbike", "winebottle"}


def test_thirty_real_photos_stand_in_two_classes(real):
    photos = {photo for pair in real for photo in (pair.source, pair.target)}
    assert len({photo.read_bytes() for photo in photos}) == 70


def pck(pairs: list[Pair], predicted: list[Floats]) -> tuple[Floats, Floats]:
    """Percent per image and per point, of the target's keypoint box."""
    points = zip(predicted, pairs, strict=True)
    errors = np.concatenate([keypoint_errors(one, pair.target_keypoints) for one, pair in points])
    index = np.repeat(np.arange(len(pairs)), 10)
    sides = np.array([keypoint_box_side(pair.target_keypoints) for pair in pairs])
    hits, counts = hits_of_pairs(correct(errors, sides[index], ALPHAS), index, len(pairs))
    return 100 * per_image(hits, counts), 100 * per_point(hits, counts)


def test_the_same_position_on_the_real_set(real):
    """Regression numbers, measured by independent code; no exact ties occur."""
    image, point = pck(real, [pair.source_keypoints for pair in real])
    assert image.round(4).tolist() == SAME_POSITION
    assert point.round(4).tolist() == SAME_POSITION  # every pair has ten points


def test_the_scaled_position_on_the_real_set(real):
    """Raw coordinates times the ratio of the sides; a swapped side would give other numbers."""
    photos = {photo for pair in real for photo in (pair.source, pair.target)}
    sides = {photo: np.array(read_size(photo)[::-1], np.float64) for photo in photos}
    image, _ = pck(
        real, [pair.source_keypoints * sides[pair.target] / sides[pair.source] for pair in real]
    )
    assert image.round(4).tolist() == SCALED_POSITION


def test_without_a_list_both_its_names_are_told(root):
    (root / "test_pairs.csv").unlink()
    expected = f"{root} is not a whole PF-WILLOW: no list test_pairs.csv or test_pairs_pf.csv"
    assert complaint(root) == expected


@pytest.mark.parametrize("repacked", [False, True])
def test_half_unpacked_photos_are_counted_and_the_first_named(tmp_path, repacked):
    root = write_pf_willow(tmp_path, repacked=repacked)
    for number in (1, 2):
        next(root.rglob(f"car(M)/photo_00{number}a.png")).unlink()
    assert complaint(root) == (
        f"{root} is not a whole PF-WILLOW: photos: 2 of 9 files are missing, first "
        "PF-dataset/car(M)/photo_001a.png"
    )


@pytest.mark.parametrize(
    ("edit", "columns"),
    [
        (lambda row: row[:41], 41),
        (lambda row: [*row, "1.5"], 43),
        (lambda row: [*row[:2], "1", "3;4", "5;6", "7;8", "9;10"], 7),  # as in PF-PASCAL
    ],
)
def test_another_number_of_columns_is_told(root, edit, columns):
    edit_list(root, lambda rows: rows.__setitem__(3, edit(rows[3])))
    assert f"test_pairs.csv: expected 42 columns, got {columns}" in complaint(root)


@pytest.mark.parametrize("cell", ["far", "", "nan", "inf"])
def test_a_coordinate_that_is_no_number_is_damage(root, cell):
    edit_list(root, lambda rows: rows[3].__setitem__(7, cell))
    message = complaint(root)
    assert message.startswith(f"{root} is not a whole PF-WILLOW: test_pairs.csv: ")
    assert ";" not in message  # one row, one problem


def test_a_list_that_was_cut_off_is_damage(root):
    file = root / "test_pairs.csv"
    file.write_bytes(file.read_bytes()[:-200])
    assert "test_pairs.csv: expected 42 columns, got " in complaint(root)


def test_everything_that_is_wrong_is_told_at_once(root):
    (root / CAR / "photo_000a.png").unlink()
    edit_list(root, lambda rows: rows[3].__setitem__(7, "far"))
    message = complaint(root)
    assert message.count(str(root)) == 1
    assert f"photos: 1 of 9 files are missing, first {CAR}/photo_000a.png" in message
    assert "test_pairs.csv: could not convert string to float: 'far'" in message


@pytest.mark.parametrize("name", ["/no/such/folder/photo.png", "../elsewhere/photo.png", ""])
def test_a_photo_outside_the_folders_of_the_set_is_told(root, name):
    edit_list(root, lambda rows: rows[3].__setitem__(0, name))
    assert f"expected photos like FOLDER/NAME.png, got {name!r}" in complaint(root)
