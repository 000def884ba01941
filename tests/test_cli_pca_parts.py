"""``sdcorr pca`` and ``sdcorr parts``."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import sdcorr.recipes
from sdcorr import segmentation
from sdcorr.backbones.sift import Sift
from tests.conftest import ROOT, Command
from tests.tiny import shrink

SIFT = ("--recipe", "sift")
BOTH = ("pca", "parts")


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray, other_photo: np.ndarray
) -> Path:
    """The working folder: two photos, 157 x 104 and 100 x 136; dense SIFT as they are."""
    PIL.Image.fromarray(photo).resize((157, 104)).save(tmp_path / "a.jpg")
    PIL.Image.fromarray(other_photo).resize((100, 136)).save(tmp_path / "b.png")
    monkeypatch.chdir(tmp_path)
    (group,) = sdcorr.recipes.RECIPES["sift"].groups
    group = dataclasses.replace(group, backbone=Sift(size=157))
    recipe = dataclasses.replace(sdcorr.recipes.RECIPES["sift"], groups=(group,))
    monkeypatch.setitem(sdcorr.recipes.RECIPES, "sift", recipe)
    return tmp_path


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expensive work must not begin."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        pytest.fail("loaded a model before looking at what the user gave")

    monkeypatch.setattr("sdcorr.recipes.load", fail)


def size_of(path: str) -> tuple[int, int]:
    with PIL.Image.open(path) as picture:
        return picture.size


# What is written and printed


def test_pca_writes_a_picture_and_tells_how_much_it_shows(run: Command) -> None:
    done = run("pca", "a.jpg", "b.png", *SIFT)
    assert (done.status, done.err) == (0, "")
    told, wrote = done.out.splitlines()
    shares = [float(number) for number in re.findall(r"([\d.]+) %", told)]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100
    assert wrote == "wrote pca-a-b.png"
    width, height = size_of("pca-a-b.png")
    assert width == pytest.approx(height * (157 / 104 + 100 / 136) / 2, rel=0.02)


def test_whole_photos_have_colours_everywhere(run: Command) -> None:
    dark = {}
    for name, options in (("part.png", ()), ("whole.png", ("--whole",))):
        assert run("pca", "a.jpg", *SIFT, "--out", name, *options).status == 0
        pixels = np.asarray(PIL.Image.open(name).convert("RGB"))
        below = pixels[len(pixels) // 2 + 10 :]
        dark[name] = (below == 26).all(axis=2).mean()
    assert dark["part.png"] > 0.2
    assert dark["whole.png"] == 0


def test_parts_prints_a_row_for_each_photo(run: Command) -> None:
    done = run("parts", "a.jpg", "b.png", *SIFT, "-k", "3")
    assert (done.status, done.err) == (0, "")
    header, *rows, wrote = done.out.splitlines()
    assert header.split() == ["part", "1", "part", "2", "part", "3"]
    assert [row.split()[0] for row in rows] == ["a.jpg", "b.png"]
    for row in rows:
        shares = [float(number) for number in re.findall(r"([\d.]+) %", row)]
        assert len(shares) == 3
        assert sum(shares) == pytest.approx(100, abs=0.2)
    assert wrote == "wrote parts-a-b.png"
    assert size_of("parts-a-b.png")[0] > 400


def test_labels_are_the_parts_at_each_pixel(run: Command) -> None:
    done = run("parts", "a.jpg", "b.png", *SIFT, "-k", "5", "--whole", "--labels", "masks")
    assert done.out.splitlines()[-3:] == [
        f"wrote {Path('masks', 'a.png')}",
        f"wrote {Path('masks', 'b.png')}",
        "wrote parts-a-b.png",
    ]
    for row, name, size in zip(
        done.out.splitlines()[1:3], ("a", "b"), ((157, 104), (100, 136)), strict=True
    ):
        with PIL.Image.open(f"masks/{name}.png") as labels:
            assert (labels.mode, labels.size, labels.format) == ("L", size, "PNG")
            values = np.asarray(labels)
        assert set(np.unique(values)) <= set(range(1, 6))  # all is foreground
        shares = [float(number) for number in re.findall(r"([\d.]+) %", row)]
        area = [100 * (values == part).mean() for part in range(1, 6)]
        assert shares == pytest.approx(area, abs=3)  # cells at the edges are cut
    assert not list(Path("masks").glob(".sdcorr*"))


def test_background_is_0_in_labels_and_the_foreground_of_both_commands_is_one(run: Command) -> None:
    run("parts", "a.jpg", *SIFT, "--labels", ".", "--out", "p.png")
    run("pca", "a.jpg", *SIFT, "--out", "c.png")
    labels = np.asarray(PIL.Image.open("a.png"))
    assert 0 < (labels == 0).mean() < 1
    pixels = np.asarray(PIL.Image.open("c.png").convert("RGB"))
    below = pixels[len(pixels) // 2 :]
    assert (below == 26).all(axis=2).mean() == pytest.approx((labels == 0).mean(), abs=0.03)


def test_the_same_seed_gives_the_same_parts(run: Command) -> None:
    tables = set()
    for folder in ("one", "two"):
        done = run("parts", "a.jpg", "b.png", *SIFT, "--seed", "7", "--labels", folder)
        tables.add("\n".join(done.out.splitlines()[:3]))
    assert len(tables) == 1
    for name in ("a.png", "b.png"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_one_part_is_the_foreground(run: Command) -> None:
    assert run("parts", "a.jpg", *SIFT, "-k", "1", "--labels", "one").status == 0
    assert run("parts", "a.jpg", *SIFT, "-k", "3", "--labels", "three").status == 0
    one, three = (np.asarray(PIL.Image.open(f"{name}/a.png")) for name in ("one", "three"))
    assert ((one == 1) == (three > 0)).all()


@pytest.mark.parametrize("command", BOTH)
def test_pictures_have_the_names_and_kinds_asked_for(command: str, run: Command) -> None:
    for name in ("out.jpg", "out.svg", "out.pdf", "out.webp"):
        assert run(command, "a.jpg", *SIFT, "--out", name).out.splitlines()[-1] == f"wrote {name}"
        assert Path(name).stat().st_size > 0
    Path("c.png").write_bytes(Path("b.png").read_bytes())
    done = run(command, "a.jpg", "b.png", "c.png", *SIFT)
    assert done.out.splitlines()[-1] == f"wrote {command}-a-b-and-1-more.png"


@pytest.mark.parametrize("command", BOTH)
def test_a_photo_may_be_given_twice(command: str, run: Command) -> None:
    assert run(command, "a.jpg", "a.jpg", *SIFT).status == 0


@pytest.mark.parametrize("command", BOTH)
def test_a_file_of_a_recipe_with_flip_is_read_for_its_maps(command: str, run: Command) -> None:
    recipe = json.loads(run("recipes", "show", "sift", "--json").out)
    Path("flipped.json").write_text(json.dumps(recipe | {"name": "flipped", "flip": True}))
    first = run(command, "a.jpg", "b.png", *SIFT, "--out", "one.png")
    second = run(command, "a.jpg", "b.png", "--recipe", "./flipped.json", "--out", "two.png")
    assert second.status == 0
    assert first.out.splitlines()[:-1] == second.out.splitlines()[:-1]
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


@pytest.mark.parametrize("command", BOTH)
def test_nothing_is_encoded_mirrored(
    command: str, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = json.loads(run("recipes", "show", "sift", "--json").out)
    Path("flipped.json").write_text(json.dumps(recipe | {"name": "flipped", "flip": True}))
    mirrored: list[object] = []
    monkeypatch.setattr("sdcorr.pipeline._mirror", mirrored.append)
    assert run(command, "a.jpg", "--recipe", "./flipped.json").status == 0
    assert not mirrored


def test_the_seed_is_handed_on(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(maps: Any, foreground: Any, count: int, seed: int) -> Any:
        asked.append((count, seed))
        return find(maps, foreground, count, seed)

    find = segmentation.parts
    monkeypatch.setattr(segmentation, "parts", note)
    run("parts", "a.jpg", *SIFT, "--parts", "3", "--seed", "11")
    run("parts", "a.jpg", *SIFT)
    assert asked == [(3, 11), (4, 0)]


@pytest.mark.parametrize("command", BOTH)
def test_the_cache_is_used(command: str, run: Command) -> None:
    first = run(command, "a.jpg", *SIFT, "--cache-dir", "kept")
    assert first.status == 0
    assert any(path.is_file() for path in Path("kept").rglob("*"))
    assert run(command, "a.jpg", *SIFT, "--cache-dir", "kept").out == first.out


@pytest.mark.parametrize("command", BOTH)
def test_a_model_with_weights(
    command: str, run: Command, monkeypatch: pytest.MonkeyPatch, dinov2_folder: Path
) -> None:
    recipes = {name: shrink(recipe) for name, recipe in sdcorr.recipes.RECIPES.items()}
    monkeypatch.setattr("sdcorr.recipes.RECIPES", recipes)
    done = run(
        command, "a.jpg", "b.png", "--recipe", "dinov2-b", "--model", f"dinov2={dinov2_folder}"
    )
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_tiny_and_thin_photos(size: tuple[int, int], run: Command) -> None:
    """A lone one has nothing that stands out; beside another it is drawn."""
    PIL.Image.new("RGB", size, (200, 30, 30)).save("thin.png")
    assert "nothing stands out" in run("pca", "thin.png", *SIFT).error
    assert run("pca", "thin.png", *SIFT, "--whole").status == 0
    assert run("pca", "thin.png", "a.jpg", *SIFT, "--whole").status == 0
    done = run("parts", "thin.png", "a.jpg", *SIFT, "--whole", "--labels", "masks")
    assert done.status == 0
    assert size_of("masks/thin.png") == size


def test_a_photo_without_foreground_has_no_shares(run: Command) -> None:
    PIL.Image.new("RGB", (100, 100), (90, 90, 90)).save("flat.png")
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    pixels = np.full((100, 100, 3), 90, np.uint8)
    pixels[30:70, 30:70] = noise[30:70, 30:70]
    PIL.Image.fromarray(pixels).save("spot.png")
    done = run("parts", "spot.png", "flat.png", *SIFT, "-k", "2")
    assert done.status == 0
    spot, flat = done.out.splitlines()[1:3]
    assert "%" in spot
    assert flat.split() == ["flat.png", "none", "none"]


# What is wrong is told before the model loads


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no photo": ((), "Missing argument 'PHOTOS...'"),
    "missing": (("a.jpg", "c.jpg", *SIFT), "no such file: c.jpg"),
    "no photo at all": (("a.jpg", "notes.jpg", *SIFT), "notes.jpg is no photo that can be read"),
    "too many": (("a.jpg",) * 101 + SIFT, "expected at most 100 photos at once, got 101"),
    "flip": (("a.jpg", *SIFT, "--flip"), "No such option '--flip'"),
    "ending": (("a.jpg", *SIFT, "--out", "x.txt"), "expected a name that ends in .png"),
    "no folder": (("a.jpg", *SIFT, "--out", "no/x.png"), "there is no folder no"),
    "a folder": (("a.jpg", *SIFT, "--out", "sub.png"), "it is a folder"),
    "input": (("a.jpg", "b.png", *SIFT, "--out", "b.png"), "one of the files to be read"),
    "category": (("a.jpg", *SIFT, "--category", "cat"), "leave --category out"),
    "recipe": (("a.jpg", "--recipe", "sfit"), "did you mean 'sift'"),
}
WRONG_PARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "no parts": (("a.jpg", *SIFT, "-k", "0"), "0 is not in the range 1<=x<=255"),
    "a million": (("a.jpg", *SIFT, "-k", "1000000"), "1000000 is not in the range 1<=x<=255"),
    "seed": (("a.jpg", *SIFT, "--seed", "-1"), "-1 is not in the range x>=0"),
    "one name": (
        ("a.jpg", "x/a.png", *SIFT, "--labels", "m"),
        "a.jpg and x/a.png would both be m/a.png",
    ),
    "twice": (("a.jpg", "a.jpg", *SIFT, "--labels", "m"), "would both be m/a.png"),
    "over a photo": (("a.jpg", "b.png", *SIFT, "--labels", "."), "one of the files to be read"),
    "a file": (("a.jpg", *SIFT, "--labels", "b.png"), "--labels: b.png is a file; give a folder"),
    "no parent": (("a.jpg", *SIFT, "--labels", "no/m"), "cannot write no/m: there is no folder no"),
    "over the picture": (
        ("a.jpg", *SIFT, "--labels", "m", "--out", "m/a.png"),
        "--out and --labels name one file, m/a.png",
    ),
}


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("command", "case"),
    [(command, case) for command in BOTH for case in WRONG]
    + [("parts", one) for one in WRONG_PARTS],
)
def test_mistakes_are_told_first_and_nothing_is_written(
    command: str, case: str, run: Command, folder: Path
) -> None:
    Path("notes.jpg").write_text("hello")
    for name in ("sub.png", "x", "m"):
        Path(name).mkdir()
    Path("x/a.png").write_bytes(Path("b.png").read_bytes())
    before = sorted(folder.rglob("*"))
    arguments, message = (WRONG if case in WRONG else WRONG_PARTS)[case]
    done = run(command, *arguments)
    assert done.status == 2
    assert message in done.err
    assert (
        len([line for line in done.err.splitlines() if line.startswith(("sdcorr:", "Error:"))]) == 1
    )
    assert sorted(folder.rglob("*")) == before


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize("command", BOTH)
def test_the_recipes_file_is_not_overwritten(command: str, run: Command) -> None:
    Path("mine.json").write_text(run("recipes", "show", "sift", "--json").out)
    Path("mine.png").symlink_to("mine.json")
    done = run(command, "a.jpg", "--recipe", "./mine.json", "--out", "mine.png")
    assert "one of the files to be read" in done.error


@pytest.mark.parametrize("command", BOTH)
def test_what_stands_out_nowhere_is_told(command: str, run: Command) -> None:
    PIL.Image.new("RGB", (120, 80), (200, 30, 30)).save("flat.png")
    for arguments in (("flat.png", *SIFT), ("a.jpg", "b.png", "--recipe", "same-position")):
        done = run(command, *arguments)
        assert done.status == 2
        assert "nothing stands out" in done.error
        assert not list(Path().glob(f"{command}-*"))


def test_more_parts_than_cells_that_differ_are_refused(run: Command) -> None:
    PIL.Image.new("RGB", (120, 80), (200, 30, 30)).save("flat.png")
    done = run("parts", "flat.png", *SIFT, "--whole")
    assert done.status == 2
    assert done.error.startswith("sdcorr: expected 1 to 1 parts")
    assert not list(Path().glob("parts-*"))


def test_loading_the_commands_is_quick() -> None:
    """No command imports torch or matplotlib before it runs."""
    code = (
        "import sys, sdcorr.cli.pca, sdcorr.cli.parts;"
        "print([name for name in ('torch', 'matplotlib', 'scipy', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
