from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import sdcorr
import sdcorr.recipes
from sdcorr.backbones._text import Prompts
from sdcorr.backbones.sift import Sift
from sdcorr.cli import _run, cli
from sdcorr.errors import MissingLibrary
from sdcorr.plugins import name_of
from tests.conftest import Command
from tests.tiny import shrink

SIFT = ("match", "a.jpg", "b.png", "--recipe", "sift")
EVERY_RECIPE = tuple(sdcorr.recipes.RECIPES)


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray, other_photo: np.ndarray
) -> Path:
    """The working folder: two photos, 157 x 104 and 100 x 136, and an empty hub cache.

    Dense SIFT looks at the photos as they are, not enlarged to 480 px: much faster.
    """
    PIL.Image.fromarray(photo).resize((157, 104)).save(tmp_path / "a.jpg")
    PIL.Image.fromarray(other_photo).resize((100, 136)).save(tmp_path / "b.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (group,) = sdcorr.recipes.RECIPES["sift"].groups
    group = dataclasses.replace(group, backbone=Sift(size=157))
    recipe = dataclasses.replace(sdcorr.recipes.RECIPES["sift"], groups=(group,))
    monkeypatch.setitem(sdcorr.recipes.RECIPES, "sift", recipe)
    return tmp_path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All recipes for tiny weights."""
    recipes = {name: shrink(recipe) for name, recipe in sdcorr.recipes.RECIPES.items()}
    monkeypatch.setattr("sdcorr.recipes.RECIPES", recipes)


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expensive work must not begin."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        pytest.fail("loaded a model before looking at what the user gave")

    monkeypatch.setattr("sdcorr.recipes.load", fail)


# Match


def test_match_prints_a_table_and_writes_a_picture(folder: Path, run: Command) -> None:
    done = run(*SIFT, "--point", "20", "30", "--point", "80.5", "60.25", "--out", "out.jpg")
    assert (done.status, done.err) == (0, "")
    header, first, second, wrote = done.out.splitlines()
    assert header.split() == ["source", "x", "y", "target", "x", "y", "score"]
    assert first.split()[:3] == ["1", "20.0", "30.0"]
    assert second.split()[:3] == ["2", "80.5", "60.2"]
    assert all(-1 <= float(row.split()[-1]) <= 1 for row in (first, second))
    assert wrote == "wrote out.jpg"
    with PIL.Image.open("out.jpg") as picture:
        assert picture.format == "JPEG"


def test_the_picture_has_a_default_name(folder: Path, run: Command) -> None:
    done = run(*SIFT, "--point", "20", "30")
    assert done.out.splitlines()[-1] == "wrote match-a-b.png"
    with PIL.Image.open("match-a-b.png") as picture:
        assert picture.format == "PNG"


def test_without_points_confident_matches_are_found(folder: Path, run: Command) -> None:
    done = run("match", "a.jpg", "a.jpg", "--recipe", "sift", "--json", "-")
    matches = json.loads(done.out)["matches"]
    assert 1 <= len(matches) <= 20
    for match in matches:
        assert match["target"] == pytest.approx(match["source"])  # a photo matches itself
        assert match["score"] == pytest.approx(1, abs=1e-5)


def test_json_on_standard_output_is_nothing_but_json(folder: Path, run: Command) -> None:
    done = run(*SIFT, "--point", "20", "30", "--json", "-")
    found = json.loads(done.out)
    assert (done.status, done.err) == (0, "")
    assert found["schema"] == "sdcorr.matches/1"
    assert found["source"] == {"path": "a.jpg", "size": [104, 157]}
    assert found["target"] == {"path": "b.png", "size": [136, 100]}
    (match,) = found["matches"]
    assert set(match) == {"name", "source", "target", "score", "confidence", "matched"}
    assert (match["name"], match["source"]) == (None, [20.0, 30.0])
    assert 0 <= match["target"][0] <= 99
    assert 0 <= match["target"][1] <= 135
    assert (found["recipe"]["name"], found["weights"]) == ("sift", {})
    assert {"device", "dtype", "batch", "versions"} <= set(found["runtime"])
    assert sorted(os.listdir(folder)) == ["a.jpg", "b.png"]


def test_json_and_a_picture_beside_it(folder: Path, run: Command) -> None:
    done = run(*SIFT, "--point", "20", "30", "--json", "-", "--out", "out.svg")
    assert len(json.loads(done.out)["matches"]) == 1
    assert done.err == "wrote out.svg\n"
    assert Path("out.svg").read_text().startswith("<?xml")


def test_json_in_a_file(folder: Path, run: Command) -> None:
    done = run(*SIFT, "--point", "20", "30", "--json", "out.json")
    assert done.out.splitlines()[-1] == "wrote out.json"
    assert len(json.loads(Path("out.json").read_text())["matches"]) == 1
    assert sorted(os.listdir(folder)) == ["a.jpg", "b.png", "out.json"]


@pytest.mark.parametrize(
    ("text", "names", "sources"),
    [
        ("[[20, 30], [40.5, 50]]", [None, None], [[20, 30], [40.5, 50]]),
        ('{"eye": [20, 30], "nose": [40, 50]}', ["eye", "nose"], [[20, 30], [40, 50]]),
        ("[]", [], []),
        ("{}", [], []),
    ],
)
def test_points_from_a_file(
    folder: Path, run: Command, text: str, names: list[str | None], sources: list[list[float]]
) -> None:
    Path("points.json").write_text(text)
    done = run(*SIFT, "--points-file", "points.json", "--out", "out.png", "--json", "out.json")
    assert (done.status, done.err) == (0, "")
    matches = json.loads(Path("out.json").read_text())["matches"]
    assert [match["name"] for match in matches] == names
    assert [match["source"] for match in matches] == sources
    wanted = [name or str(number + 1) for number, name in enumerate(names)]
    assert [row.split()[0] for row in done.out.splitlines()[1:-2]] == wanted


@pytest.mark.usefixtures("small")
def test_match_with_weights_from_a_folder(folder: Path, run: Command, dinov2_folder: Path) -> None:
    place = f"dinov2={dinov2_folder}"
    done = run(
        "match", "a.jpg", "b.png", "--recipe", "dinov2-b", "--model", place,
        "--point", "20", "30", "--json", "-", "--dtype", "float32", "--device", "cpu",
        "--batch", "2",
    )  # fmt: skip
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["weights"][str(dinov2_folder)].startswith("folder-")
    assert found["recipe"]["groups"][0]["backbone"]["model"] == str(dinov2_folder)
    runtime = found["runtime"]
    assert (runtime["device"], runtime["dtype"], runtime["batch"]) == ("cpu", "float32", 2)


@pytest.mark.usefixtures("small", "folder")
def test_the_default_recipe_takes_a_category(
    run: Command, monkeypatch: pytest.MonkeyPatch, dinov2_folder: Path, sd_folder: Path
) -> None:
    prompts = []
    encode = Prompts.encode

    def listen(self: Prompts, prompt: str) -> Any:
        prompts.append(prompt)
        return encode(self, prompt)

    monkeypatch.setattr(Prompts, "encode", listen)
    done = run(
        "match", "a.jpg", "b.png", "--model", f"dinov2={dinov2_folder}",
        "--model", f"stable_diffusion={sd_folder}", "--category", "cat",
        "--point", "20", "30", "--json", "-", "--dtype", "float32",
    )  # fmt: skip
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["recipe"]["name"] == "sd-dino"
    assert set(found["weights"]) == {str(dinov2_folder), str(sd_folder)}
    assert prompts == ["a photo of cat"] * 2  # one for each photo


# Bad input: status 2, one line, no file, no work

BAD = {
    "missing photo": ("match nowhere.jpg b.png --recipe sift", "no such file: nowhere.jpg"),
    "missing target": ("match a.jpg nowhere.jpg --recipe sift", "no such file: nowhere.jpg"),
    "folder as photo": ("match folder b.png --recipe sift", "folder is a folder; expected a photo"),
    "text as photo": ("match a.jpg text.jpg --recipe sift", "text.jpg is no photo that can be"),
    "empty photo": ("match empty.jpg b.png --recipe sift", "empty.jpg is empty"),
    "name too long": (f"match {'n' * 300}.jpg b.png --recipe sift", "name too long"),
    "point outside": ("{} --point 157 3", "point number 1, (157, 3), is not on the source photo"),
    "second outside": ("{} --point 1 1 --point 1 -9", "point number 2, (1, -9), is not on"),
    "nan point": ("{} --point nan 3", "(nan, 3), is not on the source photo"),
    "infinite point": ("{} --point 3 inf", "(3, inf), is not on the source photo"),
    "points missing": ("{} --points-file nowhere.json", "cannot read nowhere.json: No such file"),
    "points folder": ("{} --points-file folder", "cannot read folder"),
    "points both": ("{} --points-file good.json --point 1 2", "--point or --points-file, not both"),
    "no recipe": ("match a.jpg b.png --recipe sd-dina", "did you mean 'sd-dino'?"),
    "no key": ("{} --model sifd=x", "no weights in recipe sift called 'sifd'; known: none"),
    "no weights to replace": ("{} --model sift=x", "sift loads no weights"),
    "category with sift": ("{} --category cat", "recipe 'sift' has no prompt that names a"),
    "out in no folder": ("{} --out nowhere/out.png", "there is no folder nowhere; make it first"),
    "out a folder": ("{} --out folder.png", "it is a folder; give a file name"),
    "out unknown": ("{} --out out.bmp", "expected a name that ends in .png"),
    "out a photo": ("{} --out a.jpg", "it is one of the files to be read"),
    "out too long": (f"{{}} --out {'n' * 300}.png", "name too long"),
    "json in no folder": ("{} --json nowhere/out.json", "there is no folder nowhere; make it"),
    "json a folder": ("{} --json folder", "it is a folder; give a file name"),
    "json a photo": ("{} --json ./b.png", "it is one of the files to be read"),
    "json over the picture": ("{} --out o.png --json ./o.png", "o.png"),
}  # fmt: skip
POINTS = {
    "text": ("points", "points.json is not JSON"),
    "empty": ("", "points.json is not JSON"),
    "a number": ("3", "points.json holds no points"),
    "null": ("null", "points.json holds no points"),
    "a string": ('"points"', "points.json holds no points"),
    "triples": ("[[1, 2, 3]]", "expected points (N, 2), got shape (1, 3)"),
    "a flat list": ("[1, 2]", "expected points (N, 2), got shape (2,)"),
    "ragged": ("[[1, 2], [3]]", "expected points [[x, y], ...], got [[1, 2], [3]]"),
    "words": ('[["left", "top"]]', "expected points [[x, y], ...]"),
    "nulls": ("[[null, 1]]", "expected points [[x, y], ...]"),
    "objects": ('[{"x": 1, "y": 2}]', "expected points [[x, y], ...]"),
    "huge number": (f"[[1, {10**400}]]", "expected points [[x, y], ...]"),
    "NaN": ("[[NaN, 1]]", "point number 1, (nan, 1), is not on the source photo"),
    "deep": ("[" * 100_000, "points.json"),
    "named outside": ('{"ear": [1, 2], "tail": [999, 2]}', "point 'tail', (999, 2), is not on"),
    "named triple": ('{"ear": [1, 2, 3]}', "expected points (N, 2)"),
}


@pytest.fixture
def clutter(folder: Path) -> Path:
    (folder / "folder").mkdir()
    (folder / "folder.png").mkdir()
    (folder / "text.jpg").write_text("no photo")
    (folder / "empty.jpg").touch()
    (folder / "good.json").write_text("[[1, 2]]")
    return folder


@pytest.fixture
def nothing_left(clutter: Path) -> Iterator[None]:
    """The command leaves no file behind, and the photos as they were."""
    before = contents(clutter)
    yield
    assert contents(clutter) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.usefixtures("no_loading", "nothing_left")
def test_a_mistake_is_told_before_any_work(run: Command, case: str) -> None:
    line, message = BAD[case]
    done = run(*line.format(" ".join(SIFT)).split())
    assert (done.status, done.out) == (2, "")
    if "Usage: sdcorr match" not in done.err:
        assert message in done.error
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.usefixtures("nothing_left")
def test_a_folder_of_weights_that_is_not_there(run: Command) -> None:
    done = run("match", "a.jpg", "b.png", "--recipe", "dinov2-b", "--model", "dinov2=/no/folder")
    assert done.status == 2
    assert "no such folder: /no/folder" in done.error


@pytest.mark.parametrize("case", POINTS)
@pytest.mark.usefixtures("no_loading", "folder")
def test_a_malformed_points_file_is_told_before_any_work(run: Command, case: str) -> None:
    text, message = POINTS[case]
    Path("points.json").write_text(text)
    before = contents(Path())
    done = run(*SIFT, "--points-file", "points.json")
    assert (done.status, done.out) == (2, "")
    assert message in done.error
    assert contents(Path()) == before


@pytest.mark.usefixtures("no_loading", "folder")
def test_a_binary_points_file_is_told_before_any_work(run: Command) -> None:
    done = run(*SIFT, "--points-file", "a.jpg")
    assert done.status == 2
    assert "a.jpg is not JSON" in done.error


@pytest.mark.parametrize(
    "line",
    [
        "match a.jpg",
        "{} --model sift",
        "{} --model =x",
        "{} --model sift=",
        "{} --point 1",
        "{} --point x y",
        "{} --batch many",
        "{} --no-such-option",
        "no-such-command",
        "recipes show",
        "models download",
    ],
)
@pytest.mark.usefixtures("no_loading", "nothing_left")
def test_wrong_usage_is_told_by_click(run: Command, line: str) -> None:
    done = run(*line.format(" ".join(SIFT)).split())
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--device toaster", "no device 'toaster' here; expected auto or one of: "),
        ("--device cuda:99", "no device 'cuda:99' here"),
        ("--dtype float64", "unknown dtype 'float64'; expected auto, float32, bfloat16, float16"),
        ("--batch 0", "batch must be at least 1, got 0"),
    ],
)
@pytest.mark.usefixtures("nothing_left")
def test_a_runtime_that_is_not_here_is_told_before_any_work(
    run: Command, monkeypatch: pytest.MonkeyPatch, options: str, message: str
) -> None:
    monkeypatch.setattr("sdcorr.recipes.Pipeline", lambda *_: pytest.fail("loaded a model"))
    done = run(*SIFT, *options.split())
    assert (done.status, done.out) == (2, "")
    assert message in done.error


def test_a_default_picture_with_a_long_name_is_written(folder: Path, run: Command) -> None:
    # each stem is cut to 100 letters
    names = [f"{letter * 120}.png" for letter in "ab"]
    for name in names:
        PIL.Image.new("RGB", (64, 48)).save(folder / name)
    done = run("match", *names, "--recipe", "sift", "--point", "1", "2")
    assert done.status == 0
    assert (folder / f"match-{'a' * 100}-{'b' * 100}.png").exists()


@pytest.mark.parametrize(
    ("recipe", "model", "size"),
    [
        ("sd-dino", "stable-diffusion-v1-5/stable-diffusion-v1-5", "about 4.3 GB"),
        ("dinov2-b", "facebook/dinov2-base", "about 0.3 GB"),
    ],
)
@pytest.mark.usefixtures("nothing_left")
def test_weights_that_are_absent_offline(run: Command, recipe: str, model: str, size: str) -> None:
    done = run("match", "a.jpg", "b.png", "--recipe", recipe)
    assert (done.status, done.out) == (2, "")
    for words in (model, size, f"sdcorr models download {recipe}", "recipe 'sift' needs no weig"):
        assert words in done.error


@pytest.mark.usefixtures("nothing_left")
def test_absent_weights_are_told_before_others_are_loaded(
    run: Command, monkeypatch: pytest.MonkeyPatch, sd_folder: Path
) -> None:
    monkeypatch.setattr("sdcorr.pipeline._build", lambda *_: pytest.fail("loaded a model"))
    done = run("match", "a.jpg", "b.png", "--model", f"stable_diffusion={sd_folder}")
    assert done.status == 2
    assert "facebook/dinov2-base" in done.error


# Exit status and tracebacks


def test_an_unexpected_error_is_one_line_and_status_1(
    folder: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("boom\n  on two lines")

    monkeypatch.setattr("sdcorr.recipes.load", fail)
    done = run(*SIFT)
    assert done.status == 1
    assert done.error == "sdcorr: RuntimeError: boom on two lines (--debug shows where)"
    assert contents(folder).keys() == {str(folder / "a.jpg"), str(folder / "b.png")}
    debugged = run(*SIFT, "--debug")
    assert debugged.status == 1
    assert debugged.err.startswith("Traceback (most recent call last)")
    assert debugged.err.splitlines()[-1] == "sdcorr: RuntimeError: boom on two lines"


def test_debug_shows_where_a_known_error_came_from(folder: Path, run: Command) -> None:
    arguments = ("match", "nowhere.jpg", "b.png", "--recipe", "sift")
    assert "Traceback" not in run(*arguments).err
    done = run(*arguments, "--debug")
    assert done.status == 2
    assert "Traceback (most recent call last)" in done.err
    assert done.err.splitlines()[-1] == "sdcorr: no such file: nowhere.jpg"


@pytest.mark.usefixtures("small", "folder")
def test_features_that_are_not_finite_are_status_1(
    run: Command, monkeypatch: pytest.MonkeyPatch, dinov2_folder: Path
) -> None:
    from sdcorr.backbones._transformer import TransformerBackbone

    def tokens(_self: object, inputs: Any) -> Any:
        return {"token": torch.full((len(inputs), 12 * 12, 24), torch.nan)}

    monkeypatch.setattr(TransformerBackbone, "read", tokens)
    done = run(
        "match", "a.jpg", "b.png", "--recipe", "dinov2-b", "--model", f"dinov2={dinov2_folder}",
        "--dtype", "float32",
    )  # fmt: skip
    assert done.status == 1
    assert "'token' is not finite, computed in float32" in done.error


@pytest.mark.usefixtures("folder")
def test_nan_is_never_printed_as_json(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdcorr.export.matches_to_dict", lambda *_: {"score": math.nan})
    done = run(*SIFT, "--point", "20", "30", "--json", "-")
    assert done.status == 1
    assert "NaN" not in done.out


def test_opencv_that_cannot_be_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingLibrary, match=r"libgl1 libglib2\.0-0"):
        sdcorr.load("sift")


@pytest.mark.usefixtures("folder")
def test_opencv_that_cannot_be_loaded_is_one_line(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = run(*SIFT)
    assert done.status == 2
    assert "libgl1 libglib2.0-0" in done.error
    doctor = run("doctor")
    assert doctor.status == 0
    assert "trouble: OpenCV is installed but cannot be loaded" in doctor.out


# Help


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from every_command(child, (*path, name))


@pytest.mark.parametrize("path", list(every_command(cli)), ids=" ".join)
def test_help_shows_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"], prog_name="sdcorr")
    assert result.exit_code == 0
    _, example, shown = result.output.partition("Example")
    assert example
    assert " ".join(("sdcorr", *path)) in shown


def test_commands_are_all_here() -> None:
    assert {" ".join(path) for path in every_command(cli)} == {
        "", "match", "demo", "heatmap", "flow", "swap", "pca", "parts",
        "transfer", "extract", "eval", "score", "report", "calibrate", "recipes",
        "data", "data synth", "data download",
        "recipes list", "recipes show",
        "models", "models list", "models download", "models where", "doctor",
    }  # fmt: skip


# Recipes, models, doctor


def test_recipes_list_has_a_line_for_each(run: Command) -> None:
    done = run("recipes", "list")
    assert done.status == 0
    lines = {line.split()[0]: line for line in done.out.splitlines()}
    assert tuple(lines) == EVERY_RECIPE
    assert [name for name, line in lines.items() if "(default)" in line] == ["sd-dino"]


@pytest.mark.parametrize("name", EVERY_RECIPE)
def test_recipes_show_names_paper_and_settings(run: Command, name: str) -> None:
    done = run("recipes", "show", name)
    recipe = sdcorr.recipes.find_recipe(name)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{name}: ")
    assert recipe.paper in done.out
    for words in recipe.deviations:
        assert words in done.out
    for group in recipe.groups:
        assert f"  {group.name} (" in done.out
        for field in dataclasses.fields(group.backbone):
            assert f"    {field.name} = " in done.out
    assert f"matcher {name_of(recipe.matcher)}" in done.out
    assert not any(line.endswith((" ", ":")) for line in done.out.splitlines())


@pytest.mark.parametrize("name", EVERY_RECIPE)
def test_recipes_show_as_json_is_the_recipe(run: Command, name: str) -> None:
    done = run("recipes", "show", name, "--json")
    described = sdcorr.recipes.find_recipe(name).describe()
    assert json.loads(done.out) == json.loads(json.dumps(described))


def test_a_changed_recipe_of_a_listed_name_is_marked(run: Command, tmp_path: Path) -> None:
    described = json.loads(run("recipes", "show", "dinov2-b", "--json").out)
    path = tmp_path / "mine.json"
    for stride, marked in ((None, False), (7, True)):
        described["groups"][0]["backbone"]["stride"] = stride
        path.write_text(json.dumps(described))
        assert ("not the recipe of this name" in run("recipes", "show", str(path)).out) == marked


@pytest.mark.parametrize("command", [("recipes", "show"), ("models", "download")])
def test_an_unknown_recipe_is_guessed(run: Command, command: tuple[str, str]) -> None:
    done = run(*command, "dinov2")
    assert done.status == 2
    assert "did you mean 'dinov2-" in done.error


@pytest.mark.usefixtures("folder")
def test_models_list_says_what_is_needed_and_here(run: Command) -> None:
    done = run("models", "list")
    assert (done.status, done.err) == (0, "")
    wanted = "dinov2: facebook/dinov2-base, Apache-2.0, about 0.3 GB, not here"
    assert f"  {wanted}" in done.out.splitlines()
    assert "sift: no weights needed" in done.out.splitlines()


@pytest.mark.usefixtures("small")
def test_models_list_finds_what_is_here(
    folder: Path, run: Command, monkeypatch: pytest.MonkeyPatch, dinov2_folder: Path
) -> None:
    from tests.tiny import SHA, write_hub_cache

    write_hub_cache(folder, "facebook/dinov2-base", dinov2_folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    lines = run("models", "list").out.splitlines()
    about = [line for line in lines if "facebook/dinov2-base" in line]
    assert len(about) == 5
    assert all(line.endswith(", here") for line in about)
    where = run("models", "where").out.splitlines()
    assert where[0] == str(folder / "hub")
    (found,) = (line for line in where if "facebook/dinov2-base" in line)
    assert found.endswith(f"snapshots/{SHA}")
    fetched = run("models", "download", "dinov2-b")
    assert fetched.status == 0
    assert fetched.out.endswith(f"(revision {SHA})\n")


def test_models_where_names_the_folder(folder: Path, run: Command) -> None:
    done = run("models", "where")
    assert done.out.splitlines()[0] == str(folder / "cache")
    assert "  facebook/dinov2-base: not here" in done.out.splitlines()


@pytest.mark.usefixtures("folder")
def test_models_download_offline(run: Command) -> None:
    assert run("models", "download", "sift").out == "recipe sift needs no weights\n"
    done = run("models", "download", "sd15")
    assert done.status == 2
    assert "HF_HUB_OFFLINE is set" in done.error


@pytest.mark.usefixtures("folder")
def test_doctor_says_what_is_here(run: Command) -> None:
    done = run("doctor")
    assert (done.status, done.err) == (0, "")
    for words in ("python 3", "torch ", "devices: ", "auto picks: ", "GB free", "cpu"):
        assert words in done.out
    assert "  facebook/dinov2-base, about 0.3 GB: not here" in done.out.splitlines()
    assert "no trouble found" in done.out


@pytest.mark.usefixtures("folder")
def test_doctor_finds_a_torchvision_for_another_torch(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "torchvision").mkdir(parents=True)
    broken = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "site" / "torchvision" / "__init__.py").write_text(broken)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    done = run("doctor")
    assert "trouble: torchvision is installed and does not load (RuntimeError: op" in done.out
    assert "pip uninstall torchvision" in done.out


# What is imported, in processes of their own

HEAVY = ("torch", "numpy", "diffusers", "transformers", "matplotlib", "cv2", "PIL", "tqdm")


def loaded(script: str, folder: Path | None = None) -> set[str]:
    """Which of the heavy libraries a script has loaded at its end."""
    ending = f"\nimport sys\nprint('LOADED', *sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script + ending], cwd=folder, capture_output=True, text=True,
        timeout=60, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "script",
    [
        "import sdcorr; dir(sdcorr); sdcorr.__version__",
        "from sdcorr.cli import _run; assert _run(['--help']) == 0",
        "from sdcorr.cli import _run; assert _run(['--version']) == 0",
        "from sdcorr.cli import _run; assert _run(['match', '--help']) == 0",
        "from sdcorr.cli import _run; assert _run(['models', 'download', '--help']) == 0",
    ],
)
def test_help_loads_no_heavy_library(script: str) -> None:
    assert loaded(script) == set()


def test_sift_loads_no_model_library(folder: Path) -> None:
    script = f"from sdcorr.cli import _run; assert _run({[*SIFT, '--point', '20', '30']}) == 0"
    libraries = loaded(script, folder)
    assert {"torch", "cv2", "matplotlib"} <= libraries
    assert not libraries & {"transformers", "diffusers"}


def test_the_package_is_a_command(folder: Path) -> None:
    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sdcorr", *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = ask("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: sdcorr [OPTIONS] COMMAND")
    wrong = ask("match", "nowhere.jpg", "a.jpg", "--recipe", "sift")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "sdcorr: no such file: nowhere.jpg\n"


def test_an_error_cannot_steer_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert _run(["score", "no\x1b]0;title\x07where\u202e"]) == 2
    said = capfd.readouterr().err
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert r"no\x1b]0;title\x07where\u202e is no run" in said
