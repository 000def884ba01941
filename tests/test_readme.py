"""Every command and code block of the README runs as it stands; see tests/markdown.py."""

from __future__ import annotations

import json
import re
import runpy

import pytest

from sdcorr import recipes
from sdcorr.cli import _run
from tests.conftest import ROOT
from tests.markdown import Runner, anchors_of, blocks_of, checkout, links_of, own_command

README = ROOT / "README.md"

__all__ = ["checkout"]  # a fixture


def test_every_block_runs(checkout, capfd, monkeypatch):
    runner = Runner(capfd, monkeypatch, "README.md")
    for kind, text in blocks_of(README):
        runner.block(kind, text)
    assert len(runner.ran) >= 15
    for name in ("match-astronaut-hopper.png", "out.json", "out.png", "labels.html"):
        assert (checkout / name).exists()
    assert len(runner.scope["matches"]) == 2


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


@pytest.mark.parametrize("page", ["README.md", "eval/README.md", "examples/README.md"])
def test_links_lead_somewhere(page):
    for file, anchor in links_of(ROOT / page):
        assert file.exists(), file
        assert not anchor or anchor in anchors_of(file), f"{file.name}#{anchor}"


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


def test_the_numbers_of_transfer_are_the_measured_ones():
    details = (ROOT / "eval" / "README.md").read_text()
    measured = json.loads((ROOT / "eval" / "results" / "transfer-willow.json").read_text())
    for name, rules in (measured["classes"] | {"all": measured["all"]}).items():
        cells = [
            " / ".join(f"{100 * rules[rule][f'PCK@{alpha}']:.1f}" for alpha in (0.05, 0.1, 0.15))
            for rule in ("one reference", "one reference, of five", "five references")
        ]
        assert f"| {name} | {' | '.join(cells)} |" in details


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


def test_the_scale_is_that_of_the_test_split():
    scale = runpy.run_path(str(ROOT / "eval" / "scale.py"))
    assert sum(scale["PAIRS"]) == 12_234
    assert sum(map(scale["fewest_photos"], scale["PAIRS"])) == 480
