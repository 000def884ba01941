from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcorr.benchmark import Benchmark, run_benchmark
from sdcorr.datasets.ap10k import Ap10k
from sdcorr.errors import BadDataset, UnknownName
from sdcorr.evaluation import by_affinity, predict
from sdcorr.metrics import box_side, keypoint_errors
from sdcorr.pairs import Pair
from sdcorr.pipeline import Pipeline
from sdcorr.processes import World
from sdcorr.recipes import find_recipe
from sdcorr.runs import RunFolder
from sdcorr.runtime import Runtime
from tests.annotated import write
from tests.annotated_ap10k import FILES, KEYPOINTS, write_ap10k

PROTOCOLS = ("intra-species", "cross-species", "cross-family")
LISTS = [
    *itertools.product(PROTOCOLS, ("test", "val")),
    ("intra-species", "trn"),
]
ZOO = {"Canidae": ("dog", "wolf", "arctic fox"), "Felidae": ("cat",), "Ursidae": ("bear",)}
COUNTS = (260, 52, 50, 45, 40)
TEST, TRAIN = FILES["test"], FILES["train"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by many tests, changed by none. Ids 1-3 are dogs, 4-6 wolves, 7-9 cats, 10-12 lions."""
    return write_ap10k(tmp_path_factory.mktemp("ap10k"))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for every draw; ids and parts are random, and some photos show too few."""
    root = write_ap10k(tmp_path_factory.mktemp("zoo"), ZOO, COUNTS, drawn=False)
    draw = random.Random(1)
    places = draw.sample(range(60_000), sum(COUNTS))  # species and families mixed

    def mix(content):
        for one in content["images"]:
            one["id"] = places[one["id"] - 1]
        for one in content["annotations"]:
            one["image_id"] = places[one["image_id"] - 1]
            levels = [draw.choice((0, 1, 2)) for _ in KEYPOINTS]
            if draw.random() < 0.5:  # else two photos would seldom show fewer than 3 parts both
                levels[5:] = [0] * (len(KEYPOINTS) - 5)
            one["keypoints"] = [
                value for part, v in enumerate(levels) for value in (part * bool(v), bool(v) * 7, v)
            ]
            one["num_keypoints"] = len(levels) - levels.count(0)

    for name in FILES.values():
        change(root, mix, name)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """To be changed: three dogs, ids 1-3; image 2 stands in test, 1 in val, 3 in train."""
    return write_ap10k(tmp_path, {"Canidae": ("dog",)}, drawn=False)


def change(root: Path, edit: Callable[[dict[str, Any]], object], name: str = TEST) -> None:
    """Edit a JSON file in place."""
    value = json.loads((root / name).read_text())
    edit(value)
    write(root / name, value)


def annotation(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["annotations"][0]
    return found


def ids(pairs: list[Pair]) -> list[str]:
    return [pair.id for pair in pairs]


def short(pairs: list[Pair]) -> list[str]:
    """Ids without the zeros that fill them."""
    ends = (pair.id.partition(":") for pair in pairs)
    return [
        f"{'-'.join(str(int(end)) for end in both.split('-'))}:{name}" for both, _, name in ends
    ]


def complaint(root: Path, **fields: Any) -> str:
    """What the user reads of a root that is not whole."""
    with pytest.raises(BadDataset) as error:
        Ap10k(root, **fields).pairs()
    return str(error.value)


# By hand


def test_the_first_pair_by_hand(whole):
    """Dog 0 lacks part 0, dog 1 lacks part 1; v is 1 or 2 by turns, and both count."""
    pair = Ap10k(whole).pairs()[3]
    assert pair.id == "000000000001-000000000002:dog"
    assert (pair.category, pair.subject) == ("dog", "dog")
    assert pair.source == whole / "data/000000000001.jpg"
    assert pair.target == whole / "data/000000000002.jpg"
    assert pair.keypoint_ids == ("nose", "neck", "root_of_tail")
    assert pair.source_keypoints.tolist() == [[25, 25], [33, 34], [41, 43]]
    assert pair.target_keypoints.tolist() == [[26, 26], [34, 35], [42, 44]]
    assert pair.source_only_ids == ("right_eye",)
    assert pair.source_only.tolist() == [[17, 16]]
    assert (pair.source_size, pair.target_size) == ((60, 80), (80, 60))  # (height, width)
    assert pair.target_box == (4, 5, 49, 45)  # from left 4, top 5, width 45, height 40
    assert box_side(pair.target_box) == 45


def test_the_three_lists_by_hand(whole):
    """Two dogs show the same three parts or four of five: all photos can be paired."""
    assert short(Ap10k(whole).pairs()) == [
        "7-8:cat", "7-9:cat", "8-9:cat", "1-2:dog", "1-3:dog", "2-3:dog",
        "10-11:lion", "10-12:lion", "11-12:lion", "4-5:wolf", "4-6:wolf", "5-6:wolf",
    ]  # fmt: skip
    species = Ap10k(whole, protocol="cross-species").pairs()
    dogs = [f"{dog}-{wolf}:Canidae" for dog in (1, 2, 3) for wolf in (4, 5, 6)]
    cats = [f"{cat}-{lion}:Felidae" for cat in (7, 8, 9) for lion in (10, 11, 12)]
    assert short(species) == dogs + cats
    family = Ap10k(whole, protocol="cross-family").pairs()
    assert len(family) == 30  # of 36
    assert {pair.category for pair in family} == {"Canidae"}  # the source's
    assert short(family)[0].startswith("1-")
    assert {pair.subject for pair in species + family} == {"animal"}


def test_the_source_is_the_photo_of_the_lower_id_whatever_its_name(root):
    """Image 2 becomes 20 and its file sorts first; 20 is a target everywhere."""

    def rename(content):
        content["images"][0].update(id=20, file_name="a.jpg")
        annotation(content)["image_id"] = 20

    change(root, rename)
    (root / "data/000000000002.jpg").rename(root / "data/a.jpg")
    pairs = Ap10k(root).pairs()
    assert short(pairs) == ["1-3:dog", "1-20:dog", "3-20:dog"]
    assert [pair.target.name for pair in pairs[1:]] == ["a.jpg", "a.jpg"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (8, {"test": (1, 8)}),
        (30, {"test": (1, 30)}),
        (35, {"test": (6, 35), "val": (1, 5)}),
        (52, {"test": (23, 52), "val": (3, 22), "trn": (1, 2)}),
    ],
)
def test_the_last_30_photos_are_test_the_20_before_val(tmp_path, count, expected):
    root = write_ap10k(tmp_path, {"Canidae": ("dog",)}, count, drawn=False)
    for split, (first, last) in expected.items():
        pairs = Ap10k(root, split).pairs()
        shown = {int(end.stem) for pair in pairs for end in (pair.source, pair.target)}
        assert shown == set(range(first, last + 1))
    for split in {"test", "val", "trn"} - expected.keys():
        assert complaint(root, split=split) == (
            f"{root} has no intra-species pairs of split {split}: of each species, the last 30 "
            "photos are test, the 20 before them val, the rest trn"
        )


@pytest.mark.parametrize(
    ("shown", "pairs"), [(2, ["1-3:dog"]), (3, ["1-2:dog", "1-3:dog", "2-3:dog"])]
)
def test_a_photo_counts_if_the_file_says_that_it_shows_three_parts(root, shown, pairs):
    change(root, lambda content: annotation(content).update(num_keypoints=shown))
    assert short(Ap10k(root).pairs()) == pairs


def test_photos_that_do_not_count_make_room_for_others_before_the_split(tmp_path):
    """Of 31 photos the first is val; without the last, it is test."""
    root = write_ap10k(tmp_path, {"Canidae": ("dog",)}, 31, drawn=False)
    assert short(Ap10k(root).pairs())[0] == "2-3:dog"
    (tmp_path / "crowd.txt").write_text("31")
    assert short(Ap10k(root, crowd=tmp_path / "crowd.txt").pairs())[0] == "1-2:dog"


def test_the_two_photos_of_a_pair_show_at_least_three_parts_both(root):
    """Dog 1 shows parts 0, 2, 3, 4; without part 4, two are left with dog 0 and with dog 2."""

    def hide(content):
        annotation(content)["keypoints"][14] = 0

    assert len(Ap10k(root).pairs()) == 3
    change(root, hide)
    assert short(Ap10k(root).pairs()) == ["1-3:dog"]


def test_the_first_annotation_of_an_image_counts(root):
    """Not the larger one, nor that of the lower id; the order is train, test, val."""
    before = Ap10k(root).pairs()
    later = {**json.loads((root / TEST).read_text())["annotations"][0], "id": 1, "num_keypoints": 2}

    change(root, lambda content: content["annotations"].append(later))
    change(root, lambda content: content["annotations"].insert(0, later), FILES["val"])
    assert ids(Ap10k(root).pairs()) == ids(before)
    change(root, lambda content: content["annotations"].reverse())
    assert short(Ap10k(root).pairs()) == ["1-3:dog"]
    change(root, lambda content: content["annotations"].reverse())
    change(root, lambda content: content["annotations"].insert(0, later), TRAIN)
    assert short(Ap10k(root).pairs()) == ["1-3:dog"]


def test_an_image_without_annotation_is_in_no_pair(root):
    change(root, lambda content: content["annotations"].clear())
    assert short(Ap10k(root).pairs()) == ["1-3:dog"]


# By reference


def reference(root: Path, protocol: str, split: str, crowd: frozenset[int] = frozenset()) -> list:
    """Ids of the pairs, by loops over the JSON as it stands."""
    images, species, first = {}, {}, {}
    for part in ("train", "test", "val"):
        content = json.loads((root / FILES[part]).read_text())
        images |= {one["id"]: one for one in content["images"]}
        species |= {one["id"]: (one["name"], one["supercategory"]) for one in content["categories"]}
        for one in content["annotations"]:
            if one["image_id"] not in first:
                first[one["image_id"]] = one
    about = {}  # species, family and shown parts of the photos of the split
    counts = {}
    for name, family in species.values():
        own = [
            key
            for key in sorted(images)
            if key in first and species[first[key]["category_id"]][0] == name
            and key not in crowd and first[key]["num_keypoints"] >= 3
        ]  # fmt: skip
        for index, key in enumerate(own):
            from_end = len(own) - index
            part = "test" if from_end <= 30 else "val" if from_end <= 50 else "trn"
            if part == split:
                levels = first[key]["keypoints"][2::3]
                shown = {number for number, v in enumerate(levels) if v in (1, 2)}
                about[key] = (name, family, shown)
                counts[name] = counts.get(name, 0) + 1
    groups: dict[Any, list[tuple[str, int, int]]] = {}
    for one in sorted(about):
        for other in sorted(about):
            (name, family, shown), (name2, family2, shown2) = about[one], about[other]
            if one >= other or len(shown & shown2) < 3:
                continue
            if protocol == "intra-species" and name == name2:
                groups.setdefault(name, []).append((name, one, other))
            elif protocol == "cross-species" and family == family2 and name != name2:
                groups.setdefault(family, []).append((family, one, other))
            elif protocol == "cross-family" and family != family2:
                groups.setdefault(frozenset((family, family2)), []).append((family, one, other))
    found = []
    for group, rows in groups.items():
        if protocol == "intra-species":
            most = 50 * counts[group] if split == "trn" else len(rows)
        elif protocol == "cross-species":
            most = {"test": 900, "val": 400}[split]
        else:
            most = {"test": 30, "val": 20}[split]
        lots = {
            hashlib.sha256(f"42:{one:012d}-{other:012d}:{name}".encode()).hexdigest(): row
            for row in rows
            for name, one, other in [row]
        }
        found += [lots[lot] for lot in sorted(lots)[:most]]
    return [f"{one:012d}-{other:012d}:{name}" for name, one, other in sorted(found)]


@pytest.mark.parametrize(("protocol", "split"), LISTS)
def test_the_lists_are_those_of_loops_over_the_files(zoo, protocol, split):
    expected = reference(zoo, protocol, split)
    assert expected
    assert ids(Ap10k(zoo, split, protocol).pairs()) == expected


@pytest.mark.parametrize(
    ("protocol", "split", "pairs"),
    [
        ("cross-species", "test", 900),  # of one family with more than one species
        ("cross-species", "val", 400),
        ("cross-family", "test", 3 * 30),  # of three families
        ("cross-family", "val", 3 * 20),
    ],
)
def test_draws_take_as_many_as_the_rule_says(zoo, protocol, split, pairs):
    assert len(Ap10k(zoo, split, protocol).pairs()) == pairs


def test_draws_of_training_pairs_are_50_for_each_photo(tmp_path):
    root = write_ap10k(tmp_path, {"Canidae": ("dog", "wolf")}, (153, 151), drawn=False)
    pairs = Ap10k(root, "trn").pairs()
    count = {name: sum(pair.category == name for pair in pairs) for name in ("dog", "wolf")}
    assert count == {"dog": 50 * 103, "wolf": 101 * 100 // 2}  # 50 x 101 is all of them


def test_points_are_those_of_the_photos_for_every_pair(zoo):
    """Part p lies at (p, 7) on each photo that shows it."""
    for pair in Ap10k(zoo, protocol="cross-family").pairs():
        places = [[KEYPOINTS.index(name), 7] for name in pair.keypoint_ids]
        assert pair.source_keypoints.tolist() == pair.target_keypoints.tolist() == places
        alone = [[KEYPOINTS.index(name), 7] for name in pair.source_only_ids]
        assert pair.source_only.tolist() == alone


# By property


@pytest.mark.parametrize(("protocol", "split"), [LISTS[0], LISTS[2], LISTS[4]])
def test_the_order_within_the_files_does_not_matter(tmp_path, protocol, split):
    """Nor which file an image stands in, as long as no two annotations of one image change."""
    root = write_ap10k(tmp_path, ZOO, (33, 8, 5, 9, 4), drawn=False)
    expected = Ap10k(root, split, protocol).pairs()
    draw = random.Random(2)
    contents = {name: json.loads((root / name).read_text()) for name in FILES.values()}
    merged = {
        kind: [one for content in contents.values() for one in content[kind]]
        for kind in ("images", "annotations")
    }
    for name in FILES.values():
        write(root / name, {"images": [], "annotations": [], **contents[name]})
    for kind, every in merged.items():
        draw.shuffle(every)
        for number, name in enumerate(FILES.values()):
            contents[name][kind] = every[number::3]
    for name, content in contents.items():
        draw.shuffle(content["categories"])
        write(root / name, content)
    found = Ap10k(root, split, protocol).pairs()
    assert ids(found) == ids(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.source_keypoints, other.source_keypoints)
        assert one.target_box == other.target_box


def test_a_draw_of_one_pair_of_families_depends_on_no_other_family(tmp_path):
    few = write_ap10k(tmp_path / "few", {"A": ("dog",), "B": ("cat",)}, 9, drawn=False)
    more = write_ap10k(
        tmp_path / "more", {"A": ("dog",), "B": ("cat",), "C": ("bear",)}, 9, drawn=False
    )
    one, other = (ids(Ap10k(root, protocol="cross-family").pairs()) for root in (few, more))
    assert len(one) == 30
    assert len(other) == 90
    assert set(one) <= set(other)


# Crowds


def test_photos_that_the_users_list_names_are_left_out(whole, tmp_path):
    crowd = tmp_path / "crowd.txt"
    crowd.write_bytes(b"\xef\xbb\xbf000000000002\r\n\r\n 7 \r\n")  # a BOM, zeros, CRLF, blanks
    assert short(Ap10k(whole, crowd=crowd).pairs())[:2] == ["8-9:cat", "1-3:dog"]
    for protocol in PROTOCOLS:
        expected = reference(whole, protocol, "test", frozenset((2, 7)))
        assert ids(Ap10k(whole, protocol=protocol, crowd=crowd).pairs()) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{crowd} lists no image; expected image ids, one a line"),
        (
            b"1\n000002.jpg\n",
            "{crowd}, line 2: expected the id of an image, as in 37516, got '000002.jpg'",
        ),
        (b"1 2", "{crowd}, line 1: expected the id of an image, as in 37516, got '1 2'"),
        (b"-1", "{crowd}, line 1: expected the id of an image, as in 37516, got '-1'"),
        ("²".encode(), "{crowd}, line 1: expected the id of an image, as in 37516, got '²'"),
        (b"\xff\xd8\xff", "{crowd} is no text; expected image ids, one a line"),
        (
            b"1\n1001\n1003\n",
            "{crowd} lists 1001 (and 1 more), no image of {root}; expected ids of images, not of "
            "annotations",
        ),
    ],
)
def test_a_list_of_crowds_that_is_none_is_told(root, content, message):
    crowd = root / "crowd.txt"
    crowd.write_bytes(content)
    assert complaint(root, crowd=crowd) == message.format(crowd=crowd, root=root)


