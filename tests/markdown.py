"""Runs the commands and code blocks of a Markdown page as they stand, in order, in one folder.

In-process and against tiny weights; see ``checkout``. Conventions, that pages keep:

* ``bash``: line by line. ``sdcorr`` runs in this process, also where a launcher starts it many
  times; ``export NAME=VALUE`` holds for the rest of the page; lines that set a machine up are left
  out; all else is given to bash.
* ``python``: one scope for the page. A block that begins with ``# file: NAME`` is written to that
  file instead.
* ``text`` right below either: what it prints, digits aside; ``...`` stands for lines left out.
"""

from __future__ import annotations

import ast
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.request import urlopen

import pytest
from starlette.applications import Starlette

import sdcorr
from sdcorr import recipes
from sdcorr.cli import _run
from sdcorr.errors import SdcorrError
from tests.annotated import write_pf_pascal, write_pf_willow, write_spair
from tests.annotated_ap10k import write_ap10k
from tests.annotated_tss import write_tss
from tests.conftest import ROOT
from tests.demo.server import running
from tests.tiny import shrink, write_hub_cache

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)
FILE = re.compile(r"# file: (\S+)\n")
FEW_PAIRS = "2"  # of a drawn set, however many a page draws
SET_UP = ("make ", "pip ", "#", "source ", "apt-get ")
MOST = 0.5  # of a message must be letters of one sentence of the code
LAUNCHERS = (["torchrun"], ["accelerate"])
HEADING = re.compile(r"^#+ (.+)$", re.M)
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


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
    write_tss(tmp_path / "data" / "TSS_CVPR2016")
    write_ap10k(tmp_path / "data" / "ap-10k", images=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Kind and text of each code block, in order."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def own_command(line: str) -> list[str]:
    """Arguments of sdcorr in a line that runs it, also in many processes; here it is one."""
    words = shlex.split(line, comments=True)
    if words[:1] == ["sdcorr"]:
        return words[1:]
    return words[words.index("sdcorr") + 1 :] if words[:1] in LAUNCHERS else []


@dataclass
class Runner:
    """A page's blocks, one after another; what they print is kept in ``printed``."""

    capfd: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    name: str = "page.md"
    printed: str = ""
    ran: list[str] = field(default_factory=list)
    scope: dict[str, object] = field(default_factory=dict)

    def block(self, kind: str, text: str) -> None:
        """Run one block, or compare it with what the one before printed."""
        if kind == "text":
            assert_shown(text, self.printed)
            return
        self.capfd.readouterr()
        self.printed = ""
        if kind == "bash":
            for line in filter(None, text.splitlines()):
                self.line(line)
        elif kind == "python":
            self.python(text)
        self.printed += "".join(self.capfd.readouterr())

    def line(self, line: str) -> None:
        """Run one line of a shell."""
        if line.startswith(SET_UP):
            return
        if arguments := own_command(line):
            assert self.sdcorr(arguments) == 0, line
        elif line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.monkeypatch.setenv(name, value)
            if name == "PYTHONPATH":
                self.monkeypatch.syspath_prepend(value)
        else:
            subprocess.run(["bash", "-c", line], check=True)
        self.ran.append(line)

    def sdcorr(self, arguments: Sequence[str]) -> int:
        """Run sdcorr; ``> FILE`` gets what it prints. The exit status."""
        words = list(arguments)
        if words[0] == "demo":  # serves until it is stopped: once the page has been read
            words += ["--port", "0"]
            self.monkeypatch.setattr("sdcorr.demo.app.serve", _visit)
        if words[:2] == ["data", "synth"]:
            words[words.index("--pairs") + 1] = FEW_PAIRS
        place = words.pop() if ">" in words else None
        if place is None:
            return _run(words)
        words.remove(">")
        self.printed += "".join(self.capfd.readouterr())
        status = _run(words)
        Path(place).write_text(self.capfd.readouterr().out, encoding="utf-8")
        return status

    def python(self, text: str) -> None:
        """Run a block of Python, or write the file that it is."""
        if found := FILE.match(text):
            Path(found[1]).write_text(text, encoding="utf-8")
            return
        exec(compile(text, self.name, "exec"), self.scope)
        self.ran.append(text)


def _visit(app: Starlette, place: socket.socket) -> None:
    place.close()
    with running(app) as address:
        for path in ("", "page.js", "setup"):
            assert urlopen(f"{address}/{path}").status == 200


def assert_shown(shown: str, printed: str) -> None:
    """Each line that a page shows was printed, digits and widths aside."""
    lines = set(map(_shape, printed.splitlines()))
    for line in shown.splitlines():
        if line.strip() not in ("", "..."):
            assert _shape(line) in lines, f"not printed: {line}\nprinted:\n{printed}"


def _shape(line: str) -> str:
    """A line without the digits of its numbers, and with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d+(\.\d+)?", "0", line)).strip()


PROMPTS = ("$ ", ">>> ")


@dataclass
class Session:
    """Commands with the messages that they end in, as a terminal shows them.

    Lines after ``$ `` or ``>>> `` are lines that come, in any order among others; ``...`` in them
    stands for anything. A command without such lines must succeed.
    """

    runner: Runner
    compared: int = 0

    def run(self, text: str) -> None:
        """Run a block's commands, and compare."""
        for part in re.split(r"^(?=\$ |>>> )", text, flags=re.M)[1:]:
            command, *shown = part.splitlines()
            prompt, _, line = command.partition(" ")
            came = self._of_shell(line, bool(shown)) if prompt == "$" else self._of_python(line)
            for message in shown:
                pattern = ".*".join(map(re.escape, message.split("...")))
                assert any(re.fullmatch(pattern, one) for one in came), (command, message, came)
                self.compared += 1

    def _of_shell(self, line: str, fails: bool) -> list[str]:
        runner = self.runner
        runner.capfd.readouterr()
        if arguments := own_command(line):
            status = runner.sdcorr(arguments)
            captured = runner.capfd.readouterr()
            assert (status != 0) == fails, (line, captured.err)
            return captured.err.splitlines()
        subprocess.run(["bash", "-c", line], check=True)
        return []

    def _of_python(self, line: str) -> list[str]:
        try:
            exec(compile(line, self.runner.name, "exec"), self.runner.scope)
        except SdcorrError as error:
            return [f"{type(error).__name__}: {error}"]
        return []


def in_the_code(message: str) -> bool:
    """Whether sdcorr's code has a sentence that makes up most of this message."""
    return any(
        letters >= MOST * len(message) and template.search(message)
        for template, letters in _sentences()
    )


@cache
def _sentences() -> list[tuple[re.Pattern[str], int]]:
    """Texts of sdcorr's code, with a hole for each value that is put in, and their letters."""
    found = []
    for path in Path(sdcorr.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        inner = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            words = [
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else ""
                for part in parts
            ]
            if node not in inner and any(words):
                pattern = re.compile(".*".join(map(re.escape, words)))
                found.append((pattern, len("".join(words))))
    return found


def anchors_of(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {_slug(heading) for heading in HEADING.findall(text)}


def _slug(heading: str) -> str:
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def links_of(page: Path) -> Iterator[tuple[Path, str]]:
    """File and anchor ("" for none) of each link that does not leave the repository."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for place in LINK.findall(text):
        file, _, anchor = place.partition("#")
        yield (page.parent / file if file else page), anchor
