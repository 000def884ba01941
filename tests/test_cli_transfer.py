"""``sdcorr transfer`` as it is typed."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from sdcorr import recipes
from sdcorr.cli.transfer import _Watch
from sdcorr.recipes import find_recipe
from tests.annotated import draw_photo
from tests.conftest import ROOT, Command
from tests.test_labelling import (
    NAMES,
    RECIPE,
    listed,
    names_of,
    read,
    write_references,
)
from tests.tiny import shrink

SMALL = ("--recipe", "recipe.json")
BASE = ("transfer", "cats.json", "photos", *SMALL, "--out", "labels.json")
STARTED = [
    "5 keypoints of cat from 2 references",
    "no reference shows paw: not transferred",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two references and four photos, two of them in a folder below the others."""
    home = tmp_path_factory.mktemp("source")
    for index, name in enumerate(("a.png", "b.png", "deep/c.png", "deep/d.png")):
        draw_photo(home / "photos" / name, *((60, 80) if index == 1 else (80, 60)), seed=index)
    for index in range(2):
        draw_photo(home / f"cat{index}.png", 80, 60, seed=100 + index)
    write_references(home / "cats.json")
    (home / "recipe.json").write_text(json.dumps(RECIPE.describe()))
    return home


@pytest.fixture(autouse=True)
def folder(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(source, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def change(path: str, edit: Any) -> None:
    content = json.loads(Path(path).read_text())
    edit(content)
    Path(path).write_text(json.dumps(content))


# What is said and written


def test_transfer_says_what_it_does_and_writes_the_files(run: Command) -> None:
    done = run(*BASE, "--csv", "labels.csv", "--review", "labels.html")
    assert done.status == 0
    first, *rest = done.err.splitlines()
    assert first.startswith("1 process, ")
    assert "(cpu), float32, " in first
    assert rest == STARTED
    assert done.out.splitlines() == [
        "wrote labels.json", "wrote labels.csv", "wrote labels.html", "labelled 4 of 4 photos",
    ]  # fmt: skip
    assert names_of() == ["a.png", "b.png", "deep/c.png", "deep/d.png"]
    assert len(Path("labels.csv").read_text().splitlines()) == 1 + 4 * len(NAMES)
    assert Path("labels.html").read_text().count("<figure>") == 4
    assert "labels.json.parts" not in listed()


def test_the_same_command_again_says_so_and_loads_no_model(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(*BASE)
    before = Path("labels.json").read_bytes()
    monkeypatch.setattr("sdcorr.labelling.Pipeline", lambda *_: pytest.fail("loaded a model"))
    done = run(*BASE)
    assert (done.status, done.out) == (0, first.out)
    assert done.err.splitlines()[1:] == [*STARTED, "4 photos were labelled before"]
    assert Path("labels.json").read_bytes() == before


def test_photos_can_be_added(run: Command) -> None:
    Path("photos", "deep").rename("kept")
    run(*BASE)
    Path("kept").rename(Path("photos", "deep"))
    done = run(*BASE)
    assert "2 photos were labelled before" in done.err
    assert "labelled 4 of 4 photos" in done.out
    assert names_of() == ["a.png", "b.png", "deep/c.png", "deep/d.png"]


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["photos"], ["a.png", "b.png", "deep/c.png", "deep/d.png"]),
        (["photos/"], ["a.png", "b.png", "deep/c.png", "deep/d.png"]),
        (["photos/a.png"], ["a.png"]),
        (["photos/a.png", "photos/deep"], ["a.png", "deep/c.png", "deep/d.png"]),
        (["photos/deep", "cat0.png"], ["cat0.png", "photos/deep/c.png", "photos/deep/d.png"]),
        (["photos/*.png"], ["a.png", "b.png"]),
        (["photos/**/*.png"], ["a.png", "b.png", "deep/c.png", "deep/d.png"]),
        (["list.txt"], ["b.png", "deep/d.png"]),
        (["photos", "--root", "."], ["photos/a.png", "photos/b.png", "photos/deep/c.png",
                                     "photos/deep/d.png"]),
        (["photos/deep/*.png", "--root", "photos"], ["deep/c.png", "deep/d.png"]),
    ],
)  # fmt: skip
def test_names_are_below_the_root(run: Command, places: list[str], names: list[str]) -> None:
    Path("list.txt").write_text("photos/deep/d.png\n\nphotos/b.png\n")
    done = run("transfer", "cats.json", *places, *SMALL, "--out", "labels.json")
    assert done.status == 0, done.err
    assert names_of() == names