def test_a_list_of_crowds_that_is_not_there_is_told(root):
    crowd = root / "nowhere.txt"
    expected = f"cannot read the list of crowds {crowd}: No such file or directory"
    assert complaint(root, crowd=crowd) == expected
    assert complaint(root, crowd=root / "data").endswith("data: Is a directory")


# By message


def test_a_split_or_protocol_that_does_not_exist_is_told(root):
    with pytest.raises(UnknownName, match="no split called 'train'; did you mean 'trn'"):
        Ap10k(root, "train")
    with pytest.raises(UnknownName, match="no protocol called 'cross-specie'; did you mean 'cross"):
        Ap10k(root, protocol="cross-specie")
    for protocol in ("cross-species", "cross-family"):
        with pytest.raises(BadDataset) as error:
            Ap10k(root, "trn", protocol)
        assert str(error.value) == (
            f"AP-10K has no {protocol} pairs of split trn; choose split test or val, or protocol "
            "intra-species"
        )


def test_a_copy_of_another_split_is_told_what_is_looked_for(root):
    for part, name in FILES.items():
        (root / name).rename(root / "annotations" / f"ap10k-{part}-split2.json")
    assert complaint(root) == (
        f"{root} is not a whole AP-10K: split 1 is read, and annotations holds "
        "ap10k-test-split2.json, ap10k-train-split2.json, ap10k-val-split2.json; "
        f"no list {TEST}; no list {FILES['val']}; no list {TRAIN}"
    )


