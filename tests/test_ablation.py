"""eval/ablation.py: its numbers are those of ``sdcorr eval`` and ``sdcorr score``."""

from __future__ import annotations

import dataclasses
import json
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from sdcorr.lines import read_lines
from sdcorr.matchers.mutual import Mutual
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from sdcorr.runs import RunFolder
from tests.annotated import write_pf_willow, write_spair
from tests.conftest import ROOT, Command
from tests.tiny import shrink

Ablation = Callable[..., list[dict[str, Any]]]
README = (ROOT / "eval" / "README.md").read_text().partition("\n## Ablations\n")[2]
README = README.partition("\n## ")[0]
COMMANDS = re.findall(r"python eval/ablation\.py (.*)", README.replace("\\\n", " "))


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "eval" / "ablation.py"))


@pytest.fixture(scope="module")
def willow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos of one class: enough for intervals."""
    root = tmp_path_factory.mktemp("data") / "willow"
    return write_pf_willow(root, classes=("car(G)",), images=5)


@pytest.fixture
def ablation(script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ablation:
    """The script as it is typed, with --json: the rows."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        file = tmp_path / "ablation.json"
        monkeypatch.setattr("sys.argv", ["ablation.py", *arguments, "--json", str(file)])
        script["main"]()
        rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
        return rows

    return run


@pytest.fixture
def scores(run: Command, tmp_path: Path) -> Callable[..., tuple[RunFolder, dict[str, Any]]]:
    """``sdcorr eval`` of a recipe, then ``sdcorr score`` with further arguments."""

    def made(name: str, recipe: Recipe, dataset: str, root: Path, *more: str) -> Any:
        file, folder, result = (tmp_path / f"{name}{end}" for end in (".json", "", "-scores.json"))
        file.write_text(json.dumps(recipe.describe()))
        words = ("--root", str(root), "--recipe", str(file), "--out", str(folder))
        assert run("eval", dataset, *words).status == 0
        assert run("score", str(folder), "--json", str(result), *more).status == 0
        return RunFolder(folder), json.loads(result.read_text())

    return made


def small_sift(**changes: Any) -> Recipe:
    """sift on photos of 120 px, as ``--scale 0.25`` makes it."""
    recipe = find_recipe("sift")
    group = recipe.groups[0]
    config = dataclasses.replace(group.backbone, size=120)  # type: ignore[type-var]
    small = dataclasses.replace(recipe, groups=(dataclasses.replace(group, backbone=config),))
    return dataclasses.replace(small, **changes)


def test_the_numbers_are_those_of_eval_and_score(ablation, scores, willow, tmp_path, capfd):
    rows = ablation(
        "pf-willow", "--root", str(willow), "--recipe", "sift", "--scale", "0.25",
        "--matcher", "recipe", "soft_argmax", "--flip", "off", "on",
    )  # fmt: skip
    table = capfd.readouterr().out.splitlines()
    assert table[0].startswith("sift on pf-willow: 20 pairs; ")
    cells = [[cell.strip() for cell in line.split("|")[1:5]] for line in table if line[:1] == "|"]
    assert cells[2:] == [
        ["120", flip, "stacked", matcher]
        for flip in ("off", "on")
        for matcher in ("recipe: nearest", "soft_argmax")
    ]
    for index, (flip, matcher) in enumerate(
        (flip, matcher) for flip in (False, True) for matcher in (Nearest(), SoftArgmax())
    ):
        recipe = small_sift(flip=flip, matcher=matcher)
        _, result = scores(f"run{index}", recipe, "pf-willow", willow)
        assert rows[index]["pck"] == result["scores"]["overall"]
        value, low, high = (100 * one for one in result["scores"]["overall"]["image"][1].values())
        assert f"| {value:.1f} [{low:.1f}, {high:.1f}] |" in table[5 + index]
    gap = scores("run3", recipe, "pf-willow", willow, "--compare", str(tmp_path / "run0"))[1]
    assert rows[3]["minus_first"] == gap["difference"]["overall"]
    assert rows[0]["minus_first"] is None
    assert all(row["seconds_a_pair"] > 0 for row in rows)


