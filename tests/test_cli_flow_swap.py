"""``sdcorr flow``, ``sdcorr swap`` and ``sdcorr heatmap``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import sdcorr
import sdcorr.recipes
from sdcorr.backbones.sift import Sift
from sdcorr.flo import read_flo
from sdcorr.warping import warp

PAIR = ("a.png", "b.png", "--recipe", "sift")
COMMANDS = {"flow": (), "swap": (), "heatmap": ("--point", "20", "30")}
each_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: np.ndarray, other_photo: np.ndarray
) -> Path:
    """The working folder: photos of 157 x 104 and 100 x 136, seen by SIFT as they are."""
    PIL.Image.fromarray(photo).resize((157, 104)).save(tmp_path / "a.png")
    PIL.Image.fromarray(other_photo).resize((100, 136)).save(tmp_path / "b.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (group,) = sdcorr.recipes.RECIPES["sift"].groups
    group = dataclasses.replace(group, backbone=Sift(size=157))
    recipe = dataclasses.replace(sdcorr.recipes.RECIPES["sift"], groups=(group,))
    monkeypatch.setitem(sdcorr.recipes.RECIPES, "sift", recipe)
    return tmp_path


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        pytest.fail("loaded a model before looking at what the user gave")

    monkeypatch.setattr("sdcorr.recipes.load", fail)


def pixels(path: str) -> np.ndarray:
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def write_mask(name: str, size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of (width, height) that covers left, top, right, bottom."""
    mask = np.zeros(size[::-1], np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 255
    PIL.Image.fromarray(mask).save(name)
    return mask > 0


# Flow


def test_flow_draws_a_picture_by_default(folder, run):
    done = run("flow", *PAIR)
    assert (done.status, done.err) == (0, "")
    told, wrote = done.out.splitlines()
    assert told.startswith("both ways agree on ")
    assert told.endswith(" % of the pixels of the target")
    assert wrote == "wrote flow-a-b.png"
    assert sorted(os.listdir(folder)) == ["a.png", "b.png", "flow-a-b.png"]


def test_files_of_the_flow_are_those_of_python(folder, run):
    done = run("flow", *PAIR, "--flo", "a.flo", "--npy", "a.npy", "--within", "0.02")
    assert done.status == 0
    told, *wrote = done.out.splitlines()
    assert wrote == ["wrote a.flo", "wrote a.npy"]
    assert not Path("flow-a-b.png").exists()
    pair = sdcorr.load("sift", device="cpu").fuse("a.png", "b.png")
    moved, sure = pair.flow(within=0.02).per_pixel()
    share = 100 * sure.mean()
    assert 10 < share < 90
    assert told == f"both ways agree on {share:.1f} % of the pixels of the source"
    flow, valid = read_flo(Path("a.flo"))
    assert np.array_equal(valid, sure)
    assert np.array_equal(flow[valid], moved[sure])
    array = np.load("a.npy")
    assert (array.shape, array.dtype) == ((104, 157, 2), np.float32)
    assert np.array_equal(array, flow, equal_nan=True)


def test_a_photo_warps_onto_itself(folder, run):
    done = run("flow", "a.png", "a.png", "--recipe", "sift", "--warped", "w.png", "--out", "f.svg")
    assert done.status == 0
    assert done.out.splitlines()[1:] == ["wrote w.png", "wrote f.svg"]
    warped, photo = pixels("w.png"), pixels("a.png")
    assert warped.shape == (104, 157, 4)
    sure = warped[:, :, 3] == 255
    assert sure.mean() > 0.9
    assert (warped[~sure, 3] == 0).all()
    inner = np.zeros_like(sure)
    inner[8:-8, 8:-8] = True  # at the border a cell's neighbours may look alike
    same = (warped[:, :, :3] == photo).all(axis=2)
    assert same[sure & inner].mean() > 0.95


def test_the_warped_photo_is_that_of_python(folder, run):
    assert run("flow", *PAIR, "--warped", "w.png").status == 0
    back = sdcorr.load("sift", device="cpu").fuse("b.png", "a.png").flow()
    warped, valid = warp(pixels("a.png"), back)
    assert np.array_equal(pixels("w.png"), np.dstack([warped, valid * np.uint8(255)]))


def test_only_the_flow_that_is_asked_for_is_computed(folder, run, monkeypatch):
    seen = []
    unpatched = sdcorr.Fused.flow

    def watched(self, within):
        seen.append((self.source.image.path.name, self.target.image.path.name))
        return unpatched(self, within)

    monkeypatch.setattr("sdcorr.fused.Fused.flow", watched)
    run("flow", *PAIR, "--flo", "a.flo")
    assert seen == [("a.png", "b.png")]
    run("flow", *PAIR, "--warped", "w.png")
    assert seen[1:] == [("b.png", "a.png")]
    run("flow", *PAIR, "--npy", "a.npy", "--out", "f.png")
    assert seen[2:] == [("a.png", "b.png"), ("b.png", "a.png")]


def test_masks_limit_the_flow_both_ways(folder, run):
    write_mask("mask.png", (157, 104), (40, 20, 120, 90))
    box = ("--target-box", "20", "30", "80", "110")
    done = run(
        "flow", *PAIR, "--source-mask", "mask.png", *box, "--within", "1",
        "--npy", "a.npy", "--warped", "w.png",
    )  # fmt: skip
    assert done.status == 0
    array, warped = np.load("a.npy"), pixels("w.png")
    y, x = np.argwhere(np.isfinite(array[:, :, 0])).T
    assert len(y) > 100
    assert x.min() >= 40  # not one pixel of a cell that reaches beyond it
    assert x.max() < 120
    assert y.min() >= 20
    assert y.max() < 90
    assert np.abs((x + array[y, x, 0]) - 50).max() <= 30 + 8  # a match is allowed as its cell is
    assert np.abs((y + array[y, x, 1]) - 70).max() <= 40 + 8
    y, x = np.nonzero(warped[:, :, 3])
    assert len(y) > 100
    assert x.min() >= 20
    assert x.max() <= 80
    assert y.min() >= 30
    assert y.max() <= 110


# Swap


def test_swap_changes_nothing_outside_the_mask(folder, run):
    write_mask("s.png", (157, 104), (40, 10, 110, 100))
    mask = write_mask("t.png", (100, 136), (20, 30, 81, 111))
    done = run(
        "swap", *PAIR, "--source-mask", "s.png", "--target-mask", "t.png", "--photo", "p.png",
        "--out", "panels.jpg",
    )  # fmt: skip
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == ["wrote p.png", "wrote panels.jpg"]
    result, target = pixels("p.png"), pixels("b.png")
    assert result.shape == (136, 100, 3)
    assert np.array_equal(result[~mask], target[~mask])
    assert (result[mask] != target[mask]).any(axis=1).mean() > 0.9


def test_an_object_swapped_for_itself(folder, run):
    box = ("--source-box", "40", "10", "110", "100", "--target-box", "40", "10", "110", "100")
    done = run("swap", "a.png", "a.png", "--recipe", "sift", *box, "--photo", "p.png")
    assert (done.status, done.out) == (0, "wrote p.png\n")
    assert not Path("swap-a-a.png").exists()
    off = np.abs(pixels("p.png").astype(int) - pixels("a.png"))
    assert np.median(off[10:101, 40:111]) <= 1  # smoothed, it is off by parts of a pixel


def test_without_masks_what_stands_out_is_swapped_and_told(folder, run):
    done = run("swap", *PAIR)
    assert done.status == 0
    assert done.out == "wrote swap-a-b.png\n"
    first, second = done.err.splitlines()
    assert first.startswith("a.png: what stands out, ")
    assert first.endswith("the object; --source-mask or --source-box says otherwise")
    assert second.startswith("b.png: what stands out, ")
    assert 0 < int(second.split()[4]) < 100
    one = run("swap", *PAIR, "--target-box", "20", "30", "80", "110")
    assert one.err.splitlines() == [first]


def test_photos_in_which_nothing_stands_out(folder, run):
    for name in ("a.png", "b.png"):
        PIL.Image.new("RGB", (60, 40), "grey").save(name)
    done = run("swap", *PAIR)
    assert done.status == 2
    assert "nothing stands out in the source photo; give its object, with --source" in done.error
    done = run("swap", *PAIR, "--source-box", "5", "5", "50", "30")
    assert "nothing stands out in the target photo; give its object, with --target" in done.error
    boxes = ("--source-box", "5", "5", "50", "30", "--target-box", "5", "5", "50", "30")
    done = run("swap", *PAIR, *boxes)
    assert "no place of the two objects is matched the same both ways" in done.error
    assert sorted(os.listdir(folder)) == ["a.png", "b.png"]


# Heat map


def test_heatmap_prints_the_line_of_match_and_draws(folder, run):
    done = run("heatmap", *PAIR, "--point", "20", "30")
    assert (done.status, done.err) == (0, "")
    *table, wrote = done.out.splitlines()
    assert wrote == "wrote heatmap-a-b.png"
    assert pixels("heatmap-a-b.png").std() > 0
    assert run("match", *PAIR, "--point", "20", "30").out.splitlines()[:-1] == table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--point'"),
        (("--point", "20"), "requires 2 arguments"),
        (("--point", "20", "30", "--point", "1", "2"), "a heat map is of one --point"),
        (("--point", "157", "30"), "(157, 30), is not on the source photo"),
        (("--point", "nan", "30"), "is not on the source photo"),
    ],
)
def test_a_heat_map_is_of_one_point(folder, run, no_loading, arguments, message):
    done = run("heatmap", *PAIR, *arguments)
    assert done.status == 2
    assert message in done.err


