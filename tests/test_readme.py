"""Every command and code block of the README runs as it stands.

Weights: tiny checkpoints under the real ids in a hub cache of its own, and the recipes shrunk to
them. Lines that set the machine up (make, pip) are run by CI.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from sdcorr import recipes
from sdcorr.cli import _run
from tests.annotated import write_pf_pascal, write_pf_willow, write_spair
from tests.conftest import ROOT
from tests.tiny import shrink, write_hub_cache

BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.S)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
SET_UP = ("make ", "pip ", "#")
LAUNCHERS = (["torchrun"], ["accelerate"])


@pytest.fixture
def checkout(tmp_path, monkeypatch, checkpoints) -> Path:
    """A working folder with the photos, and a machine that has the weights."""
    from huggingface_hub import constants

    for model, folder in checkpoints.items():
        write_hub_cache(tmp_path / "home", model, folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    small = {name: shrink(recipe) for name, recipe in recipes.RECIPES.items()}
    monkeypatch.setattr(recipes, "RECIPES", small)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    write_spair(tmp_path / "data" / "SPair-71k")
    willow = write_pf_willow(tmp_path / "data" / "PF-WILLOW", classes=("car(G)", "duck(S)"))
    cars = willow / "PF-dataset" / "car(G)"  # of noise, no match is right; of twins, some are
    (cars / "photo_002a.png").write_bytes((cars / "photo_001a.png").read_bytes())
    write_pf_pascal(tmp_path / "data" / "PF-PASCAL")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own_command(line: str) -> list[str]:
    """Arguments of sdcorr in a line that runs it, also in many processes; here it is one."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["sdcorr"]:
        return words[1:]
    return words[words.index("sdcorr") + 1 :] if words[:1] in LAUNCHERS else []


def test_every_bash_line_runs(checkout, capsys):
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    ran = []
    for line in filter(None, lines):
        if arguments := own_command(line):
            place = arguments.pop() if ">" in arguments else None
            arguments = [word for word in arguments if word != ">"]
            capsys.readouterr()
            assert _run(arguments) == 0, line
            if place:
                Path(place).write_text(capsys.readouterr().out)
            ran.append(line)
        elif not line.startswith(SET_UP):
            subprocess.run(["bash", "-c", line], check=True)
    assert len(ran) >= 15
    assert (checkout / "match-astronaut-hopper.png").exists()
    assert (checkout / "out.json").exists()
    assert (checkout / "out.png").exists()


def test_every_python_block_runs(checkout):
    scope: dict[str, object] = {}
    blocks = [text for kind, text in BLOCKS if kind == "python"]
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert len(blocks) >= 2
    assert len(scope["matches"]) == 2


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_each_example_runs_and_writes_its_picture(name, tmp_path, monkeypatch):
    picture = tmp_path / "picture.jpg"
    monkeypatch.setattr("sys.argv", [name, str(picture)])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert picture.stat().st_size > 10_000


def test_a_turned_photo_is_found_to_within_a_cell(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["turned_photo.py", str(tmp_path / "a.jpg")])
    runpy.run_path(str(ROOT / "examples" / "turned_photo.py"), run_name="__main__")
    (error,) = re.findall(r"median error ([0-9.]+) px", capsys.readouterr().out)
    assert float(error) < 512 / 60


def test_the_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (demo|test|check)", (ROOT / "README.md").read_text()):
        assert f"\n{target}:" in makefile


def test_links_to_files_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    for place in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (ROOT / place.partition("#")[0]).exists()


def test_the_readme_names_every_recipe():
    text = (ROOT / "README.md").read_text().partition("\n## Recipes\n")[2]
    for name in recipes.RECIPES:
        assert f"`{name.removesuffix('-registers')}`" in text


def test_the_page_of_recipes_is_up_to_date():
    """Run eval/recipe_table.py if not."""
    script = runpy.run_path(str(ROOT / "eval" / "recipe_table.py"))
    assert (ROOT / "docs" / "recipes.md").read_text() == script["page"]()


def test_memory_figures_are_the_measured_ones():
    for name, recipe in recipes.RECIPES.items():
        measured = json.loads((ROOT / "eval" / "results" / f"footprint-{name}.json").read_text())
        peak = f"{measured['resident GB']['peak'] + 1e-6:.1f} GB"  # a half goes up
        assert recipe.memory.startswith(peak)
        assert measured["runtime"]["dtype"] == "float32"


