from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

import sdcorr
from sdcorr.export import PICTURES, SCHEMA, matches_to_dict, write_picture
from sdcorr.files import write_json
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
