"""The notebooks of examples/ run, and hold what they print.

``python -m tests.notebooks`` stores it. Words must be the same as stored. A number may differ by
one in its last printed place, since what lies half-way between two rounds either way. Nothing more
is allowed: on one x86 machine, all printed numbers were the same with and without vector
instructions, and with one thread and two. Pictures must be there and show something; their pixels
depend on the libraries that draw text.
"""

from __future__ import annotations

import base64
import copy
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from nbformat import NotebookNode

from tests.conftest import ROOT
from tests.notebooks import EXAMPLES, execute, find, outputs, read, text, tidy

LARGEST = 250_000  # bytes of a file
CELLS = range(8, 16)
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)?")
ABSOLUTE = re.compile(r"""(?:^|[\s"'(=:])(?:/|[A-Z]:\\)[\w.-]+""", re.M)
WRITTEN = re.compile(r"%%writefile (\S+)\n(.*)", re.S)
PICTURES = ("image/jpeg", "image/png")

each = pytest.mark.parametrize("path", find(), ids=lambda path: path.stem)


def alike(stored: str, fresh: str) -> bool:
    """Whether two texts have the same words, and numbers that round to the same or next to it."""
    words = ["".join(NUMBER.sub("#", one).split()) for one in (stored, fresh)]  # columns may move
    if words[0] != words[1]:
        return False
    pairs = zip(NUMBER.findall(stored), NUMBER.findall(fresh), strict=True)
    return all(
        abs(float(one) - float(other)) < 1.01 * 10.0 ** -len(one.partition(".")[2])
        for one, other in pairs
    )


def pictures(notebook: NotebookNode) -> list[PIL.Image.Image]:
    found = [
        output.data[kind]
        for output in outputs(notebook)
        for kind in PICTURES
        if kind in _data(output)
    ]
    return [PIL.Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


def _data(output: NotebookNode) -> dict[str, str]:
    return output.get("data", {})


@each
def test_running_it_gives_what_is_stored(path):
    files = sorted(EXAMPLES.iterdir())
    stored, fresh = read(path), execute(path)
    kinds = [
        [
            (output.output_type, output.get("name"), *sorted(_data(output)))
            for output in outputs(one)
        ]
        for one in (stored, fresh)
    ]
    assert kinds[0] == kinds[1]
    for one, other in zip(outputs(stored), outputs(fresh), strict=True):
        assert alike(text(one), text(other)), (
            f"stored:\n{text(one)}\nnow:\n{text(other)}\n"
            "if this is right: python -m tests.notebooks, and look at the difference"
        )
    assert sorted(EXAMPLES.iterdir()) == files  # what it writes goes elsewhere


@each
def test_every_cell_was_run_once_from_the_top(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@each
def test_outputs_hold_no_failure_and_no_path_of_a_machine(path):
    for output in outputs(read(path)):
        assert output.output_type in ("stream", "execute_result", "display_data")
        assert output.get("name") != "stderr"
        words = text(output)
        assert not re.search(r"Error|Traceback|Warning|^sdcorr: ", words, re.M)
        assert not ABSOLUTE.search(words)


@each
def test_it_is_small_short_and_tidy(path):
    notebook = read(path)
    assert path.stat().st_size < LARGEST
    assert len(notebook.cells) in CELLS
    assert notebook.cells[0].source.startswith("# ")
    assert notebook == tidy(copy.deepcopy(notebook))


@each
def test_pictures_show_something(path):
    for picture in pictures(read(path)):
        assert min(picture.size) > 200
        assert np.asarray(picture.convert("L")).std() > 20  # grey levels; 0 on an empty page


def test_there_are_pictures():
    assert all(pictures(read(path)) for path in find())


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_cells_are_clean(arguments):
    ruff(*arguments, *map(str, find()))


@each
def test_files_that_cells_write_are_clean(path):
    """Ruff does not look into cells that begin with ``%%``."""
    for cell in read(path).cells:
        if written := WRITTEN.match(cell.source):
            name, code = written.groups()
            ruff("check", "--stdin-filename", f"examples/{name}", "-", code=code + "\n")
            ruff("format", "--check", "--stdin-filename", f"examples/{name}", "-", code=code + "\n")


def ruff(*arguments: str, code: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments], cwd=ROOT, input=code, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_folders_page_names_every_example():
    page = (EXAMPLES / "README.md").read_text()
    named = re.findall(r"\]\(([^)/]+)\)", page)
    assert sorted(named) == sorted(
        file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb")
    )


def test_notebooks_name_only_files_that_are_there():
    for path in find():
        for name in re.findall(r"`([\w/]+\.(?:ipynb|py|md))`", sources(path)):
            assert (EXAMPLES / name).exists() or (ROOT / name).exists(), f"{path.name}: {name}"


def sources(path: Path) -> str:
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize(
    ("stored", "fresh", "same"),
    [
        ("off by 4.1 px", "off by 4.2 px", True),
        ("off by 4.1 px", "off by 4.3 px", False),
        ("40 pairs", "41 pairs", True),
        ("40 pairs", "42 pairs", False),
        ("[ 99.9, 1]", "[100.0, 1]", True),
        ("+0.0", "-0.1", True),
        ("median error", "mean error", False),
        ("view3", "view4", False),
    ],
)
def test_alike_by_hand(stored, fresh, same):
    assert alike(stored, fresh) is same
