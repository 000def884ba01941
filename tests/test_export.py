from __future__ import annotations

import ast
import base64
import csv
import importlib.util
import io
import json
import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from matplotlib.figure import Figure

import sdcorr
from examples import turned_photo
from sdcorr.errors import BadPoints, SdcorrError
from sdcorr.export import PICTURES, SCHEMA, coco_annotation, matches_to_dict, write_picture
from sdcorr.files import to_json, write_json
from sdcorr.pipeline import Pipeline
from sdcorr.recipes import RECIPES, find_recipe
from sdcorr.types import Image, Matches

SIGNATURES = {
    ".png": b"\x89PNG",
    ".jpg": b"\xff\xd8\xff",
    ".jpeg": b"\xff\xd8\xff",
    ".webp": b"RIFF",
    ".pdf": b"%PDF",
    ".svg": b"<?xml",
}


@pytest.fixture(scope="module")
def model() -> Pipeline:
    return sdcorr.load("sift", device="cpu", dtype="float32")


def two_matches(photo: Any, **changes: Any) -> Matches:
    values = torch.tensor([0.5, 0.25])
    points = torch.tensor([[1.0, 2.0], [3.5, 4.0]], dtype=torch.float64)
    fields = {
        "source": points, "target": points + 10, "score": values, "margin": values,
        "cycle_error": values, "peak": values, "matched": torch.tensor([True, True]),
        "source_image": Image(photo, path=Path("a.jpg")), "target_image": Image(photo[:20]),
    }  # fmt: skip
    return Matches(**(fields | changes))


def test_matches_as_a_dict(model: Pipeline, photo: Any) -> None:
    found = matches_to_dict(two_matches(photo, names=("nose", "ear")), model)
    assert found["schema"] == SCHEMA
    assert found["source"] == {"path": "a.jpg", "size": [313, 471]}
    assert found["target"] == {"path": None, "size": [20, 471]}
    assert found["matches"] == [
        {
            "name": "nose", "source": [1.0, 2.0], "target": [11.0, 12.0], "score": 0.5,
            "confidence": None,
            "matched": True,
        },
        {
            "name": "ear", "source": [3.5, 4.0], "target": [13.5, 14.0], "score": 0.25,
            "confidence": None,
            "matched": True,
        },
    ]  # fmt: skip
    assert found["recipe"]["name"] == "sift"
    assert found["recipe"]["groups"][0]["backbone"]["kind"] == "sift"
    assert found["weights"] == {}
    assert found["runtime"]["device"] == "cpu"


def test_confidence_is_passed_on_and_photos_may_be_absent(model: Pipeline, photo: Any) -> None:
    matches = two_matches(
        photo, confidence=torch.tensor([0.5, 0.75]), source_image=None, target_image=None
    )
    found = matches_to_dict(matches, model)
    assert [one["confidence"] for one in found["matches"]] == [0.5, 0.75]
    assert [one["name"] for one in found["matches"]] == [None, None]
    assert (found["source"], found["target"]) == (None, None)


def test_no_matches_make_an_empty_list(model: Pipeline, photo: Any) -> None:
    none = two_matches(photo).select(torch.tensor([False, False]))
    assert matches_to_dict(none, model)["matches"] == []


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_survives_json(tmp_path: Path, name: str) -> None:
    described = find_recipe(name).describe()
    write_json(tmp_path / "recipe.json", described)
    assert json.loads((tmp_path / "recipe.json").read_text()) == described


@pytest.mark.parametrize("ending", PICTURES)
def test_a_picture_has_the_format_of_its_name(tmp_path: Path, ending: str) -> None:
    figure = Figure(figsize=(1, 1))
    for name in (f"small{ending}", f"LARGE{ending.upper()}"):
        write_picture(tmp_path / name, figure)
        assert (tmp_path / name).read_bytes().startswith(SIGNATURES[ending])
    assert len(os.listdir(tmp_path)) == 2


