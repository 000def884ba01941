"""What is written below spair/: every official field, and keypoints that lie where they should."""

from __future__ import annotations

import filecmp
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from sdcorr.datasets.spair import Spair
from sdcorr.errors import BadDataset
from sdcorr.synthetic import CATEGORIES, read_mark, write_synthetic
from sdcorr.synthetic._categories import make
from sdcorr.synthetic._photos import random_view
from sdcorr.synthetic._spair import Plan, box_of, pair_fields
from tests.annotated import spair_image, spair_pair
from tests.synthetic.conftest import PAIRS, SEED

COUNTS = {"test": PAIRS, "val": PAIRS // 4, "trn": PAIRS // 4}
OFFICIAL_IMAGE = spair_image("cat", "2008_000000", 0)
OFFICIAL_PAIR = spair_pair(1, "000001-a-b:cat", OFFICIAL_IMAGE, OFFICIAL_IMAGE)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def images(drawn: Path) -> dict[str, dict[str, Any]]:
    """Annotations of all photos by ``category/name``."""
    home = drawn / "spair" / "ImageAnnotation"
    return {f"{file.parent.name}/{file.stem}": read(file) for file in sorted(home.glob("*/*.json"))}


@pytest.fixture(scope="module")
def pairs(drawn: Path) -> list[dict[str, Any]]:
    return [read(file) for file in sorted((drawn / "spair/PairAnnotation").glob("*/*.json"))]


def part_map(drawn: Path, name: str) -> np.ndarray:
    return np.asarray(PIL.Image.open(drawn / f"spair/PartMaps/{name}.png"))


def test_both_sets_are_marked_as_drawn(drawn):
    for name in ("spair", "tss"):
        mark = read_mark(drawn / name)
        assert set(mark) == {"seed", "pairs"}
        assert all(isinstance(value, int) for value in mark.values())


def test_keypoints_and_parts_have_names(drawn, images):
    names = json.loads((drawn / "spair" / "names.json").read_text())
    assert set(names) == {one["category"] for one in images.values()}
    for name, one in images.items():
        called = names[one["category"]]
        assert {key for key, point in one["kps"].items() if point} <= called["keypoints"].keys()
        numbers = np.unique(
            np.asarray(PIL.Image.open(drawn / f"spair/PartMaps/{name}.png"))[..., 0]
        )
        assert set(map(str, numbers)) - {"0"} <= called["parts"].keys()
    assert names["bird"]["keypoints"]["0"] == "beak_tip"


def test_a_set_of_photos_has_no_mark_and_a_damaged_one_is_told(tmp_path):
    assert read_mark(tmp_path) is None
    (tmp_path / "drawn.json").write_text("{")
    with pytest.raises(BadDataset, match=r"drawn\.json is damaged; draw the set again"):
        read_mark(tmp_path)


def test_each_photo_has_its_four_files(drawn, images):
    spair = drawn / "spair"
    for folder, ending in (("JPEGImages", "jpg"), ("Segmentation", "png"), ("PartMaps", "png")):
        stems = {f"{f.parent.name}/{f.stem}" for f in (spair / folder).glob(f"*/*.{ending}")}
        assert stems == images.keys()
    assert {f.name for f in spair.iterdir()} == {
        "JPEGImages", "ImageAnnotation", "Segmentation", "PairAnnotation", "Layout", "PartMaps",
        "drawn.json", "names.json",
    }  # fmt: skip


def test_photos_have_every_official_field_of_its_type(images):
    for name, one in images.items():
        assert one.keys() == OFFICIAL_IMAGE.keys()
        for key, value in OFFICIAL_IMAGE.items():
            assert type(one[key]) is type(value), key
        assert list(one["kps"]) == [str(index) for index in range(30)]
        assert f"{one['category']}/{one['filename']}" == f"{name}.jpg"
        assert one["pose"] in ("Frontal", "Left", "Rear", "Right")
        assert one["azimuth_id"] in range(8)
        assert {one["truncated"], one["occluded"]} <= {0, 1}


def test_photos_have_the_size_that_is_written(drawn, images):
    upright = 0
    for name, one in images.items():
        photo = PIL.Image.open(drawn / f"spair/JPEGImages/{name}.jpg")
        assert photo.size == (one["image_width"], one["image_height"])
        assert photo.mode == "RGB"
        assert 300 <= max(photo.size) <= 400
        upright += photo.height > photo.width
    assert 0.2 < upright / len(images) < 0.6


def test_pose_and_azimuth_id_agree(images):
    # an id is the middle of 45 degrees, a pose of 90; odd ids lie on the border of two poses
    sides = {0: ["Frontal"], 2: ["Left"], 4: ["Rear"], 6: ["Right"]}
    sides |= {one: sides[one - 1] + sides[(one + 1) % 8] for one in (1, 3, 5, 7)}
    for one in images.values():
        assert one["pose"] in sides[one["azimuth_id"]]
    assert {one["pose"] for one in images.values()} == {"Frontal", "Left", "Rear", "Right"}


FRONT_AND_BACK = {
    "quadruped": ("withers", "croup"),
    "fish": ("forehead", "upper_tip"),
    "plane": ("cockpit", "fin_top"),
}


def test_a_figure_of_pose_left_looks_left(images):
    """Also on mirrored photos."""
    seen: Counter[str] = Counter()
    for category, parts in FRONT_AND_BACK.items():
        figure = make(category, np.random.default_rng(0), np.random.default_rng(0))
        names = [point.name for point in figure.keypoints]
        for one in images.values():
            front, back = (one["kps"][str(names.index(part))] for part in parts)
            sideways = one["category"] == category and one["pose"] in ("Left", "Right")
            if sideways and front and back:
                assert (front[0] < back[0]) == (one["pose"] == "Left")
                seen[one["pose"]] += 1
    assert min(seen["Left"], seen["Right"]) >= 5


def test_a_keypoint_lies_on_its_part(drawn, images):
    parts, points = {}, {}
    for category in CATEGORIES:
        figure = make(category, np.random.default_rng(0), np.random.default_rng(0))
        parts[category] = [part.name for part in figure.parts]
        points[category] = [point.part for point in figure.keypoints]
    seen = 0
    for name, one in images.items():
        category, number = one["category"], part_map(drawn, name)[..., 0]
        for key, point in one["kps"].items():
            if point is None:
                continue
            x, y = point
            assert type(x) is type(y) is int
            part = parts[category][number[y, x] - 1]
            assert number[y, x] > 0
            assert part == points[category][int(key)]
            seen += 1
        assert all(one["kps"][str(key)] is None for key in range(len(points[category]), 30))
    assert seen > 5 * len(images)


def test_hidden_points_and_flags_occur(images):
    every = [point for one in images.values() for point in list(one["kps"].values())[:12]]
    assert 0.2 < sum(point is None for point in every) / len(every) < 0.7
    for flag in ("truncated", "occluded"):
        assert 0.05 < np.mean([one[flag] for one in images.values()]) < 0.5, flag


def test_segmentation_and_box_are_of_what_shows(drawn, images):
    for name, one in images.items():
        mask = np.asarray(PIL.Image.open(drawn / f"spair/Segmentation/{name}.png"))
        shows = part_map(drawn, name)[..., 0] > 0
        assert np.array_equal(mask, np.where(shows, 255, 0))
        assert (part_map(drawn, name)[~shows] == 0).all()
        x0, y0, x1, y1 = one["bndbox"]
        inner = np.zeros_like(shows)
        inner[y0 - 1 : y1, x0 - 1 : x1] = True  # boxes count from 1
        assert not (shows & ~inner).any()
        edges = (shows[y0 - 1], shows[y1 - 1], shows[:, x0 - 1], shows[:, x1 - 1])
        assert all(edge.any() for edge in edges)


def test_pairs_have_every_official_field_and_agree_with_their_photos(images, pairs):
    assert len(pairs) == sum(COUNTS.values())
    for pair in pairs:
        assert pair.keys() == OFFICIAL_PAIR.keys()
        for key, value in OFFICIAL_PAIR.items():
            assert type(pair[key]) is type(value), key
        assert pair["mirror"] == 0
        ends = {}
        for end in ("src", "trg"):
            stem = pair[f"{end}_imname"].removesuffix(".jpg")
            one = ends[end] = images[f"{pair['category']}/{stem}"]
            assert pair[f"{end}_imsize"] == [one["image_width"], one["image_height"], 3]
            assert pair[f"{end}_bndbox"] == one["bndbox"]
            assert pair[f"{end}_pose"] == one["pose"]
            assert pair[f"{end}_kps"] == [one["kps"][key] for key in pair["kps_ids"]]
        both = [
            key
            for key in map(str, range(30))
            if ends["src"]["kps"][key] is not None and ends["trg"]["kps"][key] is not None
        ]
        assert pair["kps_ids"] == both != []
        for flag, key in (("truncation", "truncated"), ("occlusion", "occluded")):
            assert pair[flag] == ends["src"][key] + 2 * ends["trg"][key]
        number, stem = pair["pair_id"], pair["filename"]
        names = "-".join(pair[f"{end}_imname"].removesuffix(".jpg") for end in ("src", "trg"))
        assert stem == f"{number:06d}-{names}:{pair['category']}"


@pytest.mark.parametrize(
    ("ids", "boxes", "viewpoint", "scale"),
    [
        ((0, 0), ([1, 1, 10, 10], [1, 1, 10, 10]), 0, 0),
        ((7, 0), ([1, 1, 10, 10], [1, 1, 10, 19]), 0, 0),  # areas 100 and 190
        ((0, 2), ([1, 1, 10, 20], [1, 1, 10, 10]), 1, 1),  # twice
        ((1, 6), ([1, 1, 10, 10], [1, 1, 20, 20]), 1, 1),  # four times
        ((2, 6), ([1, 1, 20, 21], [1, 1, 10, 10]), 2, 2),  # 4.2 times
    ],
)
def test_difficulty_by_hand(ids, boxes, viewpoint, scale):
    ends = [
        spair_image("cat", "x", 0) | {"azimuth_id": one, "bndbox": box}
        for one, box in zip(ids, boxes, strict=True)
    ]
    fields = pair_fields(1, *ends)
    assert (fields["viewpoint_variation"], fields["scale_variation"]) == (viewpoint, scale)


def test_a_box_counts_from_1():
    mask = np.zeros((5, 7), bool)
    mask[1:4, 2:6] = True
    assert box_of(mask) == [3, 2, 6, 4]


@pytest.mark.parametrize("split", COUNTS)
def test_the_loader_reads_each_split(drawn, split):
    root = drawn / "spair"
    large, small = (Spair(root, split, layout).pairs() for layout in ("large", "small"))
    assert len(large) == COUNTS[split]
    assert {pair.id for pair in small} < {pair.id for pair in large}
    assert [int(pair.id[:6]) for pair in large] == list(range(1, len(large) + 1))
    counts = Counter(pair.category for pair in large)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert set(counts) == set(CATEGORIES)


def test_no_photo_is_in_two_splits_and_each_is_in_several_pairs(drawn):
    ends = {}
    for split in COUNTS:
        pairs = Spair(drawn / "spair", split).pairs()
        ends[split] = Counter(photo for pair in pairs for photo in (pair.source, pair.target))
    assert not ends["test"].keys() & ends["val"].keys()
    assert not ends["test"].keys() & ends["trn"].keys()
    assert not ends["val"].keys() & ends["trn"].keys()
    assert min(ends["test"].values()) >= 2


def test_a_single_pair_is_of_one_category():
    assert Plan(0, 1).per_category("test") == {"bird": 1}
    assert Plan(0, 1).per_category("val") == {"bird": 1}
    assert list(Plan(0, 10).per_category("test").values()) == [2, 2, 1, 1, 1, 1, 1, 1]


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones(tmp_path):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        write_synthetic(tmp_path / name, seed, 1)
    files = [
        file.relative_to(tmp_path / "a").as_posix()
        for file in (tmp_path / "a").rglob("*")
        if file.is_file()
    ]
    assert len(files) > 40
    _, differ, odd = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)
    assert (differ, odd) == ([], [])
    photos = [name for name in files if name.endswith(("jpg", "flo")) or "image" in name]
    same, _, _ = filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", photos, shallow=False)
    assert same == []


