from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sdcorr.downloads import Patience, Quiet, Remote
from sdcorr.downloads._fetch import fetch
from sdcorr.downloads._part import Part
from tests.downloads.server import Answer, serve

CONTENT = b"\x1f\x8b" + np.random.default_rng(0).bytes(9998)  # as gzip begins
OTHER = b"\x1f\x8b" + np.random.default_rng(1).bytes(9998)
NAME = "a.tar.gz"


class Said(Quiet):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, int, int | None]] = []

    def __call__(self, what: str, done: int, total: int | None) -> None:
        self.steps.append((what, done, total))

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def site(monkeypatch):
    """A server, and no proxy before it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as served:
        yield served


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits) -> Patience:
    """Waits for nothing, and notes how long it would have."""
    return Patience(timeout=5.0, sleep=waits.append)


@pytest.fixture
def part(tmp_path) -> Part:
    return Part(tmp_path / NAME)


@pytest.fixture
def bring(site, part, patience):
    """Serve answers, fetch the file, and say what came."""

    def _bring(*answers: Answer, most: int = 10**6, **changes: object) -> bytes:
        remote = Remote(NAME, site.put(NAME, *answers))
        fetch(remote, part, most, replace(patience, **changes), Said())
        return part.path.read_bytes()

    return _bring
