"""TSS: its folders, both directions, masks of every kind, and what is wrong with a copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sdcorr.datasets.tss import Tss
from sdcorr.errors import BadAnnotations, BadDataset
from sdcorr.flow_pairs import FlowPair
from sdcorr.geometry import Size
from tests.annotated_tss import SHIFT, write_flo, write_mask, write_tss


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tss(tmp_path / "data")


def pair_of(root: Path, name: str) -> FlowPair:
    (found,) = [pair for pair in Tss(root).pairs() if pair.id == name]
    return found


def test_every_folder_is_a_pair_both_ways(root):
    pairs = Tss(root).pairs()
    assert [pair.id for pair in pairs] == [
        f"{name}/{way}"
        for name in ("FG3DCar/001_005", "JODS/busd_01_02", "PASCAL/bike_01_03")
        for way in ("1-2", "2-1")
    ]
    assert [pair.category for pair in pairs[::2]] == ["FG3DCar", "JODS", "PASCAL"]
    assert [pair.subject for pair in pairs[::2]] == ["car", "bus", "bicycle"]
    assert [pair.difficulty["flip"] for pair in pairs[::2]] == ["unflipped", "unflipped", "flipped"]


@pytest.mark.parametrize("way", ["1-2", "2-1"])
@pytest.mark.parametrize("name", ["FG3DCar/001_005", "JODS/busd_01_02", "PASCAL/bike_01_03"])
def test_files_of_a_pair_are_those_of_its_source(root, name, way):
    pair = pair_of(root, f"{name}/{way}")
    source, target = way.split("-")
    home = root / name
    assert pair.source == home / f"image{source}.png"
    assert pair.target == home / f"image{target}.png"
    assert pair.source_size == (Size(60, 80) if source == "1" else Size(80, 60))
    assert pair.target_size == (Size(60, 80) if target == "1" else Size(80, 60))
    flow, valid = pair.read()
    assert flow.shape == (*pair.source_size, 2)
    assert valid.sum() == 400
    sign = 1 if source == "1" else -1
    assert (flow[valid] == sign * np.array(SHIFT)).all()
    top, left = np.argwhere(valid)[0]
    assert (top, left) == ((20, 10) if source == "1" else (18, 13))


def test_a_palette_counts_by_its_indices_not_by_its_colours(root):
    mask = PIL.Image.open(root / "JODS/busd_01_02/mask1.png")
    assert mask.mode == "P"
    shown = np.asarray(mask.convert("L"))
    _, valid = pair_of(root, "JODS/busd_01_02/1-2").read()
    assert (shown[valid] == 0).all()  # the object is shown black
    assert (shown[~valid] == 255).all()


def test_antialiased_edges_of_a_mask_count(root):
    path = root / "FG3DCar/001_005/mask1.png"
    values = np.asarray(PIL.Image.open(path)).copy()
    values[20, 10] = 1
    PIL.Image.fromarray(values).save(path)
    assert pair_of(root, "FG3DCar/001_005/1-2").read()[1].sum() == 400


def test_pixels_count_that_both_flow_and_mask_know(root):
    home = root / "FG3DCar/001_005"
    on = np.zeros((60, 80), bool)
    on[30:50, 10:30] = True  # ten rows of the object, and ten where no flow is known
    write_mask(home / "mask1.png", on, palette=False)
    _, valid = pair_of(root, "FG3DCar/001_005/1-2").read()
    assert valid.sum() == 200


def test_copies_of_a_photo_are_one_photo(root):
    first, second = root / "FG3DCar/001_005", root / "FG3DCar/001_007"
    shutil.copytree(first, second)
    pairs = [pair for pair in Tss(root).pairs() if pair.category == "FG3DCar"]
    assert len(pairs) == 4
    assert {pair.source for pair in pairs} == {first / "image1.png", first / "image2.png"}
    assert pairs[2].flow == second / "flow1.flo"


def test_photos_of_one_length_that_differ_stay_two(root):
    first, second = root / "FG3DCar/001_005", root / "FG3DCar/001_007"
    shutil.copytree(first, second)
    data = bytearray((second / "image1.png").read_bytes())
    data[-1] ^= 1
    (second / "image1.png").write_bytes(data)
    pairs = [pair for pair in Tss(root).pairs() if pair.category == "FG3DCar"]
    assert {pair.source.parent.name for pair in pairs[2:]} == {"001_005", "001_007"}


def test_a_missing_file_is_named(root):
    (root / "PASCAL/bike_01_03/flow2.flo").unlink()
    with pytest.raises(
        BadDataset, match=r"1 of 21 files are missing, first PASCAL/bike_01_03/flow2"
    ):
        Tss(root).pairs()


def test_a_missing_subset_is_named(root):
    shutil.rmtree(root / "JODS")
    with pytest.raises(BadDataset, match="is not a whole TSS: no folder JODS"):
        Tss(root).pairs()


def test_an_empty_subset_is_named(root):
    shutil.rmtree(root / "JODS/busd_01_02")
    with pytest.raises(BadDataset, match="JODS holds no folder of a pair"):
        Tss(root).pairs()


def test_the_folder_above_is_told(root):
    with pytest.raises(BadDataset, match=r"no folder FG3DCar; .*did you mean its folder data\?"):
        Tss(root.parent).pairs()


def test_a_cut_flow_is_found_before_anything_is_encoded(root):
    path = root / "FG3DCar/001_005/flow1.flo"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadDataset, match=r"flow1\.flo is cut short: expected 38412 bytes"):
        Tss(root).pairs()


def test_a_flip_that_is_no_number_is_told(root):
    (root / "FG3DCar/001_005/flip_gt.txt").write_text("yes")
    with pytest.raises(
        BadDataset, match=r"FG3DCar/001_005: expected 0 or 1 in flip_gt.txt, got 'y"
    ):
        Tss(root).pairs()


def test_a_mask_of_another_size_is_told(root):
    write_mask(root / "FG3DCar/001_005/mask1.png", np.ones((80, 60), bool), palette=False)
    with pytest.raises(
        BadDataset, match=r"mask1\.png is 80 x 60 \(high x wide\), flow1\.flo 60 x 80"
    ):
        Tss(root).pairs()


def test_a_mask_in_colour_is_told(root):
    PIL.Image.new("RGB", (80, 60)).save(root / "FG3DCar/001_005/mask1.png")
    with pytest.raises(
        BadDataset, match=r"mask1\.png is a picture of mode RGB; expected a mask of one"
    ):
        Tss(root).pairs()


def test_a_mask_that_is_no_picture_is_told(root):
    (root / "FG3DCar/001_005/mask1.png").write_bytes(b"<html>")
    with pytest.raises(BadDataset, match=r"cannot read .*mask1\.png"):
        Tss(root).pairs()


def test_a_mask_that_is_cut_is_told_before_anything_is_encoded(root):
    path = root / "FG3DCar/001_005/mask1.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BadDataset, match=r"FG3DCar/001_005: cannot read .*mask1\.png"):
        Tss(root).pairs()


def test_a_flow_that_covers_no_pixel_of_the_mask_is_told(root):
    write_mask(root / "FG3DCar/001_005/mask1.png", np.zeros((60, 80), bool), palette=False)
    with pytest.raises(BadAnnotations, match=r"annotates no pixel that mask1\.png covers"):
        pair_of(root, "FG3DCar/001_005/1-2").read()


def test_a_file_that_changed_size_since_is_told(root):
    pair = pair_of(root, "FG3DCar/001_005/1-2")
    write_flo(pair.flow, np.zeros((5, 7, 2)))
    with pytest.raises(
        BadAnnotations, match=r"flow1\.flo is 5 x 7 \(high x wide\), its photo 60 x 80"
    ):
        pair.read()


def test_hidden_folders_are_no_pairs(root):
    (root / "JODS/.ipynb_checkpoints").mkdir()
    assert len(Tss(root).pairs()) == 6


def test_a_photo_that_is_a_dangling_link_is_missing(root):
    photo = root / "JODS/busd_01_02/image1.png"
    photo.unlink()
    photo.symlink_to("nowhere.png")
    with pytest.raises(BadDataset, match=r"1 of 21 files are missing, first JODS/busd_01_02/"):
        Tss(root).pairs()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("name", ["mask1.png", "flip_gt.txt", "flow2.flo", "image2.png"])
def test_a_pipe_is_no_file_and_is_not_waited_for(root, name):
    path = root / "JODS/busd_01_02" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BadDataset, match=f"files are missing, first JODS/busd_01_02/{name}"):
        Tss(root).pairs()


def test_a_digest_is_of_flow_and_mask(root):
    pair = pair_of(root, "FG3DCar/001_005/1-2")
    first = pair.digest()
    flow = pair.flow.read_bytes()
    pair.flow.write_bytes(flow[:-1] + b"\x01")
    second = pair.digest()
    pair.flow.write_bytes(flow)
    write_mask(pair.mask, np.ones((60, 80), bool), palette=False)
    assert len({first, second, pair.digest()}) == 3
    pair.mask.unlink()
    with pytest.raises(BadAnnotations, match=r"cannot read .*mask1\.png: No such file"):
        pair.digest()
