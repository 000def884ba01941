"""Left and right: who is whose partner, and what is matched where the target looks mirrored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.datasets.spair import Spair
from sdcorr.errors import BadPoints, BadRecipe, UnknownName
from sdcorr.evaluation import _either, _match, predict
from sdcorr.pipeline import Pipeline
from sdcorr.recipes import find_recipe
from sdcorr.runs import RunFolder
from sdcorr.symmetry import check_symmetric, partners, read_symmetric
from sdcorr.types import Matches
from tests.annotated import write_spair
from tests.conftest import Command

WIDTH = 96
POINTS = {"left": [20.0, 30.0], "right": [70.0, 34.0], "middle": [44.0, 50.0]}
LEFT_RIGHT = [("left", "right")]


(GROUP,) = find_recipe("sift").groups
PLAIN = replace(
    find_recipe("sift"),
    groups=(replace(GROUP, backbone=Sift(size=192, stride=4, diameters=(8.0, 16.0))),),
)  # small photos: 48 x 32 cells


@pytest.fixture(scope="module")
def model() -> Pipeline:
    return sdcorr.load(replace(PLAIN, flip=True), device="cpu")


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    """A photo without symmetry: smooth noise, so that no two places look alike."""
    coarse = np.random.default_rng(3).random((8, 12, 3))
    grown = np.kron(coarse, np.ones((8, 8, 1)))
    return np.asarray(grown[:64, :WIDTH], np.float64)


# -- partners -------------------------------------------------------------------------------------


def test_partners_by_hand():
    assert partners(["a", "b", "c"], [("c", "a")]).tolist() == [2, 1, 0]
    assert partners(["a", "b"], []).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("symmetric", "words"),
    [
        ([("left", "rihgt")], "symmetric names 'rihgt', which is none of the points: left, right"),
        ([("left", "left")], "pairs of two names"),
        ([("left", "right", "middle")], "pairs of two names"),
        (["left"], "pairs of two names"),
        ([("left", "right"), ("middle", "left")], "has a partner already"),
    ],
)
def test_bad_pairs_are_refused(model, source, symmetric, words):
    with pytest.raises(BadPoints, match=words):
        model.fuse(source, source).match(POINTS, symmetric=symmetric)


def test_symmetric_needs_names(model, source):
    for points in (None, [[3.0, 4.0]]):
        with pytest.raises(BadPoints, match="give points with names"):
            model.fuse(source, source).match(points, symmetric=LEFT_RIGHT)


def test_symmetric_needs_flip(source):
    plain = sdcorr.load(PLAIN, device="cpu").fuse(source, source)
    with pytest.raises(BadRecipe, match="add --flip"):
        plain.match(POINTS, symmetric=LEFT_RIGHT)


# -- matching -------------------------------------------------------------------------------------


def test_a_photo_is_like_itself_and_its_mirror_image_like_the_mirrored(model, source):
    assert not model.fuse(source, source).mirrored
    assert model.fuse(source, source[:, ::-1]).mirrored


def test_unmirrored_points_are_matched_as_they_are(model, source):
    """And not by the average with the mirror image: as the plain recipe does."""
    pair = model.fuse(source, source)
    plain = sdcorr.load(PLAIN, device="cpu").match(source, source, POINTS)
    found = pair.match(POINTS, symmetric=LEFT_RIGHT)
    torch.testing.assert_close(found.target, plain.target)
    torch.testing.assert_close(found.score, plain.score)
    assert found.names == ("left", "right", "middle")


def test_in_the_mirror_image_left_is_where_right_was(model, source):
    """The mirror image shows the source's right at its left; a cell is 2 px here."""
    found = model.fuse(source, source[:, ::-1]).match(POINTS, symmetric=LEFT_RIGHT)
    expected = [[WIDTH - 1 - POINTS[name][0], POINTS[name][1]] for name in ("right", "left")]
    expected.append([WIDTH - 1 - POINTS["middle"][0], POINTS["middle"][1]])
    np.testing.assert_allclose(found.target, expected, atol=2.1)
    assert found.source.tolist() == list(POINTS.values())
    assert found.cycle_error.max() < 2


def test_masks_decide_what_is_compared(model, source):
    """Half of the target is the source, half its mirror image: the mask tells which half counts."""
    half = WIDTH // 2
    target = source.copy()
    target[:, :half] = source[:, ::-1][:, :half]
    left, right = (0, 0, half - 8, 60), (half + 8, 0, WIDTH - 1, 60)
    plain = model.fuse(source, target, source_mask=right, target_mask=right)
    mirrored = model.fuse(source, target, source_mask=right, target_mask=left)
    assert (plain.mirrored, mirrored.mirrored) == (False, True)


# -- benchmarks -----------------------------------------------------------------------------------


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_lists_are_read(tmp_path):
    found = read_symmetric(write(tmp_path / "lists.json", {"cat": [["0", "1"], ["4", "5"]]}))
    assert found == {"cat": (("0", "1"), ("4", "5"))}


@pytest.mark.parametrize(
    "value",
    [
        "{", [], 3, {"cat": 3}, {"cat": ["01"]}, {"cat": [["0"]]}, {"cat": [["0", 1]]},
        {"cat": [["0", "1"], ["1", "2"]]}, {"cat": [["0", "0"]]},
    ],
)  # fmt: skip
def test_bad_lists_are_refused(tmp_path, value):
    with pytest.raises(BadPoints, match=r"lists\.json"):
        read_symmetric(write(tmp_path / "lists.json", value))
    with pytest.raises(BadPoints, match="cannot read"):
        read_symmetric(tmp_path / "nowhere.json")


