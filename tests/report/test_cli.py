"""``sdcorr report`` as it is typed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.report.runs import EXACT, pair, write_run


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "one", [pair()], {"a": EXACT})
    write_run(tmp_path / "two", [pair()], {"a": EXACT})
    monkeypatch.chdir(tmp_path)


def names() -> set[str]:
    return set(os.listdir())


def test_a_page_and_its_text_are_written(run: Command):
    done = run("report", "one", "two", "--out", "report.html")
    assert (done.status, done.out) == (0, "wrote report.html, report.md\n")
    assert Path("report.html").read_text().startswith("<!DOCTYPE html>")
    text = Path("report.md").read_text()
    assert text.startswith("<!-- Written by `sdcorr report`. -->\n\n# PCK on spair\n")
    before = Path("report.html").read_bytes(), Path("report.md").read_bytes()
    assert run("report", "one", "two", "--out", "report.html").status == 0  # replaces its own
    assert before == (Path("report.html").read_bytes(), Path("report.md").read_bytes())


def test_the_rule_is_taken_from_the_command_line(run: Command):
    done = run(
        "report", "one", "--out", "a.HTM", "--alpha", "0.02", "0.03", "--threshold", "image",
        "--strict", "--bootstrap", "0", "--pairs", "0",
    )  # fmt: skip
    assert done.status == 0
    text = Path("a.md").read_text()
    assert "error \\< alpha x longer side of the target image" in text
    assert "| run | mean | @0.02 | @0.03 |" in text
    assert "bootstrap" not in text


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("report.txt", "expected a name that ends in .html, .htm"),
        ("gone/report.html", "there is no folder gone; make it first"),
        ("folder.html", "it is a folder; give a file name"),
        ("linked.html", "it is one of the files to be read"),
        ("notes.html", "a file that is no report of sdcorr has that name; choose another --out"),
        ("text.html", "it is one of the files to be read"),
    ],
)
def test_a_page_that_cannot_be_written_is_told_before_work_begins(
    run: Command, out: str, words: str
):
    Path("folder.html").mkdir()
    Path("linked.html").symlink_to("one/records.jsonl")
    Path("text.md").symlink_to("one/pairs.jsonl")
    Path("notes.md").write_text("mine")
    before = names()
    done = run("report", "one", "--out", out)
    assert done.status == 2
    assert words in done.error
    assert names() == before
    assert Path("notes.md").read_text() == "mine"


def test_a_mistake_leaves_nothing_behind(run: Command):
    about = json.loads(Path("two/run.json").read_text())
    Path("two/records.jsonl").unlink()
    before = names()
    for arguments, words in (
        (("one", "two"), "two is not finished; give its sdcorr eval command again"),
        (("one", "three"), "three is no run: it has no run.json"),
        (("one", "one/"), "one is given twice; name each run once"),
        (("one", "--root", "gone"), "there is no folder gone to look for photos in"),
    ):
        done = run("report", *arguments, "--out", "a.html")
        assert done.status == 2
        assert words in done.error
    Path("two/run.json").write_text(json.dumps(about)[:-20])
    assert "run.json is damaged" in run("report", "two", "--out", "a.html").error
    assert names() == before


@pytest.mark.parametrize(
    "arguments",
    [(), ("--pairs", "31"), ("--pairs", "-1"), ("--bootstrap", "5"), ("--alpha",), ("--by", "a")],
)
def test_options_that_do_not_fit(run: Command, arguments: tuple[str, ...]):
    inputs = ("one",) if arguments else ()
    done = run("report", *inputs, "--out", "a.html", *arguments)
    assert done.status == 2
    assert "Error: " in done.err
