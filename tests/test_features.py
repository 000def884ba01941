"""Descriptors in files: the same to the last bit, whole or not at all, and never another's."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import sdcorr
import sdcorr.recipes
from sdcorr.backbones.sift import Sift
from sdcorr.cli import _watch
from sdcorr.cli._watch import PhotoWatch
from sdcorr.errors import (
    BadFeatures,
    BadImage,
    BadLaunch,
    BadOutput,
    BadRecipe,
    BadRun,
    UnknownName,
)
from sdcorr.extraction import Extraction, Part, extract, plan
from sdcorr.features import find_about, read_features, write_features
from sdcorr.fusion import Group, MapUse
from sdcorr.geometry import Grid, Size
from sdcorr.matchers.nearest import Nearest
from sdcorr.pipeline import Pipeline, find_weights
from sdcorr.processes import World
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES, find_recipe
from sdcorr.runtime import Runtime
from sdcorr.types import Encoding, FeatureMap, Image
from tests.annotated import draw_photo
from tests.conftest import ROOT, Command
from tests.test_pipeline import load_tiny
from tests.tiny import shrink

ALONE = World()
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
POINTS = [[20, 30], [40.5, 50.25], [7, 9]]
MATCHED = ("sd-dino", "geoaware", "dift", "sift", "same-position")
ODD_NAMES = ("a b.jpg", "we [1] *.jpg", "café 猫.jpg", "two\nlines.jpg", "-out.jpg", "a.b.jpg")
TINY = Recipe("tiny", (Group("sift", Sift(size=64, diameters=(16.0,)), (MapUse("rootsift"),)),))
FLIPPED = dataclasses.replace(TINY, name="tiny+flip", flip=True)


@pytest.fixture(scope="module")
def model() -> Pipeline:
    return Pipeline(TINY, Runtime())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder; the recipe ``sift`` is a quick one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sdcorr.recipes.RECIPES, "sift", dataclasses.replace(TINY, name="sift"))
    return tmp_path


@pytest.fixture
def photos(folder: Path) -> Path:
    """Six photos in two folders."""
    for index in range(6):
        draw_photo(folder / "photos" / f"{'ab'[index % 2]}" / f"{index}.jpg", 80, 60, index)
    return folder / "photos"


@pytest.fixture
def written(folder: Path, model: Pipeline) -> Path:
    """Descriptors of ``a.png``, 80 x 60."""
    draw_photo(folder / "a.png", 80, 60, 0)
    write_features(folder / "a.png.safetensors", model.encode("a.png"), model)
    return folder / "a.png.safetensors"


def assert_same(one: Encoding, other: Encoding) -> None:
    """The same to the last bit."""
    assert (one.size, one.backbones, one.revisions) == (
        other.size, other.backbones, other.revisions,
    )  # fmt: skip
    assert (one.mirrored is None) == (other.mirrored is None)
    for maps, others in ((one.maps, other.maps), (one.mirrored or {}, other.mirrored or {})):
        assert list(maps) == list(others)
        for name, values in maps.items():
            assert (values.name, values.grid) == (others[name].name, others[name].grid)
            assert torch.equal(values.values, others[name].values)


def files_in(out: Path) -> dict[str, bytes]:
    """Contents by name; files that some process left half-written are none."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.safetensors")
    }


def job(out: Path, recipe: Recipe = TINY, **changes: Any) -> Extraction:
    return Extraction((Path("photos"),), out, recipe, **({"runtime": Runtime()} | changes))


def do(one: Extraction, world: World = ALONE) -> list[tuple[str, BadImage | None]]:
    return list(extract(one, plan(one, world)))


# A file, by hand


def test_a_file_holds_the_maps_and_how_they_were_made(folder: Path, model: Pipeline) -> None:
    grid = Grid((1, 2), (4.0, 2.5), (-1.0, 0.25), Size(3, 7))
    values = torch.tensor([[[1.0, 2.0]], [[-0.5, 1e-30]]])  # (2, 1, 2)
    image = Image(np.zeros((3, 7, 3), np.uint8))
    maps = {"sift/rootsift": FeatureMap("rootsift", values, grid)}
    write_features("x.safetensors", Encoding(image, maps, TINY.backbones, {}), model, "sub/x.jpg")
    with safe_open("x.safetensors", "np") as file:
        assert list(file.keys()) == ["sift/rootsift"]
        assert file.get_tensor("sift/rootsift").dtype == np.float32
        assert file.get_tensor("sift/rootsift").tolist() == values.tolist()
        assert list(file.metadata()) == ["sdcorr"]  # several would come in random order
        about = json.loads(file.metadata()["sdcorr"])
    runtime = about.pop("runtime")
    assert set(runtime) == {"device", "dtype", "versions"}
    assert about == {
        "schema": "sdcorr.features/1",
        "photo": "sub/x.jpg",
        "photo_bytes": None,
        "size": [3, 7],
        "category": None,
        "mirrored": False,
        "grids": {"sift/rootsift": {"shape": [1, 2], "stride": [4.0, 2.5], "offset": [-1.0, 0.25]}},
        "recipe": json.loads(json.dumps(TINY.describe())),
        "revisions": {},
    }
    assert (runtime["device"], runtime["dtype"]) == ("cpu", "float32")
    assert runtime["versions"]["torch"]
    features = sdcorr.read_features("x.safetensors")
    assert (features.photo, features.size, features.mirrored) == ("sub/x.jpg", Size(3, 7), None)
    assert features.maps["sift/rootsift"].grid == grid