def test_labels_are_the_next_references(run: Command) -> None:
    run(*BASE)
    draw_photo(Path("more", "x.png"), 60, 80, seed=9)
    first = ("transfer", "labels.json", "more", *SMALL, "--out", "more.json")
    done = run(*first)
    assert done.status == 2
    assert done.error == (
        "sdcorr: labels.json: there is no photo a.png (and 3 more); file_name is relative to ., "
        "--images names another folder"
    )
    done = run(*first, "--images", "photos")
    assert done.status == 0, done.err
    assert "5 keypoints of cat from 4 references" in done.err
    assert names_of("more.json") == ["x.png"]
    assert read("more.json")["categories"] == read()["categories"]


def test_one_photo_and_one_reference_are_called_so(run: Command) -> None:
    change("cats.json", lambda content: content["annotations"].pop())
    done = run("transfer", "cats.json", "photos/a.png", *SMALL, "--out", "labels.json")
    assert "5 keypoints of cat from 1 reference\n" in done.err


def test_of_a_recipe_without_calibration_that_is_said(run: Command) -> None:
    bare = dataclasses.replace(RECIPE, name="bare", calibration=None)
    Path("bare.json").write_text(json.dumps(bare.describe()))
    arguments = ("transfer", "cats.json", "photos/a.png", "--recipe", "bare.json")
    done = run(*arguments, "--out", "labels.json")
    assert done.out.splitlines()[-1] == (
        "labelled 1 of 1 photos; without confidence: recipe bare is not calibrated"
    )
    before = contents()
    done = run(*arguments, "--out", "other.json", "--min-confidence", "0.5")
    assert done.status == 2
    assert "these matches have no confidence to be compared with" in done.err
    assert contents() == before


def test_left_and_right_are_exchanged_only_with_flip_which_is_said(run: Command) -> None:
    pair = [["left ear", "right ear"]]
    change("cats.json", lambda content: content["categories"][0].update(symmetric=pair))
    advice = "left and right are not exchanged on mirrored photos: add --flip"
    arguments = ("transfer", "cats.json", "photos/a.png", *SMALL)
    assert advice in run(*arguments, "--out", "labels.json").err
    assert read()["categories"][0]["symmetric"] == pair
    done = run(*arguments, "--out", "flipped.json", "--flip")
    assert done.status == 0
    assert advice not in done.err
    assert read("flipped.json")["info"]["sdcorr"]["recipe"]["name"] == "small+flip"


def test_a_category_of_several_is_chosen(run: Command) -> None:
    def add(content: Any) -> None:
        content["categories"].append({"id": 8, "name": "dog", "keypoints": ["snout"]})
        content["annotations"].append(
            {"id": 9, "image_id": 0, "category_id": 8, "keypoints": [40, 30, 2]}
        )

    change("cats.json", add)
    done = run(*BASE)
    assert done.status == 2
    assert "annotates several categories, cat, dog; choose one with --category" in done.error
    assert run(*BASE, "--category", "dog").status == 0
    assert [one["name"] for one in read()["categories"]] == ["dog"]
    assert {one["category_id"] for one in read()["annotations"]} == {8}
    done = run(*BASE[:-1], "cats-labels.json", "--category", "cta")
    assert "no category called 'cta'; did you mean 'cat'?" in done.error


def test_the_least_confidence_can_be_changed_afterwards(run: Command) -> None:
    run(*BASE)
    every = sum(one["num_keypoints"] for one in read()["annotations"])
    done = run(*BASE, "--min-confidence", "1")
    assert done.status == 0
    assert "4 photos were labelled before" in done.err
    assert every > sum(one["num_keypoints"] for one in read()["annotations"]) == 0


# Photos of all kinds


def upright(path: str) -> PIL.Image.Image:
    return PIL.Image.open(path).convert("RGB")


