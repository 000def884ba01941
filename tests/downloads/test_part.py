"""What lies under the names of a part goes on, or is begun anew; it is never written through."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sdcorr.downloads._part import Version
from sdcorr.errors import BadOutput
from tests.downloads.conftest import CONTENT, NAME
from tests.downloads.server import Answer

ENDS = [".part", ".part.json"]


@pytest.fixture
def left(site, part):
    """3000 bytes of a part and what is known about them, as JSON or text."""

    def _left(**changes: object) -> None:
        version = {"url": site.url + NAME, "etag": '"1"', "modified": None, "total": 10000}
        part.path.write_bytes(CONTENT[:3000])
        about = part.path.with_name(f"{NAME}.part.json")
        about.write_text(str(changes.get("text", json.dumps(version | changes))))

    return _left


def test_a_part_with_its_version_goes_on(site, bring, left):
    left()
    assert bring(Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == ["bytes=3000-"]


@pytest.mark.parametrize(
    "changes",
    [{"url": 5}, {"etag": 5}, {"etag": [1]}, {"etag": "\u20ac"}, {"etag": "a\r\nb"},
     {"modified": "\xe9"}, {"modified": {}}, {"total": "10000"}, {"total": True}, {"total": 1e4},
     {"more": 1}, {"text": "5"}, {"text": "[]"}, {"text": "{}"}, {"text": "[" * 100_000},
     {"text": '{"url":' * 100_000}, {"text": "1" * 5000}],
    ids=lambda changes: str(changes)[:20],
)  # fmt: skip
def test_a_part_of_a_strange_version_is_begun_anew(site, bring, left, changes):
    left(**changes)
    assert bring(Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == [None]


def test_what_is_written_is_a_version():
    about = {"url": "http://a/", "etag": None, "modified": "Sun, 01 Nov 2020", "total": 1}
    assert Version.of(about).mark == "Sun, 01 Nov 2020"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_are_replaced_and_what_they_lead_to_stays(site, bring, left, tmp_path, end, link):
    """Also where it looks like the rest of the same file."""
    left()
    one, precious = tmp_path / f"{NAME}{end}", tmp_path / "precious"
    one.rename(precious)
    content = precious.read_bytes()
    link(precious, one)
    assert bring(Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == [None]
    assert precious.read_bytes() == content
    assert not one.is_symlink()


@pytest.mark.parametrize("end", ENDS)
def test_links_that_lead_nowhere_are_replaced(bring, tmp_path, end):
    (tmp_path / f"{NAME}{end}").symlink_to("nowhere")
    assert bring(Answer(CONTENT)) == CONTENT
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("end", ENDS)
def test_pipes_are_replaced(bring, left, tmp_path, end):
    """To open one would wait without end."""
    left()
    (tmp_path / f"{NAME}{end}").unlink()
    os.mkfifo(tmp_path / f"{NAME}{end}")
    assert bring(Answer(CONTENT)) == CONTENT


@pytest.mark.parametrize("end", ENDS)
def test_folders_are_left_and_told(bring, tmp_path: Path, end):
    (tmp_path / f"{NAME}{end}").mkdir()
    with pytest.raises(BadOutput, match=r"cannot write .*a\.tar\.gz\.part"):
        bring(Answer(CONTENT))
    assert (tmp_path / f"{NAME}{end}").is_dir()
