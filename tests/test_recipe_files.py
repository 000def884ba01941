"""Recipes in files, as they are typed: shown, edited, matched with, evaluated, and refused."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import sdcorr
import sdcorr.recipes
from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES, find_recipe
from tests.annotated import write_spair
from tests.conftest import Command, Done
from tests.tiny import SHA, write_hub_cache

Json = dict[str, Any]
Edit = Callable[[Json], None]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spair(tmp_path_factory.mktemp("data") / "spair", categories=["cat"], images=2)


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data: Path,
    photo: np.ndarray,
    other_photo: np.ndarray,
) -> Path:
    """The working folder: two small photos, a data set, and an empty hub cache."""
    PIL.Image.fromarray(photo).resize((157, 104)).save(tmp_path / "a.jpg")
    PIL.Image.fromarray(other_photo).resize((100, 136)).save(tmp_path / "b.png")
    (tmp_path / "spair").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expensive work must not begin."""
    monkeypatch.setattr("sdcorr.recipes.load", lambda *_, **__: pytest.fail("loaded a model"))
    monkeypatch.setattr("sdcorr.models.resolve", lambda *_: pytest.fail("looked for weights"))


def small(document: Json) -> None:
    """SIFT on the photos as they are, not enlarged to 480 px: much faster."""
    document["name"] = "mine"
    document["groups"][0]["backbone"]["size"] = 157


def show(run: Command, name: str, path: str = "mine.json", *edits: Edit) -> Path:
    """``sdcorr recipes show NAME --json > PATH``, and then an editor."""
    done = run("recipes", "show", name, "--json")
    assert (done.status, done.err) == (0, "")
    document = json.loads(done.out)
    for edit in edits:
        edit(document)
    Path(path).write_text(json.dumps(document) if edits else done.out)
    return Path(path)


def match(run: Command, *arguments: str) -> Done:
    return run("match", "a.jpg", "b.png", "--point", "20", "30", *arguments)


def refused(done: Done) -> str:
    """The one line of a mistake."""
    assert (done.status, done.out) == (2, "")
    assert "Traceback" not in done.err
    return done.error


# Shown, edited, used


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_shown_is_read_as_the_recipe(run: Command, name: str) -> None:
    path = show(run, name)
    assert find_recipe("./mine.json") == RECIPES[name]
    assert find_recipe("mine.json") == RECIPES[name]
    assert find_recipe(path) == RECIPES[name]
    assert find_recipe(str(path.resolve())) == RECIPES[name]


def test_a_shown_recipe_is_edited_and_matched_with(run: Command) -> None:
    def soft(document: Json) -> None:
        document["matcher"] = {"kind": "soft_argmax", "window": 3}

    show(run, "sift", "mine.json", small, soft)
    found = json.loads(match(run, "--recipe", "./mine.json", "--json", "-").out)
    assert found["recipe"]["name"] == "mine"
    assert found["recipe"]["groups"][0]["backbone"]["size"] == 157
    assert found["recipe"]["matcher"] == {
        "kind": "soft_argmax", "window": 3, "temperature": 0.02, "inside_only": True,
    }  # fmt: skip
    show(run, "sift", "nearest.json", small)
    nearest = json.loads(match(run, "--recipe", "nearest.json", "--json", "-").out)
    assert found["matches"][0]["score"] == pytest.approx(nearest["matches"][0]["score"])
    assert found["matches"][0]["target"] != nearest["matches"][0]["target"]


def test_a_shown_recipe_is_edited_and_evaluated(run: Command) -> None:
    show(run, "sift", "mine.json", small)
    done = run("eval", "spair", "--root", "spair", "--recipe", "./mine.json", "--out", "runs/mine")
    assert done.status == 0
    assert done.out.startswith("runs/mine: recipe mine on spair")
    about = json.loads(Path("runs/mine/run.json").read_text())
    assert about["recipe"] == find_recipe("./mine.json").describe()


def test_a_file_is_shown_in_words_and_as_json(run: Command) -> None:
    show(run, "sd-dino", "mine.json", lambda document: document.update(name="mine", about="my own"))
    done = run("recipes", "show", "./mine.json")
    assert (done.status, done.err) == (0, "")
    named = run("recipes", "show", "sd-dino").out
    assert done.out.splitlines()[0] == "mine: my own"
    assert done.out.splitlines()[1:] == named.splitlines()[1:]
    again = run("recipes", "show", "./mine.json", "--json")
    assert json.loads(again.out) == json.loads(Path("mine.json").read_text())


