"""``sdcorr eval`` and ``sdcorr score`` as they are typed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sdcorr import recipes
from sdcorr.cli.evaluate import _speed, _Watch
from sdcorr.encodings import Tally
from tests.annotated import write_spair
from tests.conftest import Command
from tests.tiny import shrink

BASE = ("eval", "spair", "--root", "spair", "--recipe", "same-position")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spair(tmp_path_factory.mktemp("data") / "spair", images=4)


@pytest.fixture(autouse=True)
def folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "spair").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers_of(table: str, row: str) -> list[float]:
    """Numbers of a table's row, those in brackets left out."""
    (line,) = [line for line in table.splitlines() if line.startswith(f"{row}  ")]
    return list(map(float, re.sub(r"\[.*?\]", "", line.removeprefix(row)).split()))


def test_eval_prints_what_a_reader_must_know(run: Command) -> None:
    done = run(*BASE, "--out", "runs/same")
    assert done.status == 0
    assert done.err.startswith("1 process, ")
    lines = done.out.splitlines()
    assert lines[0] == "runs/same: recipe same-position on spair, test, large"
    assert lines[1].startswith("24 pairs of 8 images, 72 keypoints; the recipe does not ask for")
    assert "error <= alpha x longer side of the target's box, original pixels" in lines[2]
    assert lines[3].startswith("per image: mean over pairs; per point: all keypoints together")
    assert lines[4] == "no intervals: too many categories have fewer than 5 images"
    assert [line.split()[0] for line in lines if line.startswith(("cat ", "dog "))] == [
        "cat",
        "dog",
    ]
    assert len(numbers_of(done.out, "per image")) == 3


def test_score_prints_the_table_of_eval_again(run: Command) -> None:
    first = run(*BASE, "--out", "runs/same")
    assert run("score", "runs/same").out == first.out


def test_score_needs_neither_data_nor_model(
    run: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*BASE, "--out", "runs/same")
    (folder / "spair").unlink()
    monkeypatch.setattr("sdcorr.recipes.load", lambda *_: pytest.fail("loaded a model"))
    assert run("score", "runs/same").status == 0


def test_alphas_stand_one_after_another(run: Command) -> None:
    run(*BASE, "--out", "runs/same")
    spread = run("score", "runs/same", "--alpha", "0.3", "0.2", "--threshold", "image")
    single = run("score", "--alpha", "0.3", "--alpha", "0.2", "--threshold", "image", "runs/same")
    before = run("score", "--threshold", "image", "--alpha", "0.3", "0.2", "--", "runs/same")
    assert spread.out == single.out == before.out
    assert spread.out.splitlines()[6].split() == ["PCK", "@0.3", "@0.2"]
    for numbers in (
        ("--alpha=0.3", "0.2"),
        ("--alpha", "0.3,0.2"),
        ("--alpha", "0.3", "0.2", "0.3"),
    ):
        assert run("score", "runs/same", "--threshold", "image", *numbers) == spread
    assert run("score", "--alpha", "0.3", "0.2", "runs/same", "--threshold", "image") == spread


def test_strict_leaves_ties_out(run: Command) -> None:
    run(*BASE, "--out", "runs/same")
    # in photos 0 and 3 of a category, points differ by exactly 3 px, 0.0375 of 80
    tie = ("score", "runs/same", "--alpha", "0.0375", "--threshold", "image", "--bootstrap", "0")
    loose, strict = run(*tie), run(*tie, "--strict")
    assert "error < alpha" in strict.out
    assert numbers_of(loose.out, "per point")[0] > numbers_of(strict.out, "per point")[0] > 0


def test_breakdowns_add_tables(run: Command) -> None:
    run(*BASE, "--out", "runs/same")
    done = run("score", "runs/same", "--by", "viewpoint", "--by", "keypoint")
    assert [name in done.out for name in ("easy ", "medium ", "hard ", "cat/2 ", "dog/8 ")] == [
        True
    ] * 5