def test_lists_must_name_what_is_annotated(tmp_path):
    pairs = Spair(write_spair(tmp_path / "spair")).pairs()
    check_symmetric({"cat": (("0", "2"),)}, pairs)
    with pytest.raises(UnknownName, match="no category called 'cta'; did you mean 'cat'"):
        check_symmetric({"cta": ()}, pairs)
    with pytest.raises(UnknownName, match="no keypoint of cat called '99'"):
        check_symmetric({"cat": (("0", "99"),)}, pairs)


def test_either_by_hand():
    ones, twos = torch.ones(2), 2 * torch.ones(2)
    first = Matches(ones[:, None], ones[:, None], ones, ones, ones, ones, ones > 0)
    second = Matches(twos[:, None], twos[:, None], twos, twos, twos, twos, twos < 0)
    found = _either(torch.tensor([False, True]), first, second)
    assert found.score.tolist() == [2, 1]
    assert found.target.tolist() == [[2], [1]]
    assert found.matched.tolist() == [False, True]


def test_a_keypoint_without_its_partner_is_matched_as_if_unnamed(tmp_path, model):
    pairs = Spair(write_spair(tmp_path / "spair")).pairs()
    ids = [(*pair.keypoint_ids, *pair.source_only_ids) for pair in pairs]
    pair = next(one for one, shown in zip(pairs, ids, strict=True) if "0" not in shown)
    shown = (*pair.keypoint_ids, *pair.source_only_ids)
    fused = model.fuse(pair.source, pair.target)
    fused.__dict__["mirrored"] = True  # whatever these noisy photos look like
    plain, found = _match(fused, pair, None), _match(fused, pair, (("0", shown[0]), shown[1:3]))
    order = [0, 2, 1, *range(3, len(shown))]
    mirrored = fused.matcher(fused.similarity.parts[1], plain.source[order])
    torch.testing.assert_close(found.target[0], plain.target[0])
    torch.testing.assert_close(found.target[1:], mirrored.target[1:])


def test_predict_leaves_categories_without_lists_alone(tmp_path, model):
    pairs = Spair(write_spair(tmp_path / "spair")).pairs()
    lists = {"cat": (("2", "4"),)}
    without, with_lists = (list(predict(model, pairs, symmetric=one)) for one in (None, lists))
    same = [
        torch.equal(one.matches.target, other.matches.target)
        for one, other in zip(without, with_lists, strict=True)
    ]
    dogs = [pair.category == "dog" for pair in pairs]
    assert all(alike for alike, dog in zip(same, dogs, strict=True) if dog)
    assert not all(same)


def test_eval_records_and_prints_the_lists(tmp_path, monkeypatch, run: Command):
    monkeypatch.chdir(tmp_path)
    write_spair(tmp_path / "spair", images=2)
    write(tmp_path / "lists.json", {"cat": [["2", "4"]]})
    words = ("eval", "spair", "--root", "spair", "--recipe", "sift", "--symmetric", "lists.json")
    refused = run(*words, "--out", "runs/no")
    assert (refused.status, "add --flip" in refused.err) == (2, True)
    done = run(*words, "--flip", "--out", "runs/flip")
    assert done.status == 0, done.err
    assert "recipe sift+flip on spair" in done.out
    assert "left and right exchanged by lists, where mirrored: cat" in done.out
    about, _ = RunFolder(tmp_path / "runs/flip").read()
    assert about["symmetric"] == {"cat": [["2", "4"]]}
    assert about["recipe"]["flip"] is True
    write(tmp_path / "lists.json", {"cat": [["4", "6"]]})
    refused = run(*words, "--flip", "--out", "runs/flip")  # another list is another run
    assert (refused.status, "made in another way: symmetric" in refused.err) == (2, True)
    write(tmp_path / "lists.json", {"cat": [["2", "77"]]})
    refused = run(*words, "--flip", "--out", "runs/other")
    assert (refused.status, "no keypoint of cat called '77'" in refused.err) == (2, True)
    assert not (tmp_path / "runs/other").exists()


def test_match_exchanges_named_points(tmp_path, monkeypatch, run: Command, source):
    import PIL.Image

    monkeypatch.chdir(tmp_path)
    photo = PIL.Image.fromarray(np.round(255 * source).astype(np.uint8))
    photo.save("a.png")
    photo.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).save("b.png")
    write(tmp_path / "points.json", POINTS)
    words = ("match", "a.png", "b.png", "--recipe", "sift", "--points-file", "points.json")
    done = run(*words, "--flip", "--symmetric", "left", "right", "--json", "-")
    assert "the target looks mirrored: left and right were exchanged" in done.err
    found = json.loads(done.out)["matches"][0]
    assert found["target"] == pytest.approx([WIDTH - 1 - 70, 34], abs=2)
    for wrong, message in (
        (("--symmetric", "left", "right"), "add --flip"),
        (("--flip", "--symmetric", "left", "up"), "symmetric names 'up'"),
    ):
        refused = run(*words, *wrong)
        assert (refused.status, message in refused.err) == (2, True)
