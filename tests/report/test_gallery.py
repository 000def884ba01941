from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sdcorr.errors import BadRun
from sdcorr.hits import Rule
from sdcorr.report import Options
from sdcorr.report._blocks import Mark, Picture, Pictures, Text
from sdcorr.report._gallery import MOST_BYTES, SIDE, Gallery, thumbnail
from sdcorr.report._runs import read_runs
from tests.report.runs import EXACT, PREDICTED, pair, write_lines, write_run

RULE = Rule((0.05, 0.1), "box")


def draw(folder: Path) -> Path:
    """The photos of ``pair``: 120 x 60 and 160 x 80, of one grey each."""
    folder.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (120, 60), (200, 200, 200)).save(folder / "s.png")
    PIL.Image.new("RGB", (160, 80), (90, 90, 90)).save(folder / "t.png")
    return folder


def best_of(path: Path, **options: object) -> tuple[list[Picture], list[Text]]:
    gallery = Gallery(Options(**options), RULE)
    blocks = list(gallery.best_and_worst(read_runs([path])[0]))
    pictures = [one for block in blocks if isinstance(block, Pictures) for one in block.pictures]
    return pictures, [block for block in gallery.gone() if isinstance(block, Text)]


def test_a_picture_shows_what_was_annotated_and_predicted(tmp_path: Path):
    root = draw(tmp_path / "photos")
    path = write_run(tmp_path / "run", [pair()], {"a": PREDICTED}, root=str(root))
    ((picture,), gone) = best_of(path)
    source, target = picture.frames
    assert (picture.pair, picture.category) == ("a", "cat")
    assert source.marks == (
        Mark("0", "0", (10, 10), "annotated"),
        Mark("1", "1", (20, 20), "annotated"),
        Mark("2", "2", (30, 30), "annotated"),
    )
    # at 0.1 of a side of 100: errors of 0 and 6 are right, 30 is wrong
    assert target.marks == (
        Mark("0", "0", (20, 20), "right", (20, 20)),
        Mark("1", "1", (66, 40), "right", (60, 40)),
        Mark("2", "2", (100, 80), "wrong", (100, 50)),
    )
    assert target.note == "2 of 3 right, mean error 0.120 of the side"
    assert (source.size, target.size) == ((60, 120), (80, 160))
    assert gone == []
    photo = PIL.Image.open(io.BytesIO(base64.b64decode(target.photo.partition(",")[2])))
    assert photo.size == (160, 80)
    assert np.asarray(photo).mean() == pytest.approx(90, abs=1)


def test_two_runs_stand_side_by_side(tmp_path: Path):
    root = draw(tmp_path / "photos")
    first = write_run(tmp_path / "a", [pair()], {"a": EXACT}, root=str(root))
    second = write_run(tmp_path / "b", [pair()], {"a": PREDICTED}, root=str(root))
    one, other = read_runs([first, second])
    (block,) = Gallery(Options(), RULE).unlike(one, other)
    (picture,) = block.pictures
    assert [frame.caption for frame in picture.frames] == [
        "source", "target, 1 mine", "target, 2 mine",
    ]  # fmt: skip
    assert [mark.kind for mark in picture.frames[1].marks] == ["right"] * 3
    assert [mark.kind for mark in picture.frames[2].marks] == ["right", "right", "wrong"]
    (text,) = Gallery(Options(), RULE).unlike(one, one)
    assert "the same share" in text.words


def test_photos_that_are_gone_leave_empty_frames_of_the_annotated_size(tmp_path: Path):
    path = write_run(tmp_path / "run", [pair()], {"a": PREDICTED}, root=str(tmp_path / "gone"))
    ((picture,), (text,)) = best_of(path)
    assert [frame.photo for frame in picture.frames] == ["", ""]
    assert [frame.size for frame in picture.frames] == [(60, 120), (80, 160)]
    assert text.words.startswith(
        "2 of 2 photos cannot be read, or are others than the run had, such as s.png: their frames"
    )
    assert text.loud


def test_a_size_that_nobody_knows_holds_all_points(tmp_path: Path):
    sizes = {"source_size": None, "target_size": None}
    path = write_run(tmp_path / "run", [pair(**sizes)], {"a": PREDICTED})
    ((picture,), _) = best_of(path)
    assert [frame.size for frame in picture.frames] == [(31, 31), (51, 101)]
    draw(tmp_path / "photos")
    ((picture,), _) = best_of(path, roots=(tmp_path / "photos",))
    assert [frame.size for frame in picture.frames] == [(60, 120), (80, 160)]


