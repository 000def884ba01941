"""The documentation holds: its commands run, its links lead somewhere, its lists are complete."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import numpy as np
import PIL.Image
import pytest

from sdcorr.cli import cli
from sdcorr.errors import SdcorrError
from tests.conftest import ROOT
from tests.markdown import (
    PROMPTS,
    Runner,
    Session,
    anchors_of,
    blocks_of,
    checkout,
    in_the_code,
    links_of,
    own_command,
)

__all__ = ["checkout"]  # a fixture

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUN = [page for page in PAGES if {"bash", "python"} & {kind for kind, _ in blocks_of(page)}]


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.fixture
def scripts(monkeypatch):
    """The scripts of docs/, which import each other."""
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_every_block_of_a_page_runs(page, checkout, capfd, monkeypatch):
    runner = Runner(capfd, monkeypatch, name_of(page))
    for kind, text in blocks_of(page):
        runner.block(kind, text)
    assert runner.ran


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for file, anchor in links_of(page):
        assert file.exists(), file
        if anchor:
            assert anchor in anchors_of(file), f"{file.name}#{anchor}"


@pytest.mark.parametrize("command", cli.commands)
def test_every_command_has_a_page_whose_options_are_up_to_date(command, scripts):
    """Run docs/write_commands.py if not."""
    pages = scripts("write_commands").pages()
    page = DOCS / "commands" / f"{command}.md"
    assert page.exists(), "write it by hand, its options by the script"
    assert page.read_text() == pages[page]


def test_no_page_is_of_a_command_that_went_away():
    assert {page.stem for page in (DOCS / "commands").glob("*.md")} <= set(cli.commands)


def test_the_index_names_every_page():
    named = {file.resolve() for file, _ in links_of(DOCS / "README.md")}
    assert [name_of(page) for page in PAGES if page not in named | {DOCS / "README.md"}] == []


def test_drawings_are_those_of_the_script(scripts):
    """Run docs/draw.py if not. Drawn with the versions of constraints.txt."""
    script = scripts("draw")
    for name, draw in script.DRAWINGS.items():
        stored = DOCS / "drawings" / f"{name}.png"
        there = np.asarray(PIL.Image.open(stored).convert("RGB"), float)
        now = np.asarray(scripts("sketch").few_colours(draw).convert("RGB"), float)
        assert abs(there.shape[0] - now.shape[0]) <= 4, name
        rows = min(len(there), len(now))
        assert np.abs(there[:rows] - now[:rows]).mean() < 0.1, name  # of 255; half a pixel is 2


@pytest.mark.parametrize(("folder", "most"), [("drawings", 150_000), ("gallery", 120_000)])
def test_pictures_are_small(folder, most):
    sizes = [path.stat().st_size for path in (DOCS / folder).iterdir()]
    assert max(sizes) < most
    assert sum(sizes) < 1_200_000


def test_the_gallery_shows_each_picture_of_its_script(scripts):
    shown = {file.name for file, _ in links_of(DOCS / "gallery.md")}
    assert {f"{name}.jpg" for name in scripts("gallery").PICTURES} == shown
    assert {path.name for path in (DOCS / "gallery").iterdir()} == shown


def test_a_picture_of_the_gallery_is_drawn(scripts):
    figure = scripts("gallery").left_and_right()
    assert len(figure.axes) == 3  # two photos, and what lies over them


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_shown_and_not_run_exist(page):
    """Those of indented blocks: their options are known and have values that fit."""
    for line in re.findall(r"^    (sdcorr .*)$", page.read_text(), re.M):
        command: click.Command = cli
        name, words = "sdcorr", own_command(line)
        # with its parent: a command keeps the names of its --help from its first context
        parent = click.Context(cli, info_name=name, **cli.context_settings)
        while isinstance(command, click.Group):
            name, *words = words
            command = command.commands[name]
        command.make_context(name, words, parent=parent)


ERRORS = DOCS / "errors.md"


def quoted(page: Path) -> list[str]:
    """Messages in blocks without a command."""
    texts = [text for kind, text in blocks_of(page) if kind == "text"]
    return [
        line.removeprefix("sdcorr: ")
        for text in texts
        if not text.startswith(PROMPTS)
        for line in text.splitlines()
    ]


def test_messages_of_the_page_of_errors_are_those_that_come(checkout, capfd, monkeypatch):
    session = Session(Runner(capfd, monkeypatch, "errors.md"))
    for kind, text in blocks_of(ERRORS):
        if kind == "text" and text.startswith(PROMPTS):
            session.run(text)
    assert session.compared >= 40


@pytest.mark.parametrize("message", quoted(ERRORS), ids=lambda message: message[:40])
def test_messages_that_no_command_of_the_page_provokes_stand_in_the_code(message):
    assert in_the_code(message)


def test_every_kind_of_error_has_a_section():
    kinds = {kind.__name__.lower() for kind in SdcorrError.__subclasses__()}
    assert kinds - anchors_of(ERRORS) == set()
