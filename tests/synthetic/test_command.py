"""``sdcorr data synth`` from the shell: what it says, what it refuses, what it leaves."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import click
import pytest

from sdcorr.cli import cli
from sdcorr.errors import BadOutput
from sdcorr.synthetic import _spair, _tss


def run(*arguments: str) -> None:
    cli.main(["data", "synth", *arguments], standalone_mode=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work must not begin."""

    def fail(*_arguments: Any) -> None:
        pytest.fail("drew before looking at the folder")

    monkeypatch.setattr("sdcorr.synthetic.write_spair", fail)


def test_it_says_what_it_wrote(folder, capsys):
    (folder / "set").mkdir()  # an empty folder will do
    run("--out", "set", "--pairs", "1", "--seed", "9")
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "drew 6 photos for 1 test pair of 1 category, and 6 for 3 pairs with flow",
        "wrote set",
    ]
    assert printed.err == ""
    assert {one.name for one in folder.iterdir()} == {"set"}
    assert {one.name for one in (folder / "set").iterdir()} == {"README.md", "spair", "tss"}


@pytest.mark.usefixtures("no_drawing")
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("full", "cannot write full: it is not empty; give a new folder"),
        ("file", "cannot write file: it is a file; give a new folder"),
        ("file/in", "cannot write file/in: "),
        ("dangling", "cannot write dangling: it is a file; give a new folder"),
        ("loop", "cannot write loop: "),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_folder_that_cannot_be_written_is_refused(folder, out, message):
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("kept")
    (folder / "file").write_text("kept")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    before = sorted(folder.rglob("*"))
    with pytest.raises(BadOutput) as error:
        run("--out", out)
    assert message in str(error.value)
    assert sorted(folder.rglob("*")) == before


def test_the_working_folder_is_not_replaced(folder):
    with pytest.raises(BadOutput, match=r"cannot write \.: it is in use; give a new folder in it"):
        run("--out", ".", "--pairs", "1")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [("--pairs", "0"), ("--pairs", "100001"), ("--pairs", "ten"), ("--seed", "-1"), ("--out",)],
)
def test_numbers_out_of_range_are_refused(folder, arguments):
    with pytest.raises(click.ClickException):
        run("--out", "set", *arguments)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("module", [_spair, _tss])
def test_a_full_disk_leaves_nothing(folder, monkeypatch, module):
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write_pair" if module is _spair else "_write", fail)
    with pytest.raises(BadOutput, match="cannot write set: No space left on device"):
        run("--out", "set", "--pairs", "1")
    assert list(folder.iterdir()) == []


def test_a_full_disk_at_a_flow_names_the_users_folder(folder, monkeypatch):
    def fail(path: Path, *_arguments: Any) -> None:
        cause = OSError(errno.ENOSPC, "No space left on device")
        raise BadOutput(f"cannot write {path}") from cause

    monkeypatch.setattr(_tss, "write_flo", fail)
    with pytest.raises(BadOutput, match=r"^cannot write set: No space left on device$"):
        run("--out", "set", "--pairs", "1")
    assert list(folder.iterdir()) == []


def test_ctrl_c_leaves_nothing(folder, monkeypatch):
    calls = []

    def interrupt(*_arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("sdcorr.cli._synth._Bar.__call__", interrupt)
    with pytest.raises((KeyboardInterrupt, click.Abort)):
        run("--out", "set", "--pairs", "1")
    assert len(calls) == 3
    assert list(folder.iterdir()) == []


def test_folders_above_are_made_and_go_again_where_it_fails(folder, monkeypatch):
    run("--out", "some/where/set", "--pairs", "1")
    assert (folder / "some/where/set/spair").is_dir()

    def fail(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sdcorr.synthetic.write_tss", fail)
    with pytest.raises(BadOutput, match="No space left on device"):
        run("--out", "else/where/set", "--pairs", "1")
    assert {one.name for one in folder.iterdir()} == {"some"}


def test_ctrl_c_says_that_nothing_was_written(folder, monkeypatch, capsys):
    def stop(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sdcorr.synthetic.write_tss", stop)
    with pytest.raises(click.Abort):
        run("--out", "set", "--pairs", "1")
    assert capsys.readouterr().err.strip() == "interrupted; nothing was written"
    assert not list(folder.iterdir())