def test_weights_of_a_file_are_downloaded(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, dinov2_folder: Path
) -> None:
    show(run, "dinov2-b", "mine.json", lambda document: document.update(name="mine"))
    absent = refused(run("models", "download", "./mine.json"))
    assert "facebook/dinov2-base" in absent
    write_hub_cache(folder, "facebook/dinov2-base", dinov2_folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    done = run("models", "download", "./mine.json")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("dinov2: ")
    assert done.out.endswith(f"(revision {SHA})\n")


def test_a_file_without_weights_needs_none(run: Command) -> None:
    show(run, "sift")
    assert run("models", "download", "./mine.json").out == "recipe ./mine.json needs no weights\n"


def test_weights_of_a_file_are_replaced(run: Command, dinov2_folder: Path) -> None:
    def tiny(document: Json) -> None:
        document["groups"][0]["backbone"]["size"] = 168

    show(run, "dinov2-b", "mine.json", tiny)
    done = match(
        run, "--recipe", "./mine.json", "--model", f"dinov2={dinov2_folder}", "--json", "-",
        "--dtype", "float32",
    )  # fmt: skip
    found = json.loads(done.out)
    assert found["recipe"]["groups"][0]["backbone"]["model"] == str(dinov2_folder)


def test_absent_weights_of_a_file_are_told_with_a_command_for_this_file(run: Command) -> None:
    """The file's model may not be that of the recipe whose name it still bears."""

    def other(document: Json) -> None:
        document["groups"][0]["backbone"]["model"] = "somebody/dinov2-of-his-own"

    show(run, "dinov2-b", "mine.json", other)
    told = refused(match(run, "--recipe", "./mine.json"))
    assert "somebody/dinov2-of-his-own" in told
    assert "models download dinov2-b" not in told


@pytest.mark.parametrize(
    "place", ["~/mine.json", "deep/down/mine.json", "./mine.json", "mine.json"]
)
def test_paths_of_many_kinds(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    path = Path(place).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    show(run, "sift", str(path), small)
    assert find_recipe(place).name == "mine"
    assert run("recipes", "show", place).out.startswith("mine: ")


@pytest.mark.parametrize("place", ["./mine", "deep/mine", "./mine.txt", "/mine"])
def test_what_has_a_slash_is_a_path_whatever_its_ending(
    run: Command, folder: Path, place: str
) -> None:
    place = f"{folder}{place}" if place == "/mine" else place
    Path(place).parent.mkdir(exist_ok=True)
    show(run, "sift", place, small)
    assert find_recipe(place).name == "mine"
    assert run("recipes", "show", place).status == 0


def test_a_name_wins_over_a_file_that_is_called_so(run: Command) -> None:
    show(run, "sift", "sift", small)
    assert find_recipe("sift") == RECIPES["sift"]
    assert run("recipes", "show", "sift").out.startswith("sift: ")


def test_a_file_that_is_called_like_a_recipe_is_found_by_its_path(run: Command) -> None:
    show(run, "sift", "sift", small)
    assert find_recipe("./sift").name == "mine"


def test_a_file_that_is_called_like_a_recipe_and_ends_in_json(run: Command) -> None:
    show(run, "sift", "sift.json", small)
    assert find_recipe("sift.json").name == "mine"
    assert find_recipe("sift").name == "sift"


def test_load_takes_a_path(run: Command, photo: np.ndarray) -> None:
    path = show(run, "sift", "mine.json", small)
    for place in (path, str(path), "./mine.json"):
        model = sdcorr.load(place, device="cpu")
        assert model.recipe.name == "mine"
    assert model.match(photo, photo, [[100, 100]]).matched.all()


def test_a_byte_order_mark_is_no_mistake(run: Command) -> None:
    path = show(run, "sift", "mine.json", small)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert find_recipe("mine.json").name == "mine"


# Results hold their recipe


def test_a_match_s_json_is_a_recipe_file(run: Command) -> None:
    show(run, "sift", "mine.json", small)
    assert match(run, "--recipe", "./mine.json", "--json", "out.json").status == 0
    assert find_recipe("out.json") == find_recipe("mine.json")
    again = json.loads(match(run, "--recipe", "out.json", "--json", "-").out)
    assert again["matches"] == json.loads(Path("out.json").read_text())["matches"]


def test_a_run_s_json_is_a_recipe_file(run: Command) -> None:
    base = ("eval", "spair", "--root", "spair", "--out", "runs/same")
    first = run(*base, "--recipe", "same-position")
    assert first.status == 0
    assert find_recipe("runs/same/run.json") == RECIPES["same-position"]
    # the same recipe, so the same run: nothing is left to be done
    again = run(*base, "--recipe", "runs/same/run.json")
    assert (again.status, again.out) == (0, first.out)


def test_each_recipe_in_a_run_s_json_is_the_recipe() -> None:
    for name, recipe in RECIPES.items():
        about = {"schema": "sdcorr.run/1", "recipe": recipe.describe(), "weights": {}}
        Path("run.json").write_text(json.dumps(about))
        assert find_recipe("run.json") == recipe
        assert hash(find_recipe("run.json")) == hash(RECIPES[name])


def test_a_number_written_as_a_whole_one_resumes_the_run(run: Command) -> None:
    show(run, "sift", "mine.json", small)
    base = ("eval", "spair", "--root", "spair", "--out", "runs/mine")
    assert run(*base, "--recipe", "mine.json").status == 0
    text = Path("mine.json").read_text()
    Path("whole.json").write_text(text.replace('"weight": 1.0', '"weight": 1'))
    assert Path("whole.json").read_text() != text
    assert run(*base, "--recipe", "whole.json").status == 0


# Mistakes: status 2, one line that names the file and the field, no work


def put(path: tuple[str | int, ...], value: object) -> Edit:
    def edit(document: Json) -> None:
        inner: Any = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return edit


FIELDS = {
    "type": (("groups", 0, "backbone", "size"), "840", "recipe.groups[0].backbone.size must be a"),
    "null": (("groups", 0, "backbone", "stride"), None, "recipe.groups[0].backbone.stride must be"),
    "bool": (("groups", 0, "weight"), True, "recipe.groups[0].weight must be a number, got True"),
    "shape": (("groups", 0, "backbone"), "sift", "recipe.groups[0].backbone must be an ob"),
    "matcher": (("matcher",), "nearest", "recipe.matcher must be an object with a kind, one o"),
    "choice": (("matcher", "sample"), "cells", "recipe.matcher.sample must be one of bilinear, c"),
    "list": (("groups", 0, "maps"), "rootsift", "recipe.groups[0].maps must be a list"),
    "nested": (("groups", 0, "maps", 0, "pca"), 1.5, "recipe.groups[0].maps[0].pca must be a who"),
    "range": (("groups", 0, "backbone", "size"), 0, "sift: size, stride and diameters must be po"),
    "weight": (("groups", 0, "weight"), -1, "group 'sift': weight must be positive: -1"),
    "group": (("groups", 0), [], "recipe.groups[0] must be an object of fields, got []"),
    "kind": (("matcher", "kind"), None, "recipe.matcher must be an object with a kind, one o"),
    "field": (("groups", 0, "wieght"), 1, "called 'wieght'; did you mean 'weight'?"),
    "top field": (("mathcer",), {}, "called 'mathcer'; did you mean 'matcher'?"),
    "plug-in": (("groups", 0, "backbone", "kind"), "sfit", "called 'sfit'; did you mean 'sift'?"),
    "map": (("groups", 0, "maps", 0, "name"), "sift", "called 'sift'; did you mean 'rootsift'?"),
    "module": (("matcher", "kind"), "os.path", "recipe.matcher names the module 'os.path' as its"),
}  # fmt: skip


@pytest.mark.parametrize("case", FIELDS)
@pytest.mark.usefixtures("no_loading")
def test_a_wrong_field_is_told_with_its_name_and_the_file_s(run: Command, case: str) -> None:
    path, value, message = FIELDS[case]
    show(run, "sift", "mine.json", put(path, value))
    told = refused(match(run, "--recipe", "./mine.json"))
    assert message in told
    assert "mine.json" in told
    assert refused(run("recipes", "show", "./mine.json")) == told
    assert refused(run("models", "download", "./mine.json")) == told
    evaluated = run(
        "eval", "spair", "--root", "spair", "--recipe", "./mine.json", "--out", "runs/x"
    )
    assert refused(evaluated) == told
    assert sorted(os.listdir()) == ["a.jpg", "b.png", "mine.json", "spair"]


@pytest.mark.usefixtures("no_loading")
def test_an_unknown_kind_is_told_with_its_place(run: Command) -> None:
    """In a recipe of several groups, the name alone does not say where it stands."""
    show(run, "sd-dino", "mine.json", put(("groups", 1, "backbone", "kind"), "dinov4"))
    assert "groups[1]" in refused(match(run, "--recipe", "./mine.json"))


BYTES = {
    "empty": (b"", "is not JSON"),
    "blank": (b" \n", "is not JSON"),
    "text": (b"sift", "is not JSON"),
    "half": (b'{"name": "sift", "gro', "is not JSON"),
    "comment": (b'// mine\n{"name": "sift"}', "is not JSON"),
    "latin-1": ('{"name": "café"}'.encode("latin-1"), "is not JSON"),
    "UTF-16": ('{"name": "sift"}'.encode("utf-16"), "is not JSON"),
    "binary": (bytes(range(256)), "is not JSON"),
    "deep": (b"[" * 100_000, "is not JSON"),
    "huge number": (b'{"name": ' + b"1" * 10_000 + b"}", "is not JSON"),
    "list": (b"[]", "recipe must be an object of fields, got []"),
    "number": (b"3", "recipe must be an object of fields, got 3"),
    "null": (b"null", "recipe must be an object of fields, got None"),
    "string": (b'"sift"', "recipe must be an object of fields, got 'sift'"),
    "nothing in it": (b"{}", "recipe lacks the field name"),
    "no groups": (b'{"name": "mine"}', "recipe lacks the field groups"),
    "points": (b'{"eye": [1, 2]}', "no field of recipe called 'eye'"),
    "result without one": (b'{"schema": "sdcorr.run/1", "recipe": null}', "no field of recipe ca"),
    "recipe by name": (b'{"recipe": "sift"}', "no field of recipe called 'recipe'"),
}


@pytest.mark.parametrize("case", BYTES)
@pytest.mark.usefixtures("no_loading")
def test_a_file_that_is_no_recipe_is_told_with_its_name(run: Command, case: str) -> None:
    content, message = BYTES[case]
    Path("mine.json").write_bytes(content)
    told = refused(match(run, "--recipe", "./mine.json"))
    assert message in told
    assert "mine.json" in told


@pytest.mark.usefixtures("no_loading")
def test_a_file_that_cannot_be_read_is_told_with_its_name(run: Command) -> None:
    Path("folder.json").mkdir()
    Path("loop.json").symlink_to("loop.json")
    for place, reason in (
        ("nowhere.json", "No such file"),
        ("deep/nowhere", "No such file"),
        ("folder.json", "Is a directory"),
        ("a.jpg/mine.json", "Not a directory"),
        ("loop.json", "Too many levels"),
        (f"{'n' * 300}.json", "File name too long"),
    ):
        told = refused(match(run, "--recipe", place))
        assert reason in told
        assert f"cannot read the recipe {place}" in told


@pytest.mark.usefixtures("no_loading")
def test_a_home_folder_of_nobody(run: Command) -> None:
    assert "~no-such-user/mine.json" in refused(match(run, "--recipe", "~no-such-user/mine.json"))


@pytest.mark.parametrize("name", ["mine", "sifd", "", "..", "Sift", "mine.txt"])
@pytest.mark.usefixtures("no_loading")
def test_a_word_without_slash_is_a_name(run: Command, name: str) -> None:
    assert f"no recipe called {name!r}" in refused(match(run, "--recipe", name))


@pytest.mark.usefixtures("no_loading")
def test_a_file_that_is_there_and_asked_for_without_its_path_is_told_how(run: Command) -> None:
    """With one more word: it is there, but neither its name nor a slash says that it is a file."""
    show(run, "sift", "mine", small)
    assert "./mine" in refused(match(run, "--recipe", "mine"))


@pytest.mark.usefixtures("no_loading")
def test_a_field_that_stands_twice_is_told(run: Command) -> None:
    """One of them would have no effect; so it is with the points of a file, too."""
    path = show(run, "sift", "mine.json", small)
    path.write_text(path.read_text().replace('"stride": 8', '"stride": 8, "stride": 16'))
    assert "stride" in refused(match(run, "--recipe", "./mine.json"))


@pytest.mark.usefixtures("no_loading")
def test_a_category_is_required_before_weights_are_sought(run: Command) -> None:
    for name in ("sd15", "sd-dino", "dift", "sdxl", "cleandift-sd21"):
        show(run, name, "mine.json",
             put(("groups", 0, "backbone", "prompt_without_category"), None))  # fmt: skip
        told = refused(match(run, "--recipe", "./mine.json"))
        assert f"recipe '{name}' requires a category" in told
        assert "--category" in told
        evaluated = run(
            "eval", "spair", "--root", "spair", "--recipe", "./mine.json", "--out", "runs/x",
            "--no-category",
        )  # fmt: skip
        assert refused(evaluated) == told
    assert not Path("runs").exists()


def test_with_a_category_weights_are_sought(run: Command) -> None:
    show(run, "sd15", "mine.json", put(("groups", 0, "backbone", "prompt_without_category"), None))
    told = refused(match(run, "--recipe", "./mine.json", "--category", "cat"))
    assert "stable-diffusion-v1-5" in told


@pytest.mark.usefixtures("no_loading")
def test_a_category_that_no_prompt_reads_is_refused(run: Command) -> None:
    for prompt in ("a photo", ""):
        show(run, "sd15", "mine.json", put(("groups", 0, "backbone", "prompt"), prompt))
        told = refused(match(run, "--recipe", "./mine.json", "--category", "cat"))
        assert "has no prompt that names a category" in told


@pytest.mark.usefixtures("no_loading")
def test_braces_that_stand_for_braces_name_no_category(run: Command) -> None:
    show(run, "sd15", "mine.json", put(("groups", 0, "backbone", "prompt"), "a {{category}}"))
    told = refused(match(run, "--recipe", "./mine.json", "--category", "cat"))
    assert "has no prompt that names a category" in told


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity"], ids=["nan", "infinity", "minus infinity"]
)
def test_a_number_that_no_json_holds_is_refused(run: Command, number: str) -> None:
    """At once: else the result, which records the recipe, could not be written."""
    limits = {"map": "sift/rootsift", "above": float(number.replace("Infinity", "inf"))}
    show(run, "sift", "mine.json", small, put(("foreground",), limits))
    done = match(run, "--recipe", "./mine.json", "--json", "out.json")
    refused(done)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("groups", 0, "backbone", "diameters"), [float("nan")]),
        (("groups", 0, "backbone", "diameters"), [float("inf")]),
        (("groups", 0, "backbone", "size"), 10**30),
        (("matcher",), {"kind": "soft_argmax", "window": 10**30 + 1}),
        (("matcher",), {"kind": "soft_argmax", "temperature": 1e-40}),
    ],
    ids=["nan diameter", "infinite diameter", "huge size", "huge window", "tiny temperature"],
)
def test_numbers_at_the_ends_of_the_range(
    run: Command, path: tuple[str | int, ...], value: object
) -> None:
    """They work, or are a mistake of the user's: never status 1, which says it is ours."""
    show(run, "sift", "mine.json", small, put(path, value))
    done = match(run, "--recipe", "./mine.json", "--json", "-")
    assert done.status in (0, 2), done.err
    if done.status == 0:
        json.loads(done.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def test_find_recipe_raises_what_it_says(run: Command) -> None:
    with pytest.raises(UnknownName, match="did you mean 'sd-dino'"):
        find_recipe("sd-dina")
    with pytest.raises(BadRecipe, match=r"cannot read the recipe mine\.json"):
        find_recipe("mine.json")
    show(run, "sift", "mine.json", put(("matcher",), 5))
    with pytest.raises(BadRecipe, match=r"^mine\.json: recipe\.matcher must be an object"):
        find_recipe(Path("mine.json"))


# A backbone from outside, in one file

AVERAGE = '''
"""The mean colour of each 16 x 16 pixels."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from sdcorr.geometry import Grid
from sdcorr.types import FeatureMap

Path("code-ran").touch()


@dataclass(frozen=True)
class Average:
    cell: int = 16
    centre: float = 0.5

    @property
    def maps(self):
        return ("colour",)

    def weights(self):
        return ()

    def build(self, runtime):
        return AverageBackbone(self)


@dataclass(frozen=True, eq=False)
class AverageBackbone:
    config: Average

    @property
    def channels(self):
        return {"colour": 3}

    @property
    def revisions(self):
        return {}

    def extract(self, images):
        return tuple({"colour": self._extract(image)} for image in images)

    def _extract(self, image):
        cell = self.config.cell
        pixels = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1) / 255 - self.config.centre
        means = F.avg_pool2d(pixels[None], cell, ceil_mode=True)[0]
        grid = Grid(tuple(means.shape[1:]), (float(cell), float(cell)), (0.0, 0.0), image.size)
        return FeatureMap("colour", means, grid)


PLUGIN = Average
'''
MINE = {
    "name": "mine",
    "groups": [
        {"name": "a", "backbone": {"kind": "colours.average"}, "maps": [{"name": "colour"}]},
    ],
}


@pytest.fixture
def plugin(folder: Path) -> dict[str, str]:
    """The environment in which the plug-in can be imported; a recipe that names it; two photos.

    Four quarters of a photo, each in a colour of its own, are turned by 180 degrees in the other.
    """
    (folder / "library" / "colours").mkdir(parents=True)
    (folder / "library" / "colours" / "average.py").write_text(AVERAGE)
    (folder / "mine.json").write_text(json.dumps(MINE))
    quarters = np.zeros((64, 96, 3), np.uint8)
    quarters[:32, :48], quarters[:32, 48:] = (255, 0, 0), (0, 255, 0)
    quarters[32:, :48], quarters[32:, 48:] = (0, 0, 255), (255, 255, 0)
    PIL.Image.fromarray(quarters).save("quarters.png")
    PIL.Image.fromarray(quarters[::-1, ::-1]).save("turned.png")
    path = os.pathsep.join([str(folder / "library"), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path.rstrip(os.pathsep), "OMP_NUM_THREADS": "1"}


def sdcorr_match(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sdcorr", "match", "quarters.png", "turned.png", *options],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_backbone_from_outside_runs_where_it_is_allowed(plugin: dict[str, str]) -> None:
    done = sdcorr_match(
        plugin, "--recipe", "./mine.json", "--allow-plugins", "--json", "out.json",
        "--point", "7.5", "7.5", "--point", "87.5", "7.5", "--point", "7.5", "55.5",
        "--cache-dir", "maps",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(Path("out.json").read_text())
    # the first cells, row by row, of the quarters that are red, green and blue there
    assert [one["target"] for one in found["matches"]] == [[55.5, 39.5], [7.5, 39.5], [55.5, 7.5]]
    assert [one["score"] for one in found["matches"]] == pytest.approx([1, 1, 1])
    assert found["recipe"]["groups"][0]["backbone"] == {
        "kind": "colours.average", "cell": 16, "centre": 0.5,
    }  # fmt: skip
    assert list(Path("maps").glob("*.npz"))

    # what came out is a recipe file, and it needs the same permission
    Path("code-ran").unlink()
    denied = sdcorr_match(plugin, "--recipe", "out.json", "--point", "7.5", "7.5")
    assert (denied.returncode, denied.stdout) == (2, "")
    assert denied.stderr.count("\n") == 1
    assert "names the module 'colours.average' as its kind" in denied.stderr
    assert "--allow-plugins" in denied.stderr
    assert not Path("code-ran").exists()


def test_a_backbone_from_outside_that_is_not_on_the_path(plugin: dict[str, str]) -> None:
    del plugin["PYTHONPATH"]
    done = sdcorr_match(plugin, "--recipe", "./mine.json", "--allow-plugins")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sdcorr: ")
    assert "no backbone called 'colours.average'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("plugin")
def test_a_backbone_from_outside_in_this_process(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown, evaluated, and found by ``find_recipe``, each where it is allowed and only there."""
    monkeypatch.syspath_prepend(folder / "library")
    evaluated = ("eval", "spair", "--root", "spair", "--recipe", "./mine.json", "--out", "runs/x")
    for command in (
        ("recipes", "show", "./mine.json"),
        ("models", "download", "./mine.json"),
        ("match", "quarters.png", "turned.png", "--recipe", "./mine.json"),
        evaluated,
    ):
        assert "would run its code" in refused(run(*command))
    with pytest.raises(BadRecipe, match="allow_plugins=True"):
        find_recipe("mine.json")
    with pytest.raises(BadRecipe, match="allow_plugins=True"):
        sdcorr.load("./mine.json")
    assert not Path("code-ran").exists()
    recipe = find_recipe("mine.json", allow_plugins=True)
    assert Path("code-ran").exists()
    assert isinstance(recipe, Recipe)
    assert hash(recipe) == hash(find_recipe("mine.json", allow_plugins=True))
    shown = run("recipes", "show", "./mine.json", "--allow-plugins")
    assert shown.status == 0
    assert "  a (colours.average), weight 1" in shown.out.splitlines()
    assert "    cell = 16" in shown.out.splitlines()
    done = run(*evaluated, "--allow-plugins")
    assert done.status == 0
    about = find_recipe("runs/x/run.json", allow_plugins=True)
    assert about == recipe
    soft = dataclasses.replace(recipe, matcher=SoftArgmax(window=3))
    model = sdcorr.load(soft, device="cpu")
    assert model.match("quarters.png", "turned.png", [[7, 7]]).matched.tolist() == [True]
    for module in [name for name in sys.modules if name.split(".")[0] == "colours"]:
        del sys.modules[module]