def test_photos_of_all_formats_and_names_are_labelled(run: Command) -> None:
    photo = upright("cat0.png")
    change("cats.json", lambda content: content["annotations"].pop())
    home = Path("odd")
    (home / "x.jpg").mkdir(parents=True)
    grey = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    PIL.Image.fromarray(grey).save(home / "grey16.png")
    photo.convert("CMYK").save(home / "cmyk.jpg")
    photo.convert("P", palette=PIL.Image.Palette.ADAPTIVE).save(home / "palette.gif")
    photo.convert("RGBA").save(home / "alpha.webp")
    names = (
        "one two.png", "quote'\".png", "br[a]ck?et*.png", "ünï码.png", "new\nline.png",
        "comma,semi;colon.png", "<b>&amp;.png", "UPPER.PNG", "x.jpg/inside.png",
    )  # fmt: skip
    for name in names:
        shutil.copy("cat0.png", home / name)
    shutil.copy("cat0.png", os.fsencode(home) + b"/raw\xff.png")
    (home / "link.png").symlink_to("one two.png")
    (home / "folder.png").symlink_to("x.jpg")  # a link to a folder
    PIL.Image.new("RGB", (1, 1)).save(home / "pixel.png")
    done = run(
        "transfer", "cats.json", "odd", *SMALL, "--out", "labels.json", "--csv", "labels.csv",
        "--review", "labels.html",
    )  # fmt: skip
    assert done.status == 0
    assert "skipped" not in done.err
    others = ["grey16.png", "cmyk.jpg", "palette.gif", "alpha.webp", "link.png", "pixel.png"]
    assert names_of() == sorted([*names, *others, "raw\udcff.png"])
    points = {
        image["file_name"]: one["keypoint_predictions"]
        for image, one in zip(read()["images"], read()["annotations"], strict=True)
    }
    assert all(abs(number) <= 0.5 for number in points.pop("pixel.png")[0])
    # the reference itself
    assert points["one two.png"][0] == pytest.approx([20, 15], abs=5)  # half a cell
    for place in points.values():
        for one, other in zip(place[:4], points["one two.png"], strict=False):
            assert one == pytest.approx(other, abs=3)
    rows = Path("labels.csv").read_bytes()
    assert b"\nraw\xff.png,nose," in rows
    assert b'\n"new\nline.png",nose,' in rows
    assert "<b>&lt;b&gt;&amp;amp;.png</b>" in Path("labels.html").read_text()
    kept = Path("labels.json").read_bytes()
    again = run("transfer", "cats.json", "odd", *SMALL, "--out", "labels.json")
    assert f"{len(points) + 1} photos were labelled before" in again.err
    assert Path("labels.json").read_bytes() == kept


@pytest.mark.parametrize("turn", range(2, 9))
def test_places_and_sizes_are_those_after_rotation_by_exif(run: Command, turn: int) -> None:
    from sdcorr.preprocess import ORIENTATION, TURNS

    back = {
        PIL.Image.Transpose.ROTATE_90: PIL.Image.Transpose.ROTATE_270,
        PIL.Image.Transpose.ROTATE_270: PIL.Image.Transpose.ROTATE_90,
    }
    photo, exif = upright("photos/a.png"), PIL.Image.Exif()
    exif[ORIENTATION] = turn
    stored = photo.transpose(back.get(TURNS[turn], TURNS[turn]))
    Path("turned").mkdir()
    stored.save("turned/a.png", exif=exif)
    run("transfer", "cats.json", "photos/a.png", *SMALL, "--out", "upright.json")
    done = run("transfer", "cats.json", "turned/a.png", *SMALL, "--out", "labels.json")
    assert done.status == 0
    images = (read(name)["images"][0] for name in ("labels.json", "upright.json"))
    one, other = (image | {"bytes": 0} for image in images)  # of the file, not of the photo
    assert one == other
    assert read()["annotations"] == read("upright.json")["annotations"]
    assert (read()["images"][0]["width"], read()["images"][0]["height"]) == (80, 60)
    assert (stored.size == (60, 80)) == (turn >= 5)