def test_mutual_moves_no_match_and_tells_which_to_keep(ablation, scores, willow):
    first, mutual = ablation(
        "pf-willow", "--root", str(willow), "--recipe", "sift", "--scale", "0.25",
        "--matcher", "recipe", "mutual", "--per-category", "12",
    )  # fmt: skip
    assert mutual["pck"] == first["pck"]
    assert first["kept"] == 1.0
    assert first["pck_of_kept"] == first["pck"]
    assert 0 < mutual["kept"] < 1
    rows = ablation(
        "pf-willow", "--root", str(willow), "--recipe", "sift", "--scale", "0.25",
        "--matcher", "mutual",
    )  # fmt: skip
    folder, _ = scores("mutual", small_sift(matcher=Mutual(Nearest())), "pf-willow", willow)
    lines = list(read_lines(folder.records))
    kept = [line for line in lines if line["matched"]]
    right = [line["error"] <= 0.1 * line["keypoint_box"] for line in kept]
    assert rows[0]["kept"] == len(kept) / len(lines)
    assert rows[0]["pck_of_kept"]["keypoints"] == len(kept)
    assert rows[0]["pck_of_kept"]["point"][1]["value"] == pytest.approx(np.mean(right))


def test_where_all_is_flat_nothing_is_kept(ablation, tmp_path, capsys):
    root = write_pf_willow(tmp_path / "flat", classes=("car(G)",), images=2)
    for photo in root.rglob("*.png"):
        with PIL.Image.open(photo) as image:
            flat = PIL.Image.new("RGB", image.size)
        flat.save(photo)
    (row,) = ablation("pf-willow", "--root", str(root), "--recipe", "sift", "--scale", "0.25")
    assert row["kept"] == 0
    assert row["pck_of_kept"] is None
    assert " |  | 0.0 |  | " in capsys.readouterr().out


def test_groups_are_fused_either_way_and_photos_encoded_once(
    ablation, scores, checkpoints, tmp_path, monkeypatch
):
    recipe = shrink(find_recipe("sd-dino"))
    places = {key: str(checkpoints[one.model]) for key, one in recipe.weights.items()}
    recipe = recipe.with_models(places)
    (tmp_path / "tiny.json").write_text(json.dumps(recipe.describe()))
    data, told = write_spair(tmp_path / "spair", images=2), []
    encode = Pipeline.encode

    def counted(self, photo, category=None):
        told.append(category)
        return encode(self, photo, category)

    monkeypatch.setattr(Pipeline, "encode", counted)
    rows = ablation(
        "spair", "--root", str(data), "--recipe", str(tmp_path / "tiny.json"),
        "--fusion", "stacked", "confidence", "--matcher", "recipe", "hough",
    )  # fmt: skip
    assert sorted(told) == ["cat", "cat", "dog", "dog"]
    assert [row["size"] for row in rows] == ["192+168"] * 4
    assert [row["fusion"] for row in rows] == ["stacked", "stacked", "confidence", "confidence"]
    for name, row in (("stacked", rows[0]), ("confidence", rows[2])):
        one = dataclasses.replace(recipe, by_confidence=name == "confidence")
        assert row["pck"] == scores(name, one, "spair", data)[1]["scores"]["overall"]