def test_the_photo_has_the_name_of_its_file_if_no_other_is_given(written: Path) -> None:
    about = find_about(written)
    assert about is not None
    assert about.photo == read_features(written).photo == "a.png"
    assert about.photo_bytes == Path("a.png").stat().st_size


def test_the_same_descriptors_make_the_same_file(written: Path, model: Pipeline) -> None:
    before = written.read_bytes()
    for _ in range(4):
        write_features(written, model.encode("a.png"), model)
        assert written.read_bytes() == before


def test_maps_may_share_memory(folder: Path, model: Pipeline) -> None:
    grid = Grid((2, 2), (4.0, 4.0), (0.0, 0.0), Size(8, 8))
    whole = torch.rand(6, 2, 2)
    parts = {"all": whole, "again": whole, "half": whole[:3], "across": whole.transpose(1, 2)}
    maps = {f"sift/{name}": FeatureMap(name, part, grid) for name, part in parts.items()}
    image = Image(np.zeros((8, 8, 3), np.uint8))
    write_features("x.safetensors", Encoding(image, maps, TINY.backbones, {}), model)
    for name, values in read_features("x.safetensors").maps.items():
        assert torch.equal(values.values, parts[name.partition("/")[2]])


# To the last bit


@pytest.mark.parametrize("name", RECIPES)
def test_descriptors_of_every_recipe_are_those_of_the_photo(
    checkpoints: dict[str, Path], photo: np.ndarray, other_photo: np.ndarray, folder: Path,
    name: str,
) -> None:  # fmt: skip
    model = load_tiny(name, checkpoints)
    told = "cat" if model.recipe.uses_category else None
    encoded = model.encode(photo, told)
    write_features("x.safetensors", encoded, model)
    features = read_features("x.safetensors")
    assert (features.category, features.photo) == (told, None)
    assert features.revisions == find_weights(model.recipe)
    encoding = features.encoding(photo)
    assert_same(encoding, encoded)
    assert encoding.image.category == told
    if name in MATCHED:  # what goes in is the same; one of each kind shows what comes out
        target = model.encode(other_photo, told)
        found, wanted = (
            model.match(one, target, points=POINTS, category=told) for one in (encoding, photo)
        )
        for field in ("target", "score", "margin", "peak", "cycle_error", "matched"):
            assert torch.equal(getattr(found, field), getattr(wanted, field)), field


def test_a_recipe_that_flips_keeps_the_mirrored_maps(folder: Path, photo: np.ndarray) -> None:
    model = Pipeline(FLIPPED, Runtime())
    write_features("x.safetensors", model.encode(photo), model)
    assert set(load_file("x.safetensors")) == {"sift/rootsift", "mirrored/sift/rootsift"}
    encoding = read_features("x.safetensors").encoding()
    assert_same(encoding, model.encode(photo))
    found, wanted = (model.match(one, photo, points=POINTS) for one in (encoding, photo))
    assert torch.equal(found.target, wanted.target)
    assert torch.equal(found.score, wanted.score)


def test_pictures_show_the_photo_or_white(written: Path, model: Pipeline) -> None:
    features = read_features(written)
    shown = features.encoding("a.png").image
    assert np.array_equal(shown.pixels, sdcorr.load_image("a.png").pixels)
    assert shown.path == Path("a.png")
    blank = features.encoding()
    assert (blank.image.pixels == 255).all()
    assert blank.size == (60, 80)
    assert model.match(blank, "a.png", points=POINTS).plot()


def test_another_photo_is_refused_by_its_size(written: Path) -> None:
    draw_photo(Path("b.png"), 60, 80, 1)
    with pytest.raises(
        BadImage, match=r"b\.png is 60 x 80 px, and the descriptors are of 'a\.png', 80 x 60; give"
    ):
        read_features(written).encoding("b.png")


def test_other_recipes_refuse_the_descriptors(written: Path) -> None:
    larger = dataclasses.replace(TINY.groups[0], backbone=Sift(size=96, diameters=(16.0,)))
    encoding = read_features(written).encoding("a.png")
    other = Pipeline(dataclasses.replace(TINY, name="other", groups=(larger,)), Runtime())
    with pytest.raises(
        BadRecipe, match="made with other backbones or weights than those of 'other'"
    ):
        other.match(encoding, "a.png", points=POINTS)
    with pytest.raises(BadRecipe, match="made without flip"):
        Pipeline(FLIPPED, Runtime()).match(encoding, "a.png", points=POINTS)