def test_a_reference_that_exif_turns_is_annotated_as_it_is_seen(run: Command) -> None:
    from sdcorr.preprocess import ORIENTATION

    run(*BASE)
    kept, exif = read()["annotations"], PIL.Image.Exif()
    exif[ORIENTATION] = 6
    upright("cat0.png").transpose(PIL.Image.Transpose.ROTATE_90).save("cat0.png", exif=exif)
    Path("labels.json").unlink()
    assert run(*BASE).status == 0
    assert read()["annotations"] == kept
    # as a tool would annotate it that does not turn it
    change("cats.json", lambda content: content["images"][0].update(width=60, height=80))
    change("cats.json", lambda content: content["annotations"][0].update(keypoints=[9, 70, 2] * 5))
    Path("labels.json").unlink()
    done = run(*BASE)
    assert done.status == 2
    assert "reference cat0.png is 80 x 60 (wide x high), annotated as 60 x 80" in done.err


def spoil() -> dict[str, str]:
    """Photos that cannot be read among the good ones, and a word of why."""
    whole = Path("photos", "a.png").read_bytes()
    upright("cat0.png").save("whole.jpg")
    half = Path("whole.jpg").read_bytes()
    files = {
        "cut.jpg": (half[: len(half) // 2], "is damaged"),
        "text.jpg": (b"no photo", "is no photo that can be read"),
        "empty.jpg": (b"", "is empty (0 bytes)"),
        "zeros.jpg": (bytes(1000), "is no photo that can be read"),
        "cut.png": (whole[:-200], "is damaged"),
        "bad\nname.jpg": (b"x", "is no photo that can be read"),
    }
    for name, (content, _) in files.items():
        Path("photos", name).write_bytes(content)
    Path("photos", "gone.jpg").symlink_to("nowhere.jpg")
    Path("photos", "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(Path("photos", "pipe.jpg"))
    return {name: why for name, (_, why) in files.items()} | {
        "gone.jpg": "no such file", "loop.jpg": "", "pipe.jpg": "is a pipe or a device",
    }  # fmt: skip


def test_bad_photos_among_good_ones_are_named_and_passed_over(run: Command) -> None:
    bad = spoil()
    done = run(*BASE, "--csv", "labels.csv", "--review", "labels.html")
    assert done.status == 0
    lines = [line for line in done.err.splitlines() if line.startswith("skipped ")]
    assert done.err.splitlines()[1:] == [*STARTED, *lines]
    assert len(lines) == len(bad)
    for name, why in bad.items():
        shown = " ".join(name.split())
        (line,) = [line for line in lines if line.startswith(f"skipped {shown}: ")]
        assert why in line
    assert done.out.splitlines()[-1] == f"labelled 4 of {4 + len(bad)} photos"
    assert names_of() == ["a.png", "b.png", "deep/c.png", "deep/d.png"]
    assert set(read()["info"]["sdcorr"]["skipped"]) == set(bad)


def test_a_photo_on_a_list_that_is_not_there_is_skipped(run: Command) -> None:
    Path("list.txt").write_text("photos/a.png\nphotos/nowhere.png\n")
    done = run("transfer", "cats.json", "list.txt", *SMALL, "--out", "labels.json")
    assert done.status == 0
    assert "skipped nowhere.png: no such file: " in done.err
    assert names_of() == ["a.png"]


def test_where_no_photo_can_be_labelled_that_is_a_mistake(run: Command) -> None:
    Path("bad").mkdir()
    for name in ("x.jpg", "y.jpg"):
        Path("bad", name).write_bytes(b"")
    done = run("transfer", "cats.json", "bad", *SMALL, "--out", "labels.json")
    assert done.status == 2
    assert done.err.splitlines()[-1] == (
        "sdcorr: no photo could be labelled; first x.jpg: bad/x.jpg is empty (0 bytes); expected "
        "a photo"
    )
    assert (read()["images"], read()["annotations"]) == ([], [])
    assert set(read()["info"]["sdcorr"]["skipped"]) == {"x.jpg", "y.jpg"}
    assert "labels.json.parts" not in listed()
    shutil.copy("cat0.png", "bad/x.jpg")
    assert run("transfer", "cats.json", "bad", *SMALL, "--out", "labels.json").status == 0


# Mistakes: status 2, one sentence, no work, no file

OUT = "transfer cats.json photos --recipe recipe.json --out"
BAD = {
    "no references": ("transfer nowhere.json photos --out x.json", "cannot read nowhere.json: No"),
    "a folder of them": ("transfer photos photos --out x.json", "cannot read photos: Is a dir"),
    "text": ("transfer list.txt photos --out x.json", "list.txt: expected COCO keypoints JSON"),
    "a photo": ("transfer cat0.png photos --out x.json", "cat0.png: expected COCO keypoints JSON"),
    "images": (f"{OUT} x.json --images photos", "no photo photos/cat0.png (and 1 more); file_name"),
    "category": (f"{OUT} x.json --category cta", "no category called 'cta'; did you mean 'cat'?"),
    "no photos": ("transfer cats.json nowhere --out x.json", "nowhere does not exist; expected a"),
    "empty folder": ("transfer cats.json empty --out x.json", "empty holds no photo (.bmp, .gif"),
    "glob": ("transfer cats.json photos/*.jpg --out x.json", "photos/*.jpg matches no photo"),
    "empty list": ("transfer cats.json empty.txt --out x.json", "empty.txt lists no photo"),
    "root": (f"{OUT} x.json --root empty", "give a --root above all photos"),
    "out in no folder": (f"{OUT} no/x.json", "there is no folder no; make it first"),
    "out a folder": (f"{OUT} empty", "cannot write empty: it is a folder; give a file name"),
    "out the references": (f"{OUT} cats.json", "cannot write cats.json: it is one of the files"),
    "out a reference": (f"{OUT} ./cat1.png", "cannot write cat1.png: it is one of the files"),
    "out a photo": (f"{OUT} photos/a.png", "photos/a.png"),
    "out the recipe": (f"{OUT} recipe.json", "cannot write recipe.json: it is one of the files"),
    "out too long": (f"{OUT} {'n' * 252}.json", "File name too long"),
    "parts too long": (f"{OUT} {'n' * 246}.json", "File name too long"),
    "out a pipe": (f"{OUT} pipe", "cannot write pipe: it is a pipe"),
    "csv in no folder": (f"{OUT} x.json --csv no/x.csv", "there is no folder no; make it first"),
    "csv a reference": (f"{OUT} x.json --csv cat0.png", "cannot write cat0.png: it is one of the"),
    "review a folder": (f"{OUT} x.json --review empty", "cannot write empty: it is a folder"),
    "least 2": (f"{OUT} x.json --min-confidence 2", "expected a least confidence of 0 to 1, got 2"),
    "least nan": (f"{OUT} x.json --min-confidence nan", "expected a least confidence of 0 to 1"),
    "recipe": ("transfer cats.json photos --out x.json --recipe sif", "did you mean 'sift'?"),
    "weights": (f"{OUT} x.json --model sift=x", "sift loads no weights; leave --model sift"),
    "processes": (f"{OUT} x.json --processes 2", "expected 2 processes, got 1; start them with"),
    "device": (f"{OUT} x.json --device toaster", "no device 'toaster' here"),
    "dtype": (f"{OUT} x.json --dtype float64", "unknown dtype 'float64'"),
    "batch": (f"{OUT} x.json --batch 0", "batch must be at least 1, got 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_gets_one_sentence_and_makes_nothing(
    run: Command, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr("sdcorr.labelling.Annotator", lambda *_: pytest.fail("began to work"))
    Path("empty").mkdir()
    Path("empty.txt").touch()
    Path("list.txt").write_text("photos/a.png\n")
    os.mkfifo("pipe")
    before = contents()
    line, message = BAD[case]
    done = run(*line.split())
    assert (done.status, done.out) == (2, "")
    assert message in done.err.splitlines()[-1]
    assert done.err.splitlines()[-1].startswith("sdcorr: ")
    assert "Traceback" not in done.err
    assert contents() == before


@pytest.mark.parametrize("option", ["--csv", "--review"])
def test_a_photo_to_be_labelled_is_not_written_over(run: Command, option: str) -> None:
    before = contents()
    done = run(*BASE, option, "photos/deep/c.png")
    assert done.status == 2
    assert "cannot write photos/deep/c.png: it is one of the files to be read" in done.err
    assert contents() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("transfer cats.json --out x.json", "Missing argument 'PHOTOS...'"),
        ("transfer cats.json photos", "Missing option '--out'"),
        (f"{OUT} x.json --csv x.json", "--out, --csv and --review must be different files"),
        (f"{OUT} x.json --csv ./x.json", "--out, --csv and --review must be different files"),
        (f"{OUT} x.json --csv y --review photos/../y", "must be different files"),
        (f"{OUT} x.json --min-confidence much", "'much' is not a valid float"),
        (f"{OUT} x.json --processes 0", "0 is not in the range x>=1"),
        (f"{OUT} x.json --cache-limit 1GB", "--cache-limit bounds --cache-dir; give both or none"),
    ],
)
def test_wrong_usage_is_told_by_click(run: Command, line: str, message: str) -> None:
    before = contents()
    done = run(*line.split())
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith("Error: ")
    assert message in done.err
    assert contents() == before


def test_missing_weights_are_told_before_anything_is_made(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    before = contents()
    done = run("transfer", "cats.json", "photos", "--recipe", "dinov2-b", "--out", "labels.json")
    assert done.status == 2
    assert "sdcorr models download dinov2-b" in done.err.splitlines()[-1]
    assert contents() == before
    assert "labels.json.parts" not in listed()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_what_may_not_be_written_is_told_before_any_work(run: Command) -> None:
    Path("closed").mkdir(mode=0o500)
    done = run(*BASE[:-1], "closed/labels.json")
    assert "cannot write closed/labels.json: Permission denied" in done.error
    run(*BASE)
    Path("labels.json").chmod(0o400)
    assert "cannot write labels.json: it is read-only" in run(*BASE).error


def test_a_reference_that_may_not_be_read_is_said(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("hashlib.file_digest", deny)
    done = run(*BASE)
    assert done.status == 2
    assert "cat0.png" in done.error
    assert "Permission denied" in done.error


def test_out_on_a_device_is_refused(run: Command) -> None:
    """It is there already, and reading /dev/full, /dev/zero or a terminal never ends."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + 200_000_000
    resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
    try:
        done = run(*BASE[:-1], "/dev/full")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert done.status == 2
    assert "/dev/full" in done.err.splitlines()[-1]


def test_a_table_on_a_full_disk_costs_no_labels(run: Command) -> None:
    done = run(*BASE, "--csv", "/dev/full")
    assert done.status == 2
    assert done.err.splitlines()[-1] == ("sdcorr: cannot write /dev/full: No space left on device")
    done = run(*BASE, "--csv", "labels.csv")
    assert done.status == 0
    assert "4 photos were labelled before" in done.err
    assert "labels.json.parts" not in listed()


def test_a_file_of_any_name_can_be_written(run: Command) -> None:
    for name in ("ünï码.json", "new\nline.json", "b l a n k", os.fsdecode(b"raw\xff.json")):
        done = run(*BASE[:-1], name)
        assert done.status == 0, done.err
        assert names_of(name) == ["a.png", "b.png", "deep/c.png", "deep/d.png"]
        assert f"{name}.parts" not in listed()


def test_labels_that_are_a_link_stay_one(run: Command, folder: Path) -> None:
    Path("elsewhere").mkdir()
    Path("labels.json").symlink_to("elsewhere/labels.json")
    assert run(*BASE).status == 0
    assert Path("labels.json").is_symlink()
    assert names_of("elsewhere/labels.json") == ["a.png", "b.png", "deep/c.png", "deep/d.png"]
    assert os.listdir("elsewhere") == ["labels.json"]


# Stopped from outside


def test_an_interrupted_run_says_how_it_goes_on(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = _Watch.__call__

    def interrupt(self: _Watch, progress: Any) -> None:
        watch(self, progress)
        if progress.done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_Watch, "__call__", interrupt)
        done = run(*BASE)
    assert (done.status, done.out) == (130, "")
    assert done.err.splitlines()[1:] == [*STARTED, "interrupted; the same command resumes", ""]
    assert "labels.json" not in listed()
    done = run(*BASE)
    assert done.status == 0
    assert "2 photos were labelled before" in done.err


def test_a_launch_of_torchrun_whose_process_dies_is_finished_by_the_next(
    folder: Path, run: Command
) -> None:
    for index in range(40):
        draw_photo(Path("photos", f"more{index:02d}.png"), 80, 60, seed=10 + index)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *torchrun, "-m", "sdcorr", *BASE]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as launcher:
        shard = wait_for_a_line_of(launcher, "*-0001.jsonl")
        (holder,) = [one for one in processes_below(launcher.pid) if holds(one, shard)]
        os.kill(holder, signal.SIGKILL)
        output, errors = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert "Signal 9 (SIGKILL)" in errors
    assert "wrote" not in output
    assert "labels.json" not in listed()
    assert run(*BASE).status == 0
    assert run(*BASE[:-1], "whole.json").status == 0
    assert Path("labels.json").read_bytes() == Path("whole.json").read_bytes()


def wait_for_a_line_of(launcher: subprocess.Popen[str], name: str) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert launcher.poll() is None, launcher.communicate()
        for shard in Path("labels.json.parts", "shards").glob(name):
            if shard.read_bytes().count(b"\n"):
                return shard
        time.sleep(0.002)
    pytest.fail("no photo was labelled")


def processes_below(parent: int) -> list[int]:
    """Children of a process, by the system's list."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def holds(process: int, file: Path) -> bool:
    links = Path("/proc", str(process), "fd").iterdir()
    return any(os.path.realpath(link) == str(file.resolve()) for link in links)


# Every recipe


@pytest.mark.parametrize(
    "name",
    list(recipes.RECIPES),
)
def test_every_recipe_transfers(
    run: Command, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    small = shrink(find_recipe(name))
    monkeypatch.setitem(recipes.RECIPES, name, small)
    models = [
        word
        for key, weights in small.weights.items()
        for word in ("--model", f"{key}={checkpoints[weights.model]}")
    ]
    change("cats.json", lambda content: content["annotations"].pop())
    done = run(
        "transfer", "cats.json", "photos/b.png", "--recipe", name, *models, "--device", "cpu",
        "--dtype", "float32", "--out", "labels.json",
    )  # fmt: skip
    assert done.status == 0, done.err
    (image,), (one,) = read()["images"], read()["annotations"]
    assert (image["file_name"], image["width"], image["height"]) == ("b.png", 60, 80)
    for x, y in one["keypoint_predictions"][:4]:
        assert -0.5 <= x <= 59.5
        assert -0.5 <= y <= 79.5
    assert one["keypoint_predictions"][4] is None
    assert len(read()["info"]["sdcorr"]["weights"]) == len(small.weights)


# What eval/transfer_scale.py measures


@pytest.fixture(scope="module")
def scale() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "eval" / "transfer_scale.py"))


def test_a_run_is_measured(scale: dict[str, Any], folder: Path) -> None:
    scale["write_reference"](folder)
    few = scale["run"](folder, "photos")
    assert few["photos"] == 4
    assert few["labels_bytes"] == Path("photos.json").stat().st_size
    assert few["photos/s"] == pytest.approx(4 / few["seconds"], rel=0.1)
    finishing = few["finishing_seconds"]  # None: over before anybody looked
    assert finishing is None or 0 <= finishing < few["seconds"]
    assert few["cpu_seconds"] > 0
    assert 10**8 < few["peak_memory_bytes"] < 10**11  # of this process, whatever it did before
    assert {"photos.csv", "photos.html"} < listed()


def test_scale_is_measured_by_three_runs(
    scale: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs: list[tuple[str, int]] = []

    def run(folder: Path, kind: str) -> dict[str, Any]:
        runs.append((kind, len(list((folder / kind).iterdir()))))
        return {"peak_memory_bytes": 100 * len(runs)}

    monkeypatch.setitem(scale["main"].__globals__, "run", run)
    monkeypatch.setitem(scale["main"].__globals__, "write_recipe", lambda _: None)
    result = scale["main"](["--few", "2", "--photos", "5", "--out", str(tmp_path / "scale.json")])
    assert runs == [("few", 2), ("many", 5), ("many", 5)]
    assert (result["peak memory, many / few"], result["peak memory, again / few"]) == (2, 3)
    assert json.loads((tmp_path / "scale.json").read_text()) == result
