from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import starlette.applications
from click.testing import CliRunner

from sdcorr.cli import cli
from sdcorr.cli.demo import demo
from sdcorr.demo import app
from tests.conftest import ROOT, Command
from tests.demo.server import ask, astronaut, hopper, picture, send

SERVED = "open http://127.0.0.1:"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: two photos, and an empty hub cache."""
    (tmp_path / "a.jpg").write_bytes(picture(astronaut()))
    (tmp_path / "b.png").write_bytes(picture(hopper(), "PNG"))
    (tmp_path / "text.jpg").write_text("This is no photo.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


Served = list[tuple[starlette.applications.Starlette, socket.socket]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """What would be served, instead of serving it."""
    served: Served = []
    monkeypatch.setattr(app, "serve", lambda *both: served.append(both))
    yield served
    for _, place in served:
        place.close()


# -- what a user may get wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.jpg",), "expected two photos or none, got 1"),
        (("a.jpg", "b.png", "a.jpg"), "expected two photos or none, got 3"),
        (("--port", "65536"), "65536 is not in the range 0<=x<=65535"),
        (("--port", "-1"), "-1 is not in the range 0<=x<=65535"),
        (("--port", "http"), "'http' is not a valid integer"),
        (("--memory", "1MB"), "expected at least 1GB, got 1000000 bytes"),
        (("--memory", "much"), "expected a size like 2GB, got 'much'"),
        (("--memory", "-2GB"), "expected a size like 2GB, got '-2GB'"),
        (("--cache-limit", "1GB"), "--cache-dir"),
    ],
)
def test_usage(
    folder: Path, served: Served, run: Command, arguments: Sequence[str], words: str
) -> None:
    done = run("demo", "--recipe", "sift", *arguments)
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert not served


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.jpg", "missing.jpg"), "no such file: missing.jpg"),
        (("a.jpg", "text.jpg"), "text.jpg is no photo that can be read; expected JPEG"),
        (("a.jpg", "."), "is a folder; expected a photo"),
        (("a.jpg", "b.png", "--category", "cat"), "no prompt that names a category"),
        (("--category", "cat"), "no prompt that names a category"),
        (("--category", ""), "the category is empty"),
        (("--recipe", "sfit"), "no recipe called 'sfit'; did you mean 'sift'?"),
        (("--recipe", "dinov2-s"), "sdcorr models download dinov2-s"),
        (("--device", "abacus"), "abacus"),
        (("--dtype", "int4"), "int4"),
        (("--batch", "-7"), "-7"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_served(
    folder: Path, served: Served, run: Command, arguments: Sequence[str], words: str
) -> None:
    recipe = () if "--recipe" in arguments else ("--recipe", "sift")
    done = run("demo", *recipe, *arguments, "--port", "0")
    assert not served
    assert (done.status, done.out) == (2, "")
    assert words in done.error


def test_a_port_in_use_is_told(folder: Path, served: Served, run: Command) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("demo", "--recipe", "sift", "--port", str(port))
    assert (done.status, done.out) == (2, "")
    assert re.fullmatch(
        f"sdcorr: cannot serve on port {port}: Address already in use; give another one with "
        "--port, or --port 0 for a free one",
        done.error,
    )
    assert not served


def test_a_port_that_is_free_again_is_taken_at_once(folder: Path) -> None:
    """Though connections to it linger."""
    place = app.listen(0)
    port = place.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        place.accept()[0].close()
    place.close()
    app.listen(port).close()


def test_a_library_that_is_missing_is_named(
    folder: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "starlette" or None)
    done = run("demo", "--recipe", "sift")
    assert (done.status, done.out) == (2, "")
    assert done.error.startswith("sdcorr: the demo needs uvicorn, python_multipart, which is")
    assert "pip install 'sdcorr[demo]'" in done.error


# -- what is served ----------------------------------------------------------------------------


def test_the_page_is_announced_and_holds_what_was_given(
    folder: Path, served: Served, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    done = run("demo", "a.jpg", "b.png", "--recipe", "sift-hough", "--port", "0")
    assert (done.status, done.err) == (0, "")
    ((page, place),) = served
    host, port = place.getsockname()
    assert host == "127.0.0.1"
    assert done.out == f"open http://127.0.0.1:{port} (Ctrl-C ends)\n"
    assert opened == []
    assert page.routes[0].path == "/setup"


def test_open_opens_the_page_that_is_announced(
    folder: Path, served: Served, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    done = run("demo", "--recipe", "sift", "--port", "0", "--open")
    (address,) = opened
    assert done.out.split()[1] == address


def test_help_names_the_address_of_the_default() -> None:
    text = CliRunner().invoke(cli, ["demo", "--help"]).output
    (port,) = (one for one in demo.params if one.name == "port")
    assert f"http://127.0.0.1:{port.default}" in " ".join(text.split())
    assert "sdcorr[demo]" in text
    assert isinstance(port, click.Option)


# -- in a process of its own -------------------------------------------------------------------

BUSY = """
import torch
from sdcorr.cli import main
from sdcorr.pipeline import Pipeline

def encode(*_arguments, **_options):
    numbers = torch.rand(300, 300)
    while True:
        numbers = (numbers @ numbers).clamp(0, 1)

Pipeline.encode = encode
main()
"""


@contextmanager
def started(*arguments: str, code: str = "from sdcorr.cli import main; main()") -> Iterator[Any]:
    """The process of ``sdcorr demo`` and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, "demo", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # though it is a pipe: nothing may hold it back
        assert line.startswith(SERVED)
        yield process, line.split()[1]
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Press Ctrl-C: exit status and stderr. It takes a second, where nobody else computes."""
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=6)
    except subprocess.TimeoutExpired:
        pytest.fail("it does not end")
    return process.returncode, err


def test_ctrl_c_ends_it() -> None:
    with started("--recipe", "sift") as (process, address):
        assert send(address, "/setup").json()["recipe"] == "sift"
        assert send(address, "/").status == 200
        status, err = interrupt(process)
    assert (status, err.strip()) == (130, "")


def test_ctrl_c_ends_it_while_a_photo_is_encoded() -> None:
    photos = ("assets/astronaut.png", "assets/hopper.jpg", "--recipe", "sift")
    with started(*photos, code=BUSY) as (process, address):
        first, second = (one["id"] for one in send(address, "/setup").json()["photos"])
        pairing = {"first": first, "second": second, "recipe": "sift"}

        def encodes() -> bool:
            return "encoding" in ask(address, "/join", pairing).json()["step"]

        _until(encodes)
        assert send(address, "/setup").status == 200  # answers meanwhile
        status, err = interrupt(process)
    assert (status, err.strip()) == (130, "")


def test_ctrl_c_ends_it_while_a_photo_is_sent() -> None:
    with started("--recipe", "sift") as (process, address):
        place = urlsplit(address)
        head = (
            f"POST /photos HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-length: 1000\r\n"
            "content-type: multipart/form-data; boundary=x\r\n\r\n--x"
        )
        with socket.create_connection((place.hostname, place.port)) as line:
            line.sendall(head.encode())
            send(address, "/setup")  # by now the other has come too
            status, err = interrupt(process)
    assert status == 130
    assert "Traceback" not in err


def _until(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.02)
    pytest.fail("it never came")