def test_json_holds_the_numbers_and_how_they_came_about(run: Command) -> None:
    run(*BASE, "--out", "runs/same")
    done = run("score", "runs/same", "--json", "scores.json", "--by", "occlusion")
    assert done.out.splitlines()[-1] == "wrote scores.json"
    found = json.loads(Path("scores.json").read_text())
    assert found["schema"] == "sdcorr.scores/1"
    assert found["run"]["recipe"]["name"] == "same-position"
    row = found["scores"]["overall"]
    shown = numbers_of(done.out, "per image")
    assert [round(100 * value["value"], 2) for value in row["image"]] == shown
    assert {level["name"] for level in found["by"]["occlusion"]} <= {
        "none", "source", "target", "both",
    }  # fmt: skip
    piped = run("score", "runs/same", "--json", "-", "--by", "occlusion")
    assert json.loads(piped.out) == found


def test_two_runs_are_compared_on_the_pairs_of_both(run: Command) -> None:
    run(*BASE, "--out", "runs/same")
    run(*BASE, "--out", "runs/cats", "--only", "cat")
    done = run("score", "runs/same", "--compare", "runs/cats", "--json", "gap.json")
    assert "runs/same minus runs/cats, on the 12 pairs that both predicted" in done.out
    assert numbers_of(done.out, "per point") == [0, 0, 0]
    found = json.loads(Path("gap.json").read_text())
    assert found["difference"]["overall"]["pairs"] == 12
    assert found["minus"]["dataset"]["only"] == ["cat"]


def test_a_draw_is_named_in_every_table(run: Command) -> None:
    done = run(*BASE, "--out", "a", "--limit-per-category", "3", "--seed", "5")
    assert "at most 3 pairs a category (seed 5)" in done.out
    assert "6 pairs of" in done.out