def test_reading_needs_no_model_code(written: Path) -> None:
    code = (
        "import sys, sdcorr; features = sdcorr.read_features('a.png.safetensors'); "
        "assert not {'transformers', 'diffusers', 'cv2', 'sdcorr.pipeline'} & set(sys.modules); "
        "assert not any(name.startswith('sdcorr.backbones.') for name in sys.modules); "
        "features.encoding('a.png'); assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)


def test_code_from_outside_runs_only_when_it_is_allowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("ran_features.py").write_text(
        "from dataclasses import dataclass\nfrom pathlib import Path\n"
        "from sdcorr.backbones.constant import Constant\n"
        "Path('ran').touch()\n"
        "@dataclass(frozen=True)\nclass Mine(Constant):\n    pass\nPLUGIN = Mine\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    mine = __import__("ran_features").Mine
    model = Pipeline(Recipe("mine", (Group("mine", mine(), (MapUse("one"),)),)), Runtime())
    draw_photo(Path("a.png"), 80, 60, 0)
    write_features("x.safetensors", model.encode("a.png"), model)
    Path("ran").unlink()
    del sys.modules["ran_features"]
    features = read_features("x.safetensors")
    with pytest.raises(BadRecipe, match=r"names the module 'ran_features.PLUGIN' .* allow_plugins"):
        features.encoding("a.png")
    assert not Path("ran").exists()
    assert set(features.encoding("a.png", allow_plugins=True).maps) == {"mine/one"}
    assert Path("ran").exists()


# What cannot be written


def test_an_encoding_of_another_recipe_is_not_written(written: Path, model: Pipeline) -> None:
    before = written.read_bytes()
    flipped = Pipeline(FLIPPED, Runtime())
    with pytest.raises(BadRecipe, match=r"another recipe than 'tiny\+flip' made this encoding"):
        write_features(written, model.encode("a.png"), flipped)
    with pytest.raises(BadRecipe, match="another recipe than 'tiny' made"):
        write_features(written, flipped.encode("a.png"), model)
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("x.npz", r"cannot write x\.npz: expected a name that ends in \.safetensors"),
        ("nowhere/x.safetensors", r"cannot write nowhere/x\.safetensors: No such file"),
        ("f.safetensors", r"cannot write f\.safetensors: Is a directory"),
    ],
)
def test_where_nothing_can_be_written_it_is_said(
    written: Path, model: Pipeline, place: str, told: str
) -> None:
    Path("f.safetensors").mkdir()
    with pytest.raises(BadOutput, match=told):
        write_features(place, model.encode("a.png"), model)
    assert not list(Path().glob(".sdcorr-*"))


# Files that are something else