def test_all_three_files_are_needed_whatever_the_split(root):
    (root / FILES["val"]).unlink()
    assert complaint(root) == f"{root} is not a whole AP-10K: no list {FILES['val']}"


def test_missing_photos_are_told_together_and_only_those_of_pairs(root):
    change(root, lambda content: annotation(content).update(num_keypoints=0))
    for number in (1, 2, 3):
        (root / f"data/{number:012d}.jpg").unlink()
    assert complaint(root) == (
        f"{root} is not a whole AP-10K: data: 2 of 2 files are missing, first data/000000000001.jpg"
    )


def image(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["images"][0].update(fields)


def about(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: annotation(content).update(fields)


def category(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["categories"][0].update(fields)


def numbers(*first: object) -> Callable[[dict[str, Any]], object]:
    """Other numbers in place of the first keypoints."""
    return lambda content: annotation(content)["keypoints"].__setitem__(
        slice(0, len(first)), list(first)
    )


ONE = "annotation 1002 of image 2"
DAMAGED = {
    "an image twice": (image(id=3), "image 3 is listed twice, first in ap10k-train-split1.json"),
    "a photo twice": (
        image(file_name="000000000003.jpg"),
        "000000000003.jpg is listed twice, as image 3 and 2",
    ),
    "no id": (
        lambda content: content["images"][0].pop("id"),
        "an image: expected id, a whole number from 0, got None",
    ),
    "id of text": (image(id="2"), "an image: expected id, a whole number from 0, got '2'"),
    "no name": (
        image(file_name=None), "image 2: expected a file_name like 000000000001.jpg, got None",
    ),
    "a path": (
        image(file_name="../x.jpg"),
        "image 2: expected a file_name like 000000000001.jpg, got '../x.jpg'",
    ),
    "no height": (
        image(height=None), "image 2: expected height, a whole number from 1, got None",
    ),
    "no width": (image(width=0), "image 2: expected width, a whole number from 1, got 0"),
    "an unknown image": (
        about(image_id=99), "annotation 1002 has image_id 99, which is in no list",
    ),
    "image of text": (
        about(image_id="2"), "annotation 1002 has image_id '2', which is in no list",
    ),
    "a list of images": (
        about(image_id=[2]), "annotation 1002 has image_id [2], which is in no list",
    ),
    "an unknown category": (
        about(category_id=7), "annotation 1002 has category_id 7, which is in no list",
    ),
    "no number of keypoints": (
        about(num_keypoints=None),
        f"{ONE}: expected num_keypoints, a whole number from 0, got None",
    ),
    "flat box": (about(bbox=[4, 5, 30, 0]), f"{ONE}: its bbox [4, 5, 30, 0] has no area"),
    "corners": (about(bbox=[40, 50, -9, 9]), f"{ONE}: its bbox [40, 50, -9, 9] has no area"),
    "half a box": (about(bbox=[4, 5]), f"{ONE}: expected 4 numbers in bbox, got 2"),
    "no box": (about(bbox=None), f"{ONE}: expected 4 numbers in bbox, got None"),
    "box of NaN": (
        about(bbox=[4, 5, float("nan"), 9]), f"{ONE}: bbox holds something else than numbers of "
        "pixels",
    ),
    "too few keypoints": (
        about(keypoints=[1, 2, 2] * 16), f"{ONE}: expected 51 numbers in keypoints, got 48",
    ),
    "no keypoints": (about(keypoints=None), f"{ONE}: expected 51 numbers in keypoints, got None"),
    "NaN": (
        numbers(float("nan")), f"{ONE}: keypoints holds something else than numbers of pixels",
    ),
    "infinity": (
        numbers(float("inf")), f"{ONE}: keypoints holds something else than numbers of pixels",
    ),
    "text": (numbers("12"), f"{ONE}: keypoints holds something else than numbers of pixels"),
    "bool": (numbers(True), f"{ONE}: keypoints holds something else than numbers of pixels"),
    "far away": (numbers(1e7), f"{ONE}: keypoints holds something else than numbers of pixels"),
    "a third level": (numbers(1, 1, 3), f"{ONE}: expected v of 0, 1 or 2 in keypoints"),
    "no species": (
        category(name=""), "category 1: expected name and supercategory, got ('', 'Canidae')",
    ),
    "another species": (
        category(name="wolf"), "category 1 is wolf of Canidae, and dog of Canidae before",
    ),
    "another family": (
        category(supercategory="Felidae"),
        "category 1 is dog of Felidae, and dog of Canidae before",
    ),
    "a species twice": (category(id=2), "'dog' is listed as category 1 and 2"),
    "other keypoints": (
        category(keypoints=["nose", "tail"]), "category 1 has other keypoints than those before",
    ),
    "keypoints of numbers": (
        category(keypoints=[1]), "category 1: expected keypoints, a list of names, got [1]",
    ),
    "a keypoint twice": (
        category(keypoints=["nose", "nose"]), "category 1 names a keypoint twice",
    ),
    "no annotations": (lambda content: content.pop("annotations"), "lacks 'annotations'"),
    "no list": (
        lambda content: content.update(images={}), "expected images, a list of objects",
    ),
    "a list of numbers": (
        lambda content: content.update(images=[1]), "expected images, a list of objects",
    ),
    "no images": (lambda content: content["images"].clear(), "it lists no images"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_wrong_with_a_file_is_told_in_one_sentence(root, kind):
    edit, message = DAMAGED[kind]
    change(root, edit)
    between = " " if message.startswith("lacks") else ": "
    assert complaint(root) == f"{root} is not a whole AP-10K: {TEST}{between}{message}"


def test_damage_of_several_annotations_is_told_at_once(root):
    for name in (TEST, TRAIN):
        change(root, about(bbox=[0, 0, 0, 0]), name)
    message = complaint(root)
    assert f"{TEST}: {ONE}: its bbox [0, 0, 0, 0] has no area; {TRAIN}: annotation 1003" in message


def test_an_annotation_that_no_pair_of_the_split_needs_may_be_damaged(tmp_path):
    """Of 31 photos, the first is val."""
    root = write_ap10k(tmp_path, {"Canidae": ("dog",)}, 31, drawn=False)
    (name,) = [name for name in FILES.values() if '"image_id": 1,' in (root / name).read_text()]

    def damage(content):
        (one,) = [one for one in content["annotations"] if one["image_id"] == 1]
        one["bbox"] = [0, 0, 0, 0]

    change(root, damage, name)
    assert len(Ap10k(root).pairs()) == 30 * 29 // 2


def test_files_that_name_no_keypoints_get_the_published_names(root, whole):
    for name in FILES.values():
        change(root, lambda content: content["categories"][0].pop("keypoints"), name)
    assert Ap10k(root).pairs()[0].keypoint_ids == ("nose", "neck", "root_of_tail")


def test_names_of_keypoints_are_those_of_the_files(root):
    names = [f"part {number}" for number in range(len(KEYPOINTS))]
    for name in FILES.values():
        change(root, category(keypoints=names), name)
    assert Ap10k(root).pairs()[0].keypoint_ids == ("part 2", "part 3", "part 4")


# A run


def test_a_prediction_of_the_same_position_errs_by_the_way_between_the_points(whole):
    pairs = by_affinity(Ap10k(whole, protocol="cross-species").pairs())
    pipeline = Pipeline(find_recipe("same-position"), Runtime())
    for prediction in predict(pipeline, pairs):
        pair = prediction.pair
        errors = keypoint_errors(prediction.joint.target, pair.target_keypoints)
        way = np.linalg.norm(pair.source_keypoints - pair.target_keypoints, axis=1)
        if pair.source_size == pair.target_size:  # else the position is scaled
            assert errors == pytest.approx(way)


def test_a_run_says_which_pairs_it_took(whole, tmp_path):
    dataset = Ap10k(whole, protocol="cross-family")
    run = Benchmark(dataset, find_recipe("same-position"), Runtime(), tmp_path / "run")
    assert run_benchmark(run, World())
    about, records = RunFolder(tmp_path / "run").read()
    assert about["dataset"]["name"] == "ap10k"
    assert about["dataset"]["crowd"] is None
    assert (about["dataset"]["protocol"], about["dataset"]["pairs"]) == ("cross-family", 30)
    assert len(records.pairs) == 30


def test_a_name_that_stands_twice_in_an_object_is_told(tmp_path):
    root = write_ap10k(tmp_path)
    file = root / FILES["train"]
    file.write_text(file.read_text().replace('"bbox": ', '"bbox": [0, 0, 1, 1], "bbox": ', 1))
    with pytest.raises(BadDataset, match="the name 'bbox' stands in it twice"):
        Ap10k(root).pairs()
