"""How hard the drawn set is: the oracle nearly always right, a fixed position nearly never."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.errors import BadImage
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from tests.conftest import ROOT

EVAL = ROOT / "eval"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())  # the script adds its folder
    yield runpy.run_path(str(EVAL / "synthetic.py"))
    sys.modules.pop("oracle", None)


def small_sift() -> Recipe:
    """Of a quarter of the pixels, which is quicker."""
    recipe = find_recipe("sift")
    (group,) = recipe.groups
    return replace(recipe, groups=(replace(group, backbone=Sift(size=240)),))


def test_the_oracle_is_right_and_a_fixed_position_wrong(script, drawn, monkeypatch, capsys):
    light = tuple(
        small_sift() if one.name == "sift" else one
        for one in script["RECIPES"]
        if one.name != "sift-hough"  # which is slow
    )
    monkeypatch.setitem(script["main"].__globals__, "RECIPES", light)
    out = drawn.parent / "scores.json"
    found = script["main"](["--root", str(drawn), "--out", str(out)])["recipes"]
    assert list(found) == ["same-position", "sift", "oracle"]
    image, point = (
        {name: one[kind]["0.1"][0] for name, one in found.items()} for kind in ("image", "point")
    )
    assert point["oracle"] >= 0.95
    assert image["oracle"] >= 0.95
    assert point["same-position"] < 0.1
    assert point["same-position"] < point["sift"] < point["oracle"]
    assert json.loads(out.read_text())["recipes"].keys() == found.keys()
    assert "oracle" in capsys.readouterr().out


def test_the_stored_scores_are_in_order():
    """Of 200 pairs; eval/synthetic.py writes them."""
    stored = json.loads((EVAL / "results" / "synthetic.json").read_text())
    point = {name: one["point"]["0.1"] for name, one in stored["recipes"].items()}
    assert stored["set"] == {"seed": 0, "pairs": 200}
    assert {one["pairs"] for one in stored["recipes"].values()} == {200}
    assert point["same-position"][2] < 0.1  # the whole interval
    assert point["same-position"][2] < point["sift"][1]
    assert point["sift"][2] < point["oracle"][1]
    assert point["oracle"][1] >= 0.95


def test_the_oracle_refuses_other_photos(script):
    oracle = sys.modules["oracle"]
    photo = ROOT / "assets" / "hopper.jpg"
    with pytest.raises(BadImage, match="data synth"):
        sdcorr.load(oracle.RECIPE, device="cpu").encode(photo)


def test_the_oracle_takes_a_place_for_what_it_is(script, drawn):
    """A photo matched with itself: each point is found where it is, to a cell."""
    oracle = sys.modules["oracle"]
    photo: Path = next((drawn / "spair/JPEGImages/car").iterdir())
    about = json.loads((drawn / f"spair/ImageAnnotation/car/{photo.stem}.json").read_text())
    points = [point for point in about["kps"].values() if point is not None]
    matches = sdcorr.load(oracle.RECIPE, device="cpu").match(photo, photo, points)
    assert (matches.target - matches.source).norm(dim=1).median() < 3