def test_photos_are_seen_from_all_sides_and_some_are_cut():
    generator = np.random.default_rng(0)
    views = [random_view(generator) for _ in range(2000)]
    cuts = np.array([view.cut for view in views])
    share = np.abs(cuts).max(axis=1)
    assert (share > 0).mean() == pytest.approx(0.2, abs=0.03)
    assert share[share > 0].min() >= 0.1
    assert share.max() <= 0.28
    assert (np.abs(cuts).min(axis=1) == 0).all()  # at one edge
    assert (cuts < 0).any(axis=0).all()
    assert (cuts > 0).any(axis=0).all()
    sideways = [abs(np.sin(np.deg2rad(view.azimuth))) > np.cos(np.deg2rad(55)) for view in views]
    assert np.mean(sideways) == pytest.approx(0.75 + 0.25 * 110 / 180, abs=0.03)


def test_the_readme_says_what_it_is(drawn):
    text = (drawn / "README.md").read_text()
    assert f"--seed {SEED} --pairs {PAIRS}" in text
    assert "CC0" in text


@pytest.mark.parametrize(("seed", "pairs"), [(-1, 1), (0, 0), (0, 100_001)])
def test_numbers_out_of_range_are_refused(tmp_path, seed, pairs):
    with pytest.raises(BadDataset, match="expected"):
        write_synthetic(tmp_path / "set", seed, pairs)
    assert list(tmp_path.iterdir()) == []