def test_a_root_that_is_given_comes_first(tmp_path: Path):
    old, new = draw(tmp_path / "old"), draw(tmp_path / "new")
    PIL.Image.new("RGB", (12, 6)).save(new / "s.png")
    one = pair(source_size=[6, 12])
    path = write_run(tmp_path / "run", [one], {"a": PREDICTED}, root=str(old))
    ((picture,), gone) = best_of(path, roots=(tmp_path, new))
    assert picture.frames[0].size == (6, 12)
    assert picture.frames[0].photo
    assert gone == []


@pytest.mark.parametrize(
    ("name", "size", "known", "taken"),
    [
        ("s.png", (120, 60), True, True),
        ("s.png", (121, 60), True, False),
        ("s.png", (60, 120), True, False),  # turned
        ("s.png", (999, 60), False, True),  # nobody knows its size
        ("t.png", (160, 80), True, True),
        ("t.png", (160, 81), True, False),
        ("t.png", (160, 81), False, True),  # the run saw a longer side of 160
        ("t.png", (161, 80), False, False),
    ],
)
def test_a_photo_of_another_size_is_another_photo(
    tmp_path: Path, name: str, size: tuple[int, int], known: bool, taken: bool
):
    root = draw(tmp_path / "photos")
    PIL.Image.new("RGB", size).save(root / name)
    one = pair() if known else pair(source_size=None, target_size=None)
    path = write_run(tmp_path / "run", [one], {"a": PREDICTED}, root=str(root))
    ((picture,), gone) = best_of(path)
    frame = picture.frames[("s.png", "t.png").index(name)]
    assert bool(frame.photo) == taken
    assert [text.words[:13] for text in gone] == ([] if taken else ["1 of 2 photos"])
    assert all(f"such as {name}:" in text.words for text in gone)
    if known:
        assert [frame.size for frame in picture.frames] == [(60, 120), (80, 160)]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "a/../../secret.png"])
def test_a_run_cannot_name_photos_outside_its_root(tmp_path: Path, name: str):
    root = draw(tmp_path / "photos")
    (root / "a").mkdir()
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    path = write_run(tmp_path / "run", [pair(source=name)], {"a": PREDICTED}, root=str(root))
    ((picture,), (text,)) = best_of(path)
    assert picture.frames[0].photo == ""
    assert "1 of 2 photos" in text.words


def test_a_damaged_photo_is_one_that_is_gone(tmp_path: Path):
    root = draw(tmp_path / "photos")
    (root / "s.png").write_bytes(b"no photo")
    path = write_run(tmp_path / "run", [pair()], {"a": PREDICTED}, root=str(root))
    ((picture,), gone) = best_of(path)
    assert picture.frames[0].photo == ""
    assert picture.frames[1].photo
    assert len(gone) == 1


@pytest.mark.parametrize("size", [(320, 320), (640, 500), (50, 40)])
def test_thumbnails_are_small_whatever_they_show(size: tuple[int, int]):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    url = thumbnail(PIL.Image.fromarray(noise))
    data = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    assert len(data) <= MOST_BYTES
    photo = PIL.Image.open(io.BytesIO(data))
    assert max(photo.size) == min(SIDE, max(size))


def test_a_record_without_a_place_is_told(tmp_path: Path):
    path = write_run(tmp_path / "run", [pair()], {"a": PREDICTED})
    lines = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    lines[1]["prediction"] = [1, "x"]
    write_lines(path / "records.jsonl", lines)
    with pytest.raises(BadRun, match=r"pair a has no prediction of keypoint 1"):
        best_of(path)


@pytest.mark.parametrize("name", ["pairs.jsonl", "records.jsonl"])
def test_a_run_that_changes_meanwhile_is_told(tmp_path: Path, name: str):
    path = write_run(
        tmp_path / "run", [pair(), pair("b", source="u.png")], {"a": EXACT, "b": PREDICTED}
    )
    (run,) = read_runs([path])
    text = (path / name).read_text()
    (path / name).write_text(text.replace('"pair": "b"', '"pair": "c"'))
    with pytest.raises(BadRun, match=rf"{name} has changed while the report was made; make it ag"):
        list(Gallery(Options(), RULE).best_and_worst(run))