def change(path: Path, edit: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> None:
    """Write the file again with other metadata or tensors."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["sdcorr"])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    edit(about, tensors)
    save_file(tensors, path, {"sdcorr": json.dumps(about)})


NAME = "sift/rootsift"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda about, maps: about.update(schema="sdcorr.features/2"), "was written as 'sdcorr.fe"),
        (lambda about, maps: about.pop("schema"), "metadata is not as expected: 'schema'"),
        (lambda about, maps: about.pop("size"), "damaged: its metadata lacks the field size"),
        (lambda about, maps: about.update(size=[60]), r"its metadata\.size must have 2 items"),
        (lambda about, maps: about.update(size=[60, 0]), "its photo has no name or size"),
        (lambda about, maps: about.update(size=[60.5, 80]), r"size\[0\] must be a whole number"),
        (lambda about, maps: about.update(photo=7), "its photo has no name or size"),
        (lambda about, maps: about.update(more=1), "no field of its metadata called 'more'"),
        (lambda about, maps: about.update(recipe=[]), r"its metadata\.recipe must be dict"),
        (lambda about, maps: about.update(category=3), r"its metadata\.category must be text"),
        (lambda about, maps: about["grids"][NAME].pop("stride"), "'sift/rootsift' lacks the field"),
        (lambda about, maps: about["grids"][NAME].update(stride=[0, 1]), "or cells for it"),
        (lambda about, maps: about["grids"][NAME].update(shape=[3, 4]), r"expected \(C, h, w\)"),
        (lambda about, maps: about["grids"][NAME].update(offset=["a", 1]), "must be a number"),
        (lambda about, maps: about["grids"].update(x={}), "grid of 'x' lacks the field shape"),
        (lambda about, maps: about.update(mirrored=True), "it lacks 'mirrored/sift/rootsift'"),
        (lambda about, maps: about["grids"].clear(), "tensors of which it does not tell"),
        (lambda about, maps: maps.update(x=torch.ones(1)), "tensors of which it does not tell"),
        (lambda about, maps: maps.pop(NAME), "it lacks 'sift/rootsift'"),
        (lambda about, maps: maps.update({NAME: maps[NAME].half()}), "expected float32 in"),
        (lambda about, maps: maps[NAME][0, 0, 0].fill_(torch.nan), "'rootsift' is not finite"),
        (lambda about, maps: maps[NAME][0, 0, 0].fill_(torch.inf), "'rootsift' is not finite"),
    ],
)
def test_a_file_that_was_changed_is_told_in_one_sentence(
    written: Path, edit: Any, told: str
) -> None:
    change(written, edit)
    with pytest.raises(BadFeatures, match=told) as caught:
        read_features(written)
    assert str(written) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_the_maps_of_its_recipe_makes_no_encoding(written: Path) -> None:
    def rename(about: dict[str, Any], maps: dict[str, torch.Tensor]) -> None:
        about["grids"] = {"sift/other": about["grids"].pop(NAME)}
        maps["sift/other"] = maps.pop(NAME)

    change(written, rename)
    with pytest.raises(BadFeatures, match=r"of 'a\.png' lack the map 'sift/rootsift'"):
        read_features(written).encoding("a.png")


def test_a_recipe_that_is_none_makes_no_encoding(written: Path) -> None:
    change(written, lambda about, maps: about.update(recipe={"name": "x"}))
    assert read_features(written).recipe == {"name": "x"}  # the numbers can still be had
    with pytest.raises(BadRecipe, match="recipe lacks the field groups"):
        read_features(written).encoding("a.png")
    change(written, lambda about, maps: about.update(recipe={"nme": "x"}))
    with pytest.raises(UnknownName, match="did you mean 'name'"):
        read_features(written).encoding("a.png")


def test_a_file_that_breaks_off_is_damaged_wherever_it_does(written: Path) -> None:
    whole = written.read_bytes()
    for cut in [0, 7, 8, 9, *random.Random(0).sample(range(len(whole)), 60), len(whole) - 1]:
        written.write_bytes(whole[:cut])
        assert find_about(written) is None
        with pytest.raises(BadFeatures, match="is damaged, or no safetensors file: "):
            read_features(written)
    written.write_bytes(whole + b"\0")
    assert find_about(written) is None
    written.write_bytes(whole)
    assert find_about(written)


def test_files_of_others_are_told(folder: Path) -> None:
    save_file({"weight": torch.ones(3)}, "model.safetensors", {"format": "pt"})
    save_file({"weight": torch.ones(3)}, "bare.safetensors")
    for name in ("model", "bare"):
        with pytest.raises(BadFeatures, match=r"holds no descriptors of sdcorr \(no 'sdcorr' in"):
            read_features(f"{name}.safetensors")
    for text in ("", "[]", "7", "{", '{"a": 1, "a": 2}', '"x"', "[" * 100_000):
        save_file({"weight": torch.ones(3)}, "odd.safetensors", {"sdcorr": text})
        with pytest.raises(BadFeatures, match=r"odd\.safetensors is damaged: its metadata is not"):
            read_features("odd.safetensors")
    Path("text.safetensors").write_text("no tensors")
    with pytest.raises(BadFeatures, match=r"text\.safetensors is damaged, or no safetensors file"):
        read_features("text.safetensors")
    os.mkfifo("pipe.safetensors")
    for name in (".", "pipe.safetensors"):
        with pytest.raises(BadFeatures, match="is no file; expected descriptors"):
            read_features(name)
    for name in ("nope.safetensors", f"{'x' * 300}.safetensors", "a\0b"):
        with pytest.raises(BadFeatures, match=r"cannot read .*: (No such file|File name too long)"):
            read_features(name)
        assert find_about(Path(name)) is None


# Many photos


def test_each_photo_gets_a_file_by_its_name(photos: Path, model: Pipeline, run: Command) -> None:
    (photos / "a" / "0.png").write_bytes((photos / "a" / "0.jpg").read_bytes())  # but its ending
    done = run("extract", "photos", "--recipe", "sift", "--out", "out")
    assert done.status == 0
    assert done.err.startswith("1 process, ")
    assert done.out.splitlines()[0] == "wrote 7 files to out (0 were there before, 0 skipped)"
    names = ["a/0.jpg", "a/0.png", "a/2.jpg", "a/4.jpg", "b/1.jpg", "b/3.jpg", "b/5.jpg"]
    assert sorted(files_in(Path("out"))) == [f"{name}.safetensors" for name in names]
    for name in names:
        features = read_features(f"out/{name}.safetensors")
        assert features.photo == name
        assert_same(features.encoding(photos / name), model.encode(photos / name))
    last = done.out.splitlines()[1].partition("sdcorr.read_features(")[2]
    assert last == "'out/b/5.jpg.safetensors')"


def test_the_same_command_again_passes_over_what_is_there(photos: Path, run: Command) -> None:
    command = ("extract", "photos", "--recipe", "sift", "--out", "out")
    run(*command)
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    done = run(*command)
    assert (done.status, done.out) == (0, "wrote 0 files to out (6 were there before, 0 skipped)\n")
    draw_photo(photos / "new.jpg", 80, 60, 9)
    done = run(*command)
    assert done.out.startswith("wrote 1 file to out (6 were there before, 0 skipped)\n")
    assert {path: path.stat().st_mtime_ns for path in before if path.is_file()}.items() <= (
        before.items()
    )


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_every_kind(folder: Path, run: Command, name: str) -> None:
    draw_photo(folder / "photos" / name, 80, 60, 0)
    draw_photo(folder / "photos" / "sub [x]" / name, 80, 60, 0)
    done = run("extract", "photos", "--recipe", "sift", "--out", "o u t")
    assert done.out.startswith("wrote 2 files to o u t (0 were")
    assert len(done.out.splitlines()) == 2
    assert read_features(Path("o u t", f"{name}.safetensors")).photo == name
    assert read_features(Path("o u t", "sub [x]", f"{name}.safetensors")).photo == f"sub [x]/{name}"
    again = run("extract", "photos", "--recipe", "sift", "--out", "o u t")
    assert again.out == "wrote 0 files to o u t (2 were there before, 0 skipped)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name files in UTF-8 only")
def test_names_that_are_no_text(folder: Path, run: Command) -> None:
    draw_photo(folder / "a.jpg", 80, 60, 0)
    Path("photos").mkdir()
    name = os.fsdecode(b"caf\xe9.jpg")
    for place in (f"photos/{name}", f"photos/bad-{name}"):
        Path(place).write_bytes(Path("a.jpg").read_bytes() if "bad" not in place else b"x")
    out = os.fsdecode(b"out\xff")
    for wrote, before in ((1, 0), (0, 1)):
        done = run("extract", "photos", "--recipe", "sift", "--out", out)
        assert done.out.startswith(f"wrote {wrote} file{'s' * (not wrote)} to out\\udcff ({before}")
        assert "skipped bad-caf\\udce9.jpg: photos/bad-caf\\udce9.jpg is no photo" in done.err
    assert read_features(Path(out, f"{name}.safetensors")).photo == name


def test_a_photo_given_twice_is_done_once(photos: Path, run: Command) -> None:
    Path("list.txt").write_text("photos/a/0.jpg\nphotos/../photos/b/1.jpg\n")
    done = run(
        "extract", "photos", "photos/a/*.jpg", "./photos/a/2.jpg", "list.txt", "--recipe", "sift",
        "--root", ".", "--out", "out",
    )  # fmt: skip
    assert done.out.startswith("wrote 6 files")
    assert "photos/a/0.jpg.safetensors" in files_in(Path("out"))


def header_of_png(width: int, height: int) -> bytes:
    """A PNG of that size, with next to no pixels in it."""

    def part(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data = zlib.compress(bytes(3 * min(width, 10) + 1))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (part(b"IHDR", size + b"\x08\x02\0\0\0"), part(b"IDAT", data), part(b"IEND", b""))
    )


def test_bad_photos_are_told_and_skipped(photos: Path, run: Command) -> None:
    whole = (photos / "a" / "0.jpg").read_bytes()
    PIL.Image.new("RGB", (1, 1), "red").save(photos / "one.png")  # a photo like any other
    bad = {
        "bomb.png": (header_of_png(60_000, 60_000), "too many pixels"),
        "cut.jpg": (whole[: len(whole) // 2], "is damaged"),
        "empty.jpg": (b"", "is empty"),
        "flat.png": (header_of_png(0, 5), "flat.png"),
        "text.jpg": (b"no photo\n" * 20, "is no photo"),
    }
    for name, (data, _) in bad.items():
        (photos / name).write_bytes(data)
    (photos / "lost.jpg").symlink_to("nowhere")
    done = run("extract", "photos", "--recipe", "sift", "--out", "out")
    assert (done.status, len(files_in(Path("out")))) == (0, 7)
    assert done.out.startswith("wrote 7 files to out (0 were there before, 6 skipped)\n")
    lines = [line for line in done.err.splitlines() if line.startswith("skipped ")]
    assert [line.split()[1] for line in lines] == [f"{one}:" for one in sorted([*bad, "lost.jpg"])]
    for name, (_, told) in bad.items():
        assert told in next(line for line in lines if line.startswith(f"skipped {name}: "))
    (photos / "cut.jpg").write_bytes(whole)  # mended
    again = run("extract", "photos", "--recipe", "sift", "--out", "out")
    assert again.out.startswith("wrote 1 file to out (7 were there before, 5 skipped)\n")


def test_where_no_photo_can_be_read_the_command_fails(folder: Path, run: Command) -> None:
    Path("photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Path("photos", name).write_text("x")
    done = run("extract", "photos", "--recipe", "sift", "--out", "out")
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines()[-1] == "sdcorr: no photo could be read; skipped: 2"


def test_a_name_too_long_for_a_file_is_skipped(photos: Path, run: Command) -> None:
    long = "x" * 251 + ".jpg"  # 255 bytes: with its new ending it has too many
    (photos / long).write_bytes((photos / "a" / "0.jpg").read_bytes())
    done = run("extract", "photos", "--recipe", "sift", "--out", "out")
    assert done.out.startswith("wrote 6 files to out (0 were there before, 1 skipped)\n")
    assert "File name too long; shorten the photo's name" in done.err
    assert not list(Path("out").rglob(".sdcorr-*"))


def test_memory_holds_a_few_photos_at_a_time(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        draw_photo(photos / "more" / f"{index}.jpg", 80, 60, index)
    alive: list[weakref.ref[Encoding]] = []
    encode = Pipeline.encode_batch

    def counted(self: Pipeline, *args: Any, **options: Any) -> list[Encoding]:
        found = encode(self, *args, **options)
        alive.extend(weakref.ref(one) for one in found)
        return found

    monkeypatch.setattr(Pipeline, "encode_batch", counted)
    one, most = job(Path("out")), 0
    for _ in extract(one, plan(one, ALONE)):
        most = max(most, sum(ref() is not None for ref in alive))
    assert len(alive) == 12
    assert most <= 4


# Stopped, damaged, made in another way


def test_an_extraction_that_is_stopped_goes_on(photos: Path) -> None:
    do(job(Path("whole")))
    one = job(Path("out"))
    for step in (2, 1):
        work = extract(one, plan(one, ALONE))
        for _ in range(step):
            next(work)
        work.close()
    part = plan(one, ALONE)
    assert 3 <= part.before < 6  # what was being written when it was stopped counts, too
    assert do(one) == [(name, None) for name in part.names]
    assert files_in(Path("out")) == files_in(Path("whole"))


def test_a_file_that_was_cut_is_written_again(photos: Path) -> None:
    do(job(Path("out")))
    whole = files_in(Path("out"))
    moments = random.Random(1)
    for cut in (0, 8, *moments.sample(range(3000), 10)):
        name = moments.choice(sorted(whole))
        Path("out", name).write_bytes(whole[name][:cut])
        assert do(job(Path("out"))) == [(name.removesuffix(".safetensors"), None)]
        assert files_in(Path("out")) == whole


def test_what_a_killed_process_left_half_written_counts_for_nothing(photos: Path) -> None:
    do(job(Path("out")))
    left = Path("out", "a", ".sdcorr-0123456789abcdef.tmp")
    left.write_bytes(b"half")
    Path("out", "a", "0.jpg.safetensors").unlink()
    assert do(job(Path("out"))) == [("a/0.jpg", None)]
    assert left.read_bytes() == b"half"  # it may be another process' that still writes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recipe": FLIPPED}, "by recipe 'tiny': flip was false, now true"),
        (
            {"recipe": dataclasses.replace(TINY, groups=(dataclasses.replace(
                TINY.groups[0], backbone=Sift(size=96, diameters=(16.0,))),))},
            "backbones.sift.size was 64, now 96",
        ),
        (
            {"recipe": find_recipe("same-position")},
            r'backbones.constant was null, now \{"kind": "constant"\}',
        ),
        ({"runtime": Runtime(dtype=torch.bfloat16)}, 'dtype was "float32", now "bfloat16"'),
    ],
)  # fmt: skip
def test_descriptors_made_in_another_way_are_refused_before_any_work(
    photos: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    do(job(Path("out")))
    Path("out", "a", "0.jpg.safetensors").unlink()
    before = files_in(Path("out"))
    monkeypatch.setattr("sdcorr.extraction.Pipeline", lambda *_: pytest.fail("loaded a model"))
    with pytest.raises(
        BadRun, match=f"was made in another way, .*{told}; choose another --out, or delete it"
    ):
        do(job(Path("out"), **changes))
    assert files_in(Path("out")) == before


def test_another_category_and_other_weights_are_refused(
    photos: Path, dinov2_folder: Path, sd_folder: Path
) -> None:
    recipe = shrink(find_recipe("sd-dino")).with_models(
        {"dinov2": str(dinov2_folder), "stable_diffusion": str(sd_folder)}
    )
    few = {"recipe": recipe, "places": (Path("photos/a/0.jpg"),)}
    first = dataclasses.replace(job(Path("out"), category="cat"), **few)
    assert do(first) == [("0.jpg", None)]
    assert read_features("out/0.jpg.safetensors").category == "cat"
    for category, now in (("dog", '"dog"'), (None, "null")):
        with pytest.raises(BadRun, match=f'category was "cat", now {now}'):
            do(dataclasses.replace(first, category=category))
    change(
        Path("out/0.jpg.safetensors"),
        lambda about, maps: about["revisions"].update({str(sd_folder): "folder-0"}),
    )
    with pytest.raises(BadRun, match=r'revisions\..* was "folder-0", now "folder-'):
        do(first)


def test_another_matcher_name_or_word_changes_no_descriptors(photos: Path) -> None:
    do(job(Path("out")))
    other = dataclasses.replace(
        TINY, name="other", matcher=Nearest(mutual=True), about="words", paper="mine"
    )
    assert do(job(Path("out"), other)) == []


def test_another_photo_of_the_same_name_is_refused(photos: Path) -> None:
    do(job(Path("out")))
    draw_photo(photos / "a" / "0.jpg", 96, 60, 77)
    told = (
        r"out/a/0\.jpg\.safetensors was made of 'a/0\.jpg' \(\d+ bytes\), not of photos/a/0\.jpg as"
    )
    with pytest.raises(BadRun, match=told):
        do(job(Path("out")))
    Path("out/a/0.jpg.safetensors").unlink()
    assert do(job(Path("out"))) == [("a/0.jpg", None)]
    (photos / "a" / "0.jpg").write_bytes((photos / "a" / "2.jpg").read_bytes())
    os.replace("out/a/2.jpg.safetensors", "out/a/0.jpg.safetensors")  # it tells another name
    with pytest.raises(BadRun, match=r"was made of 'a/2\.jpg' \((\d+) .* is now \(\1 bytes\)"):
        do(job(Path("out")))


def test_a_photo_that_went_keeps_its_descriptors(photos: Path) -> None:
    Path("list.txt").write_text("photos/a/0.jpg\nphotos/b/1.jpg\n")
    one = dataclasses.replace(job(Path("out")), places=(Path("list.txt"),))
    do(one)
    (photos / "a" / "0.jpg").unlink()
    assert plan(one, ALONE).before == 2


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: save_file({"x": torch.ones(1)}, path), "holds no descriptors of sdcorr"),
        (lambda path: change(path, lambda about, _: about.update(schema="z")), "written as 'z'"),
        (lambda path: change(path, lambda about, _: about.update(recipe={})), "does not tell how"),
        (lambda path: change(path, lambda about, _: about.update(runtime={})), "does not tell how"),
        (
            lambda path: change(path, lambda about, _: about["recipe"].update(groups=7)),
            "does not tell how",
        ),
        (lambda path: (path.unlink(), path.mkdir()), "is no file; expected descriptors"),
    ],
)
def test_files_of_others_are_never_replaced(photos: Path, spoil: Any, told: str) -> None:
    do(job(Path("out")))
    path = Path("out", "b", "3.jpg.safetensors")
    spoil(path)
    with pytest.raises(BadRun, match=rf"b/3\.jpg\.safetensors .*{told}.*; choose another --out"):
        do(job(Path("out")))


def test_a_folder_that_cannot_be_made_is_told_before_the_work(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcorr.extraction.Pipeline", lambda *_: pytest.fail("loaded a model"))
    Path("file").write_text("x")
    for out in ("file", "file/out"):
        with pytest.raises(BadOutput, match=f"cannot make the folder {out}: "):
            do(job(Path(out)))


def test_a_full_disk_is_told_and_costs_no_file(photos: Path) -> None:
    draw_photo(photos / "b" / "4.jpg", 64, 64, 1)  # square: its file is larger than the others
    code = (
        "import resource, sys, torch; from pathlib import Path; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
        "from tests.test_features import do, job; do(job(Path('out')))"
    )
    do(job(Path("whole")))
    whole = files_in(Path("whole"))
    limit = len(whole["b/4.jpg.safetensors"]) - 1
    assert limit > len(whole["b/3.jpg.safetensors"])
    full = subprocess.run(
        [sys.executable, "-c", code, str(limit)], capture_output=True, text=True,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    last = full.stderr.splitlines()[-1]
    assert "BadOutput: cannot write out/b/4.jpg.safetensors: File too large" in last
    del whole["b/4.jpg.safetensors"]
    assert files_in(Path("out")).items() <= whole.items()
    assert len(files_in(Path("out"))) >= 4
    assert not list(Path("out").rglob(".sdcorr-*"))
    do(job(Path("out")))
    assert files_in(Path("out")) == files_in(Path("whole"))


def test_a_killed_process_leaves_no_half_file(photos: Path) -> None:
    for index in range(30):
        draw_photo(photos / "more" / f"{index}.jpg", 80, 60, index)
    do(job(Path("whole")))
    code = "from pathlib import Path; from tests.test_features import do, job; do(job(Path('out')))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}) as process:
        deadline = time.monotonic() + 60
        while len(list(Path("out").rglob("*.safetensors"))) < 11:
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.kill()
    left = files_in(Path("out"))
    assert left.items() <= files_in(Path("whole")).items()
    assert len(do(job(Path("out")))) == 36 - len(left) > 0
    assert files_in(Path("out")) == files_in(Path("whole"))


def test_an_interrupted_command_says_how_to_go_on(
    photos: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sdcorr.cli._watch.PhotoWatch.__call__", stop)
    done = run("extract", "photos", "--recipe", "sift", "--out", "out")
    assert done.status == 130
    assert "interrupted; the same command goes on" in done.err
    assert 1 <= len(files_in(Path("out"))) < 6


# Several processes


def in_two_processes(work: Callable[[World], Any]) -> list[Any]:
    """What each of two processes makes, or its error; threads stand in for processes."""
    store = torch.distributed.HashStore()
    found: list[Any] = [None, None]

    def one(rank: int) -> None:
        world = World(rank, 2, rank, store)
        try:
            with world.named():
                found[rank] = work(world)
        except Exception as error:  # the test looks at it
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return found


def test_two_processes_write_the_files_of_one(photos: Path) -> None:
    do(job(Path("whole")))
    Path("out", "a").mkdir(parents=True)
    Path("out/a/2.jpg.safetensors").write_bytes(Path("whole/a/2.jpg.safetensors").read_bytes())
    first, second = in_two_processes(lambda world: plan(job(Path("out")), world))
    assert first == Part(Path("photos"), ("a/0.jpg", "a/4.jpg"), before=1)
    assert second == Part(Path("photos"), ("b/1.jpg", "b/3.jpg", "b/5.jpg"), before=1)
    in_two_processes(lambda world: list(extract(job(Path("out")), (first, second)[world.rank])))
    assert files_in(Path("out")) == files_in(Path("whole"))


def test_a_process_that_comes_late_learns_that_nothing_is_left(photos: Path) -> None:
    do(job(Path("out")))

    def work(world: World) -> Part:
        time.sleep(world.rank)
        return plan(job(Path("out")), world)

    nothing = Part(Path("photos"), (), before=6)
    assert in_two_processes(work) == [nothing, nothing]


def test_processes_that_were_told_different_things_refuse(photos: Path) -> None:
    def work(world: World) -> Part:
        return plan(job(Path("out"), (TINY, FLIPPED)[world.rank]), world)

    first, second = in_two_processes(work)
    assert isinstance(first, BadLaunch)
    assert isinstance(second, BadRun)
    assert str(second) == (
        "process 1 of 2: the processes were told different things: flip was false, now true"
    )
    assert files_in(Path("out")) == {}


def test_two_launches_at_once_do_no_harm(photos: Path) -> None:
    do(job(Path("whole")))
    part = Part(Path("photos"), plan(job(Path("out")), ALONE).names, 0)
    in_two_processes(lambda _: list(extract(job(Path("out")), part)))
    assert files_in(Path("out")) == files_in(Path("whole"))
    assert not list(Path("out").rglob(".sdcorr-*"))


def test_processes_of_a_launcher(photos: Path) -> None:
    for index in (1, 3, 5):  # all of one process: its end must not end the other
        (photos / "b" / f"{index}.jpg").write_text("x")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m",
        "sdcorr", "extract", "photos", "--recipe", "same-position", "--device", "cpu", "--out",
        "out", "--processes", "2",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {
        "process 0 of 2: wrote 3 files to out (0 were there before, 0 skipped)",
        "to open one in Python: sdcorr.read_features('out/a/4.jpg.safetensors')",
        "process 1 of 2: wrote 0 files to out (3 skipped)",
    }
    assert "process 1 of 2: skipped b/5.jpg: photos/b/5.jpg is no photo" in done.stderr
    assert len(files_in(Path("out"))) == 3


# What the command line refuses, and how it tells how far it is


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Missing argument 'PHOTOS...'"),
        (("photos",), "Missing option '--out'"),
        (("nope", "--out", "out"), "nope does not exist; expected a folder"),
        (("photos/*.bmp", "--out", "out"), "photos/*.bmp matches no photo"),
        (("photos", "--out", "out", "--root", "photos/a"), "lies outside the root"),
        (("photos", "--out", "out", "--category", "cat"), "has no prompt that names a category"),
        (("photos", "--out", "out", "--recipe", "sfit"), "did you mean 'sift'?"),
        (("photos", "--out", "out", "--device", "tpu"), "no device 'tpu' here"),
        (("photos", "--out", "out", "--processes", "3"), "expected 3 processes, got 1"),
        (("photos", "--out", "out", "--recipe", "dinov2-b"), "are not on this machine"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    photos: Path, run: Command, monkeypatch: pytest.MonkeyPatch, arguments: Any, told: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(photos / "hub"))
    recipe = () if "--recipe" in arguments else ("--recipe", "sift")
    done = run("extract", *arguments, *recipe)
    assert done.status == 2
    assert told in done.err
    assert not Path("out").exists()


def test_a_watch_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(_watch.time, "monotonic", lambda: now[0])
    with PhotoWatch(World(1, 4), 1000) as watch:
        watch(1, 0)  # from here on the rate is counted: the model is loaded
        now[0] += 20
        watch(40, 1)
        assert capsys.readouterr().err == ""
        now[0] += 20
        watch(79, 2)
        watch(80, 2)
    assert capsys.readouterr().err == (
        "process 1 of 4: 81 of 1000 photos; 2 skipped, 0:07:40 left, 2/s\n"
    )


def test_a_line_of_a_watch_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with PhotoWatch(World(), 2) as watch:
        watch.say("skipped a\nb\x1b[31m.jpg: why\n\n so")
    assert capsys.readouterr().err == "skipped a b\\x1b[31m.jpg: why so\n"