def test_what_cannot_be_is_left_out_by_name(ablation, willow, capsys):
    rows = ablation(
        "pf-willow", "--root", str(willow), "--recipe", "sift", "--scale", "0.25",
        "--matcher", "recipe", "pixel", "--flip", "off", "on", "--per-category", "1",
    )  # fmt: skip
    assert [(row["matcher"], row["flip"]) for row in rows] == [
        ("recipe: nearest", "off"),
        ("pixel", "off"),
        ("recipe: nearest", "on"),
    ]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: scale 0.25, flip on, stacked, pixel: recipe 'sift': pixel")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "sfit"), "did you mean 'sift'"),
        (("--recipe", "sift", "--fusion", "confidence"), "by_confidence weighs groups"),
        (("--recipe", "same-position", "--scale", "0.5"), "no size; leave --scale out"),
        (("--recipe", "sift", "--scale", "0"), "--scale is a factor of sizes, such as 0.5; got 0"),
        (("--recipe", "sift", "--scale", "nan"), "--scale is a factor of sizes"),
        (("--recipe", "sift", "--matcher", "recipe", "nearest"), "nearest: the same stands in"),
        (("--recipe", "sift", "--seed", "1"), "--seed draws pairs for --per-category"),
        (("--recipe", "sift", "--per-category", "0"), "at least 1 pair a category"),
        (("--recipe", "sift", "--root", "nowhere"), "nowhere"),
        (("--recipe", "sift", "--json", "nowhere/a.json"), "there is no folder nowhere"),
        (("--recipe", "sift", "--device", "abacus"), "no device 'abacus'"),
    ],
)
def test_bad_input_is_one_sentence(script, willow, monkeypatch, capsys, arguments, words):
    monkeypatch.setattr("sys.argv", ["ablation.py", "pf-willow", "--root", str(willow), *arguments])
    with pytest.raises(SystemExit) as stopped:
        script["main"]()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ablation.py: ")
    assert words in line
    assert stopped.value.code == 2


def test_a_photo_of_another_size_is_refused_before_any_work(script, tmp_path, monkeypatch, capsys):
    root = write_spair(tmp_path / "spair", images=2)
    (root / "JPEGImages" / "cat" / "2008_000000.jpg").write_bytes(b"")
    monkeypatch.setattr(
        "sys.argv", ["ablation.py", "spair", "--root", str(root), "--recipe", "sift"]
    )
    with pytest.raises(SystemExit):
        script["main"]()
    done = capsys.readouterr()
    assert "2008_000000.jpg" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("scale", "size"),
    [("1", "960+840"), ("0.8", "768+672"), ("0.6", "576+504"), ("0.5", "512+420")],
)
def test_sizes_are_rounded_to_what_each_backbone_takes(script, scale, size):
    (variant,) = grid_of(script, f"spair --root . --recipe sd-dino --scale {scale}")
    assert variant.words() == [size, "off", "stacked", "recipe: nearest"]


def grid_of(script: dict[str, Any], line: str) -> Any:
    options = script["parser"]().parse_args(shlex.split(line))
    return script["grid"](find_recipe(options.recipe), options)


def test_commands_of_the_readme_make_the_rows_of_its_results(script):
    measured = 0
    for line in COMMANDS:
        rows = [variant.words() for variant in grid_of(script, line)]
        file = ROOT / script["parser"]().parse_args(shlex.split(line)).json
        if file.parent.name == "results":
            found = json.loads(file.read_text())["rows"]
            assert rows == [
                [row[n] for n in ("size", "flip", "fusion", "matcher")] for row in found
            ]
            measured += 1
    assert measured == len(list((ROOT / "eval" / "results").glob("ablation-*.json"))) >= 3
    assert any("--recipe sd-dino" in line for line in COMMANDS)


def test_numbers_of_the_readme_are_the_measured_ones(script):
    shown = re.findall(r"^\| `ablation-.*$", README, re.M)
    measured = {
        line
        for path in (ROOT / "eval" / "results").glob("ablation-*.json")
        for line in short_lines(script["cell"], path)
    }
    assert len(shown) >= 8
    assert set(shown) <= measured


def short_lines(cell: Any, path: Path) -> list[str]:
    """Rows of the README: PCK@0.1 per image and point, difference, what is kept, right of that."""
    result, lines = json.loads(path.read_text()), []
    at = result["rule"]["alphas"].index(0.1)
    for row in result["rows"]:
        gap, kept = row["minus_first"], row["pck_of_kept"]
        cells = [
            f"`{path.name}`", row["size"], row["flip"], row["matcher"],
            cell(row["pck"]["image"][at]), cell(row["pck"]["point"][at]),
            cell(gap["image"][at], "+") if gap else "",
            f"{100 * row['kept']:.0f}", cell(kept["point"][at]) if kept else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines
