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
from tests.conftest import ROOT
from tests.tiny import shrink, write_hub_cache

BLOCK = re.compile(r"```(bash|python)\n(.*?)```", re.S)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
SET_UP = ("make ", "pip ", "#")


@pytest.fixture
def checkout(tmp_path, monkeypatch, dinov2_folder, sd_folder) -> Path:
    """A working folder with the photos, and a machine that has the weights."""
    from huggingface_hub import constants

    write_hub_cache(tmp_path / "home", "facebook/dinov2-base", dinov2_folder)
    write_hub_cache(tmp_path / "home", "stable-diffusion-v1-5/stable-diffusion-v1-5", sd_folder)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    small = {name: shrink(recipe) for name, recipe in recipes.RECIPES.items()}
    monkeypatch.setattr(recipes, "RECIPES", small)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_bash_line_runs(checkout, capsys):
    lines = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    ran = []
    for line in filter(None, lines):
        if line.startswith("sdcorr "):
            assert _run(shlex.split(line, comments=True)[1:]) == 0, line
            ran.append(line)
        elif not line.startswith(SET_UP):
            subprocess.run(["bash", "-c", line], check=True)
    assert len(ran) >= 9
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
        assert (ROOT / place).exists()


def test_the_recipe_table_names_every_recipe_and_its_licences():
    from sdcorr.models import KNOWN

    text = (ROOT / "README.md").read_text()
    for name, recipe in recipes.RECIPES.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        for config in recipe.backbones.values():
            if weights := config.weights():
                assert weights.model in row
                assert KNOWN[weights.model].licence in row


def test_memory_figures_are_the_measured_ones():
    text = (ROOT / "README.md").read_text()
    for name, recipe in recipes.RECIPES.items():
        measured = json.loads((ROOT / "eval" / "results" / f"footprint-{name}.json").read_text())
        peak = f"{measured['resident GB']['peak'] + 1e-6:.1f} GB"  # a half goes up
        assert recipe.memory.startswith(peak)
        assert re.search(rf"^\| `{name}` \|.*\| {peak} \|", text, re.M)
