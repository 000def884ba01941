from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sdcorr.errors import BadOutput
from sdcorr.export import PICTURES
from sdcorr.files import check_output, replacing, write_json

# Whole or not at all


def test_the_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old")

    def fail_halfway() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["old.txt"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["old.txt"]


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "new.txt"):
            raise OSError(28, "No space left on device")

    with pytest.raises(BadOutput, match=r"new\.txt: No space left on device"):
        fail()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_never_holds_nan_or_infinity(tmp_path: Path, value: float) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"score": value})
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no /dev/null here")
def test_a_device_stays_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, name in ((Path, "replace"), (os, "replace"), (os, "rename")):
        # run by root, a failure would harm the machine
        monkeypatch.setattr(place, name, lambda *_: pytest.fail("would replace the device"))
    before = set(os.listdir("/dev"))
    link = tmp_path / "link.json"
    link.symlink_to("/dev/null")
    for path in (Path("/dev/null"), link):
        write_json(path, {"a": 1})
        assert stat.S_ISCHR(path.stat().st_mode)
    assert link.is_symlink()
    assert set(os.listdir("/dev")) <= before


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "out.json", tmp_path / "link.json"
    if exists:
        real.write_text("old")
    link.symlink_to(real)
    write_json(link, {"a": 1})
    assert link.is_symlink()
    assert json.loads(real.read_text()) == {"a": 1}
    assert sorted(os.listdir(tmp_path)) == ["link.json", "real"]
    assert os.listdir(tmp_path / "real") == ["out.json"]


# Refused before any work is done


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("picture.bmp", r"expected a name that ends in \.png"),
        ("picture", r"expected a name that ends in \.png"),
        (".png", r"expected a name that ends in \.png"),
        ("folder.png", "it is a folder; give a file name"),
        ("missing/picture.png", "there is no folder .*missing; make it first"),
        ("photo.png", "it is one of the files to be read"),
        ("folder.png/../photo.png", "it is one of the files to be read"),
        ("link.png", "it is one of the files to be read"),
        ("photo.png/picture.png", "there is no folder"),
        (f"{'n' * 300}.png", "cannot write"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "photo.png").write_bytes(b"photo")
    (tmp_path / "link.png").symlink_to(tmp_path / "photo.png")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(BadOutput, match=message):
        check_output(tmp_path / name, (tmp_path / "photo.png",), PICTURES)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_good_place_is_not_touched(tmp_path: Path) -> None:
    check_output(tmp_path / "new.PNG", (tmp_path / "no such photo.png",), PICTURES)
    (tmp_path / "old.json").write_text("old")
    check_output(tmp_path / "old.json")
    assert os.listdir(tmp_path) == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "old"


def forbid(*_arguments: Any, **_options: Any) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_closed_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", forbid)
    with pytest.raises(BadOutput, match=r"out\.json: Permission denied"):
        check_output(tmp_path / "out.json")


def test_a_device_in_a_closed_folder_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", forbid)  # as /dev is to all but root
    assert check_output(Path("/dev/null")) is None


def test_a_name_that_is_accepted_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'n' * 250}.json"  # 255 bytes: as long as file systems allow
    check_output(path)
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_pipe_is_refused_before_the_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(BadOutput, match="it is a pipe"):
        check_output(tmp_path / "pipe.json")


def test_links_in_circles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to(tmp_path / "b.json")
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(BadOutput, match="cannot write"):
        check_output(tmp_path / "a.json")


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    path.chmod(0o640)
    write_json(path, {"a": 1})
    assert path.stat().st_mode & 0o777 == 0o640
