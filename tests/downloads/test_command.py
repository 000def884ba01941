"""The command says what it is about to fetch, then fetches it, and says how to go on."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios

import pytest
from click.testing import CliRunner

from sdcorr.cli import _download
from sdcorr.downloads import SOURCES
from sdcorr.errors import BadDownload, UnknownName
from tests.annotated import write_pf_willow
from tests.downloads.archives import pack
from tests.downloads.server import Answer

NAMES = ("PF-dataset.zip", "test_pairs_pf.csv")


@pytest.fixture(scope="module")
def willow(tmp_path_factory) -> dict[str, bytes]:
    root = write_pf_willow(tmp_path_factory.mktemp("willow"), list_name=NAMES[1])
    packed = pack(root / "PF-dataset", NAMES[0])
    return {NAMES[0]: packed, NAMES[1]: (root / NAMES[1]).read_bytes()}


@pytest.fixture
def mirror(site, willow) -> str:
    for name, content in willow.items():
        site.put(name, Answer(content))
    return site.url


def run(*arguments: str):
    return CliRunner().invoke(_download.download, arguments)


def test_licence_and_size_are_told_before_the_first_byte(mirror, tmp_path, monkeypatch):
    """A download that dies at once has told everything that matters."""
    monkeypatch.setattr("sdcorr.downloads._download.fetch", lambda *_: 1 / 0)
    done = run("pf-willow", "--out", str(tmp_path), "--url", mirror)
    assert done.stdout.splitlines() == [
        "PF-WILLOW",
        "licence: academic use only",
        "size: not known",
        f"from: {mirror}PF-dataset.zip",
        f"from: {mirror}test_pairs_pf.csv",
        f"to: {tmp_path}/PF-WILLOW",
    ]


def test_the_command_that_is_named_at_the_end_takes_the_folder(mirror, tmp_path):
    out = tmp_path / "my data"
    done = run("pf-willow", "--out", str(out), "--url", mirror)
    assert done.exit_code == 0, done.exception
    *_, wrote, then = done.stdout.splitlines()
    assert wrote == f"wrote {out}/PF-WILLOW; PF-dataset.zip and test_pairs_pf.csv may be deleted"
    words = shlex.split(then.removeprefix("to measure: "))
    assert words == [
        "sdcorr", "eval", "pf-willow", "--root", f"{out}/PF-WILLOW", "--recipe", "sift",
        "--out", "runs/pf-willow",
    ]  # fmt: skip


def test_all_that_was_fetched_may_be_deleted(tmp_path, monkeypatch):
    """Two of PF-PASCAL's three files are lists."""
    monkeypatch.setattr("sdcorr.downloads.download", lambda *_: None)
    wrote = run("pf-pascal", "--out", str(tmp_path)).stdout.splitlines()[-2]
    lists = "test_pairs_pf_pascal.csv and val_pairs_pf_pascal.csv"
    assert wrote.endswith(f"; PF-dataset-PASCAL.zip, {lists} may be deleted")


def test_a_data_set_that_is_there_costs_nothing(site, mirror, tmp_path):
    run("pf-willow", "--out", str(tmp_path), "--url", mirror)
    site.requests.clear()
    done = run("pf-willow", "--out", str(tmp_path))
    assert done.exit_code == 0
    first, then = done.stdout.splitlines()
    assert first == f"{tmp_path}/PF-WILLOW is there; nothing was fetched"
    assert then.startswith("to measure: sdcorr eval pf-willow")
    assert site.requests == []


def test_files_put_there_by_hand_are_told_and_used(site, mirror, willow, tmp_path):
    (tmp_path / NAMES[0]).write_bytes(willow[NAMES[0]])
    done = run("pf-willow", "--out", str(tmp_path), "--url", mirror)
    assert f"is here: {tmp_path}/PF-dataset.zip" in done.stdout.splitlines()
    assert [name for name, _ in site.requests] == [NAMES[1]]


def test_mistakes_are_told(tmp_path):
    assert isinstance(run("spiar", "--out", str(tmp_path)).exception, UnknownName)
    wrong = run("spair", "--out", str(tmp_path), "--url", "ftp://example.org/a").exception
    assert isinstance(wrong, BadDownload)
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_every_data_set():
    assert f"({', '.join(SOURCES)})" in " ".join(run("--help").stdout.split())


SCRIPT = "import sys; from sdcorr.cli._download import download; download()"


def test_a_terminal_gets_a_bar_and_a_broken_connection_a_line(site, willow, tmp_path):
    site.put(NAMES[0], Answer(willow[NAMES[0]], drop=2000), Answer(willow[NAMES[0]]))
    site.put(NAMES[1], Answer(willow[NAMES[1]]))
    shown, text = pty.openpty()
    arguments = ["pf-willow", "--out", str(tmp_path), "--url", site.url]
    fcntl.ioctl(text, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], check=True, stderr=text, stdout=subprocess.PIPE
    )
    os.close(text)
    told = _all_of(shown)
    assert re.search(r"PF-dataset\.zip: +\d+%", told)
    assert re.search(r"PF-dataset\.zip: broken off \(.*\); trying again in 0\.5 s", told)


def _all_of(terminal: int) -> str:
    read = b""
    try:
        while chunk := os.read(terminal, 1 << 16):
            read += chunk
    except OSError:  # its other end is closed
        pass
    os.close(terminal)
    return read.decode()


def test_elsewhere_a_line_now_and_then(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(_download, "LINE_EVERY", 0.0)
    done = run("pf-willow", "--out", str(tmp_path), "--url", mirror)
    lines = done.stderr.splitlines()
    assert re.fullmatch(r"PF-dataset\.zip: 0\.\d of 0\.\d MB", lines[0])
    assert any(line.startswith("unpacking PF-dataset.zip: ") for line in lines)


def test_ctrl_c_leaves_what_the_same_command_goes_on_with(site, mirror, tmp_path, monkeypatch):
    part = tmp_path / f"{NAMES[0]}.part"

    def stop(self: object, what: str, done: int, _total: int | None) -> None:
        assert (what, part.stat().st_size) == (NAMES[0], done)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_download._Bytes, "__call__", stop)
        done = run("pf-willow", "--out", str(tmp_path), "--url", mirror)
    assert done.stderr.endswith("interrupted; the same command goes on\n\nAborted!\n")
    assert part.exists()
    assert run("pf-willow", "--out", str(tmp_path), "--url", mirror).exit_code == 0
    assert not part.exists()