def test_skipped_pairs_are_named_in_every_table(run: Command, folder: Path) -> None:
    (folder / "spair").unlink()
    photo = write_spair(folder / "spair", images=3) / "JPEGImages" / "cat" / "2008_000000.jpg"
    photo.write_bytes(photo.read_bytes()[:-100])
    stopped = run(*BASE, "--out", "a")
    assert stopped.status == 2
    assert "2008_000000.jpg is damaged" in stopped.err
    assert "add --skip-bad" in stopped.err
    told = (
        "LEFT OUT: 4 of 12 pairs, whose photos could not be read: spair/JPEGImages/cat/2008_000000"
    )
    skipping = run(*BASE, "--out", "a", "--skip-bad")
    assert told in skipping.out
    assert "8 pairs of 5 images, " in skipping.out
    assert told in run("score", "a").out
    run(*BASE, "--out", "dogs", "--only", "dog")
    assert told in run("score", "dogs", "--compare", "a").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "was told the annotated category"), (("--no-category",), "was not told the category")],
)
def test_tables_say_whether_the_category_was_told(
    run: Command, monkeypatch: pytest.MonkeyPatch, sd_folder: Path, arguments: Any, told: str
) -> None:
    small = {name: shrink(recipe) for name, recipe in recipes.RECIPES.items()}
    monkeypatch.setattr(recipes, "RECIPES", small)
    done = run(
        "eval", "spair", "--root", "spair", "--recipe", "sd15", "--out", "a", "--model",
        f"stable_diffusion={sd_folder}", "--limit-per-category", "1", *arguments,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert told in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--root", "nowhere"), "nowhere does not exist; expected the folder that holds SPair-71k"),
        (("--root", "."), "did you mean its folder spair?"),
        (("--split", "tets"), "no split called 'tets'; did you mean 'test'?"),
        (("--split", "val"), "no folder PairAnnotation/val"),
        (("--only", "catt"), "no category called 'catt'; did you mean 'cat'?"),
        (("--seed", "3"), "--seed draws pairs for --limit-per-category; give both or none"),
        (("--no-category",), "recipe same-position never asks for the category"),
        (("--cache-memory", "much"), "expected a size like 2GB, got 'much'"),
        (("--cache-limit", "1GB"), "--cache-limit bounds --cache-dir; give both or none"),
        (("--cache-memory", "-1GB"), "expected a size like 2GB, got '-1GB'"),
        (("--processes", "2"), "expected 2 processes, got 1; start them with torchrun"),
        (("--limit-per-category", "0"), "0 is not in the range x>=1"),
        (("--recipe", "sif"), "no recipe called 'sif'; did you mean 'sift'?"),
        (("--out", "spair"), "holds no run of sdcorr; choose another --out"),
        (("--model", "sift=x"), "no weights in recipe same-position called 'sift'"),
    ],
)
def test_a_mistake_gets_one_sentence_and_makes_nothing(
    run: Command, folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run(*BASE, "--out", "out", *arguments)
    assert done.status == 2
    assert message in done.err
    assert done.out == ""
    assert not (folder / "out" / "run.json").exists()


def test_an_unknown_data_set_is_told(run: Command) -> None:
    done = run("eval", "spiar", "--root", "spair", "--out", "out", "--recipe", "sift")
    assert "no data set called 'spiar'; did you mean 'spair'? known: ap10k, pf-pascal, " in done.err
    done = run("eval", "pf-willow", "--layout", "small", "--root", "spair", "--out", "out")
    assert "pf-willow has no --layout; leave it out" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--alpha", "0"), "alpha must be a share of the side, above 0 and at most 1; got 0"),
        (("--alpha", "10", "5"), "got 10"),
        (("--alpha", "nan"), "got nan"),
        (("--alpha",), "requires an argument"),
        (("--alpha", "x"), "'x' is not a valid float"),
        (("--bootstrap", "10"), "expected 100 to 100000 draws, or 0, got 10"),
        (("--by", "depth"), "'depth' is not one of"),
        (("--by", "scale", "--compare", "runs/same"), "--by goes with one run"),
        (("--json", "runs/same/records.jsonl"), "it is one of the files to be read"),
        (("--json", "no/such/folder.json"), "there is no folder no/such; make it first"),
        (("--compare", "spair"), "spair is no run: it has no run.json"),
    ],
)
def test_a_mistake_in_scoring_gets_one_sentence(
    run: Command, arguments: tuple[str, ...], message: str
) -> None:
    run(*BASE, "--out", "runs/same")
    done = run("score", "runs/same", *arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err


def test_records_of_another_schema_are_refused(run: Command) -> None:
    run(*BASE, "--out", "runs/same")
    about = json.loads(Path("runs/same/run.json").read_text())
    Path("runs/same/run.json").write_text(json.dumps(about | {"schema": "sdcorr.run/7"}))
    assert "was written as 'sdcorr.run/7', and this version" in run("score", "runs/same").error
    assert "was written as 'sdcorr.run/7', and this version" in run(*BASE, "--out", "runs/same").err


def test_damaged_records_are_told_by_line(run: Command) -> None:
    run(*BASE, "--out", "runs/same")
    path = Path("runs/same/records.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], b"{half\n", *lines[5:]]))
    assert "records.jsonl is damaged in line 5" in run("score", "runs/same").error


def test_sizes_are_read_in_powers_of_a_thousand(run: Command, folder: Path) -> None:
    for index, size in enumerate(("0", "100", "5k", "1.5MB", "2gb", "1T")):
        assert run(*BASE, "--out", str(index), "--cache-memory", size).status == 0


def test_an_interrupted_run_says_how_it_goes_on(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_Watch, "__call__", interrupt)
    done = run(*BASE, "--out", "out")
    assert done.status == 130
    assert "interrupted; the same command resumes the run" in done.err


def test_what_was_done_before_is_told(run: Command) -> None:
    run(*BASE, "--out", "out")
    assert "24 pairs were predicted before" in run(*BASE, "--out", "out").err


def test_a_start_that_fails_leaves_no_folder(run: Command, folder: Path) -> None:
    assert run(*BASE, "--out", "out", "--only", "catt").status == 2
    assert not (folder / "out").exists()


def test_intervals_are_told_where_there_are_enough_images(run: Command, folder: Path) -> None:
    (folder / "spair").unlink()
    write_spair(folder / "spair", images=6)
    done = run(*BASE, "--out", "out")
    assert "in brackets: 95 % interval, 1000 bootstrap draws of images within category" in done.out
    assert re.search(r"^per point  .*\[", done.out, re.M)
    assert "[" not in run("score", "out", "--bootstrap", "0").out.partition("PCK")[2]


def test_speed_and_time_left_are_told() -> None:
    tally = Tally(pairs=100, images=20, done=50, encoded=10, encoding=20.0, matching=5.0)
    assert tally.seconds_left() == 10 * 2.0 + 50 * 0.1
    assert _speed(tally) == "0:00:25 left, encoding 0.5/s, matching 10/s"
    assert _speed(Tally()) == ""