def test_the_commands_that_reproduce_papers_run(checkout):
    text = (ROOT / "eval" / "README.md").read_text()
    tables = re.findall(r"`(sdcorr (?:eval|score) [^`]*?--[^`]*)`", text)
    lines = re.findall(r"^    (torchrun .*)$", text, re.M)
    ran = [line for line in (*tables, *lines) if "RUN" not in line and "/shared" not in line]
    for line in ran:
        assert _run(own_command(line)) == 0, line
    assert len(ran) >= 8


def test_the_benchmark_numbers_are_the_measured_ones():
    readme, details = (ROOT / "README.md").read_text(), (ROOT / "eval" / "README.md").read_text()
    results = sorted((ROOT / "eval" / "results").glob("*-s*.json"))
    for path in [path for path in results if path.name.startswith(("willow", "spair"))]:
        scores = json.loads(path.read_text())["scores"]
        shown = dict(zip(scores["rule"]["alphas"], scores["overall"]["image"], strict=True))
        numbers = [
            [f"{100 * part:.1f}" for part in value.values() if part is not None]
            for value in shown.values()
        ]
        cells = {
            alpha: "{} [{}, {}]".format(*some) if len(some) == 3 else some[0]
            for alpha, some in zip(shown, numbers, strict=True)
        }
        row = " | ".join(cells.get(alpha, "") for alpha in (0.05, 0.1, 0.15))
        assert f"| `{path.name}` | {scores['overall']['pairs']} |" in details
        assert f"| {row} |" in details
        if path.name.startswith("willow"):
            name = path.stem.removeprefix("willow-")
            assert "| `{}` | {} | {} to {} |".format(name, *numbers[1]) in readme


def test_the_numbers_of_sift_hough_are_the_measured_ones():
    """Judged on objects that its settings were not chosen on."""
    readme, details = (ROOT / "README.md").read_text(), (ROOT / "eval" / "README.md").read_text()
    measured = json.loads((ROOT / "eval" / "results" / "pf_willow_sift_hough.json").read_text())
    for results, label in (
        (measured, "`pf_willow_sift_hough.json`"),
        (measured["distinct_pairs"], "the same, pairs of distinct photos"),
    ):
        cells = [
            "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * share for share in (value, *ends)))
            for value, ends in (
                (results[f"pck_{alpha}_per_image"], results[f"pck_{alpha}_per_image_interval"])
                for alpha in ("0.05", "0.10", "0.15")
            )
        ]
        assert f"| {label} | {results['pairs']} | keypoints' box | {' | '.join(cells)} |" in details
    value, (low, high) = measured["pck_0.10_per_image"], measured["pck_0.10_per_image_interval"]
    assert f"| `sift-hough` | {100 * value:.1f} | {100 * low:.1f} to {100 * high:.1f} |" in readme
    assert f"{100 * value:.1f} % on PF-WILLOW" in recipes.RECIPES["sift-hough"].paper
    sure = measured["confidence"]
    assert f"{100 * sure['right_in_the_more_confident_half']:.0f} % right, of all" in readme


def test_the_check_prints_ours_beside_theirs(checkout, monkeypatch, capfd):
    monkeypatch.setattr(
        "sys.argv",
        ["check.py", "same-position", "--root", "data/SPair-71k", "--out", "check", "--pairs", "2"],
    )
    runpy.run_path(str(ROOT / "eval" / "check.py"), run_name="__main__")
    out = capfd.readouterr().out
    assert "PCK@0.1 per point, error < threshold, target box; ours on 4 pairs" in out
    assert re.search(r"^mean +[0-9.]+ +-$", out, re.M)
    assert re.search(r"^all pooled +[0-9.]+ +5\.5 ", out, re.M)


def test_published_rows_are_those_of_the_recipes():
    published = json.loads((ROOT / "eval" / "published.json").read_text())["spair"]
    assert published.keys() <= recipes.RECIPES.keys()
    for row in published.values():
        categories = row["categories at 0.1 per point"]
        assert len(categories) in (0, 18)
        assert row["image"] or row["point"] or row["unstated"]
        if categories:  # the pooled number lies among the categories'
            assert min(categories.values()) < row["point"]["0.1"] < max(categories.values())


def test_the_scale_is_that_of_the_test_split():
    scale = runpy.run_path(str(ROOT / "eval" / "scale.py"))
    assert sum(scale["PAIRS"]) == 12_234
    assert sum(map(scale["fewest_photos"], scale["PAIRS"])) == 480