# Mistakes are found before a model is loaded


@each_command
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.png",), "Missing argument 'TARGET'"),
        (("a.png", "none.png", "--recipe", "sift"), "no such file: none.png"),
        (("a.png", "b.png", "c.png"), "unexpected extra argument (c.png)"),
        ((*PAIR, "--category", "cat"), "leave --category out"),
        ((*PAIR, "--out", "there/p.png"), "there is no folder there"),
        ((*PAIR, "--out", "p.gif"), "expected a name that ends in .png"),
        ((*PAIR, "--out", "b.png"), "it is one of the files to be read"),
    ],
)
def test_mistakes_of_all(folder, run, no_loading, command, arguments, message):
    done = run(command, *arguments, *COMMANDS[command])
    assert done.status == 2
    assert message in done.err
    assert sorted(os.listdir(folder)) == ["a.png", "b.png"]


@pytest.mark.parametrize("command", ["flow", "swap"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--source-mask", "black.png"), "mask black.png covers no pixel"),
        (("--target-mask", "black.png"), "expected 136 x 100 (high x wide) as the photo"),
        (("--source-box", "9", "9", "1", "1"), "expected x0 < x1"),
        (("--source-mask", "black.png", "--source-box", "1", "1", "9", "9"), "not both"),
        (("--source-mask", "none.png"), "no such file: none.png"),
        (("--source-mask", "black.png", "--out", "black.png"), "one of the files to be read"),
    ],
)
def test_mistakes_in_masks(folder, run, no_loading, command, arguments, message):
    write_mask("black.png", (157, 104), (0, 0, 0, 0))
    done = run(command, *PAIR, *arguments)
    assert done.status == 2
    assert message in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flow", "--warped", "w.jpg"), "cannot write w.jpg: expected a name that ends in .png"),
        (("flow", "--flo", "a.png"), "cannot write a.png: expected a name that ends in .flo"),
        (("flow", "--npy", "a.npz"), "expected a name that ends in .npy"),
        (("flow", "--warped", "b.png"), "it is one of the files to be read"),
        (("flow", "--npy", "there/a.npy"), "there is no folder there"),
        (("flow", "--out", "w.png", "--warped", "w.png"), "--out and --warped name one file"),
        (("flow", "--out", "w.png", "--warped", "./w.png"), "--out and --warped name one file"),
        (("flow", "--within", "-0.1"), "expected a share of at least 0, like 0.05, got -0.1"),
        (("flow", "--within", "nan"), "expected a share of at least 0, like 0.05, got nan"),
        (("flow", "--within", "inf"), "expected a share of at least 0, like 0.05, got inf"),
        (("swap", "--photo", "p.jpg"), "expected a name that ends in .png"),
        (("swap", "--photo", "a.png"), "it is one of the files to be read"),
        (("swap", "--out", "p.png", "--photo", "p.png"), "--out and --photo name one file"),
    ],
)
def test_mistakes_in_outputs(folder, run, no_loading, arguments, message):
    command, *options = arguments
    done = run(command, *PAIR, *options)
    assert done.status == 2
    assert message in done.err
    assert sorted(os.listdir(folder)) == ["a.png", "b.png"]


# Odd photos


@pytest.mark.parametrize("sizes", [((1, 1), (40, 30)), ((200, 1), (1, 90)), ((300, 20), (16, 200))])
def test_photos_of_odd_shapes(folder, run, sizes):
    for name, size in zip(("a.png", "b.png"), sizes, strict=True):
        noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3))
        PIL.Image.fromarray(noise.astype(np.uint8)).save(name)
    files = ("--warped", "w.png", "--flo", "f.flo", "--npy", "f.npy", "--out", "f.png")
    assert run("flow", *PAIR, *files).status == 0
    assert pixels("w.png").shape == (*sizes[1][::-1], 4)
    assert np.load("f.npy").shape == (*sizes[0][::-1], 2)
    assert run("heatmap", *PAIR, "--point", "0", "0").status == 0
    done = run("swap", *PAIR, "--photo", "p.png")
    assert done.status == 0 or "sdcorr: n" in done.err  # nothing stands out, or no place agrees