def noise_and_text() -> Figure:
    """Fills a page of 2 x 1 inches with a photo of 1200 x 600 px."""
    figure = Figure(figsize=(2, 1), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(np.random.default_rng(0).random((600, 1200)), aspect="auto")
    axes.text(100, 100, "left eye")
    return figure


@pytest.mark.parametrize("ending", PICTURES)
def test_the_same_picture_is_the_same_bytes(tmp_path: Path, ending: str) -> None:
    paths = [tmp_path / f"{name}{ending}" for name in ("one", "two")]
    for path in paths:
        write_picture(path, noise_and_text())
    one, two = (path.read_bytes() for path in paths)
    assert one == two
    for date in (b"CreationDate", b"dc:date"):
        assert date not in one


def test_a_pdf_has_real_fonts_and_photos_for_print(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.pdf", noise_and_text())
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/Type3" not in pdf
    assert b"/CIDFontType2" in pdf
    assert b"/Width 600" in pdf  # two inches


def test_an_svg_has_photos_for_print(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.svg", noise_and_text())
    svg = (tmp_path / "a.svg").read_text()
    (start,) = re.findall(r"base64,\s*([A-Za-z0-9+/\s]{100})", svg)
    header = base64.b64decode("".join(start.split())[:64])
    assert header[12:24] == b"IHDR" + struct.pack(">II", 600, 300)


def three_matches(**changes: Any) -> Matches:
    """By hand: the second of three is rejected, the third scores best."""
    fields = {
        "source": torch.tensor([[1.5, 2.0], [3.0, 4.25], [0.1, -0.5]], dtype=torch.float64),
        "target": torch.tensor([[10.0, 20.5], [30.0, 40.0], [16.25, 8.0]], dtype=torch.float64),
        "score": torch.tensor([0.5, 0.75, 0.875]),
        "margin": torch.tensor([0.1, math.inf, -0.25]),
        "cycle_error": torch.tensor([0.0, 1 / 3, 7.5], dtype=torch.float64),
        "peak": torch.tensor([0.25, 0.5, 0.125]),
        "matched": torch.tensor([True, False, True]),
        "target_image": Image(np.zeros((50, 60, 3), np.uint8), "cat", Path("cats/a.jpg")),
    }
    return Matches(**(fields | changes))


NAMES = ("left ear", "nose", "tail")
CONFIDENCE = torch.tensor([0.25, 0.1, 0.5])


def no_matches() -> Matches:
    return three_matches(names=NAMES, confidence=CONFIDENCE).select(torch.tensor([], dtype=int))


# Matches as transformers' pipeline gives them


def test_dicts_are_those_that_are_not_rejected_best_first() -> None:
    assert three_matches().to_dicts() == [
        {
            "keypoint_image_0": {"x": 0.1, "y": -0.5},
            "keypoint_image_1": {"x": 16.25, "y": 8.0},
            "score": 0.875,
        },
        {
            "keypoint_image_0": {"x": 1.5, "y": 2.0},
            "keypoint_image_1": {"x": 10.0, "y": 20.5},
            "score": 0.5,
        },
    ]


def test_dicts_have_the_keys_and_types_of_the_pipeline() -> None:
    # its source is read, not imported: importing it takes seconds
    (package,) = importlib.util.find_spec("transformers").submodule_search_locations
    tree = ast.parse((Path(package) / "pipelines" / "keypoint_matching.py").read_text())
    keys = {
        node.name: {line.target.id for line in node.body}
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in ("Match", "Keypoint")
    }
    (one, _) = three_matches().to_dicts()
    assert set(one) == keys["Match"]
    for end in ("keypoint_image_0", "keypoint_image_1"):
        assert set(one[end]) == keys["Keypoint"]
        assert {type(value) for value in one[end].values()} == {float}
    assert type(one["score"]) is float


def test_names_and_confidence_are_further_keys_of_their_own_match() -> None:
    found = three_matches(names=NAMES, confidence=CONFIDENCE).to_dicts()
    assert [(one["name"], one["score"], one["confidence"]) for one in found] == [
        ("tail", 0.875, 0.5),
        ("left ear", 0.5, 0.25),
    ]


def test_dicts_of_equal_score_keep_their_order() -> None:
    found = three_matches(score=torch.full((3,), 0.5), names=NAMES).to_dicts()
    assert [one["name"] for one in found] == ["left ear", "tail"]


def test_no_matches_and_none_but_rejected_ones_are_no_dicts() -> None:
    assert no_matches().to_dicts() == []
    assert three_matches(matched=torch.zeros(3, dtype=torch.bool)).to_dicts() == []


# COCO


def test_coco_by_hand() -> None:
    found = three_matches(names=NAMES, confidence=CONFIDENCE).to_coco()
    assert found["images"] == [{"id": 1, "file_name": "cats/a.jpg", "width": 60, "height": 50}]
    assert found["categories"] == [
        {
            "id": 1, "name": "cat", "supercategory": "cat", "keypoints": list(NAMES),
            "skeleton": [],
        },
    ]  # fmt: skip
    assert found["annotations"] == [
        {
            "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0,
            "keypoints": [10.0, 20.5, 2, 0, 0, 0, 16.25, 8.0, 2],
            "num_keypoints": 2,
            "bbox": [10.0, 8.0, 6.25, 12.5],
            "area": 6.25 * 12.5,
            "keypoint_predictions": [[10.0, 20.5], [30.0, 40.0], [16.25, 8.0]],
            "keypoint_scores": [0.5, 0.75, 0.875],
            "keypoint_confidences": pytest.approx([0.25, 0.1, 0.5], abs=1e-7),  # float32
        }
    ]  # fmt: skip


def test_coco_without_names_path_category_or_confidence() -> None:
    photo = Image(np.zeros((50, 60, 3), np.uint8))
    found = three_matches(target_image=photo).to_coco()
    assert found["images"][0]["file_name"] == ""
    assert found["categories"][0]["name"] == "object"
    assert found["categories"][0]["keypoints"] == ["1", "2", "3"]
    assert found["annotations"][0]["keypoint_confidences"] is None


def test_the_category_of_coco_can_be_told() -> None:
    assert three_matches().to_coco(category="dog")["categories"][0]["name"] == "dog"


def test_coco_survives_json_to_the_last_bit() -> None:
    target = torch.rand(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matches = three_matches(target=target, score=torch.tensor([0.1, 1 / 3, -0.7]))
    read = json.loads(to_json(matches.to_coco()))["annotations"][0]
    assert torch.equal(torch.tensor(read["keypoint_predictions"], dtype=torch.float64), target)
    assert torch.equal(torch.tensor(read["keypoint_scores"]), matches.score)
    assert read["keypoints"][:2] == target[0].tolist()


@pytest.mark.parametrize(
    "matches",
    [three_matches(matched=torch.zeros(3, dtype=torch.bool)), no_matches()],
    ids=["all_rejected", "none"],
)
def test_coco_of_nothing_visible_has_an_empty_box(matches: Matches) -> None:
    (annotation,) = matches.to_coco()["annotations"]
    assert annotation["keypoints"] == [0] * 3 * len(matches)
    assert len(annotation["keypoint_predictions"]) == len(matches)
    assert (annotation["bbox"], annotation["area"]) == ([0, 0, 0, 0], 0)
    assert annotation["num_keypoints"] == 0


def test_coco_needs_the_target_photo_alone() -> None:
    with pytest.raises(SdcorrError, match=r"carry no target photo; make them with Pipeline\.match"):
        three_matches(target_image=None).to_coco()


def test_an_annotation_of_lists_is_that_of_arrays() -> None:
    lists = ([[1.5, 2.0], [4.0, 8.0]], [True, False], [0.75, 0.5], [0.5, 0.25])
    ids = {"id": 7, "image_id": 8, "category_id": 9}
    one = coco_annotation(*lists, **ids)
    assert one == coco_annotation(*map(np.asarray, lists), **ids)
    assert {key: one[key] for key in ids} == ids
    json.dumps(one)  # plain numbers, none of numpy's


def test_pycocotools_reads_coco_and_scores_it(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def similarity(truth: Matches, found: Matches) -> float:
        """COCO's object keypoint similarity of one object."""
        write_json(tmp_path / "truth.json", truth.to_coco())
        read = COCO(str(tmp_path / "truth.json"))
        assert read.loadCats(read.getCatIds(["cat"]))[0]["keypoints"] == ["1", "2", "3"]
        # the results format has a score for each object
        results = [one | {"score": 0.5} for one in found.to_coco()["annotations"]]
        judge = COCOeval(read, read.loadRes(results), "keypoints")
        judge.params.kpt_oks_sigmas = np.full(3, 0.1)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
        return float(judge.ious[1, 1][0, 0])

    truth = three_matches(target=three_matches().target * 4)  # COCO scores from 32 x 32 px on
    assert similarity(truth, truth) == 1
    shift = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    # exp(-d^2 / (2 area (2 sigma)^2)) for 3 px, and 1; the rejected keypoint does not count
    expected = (math.exp(-9 / (2 * 25 * 50 * 0.04)) + 1) / 2
    found = three_matches(target=truth.target + shift)
    assert similarity(truth, found) == pytest.approx(expected)


# CSV


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_by_hand() -> None:
    matches = three_matches(names=NAMES, confidence=torch.tensor([0.25, 0.0, 0.5]))
    margin = "0.10000000149011612"  # 0.1 in float32
    assert matches.to_csv() == (
        "name,source_x,source_y,target_x,target_y,score,confidence,margin,peak,cycle_error,matched\n"
        f"left ear,1.5,2.0,10.0,20.5,0.5,0.25,{margin},0.25,0.0,true\n"
        "nose,3.0,4.25,30.0,40.0,0.75,0.0,inf,0.5,0.3333333333333333,false\n"
        "tail,0.1,-0.5,16.25,8.0,0.875,0.5,-0.25,0.125,7.5,true\n"
    )


def test_csv_of_matches_without_names_and_confidence_has_empty_cells() -> None:
    rows = read_csv(three_matches().to_csv())
    assert [(row["name"], row["confidence"]) for row in rows] == [("", "")] * 3


def test_every_number_comes_back_from_csv() -> None:
    random = torch.Generator().manual_seed(0)
    matches = three_matches(
        source=torch.randn(3, 2, generator=random, dtype=torch.float64) * 1e3,
        target=torch.randn(3, 2, generator=random, dtype=torch.float64) * 1e-3,
        score=torch.rand(3, generator=random),
        confidence=torch.rand(3, generator=random),
    )
    rows = read_csv(matches.to_csv())
    for name in ("score", "confidence", "margin", "peak", "cycle_error"):
        values = getattr(matches, name)
        assert torch.equal(
            torch.tensor([float(row[name]) for row in rows], dtype=values.dtype), values
        )
    for name in ("source", "target"):
        places = [[float(row[f"{name}_{axis}"]) for axis in "xy"] for row in rows]
        assert torch.equal(torch.tensor(places, dtype=torch.float64), getattr(matches, name))
    assert [row["matched"] == "true" for row in rows] == matches.matched.tolist()


@pytest.mark.parametrize(
    "name", ['a, "b"', '"', ",", "two\nlines", "two\r\nlines", "a\rb", "\r", " ", "Ohr größer 耳"]
)
def test_any_name_survives_csv(tmp_path: Path, name: str) -> None:
    text = three_matches(names=("first", name, "last")).to_csv()
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["first", name, "last"]
    assert [row["matched"] for row in rows] == ["true", "false", "true"]


def test_lines_of_csv_end_in_a_line_feed() -> None:
    assert "\r" not in three_matches(names=NAMES).to_csv()
    assert three_matches().to_csv().count("\n") == 4


def test_csv_of_no_matches_is_its_header() -> None:
    assert no_matches().to_csv() == three_matches().to_csv().splitlines(keepends=True)[0]


# OpenCV


def test_opencv_by_hand() -> None:
    source, target, pairs = three_matches().to_opencv()
    assert [point.pt for point in source] == [(1.5, 2.0), (3.0, 4.25), pytest.approx((0.1, -0.5))]
    assert [point.pt for point in target] == [(10.0, 20.5), (30.0, 40.0), (16.25, 8.0)]
    assert {point.size for point in source + target} == {1.0}
    assert [(one.queryIdx, one.trainIdx, one.distance) for one in pairs] == [
        (0, 0, 0.5),
        (2, 2, 0.125),
    ]


def test_opencv_of_no_matches() -> None:
    assert no_matches().to_opencv() == ([], [], [])


@pytest.fixture(scope="module")
def turned(model: Pipeline) -> Matches:
    """A photo and its turned and cropped copy: where each point lies there is known."""
    photo = PIL.Image.open(turned_photo.PHOTO).convert("RGB")
    other = photo.rotate(turned_photo.DEGREES, PIL.Image.Resampling.BICUBIC)
    matches = model.match(photo, other.crop(turned_photo.BOX))
    assert len(matches) == 20
    one_rejected = matches.matched.clone()
    one_rejected[3] = False
    return three_matches(**vars(matches) | {"matched": one_rejected})


def test_opencv_finds_the_turn_in_the_matches(turned: Matches) -> None:
    source, target, pairs = turned.to_opencv()
    assert len(pairs) == 19
    here = np.float32([source[one.queryIdx].pt for one in pairs])
    there = np.float32([target[one.trainIdx].pt for one in pairs])
    turn, kept = cv2.findHomography(here, there, cv2.RANSAC, 10.0)
    assert kept.sum() >= 12
    middle = np.array([[[256.0, 256.0]]])
    expected = turned_photo.true_places(torch.from_numpy(middle[0]), (512, 512))
    # matches are centres of cells of 8.5 px
    assert np.abs(cv2.perspectiveTransform(middle, turn)[0] - expected.numpy()).max() < 10


def test_opencv_draws_the_matches(turned: Matches) -> None:
    assert turned.source_image is not None
    assert turned.target_image is not None
    source, target, pairs = turned.to_opencv()
    photos = turned.source_image.pixels, turned.target_image.pixels
    drawn = cv2.drawMatches(photos[0], source, photos[1], target, pairs, None)
    assert drawn.shape == (512, 512 + 392, 3)
    blank = cv2.drawMatches(photos[0], [], photos[1], [], [], None)
    assert (drawn != blank).any(axis=2).sum() > 1000  # lines and circles


def test_exports_load_no_opencv_and_no_pictures() -> None:
    code = (
        "import sys, torch, sdcorr; from sdcorr.types import Matches; none = torch.zeros(0)\n"
        "points, matched = torch.zeros(0, 2), torch.zeros(0, dtype=torch.bool)\n"
        "empty = Matches(points, points, none, none, none, none, matched)\n"
        "assert empty.to_csv().count('\\n') == 1 and empty.to_dicts() == []\n"
        "assert not {'cv2', 'matplotlib', 'transformers', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# numpy in, numpy out


@pytest.fixture(scope="module")
def pair(model: Pipeline, photo: Any) -> sdcorr.Fused:
    return model.fuse(photo, photo[:, ::-1])


@pytest.mark.parametrize(
    "name", ["int8", "uint8", "uint16", "int32", "int64", "float16", "float32", "float64"]
)
def test_points_may_be_arrays_of_any_numbers(pair: sdcorr.Fused, name: str) -> None:
    points = np.array([[20, 30], [100, 90]])
    found = pair.match(points.astype(name))
    assert found.source.tolist() == points.tolist()
    assert torch.equal(found.target, pair.match(points.tolist()).target)


def test_arrays_need_not_lie_in_one_piece(model: Pipeline, photo: Any) -> None:
    points = np.array([[20.5, 30.25], [100.0, 90.0]])
    wide = np.zeros((2, 6))
    wide[:, ::3] = points
    mask = np.zeros((313, 471))
    mask[10:200, 10:300] = 0.5
    upside_down = mask[::-1].copy()
    padded = np.zeros((313, 600, 4), np.uint8)
    padded[:, 100:571, 1:] = photo
    inside = padded[:, 100:571, 1:]
    assert not inside.flags.c_contiguous
    expected = model.match(photo, photo[:, ::-1].copy(), points, source_mask=mask)
    for found in (
        model.match(inside, photo[:, ::-1], wide[:, ::3], source_mask=upside_down[::-1]),
        model.match(
            photo / 255,
            photo[:, ::-1],
            np.asfortranarray(points),
            source_mask=np.asfortranarray(mask),
        ),
        model.match(photo, photo[:, ::-1], points, source_mask=mask > 0),
    ):
        assert torch.equal(found.source, expected.source)
        assert torch.equal(found.target, expected.target)
        assert torch.equal(found.score, expected.score)


def test_a_single_point_is_told_to_be_a_list_of_one(pair: sdcorr.Fused) -> None:
    with pytest.raises(BadPoints, match=r"got shape \(2,\); one point is \[\[x, y\]\]"):
        pair.match(np.array([20.0, 30.0]))


def test_arrays_come_out(pair: sdcorr.Fused) -> None:
    found = pair.match(np.array([[20, 30], [100, 90]]))
    for name in ("source", "target", "score", "margin", "cycle_error", "peak", "matched"):
        values = np.asarray(getattr(found, name))
        assert values.tolist() == getattr(found, name).tolist()
    assert found.confidence is not None
    kinds = [np.asarray(one).dtype for one in (found.source, found.target, found.score)]
    assert kinds == [np.float64, np.float64, np.float32]
    assert np.asarray(found.matched).dtype == np.bool_
    assert np.asarray(found.confidence).shape == (2,)


# Notebooks


@pytest.mark.parametrize("count", [0, 3])
def test_a_notebook_gets_a_picture_of_any_number_of_matches(photo: Any, count: int) -> None:
    matches = three_matches(source_image=Image(photo), target_image=Image(photo[:200]))
    picture = matches.select(torch.arange(count))._repr_png_()
    assert type(picture) is bytes  # what a notebook's formatter takes
    shown = PIL.Image.open(io.BytesIO(picture))
    shown.load()
    assert shown.format == "PNG"
    assert shown.width > shown.height > 100


def test_a_notebook_gets_words_where_there_are_no_photos() -> None:
    matches = no_matches()
    assert matches.source_image is None
    assert matches._repr_png_() is None
    assert repr(matches).startswith("Matches(source=")
