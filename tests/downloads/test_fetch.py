"""Files come whole over connections that break, lie and change, or not at all, with a reason."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path

import pytest

from sdcorr.downloads import Remote
from sdcorr.downloads._fetch import fetch
from sdcorr.downloads._part import Part, in_words
from sdcorr.errors import BadDownload, BadOutput
from tests.downloads.conftest import CONTENT, NAME, OTHER, Said
from tests.downloads.server import Answer


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_comes_whole_and_its_bytes_are_told(site, part, patience, tmp_path):
    said = Said()
    fetch(Remote(NAME, site.put(NAME, Answer(CONTENT))), part, len(CONTENT), patience, said)
    assert part.path.read_bytes() == CONTENT
    assert said.steps[-1] == (NAME, 10000, 10000)
    assert said.lines == []
    ((_, headers),) = site.requests
    assert headers["accept-encoding"] == "identity"
    part.finish()
    assert files(tmp_path) == {NAME}


def test_a_dropped_connection_goes_on_where_it_broke(site, bring, waits):
    """Broken off after 3000, 2500 and 1 bytes: the rest is asked for from there."""
    drops = [Answer(CONTENT, drop=drop) for drop in (3000, 2500, 1)]
    assert bring(*drops, Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == [None, "bytes=3000-", "bytes=5500-", "bytes=5501-"]
    assert [headers.get("if-range") for _, headers in site.requests] == [None, '"1"', '"1"', '"1"']
    assert waits == [0.5, 0.5, 0.5]  # each brought something


def test_a_server_that_always_breaks_off_at_one_byte_is_given_up(site, bring, part, waits):
    with pytest.raises(BadDownload, match="what came is kept: give the same command") as got:
        bring(Answer(CONTENT, drop=3000), Answer(CONTENT, drop=0))
    assert len(site.requests) == 6  # one that brings bytes, five that do not
    assert waits == [0.5, 0.5, 1.0, 2.0, 4.0]
    assert str(got.value).endswith(f"fetch it by other means and put it at {part.final}")
    assert part.path.read_bytes() == CONTENT[:3000]


def test_the_next_command_goes_on_with_what_a_killed_one_left(site, bring, part, tmp_path):
    with pytest.raises(BadDownload):
        bring(Answer(CONTENT, drop=4000), Answer(status=500))
    assert files(tmp_path) == {f"{NAME}.part", f"{NAME}.part.json"}
    site.requests.clear()
    with pytest.raises(BadDownload):
        bring(Answer(status=500))
    assert len(site.requests) == 5  # what was there before is no success of this command
    site.requests.clear()
    assert bring(Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == ["bytes=4000-"]


def test_a_part_that_is_whole_is_not_asked_for(site, bring):
    bring(Answer(CONTENT))
    site.requests.clear()
    assert bring(Answer(status=500)) == CONTENT
    assert site.requests == []


@pytest.mark.parametrize("damage", ["no json", "torn json", "other address"])
def test_a_part_of_unknown_origin_is_begun_anew(site, bring, part, tmp_path, damage):
    part.path.write_bytes(OTHER[:5000])
    about = tmp_path / f"{NAME}.part.json"
    known = {"url": "http://example.org/", "etag": '"1"', "modified": None, "total": 10000}
    if damage != "no json":
        about.write_text(json.dumps(known)[: 20 if damage == "torn json" else None])
    assert bring(Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == [None]


def test_a_server_that_knows_no_ranges_begins_anew(site, bring):
    drops = [Answer(CONTENT, drop=drop, ranges=False) for drop in (3000, 2000)]
    assert bring(*drops, Answer(CONTENT, ranges=False)) == CONTENT
    assert site.ranges(NAME) == [None, "bytes=3000-", "bytes=2000-"]


def test_a_file_that_changes_between_tries_is_begun_anew(site, bring):
    """If-Range makes an honest server send all of the new one."""
    assert bring(Answer(CONTENT, drop=3000), Answer(OTHER, etag='"2"')) == OTHER
    assert site.ranges(NAME) == [None, "bytes=3000-"]


@pytest.mark.parametrize(
    "liar",
    [
        Answer(OTHER, etag='"2"', conditions=False),  # 206 of what is there now
        Answer(OTHER + b"x"),  # the same ETag, another length
        Answer(CONTENT, range_start=-1),  # other place
    ],
)
def test_a_rest_of_another_file_is_not_joined(site, bring, liar):
    assert bring(Answer(CONTENT, drop=3000), liar, Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == [None, "bytes=3000-", None]


def test_a_weak_etag_is_no_mark_and_the_date_is(site, bring):
    date = "Sun, 01 Nov 2020 10:00:00 GMT"
    answer = {"etag": 'W/"1"', "modified": date}
    assert bring(Answer(CONTENT, drop=3000, **answer), Answer(CONTENT, **answer)) == CONTENT
    assert site.requests[1][1]["if-range"] == date


def test_without_marks_the_length_decides(site, bring):
    assert bring(Answer(CONTENT, drop=3000, etag=None), Answer(CONTENT, etag=None)) == CONTENT
    assert site.ranges(NAME) == [None, "bytes=3000-"]
    assert "if-range" not in site.requests[1][1]


def test_a_file_that_became_shorter_is_begun_anew(site, bring):
    """Range from 3000 of a file of 2000 bytes: 416."""
    assert bring(Answer(CONTENT, drop=3000), Answer(CONTENT[:2000])) == CONTENT[:2000]
    assert site.ranges(NAME) == [None, "bytes=3000-", None]


def test_a_length_that_promises_too_much_is_given_up(site, bring, part):
    """10000 bytes come, 12000 are promised: nothing that came is taken for whole."""
    with pytest.raises(BadDownload, match="cannot fetch"):
        bring(Answer(CONTENT, length="12000"))
    assert not part.final.exists()
    assert len(site.requests) > 5


def test_a_length_that_promises_too_little_never_gives_more(site, bring):
    """What was promised is all that is read; the archive is found to be cut when looked through."""
    assert bring(Answer(CONTENT, length="7000")) == CONTENT[:7000]


def test_a_file_without_a_length_comes(bring):
    assert bring(Answer(CONTENT, length="")) == CONTENT


def test_no_more_is_written_than_was_promised(site, part, patience):
    """7000 of 10000 bytes are missing and 3 MB come: the file is begun anew, and never too long."""
    endless = Answer(CONTENT, length="", extra=bytes(3_000_000))
    url, said = site.put(NAME, Answer(CONTENT, drop=3000), endless, Answer(CONTENT)), Said()
    fetch(Remote(NAME, url), part, 10**9, patience, said)
    assert part.path.read_bytes() == CONTENT
    assert max(done for _, done, _ in said.steps) == 10000
    assert said.lines[1].startswith(f"{NAME}: more bytes came than the 10000 that were promised")


def test_a_file_without_a_length_is_bounded(site, bring, part, tmp_path):
    """10000 bytes may be, and not one more; nothing stays, and nothing is tried again."""
    assert bring(Answer(CONTENT, length=""), most=10000) == CONTENT
    part.drop()
    with pytest.raises(BadDownload, match=r"has more than 10\.0 kB, the most that is taken; open"):
        bring(Answer(CONTENT, length="", extra=b"x"), most=10000)
    assert files(tmp_path) == set()
    assert len(site.requests) == 2


def test_a_length_beyond_the_bound_is_refused_before_the_first_byte(bring, tmp_path):
    with pytest.raises(BadDownload, match=r"has more than 10\.0 kB"):
        bring(Answer(CONTENT, length="10001"), most=10000)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("mark", ["\xe9", "\t", '"\xc3\xa9"'])
def test_marks_that_cannot_be_sent_back_are_left_out(site, bring, mark):
    """Bytes beyond ASCII: the length decides whether it is the same file."""
    answer = {"etag": f"a{mark}b", "modified": f"a{mark}b"}
    assert bring(Answer(CONTENT, drop=3000, **answer), Answer(CONTENT, **answer)) == CONTENT
    assert site.ranges(NAME) == [None, "bytes=3000-"]
    assert "if-range" not in site.requests[1][1]


def test_a_range_of_thousands_of_digits_is_no_rest_of_a_file(site, bring):
    lie = Answer(CONTENT, digits=6000)
    assert bring(Answer(CONTENT, drop=3000), lie, Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == [None, "bytes=3000-", None]


def test_an_encoding_is_not_undone(bring):
    """Servers call .tar.gz gzip-encoded; the file is wanted as it is."""
    assert bring(Answer(CONTENT, encoding="gzip")) == CONTENT


def test_tiny_chunks_are_looked_at_together(bring):
    assert bring(Answer(CONTENT[:1000], chunk=1)) == CONTENT[:1000]


def test_errors_of_the_server_are_waited_out(bring, waits):
    assert bring(Answer(status=500), Answer(status=503), Answer(status=429), Answer(CONTENT))
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(("code", "words"), [(404, "Not Found"), (403, "Forbidden")])
def test_a_refusal_is_final(site, bring, part, tmp_path, code, words):
    with pytest.raises(BadDownload, match=f"answers {code} {words}") as got:
        bring(Answer(status=code))
    assert "open the address in a browser" in str(got.value)
    assert f"save the file as {part.final}, and give the same command again" in str(got.value)
    assert len(site.requests) == 1
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (b"<!DOCTYPE html><html>", "application/octet-stream"),
        (b"\n  <html lang='en'>", "application/octet-stream"),
        (b"\xef\xbb\xbf<HTML>", "application/octet-stream"),
        (b"please log in", "text/html; charset=utf-8"),
    ],
)
def test_a_web_page_in_place_of_an_archive_leaves_nothing(bring, tmp_path, page, kind):
    with pytest.raises(BadDownload, match=r"a web page, where a\.tar\.gz was expected"):
        bring(Answer(page, kind=kind))
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"Rar!\x1a\x07" * 200, r"no \.gz archive \(it begins with b'Rar!"), (b"", "empty")],
)
def test_something_else_in_place_of_an_archive_leaves_nothing(bring, tmp_path, content, problem):
    with pytest.raises(BadDownload, match=problem):
        bring(Answer(content))
    assert files(tmp_path) == set()


def test_a_page_in_place_of_the_rest_leaves_what_came(bring, part):
    with pytest.raises(BadDownload, match="a web page"):
        bring(Answer(CONTENT, drop=3000), Answer(b"<html>quota", status=200, kind="text/html"))
    assert part.path.read_bytes() == CONTENT[:3000]


def test_silence_ends_a_try(site, bring, waits):
    with pytest.raises(BadDownload, match="no answer"):
        bring(Answer(CONTENT, silent=1.0), timeout=0.05, tries=2)
    assert waits == [0.5]


def test_no_connection_says_where_to_put_the_file(part, patience, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{NAME}"
    with pytest.raises(BadDownload) as got:
        fetch(Remote(NAME, url), part, 10000, patience, Said())
    assert str(got.value) == (
        f"cannot fetch {url}: no connection ([Errno 111] Connection refused); fetch it by other "
        f"means, put it at {part.final}, and give the same command again"
    )
    assert waits == [0.5, 1.0, 2.0, 4.0]


def test_a_proxy_that_cannot_be_used_is_named(part, patience, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "gopher://127.0.0.1")
    with pytest.raises(BadDownload, match="the proxy that the environment names"):
        fetch(Remote(NAME, "http://127.0.0.1/"), part, 10000, patience, Said())


def test_a_full_disk_keeps_what_came(site, bring, part, monkeypatch):
    """The disk fills after 6000 bytes; with room, the same command goes on from there."""
    real, left = Part.append, [6000]

    def append(self: Part, chunk: bytes) -> None:
        with self._writing():
            left[0] -= len(chunk)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(self, chunk)

    monkeypatch.setattr(Part, "append", append)
    with pytest.raises(BadOutput, match="No space left on device; what has come is kept"):
        bring(Answer(CONTENT, chunk=1500))
    size = part.size
    assert part.path.read_bytes() == CONTENT[:size]
    monkeypatch.undo()
    site.requests.clear()
    assert bring(Answer(CONTENT)) == CONTENT
    assert site.ranges(NAME) == [f"bytes={size}-" if size else None]


def test_a_disk_without_room_is_found_before_the_first_byte(bring, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 9999})
    monkeypatch.setattr("sdcorr.downloads._part.shutil.disk_usage", lambda _folder: usage)
    with pytest.raises(
        BadOutput, match=r"a\.tar\.gz takes up to 10\.0 kB and .* has 10\.0 kB free"
    ):
        bring(Answer(CONTENT))
    assert files(tmp_path) == set()


def test_sizes_in_words():
    assert [in_words(size) for size in (0, 999, 1000, 3_400_000_000)] == [
        "0 bytes", "999 bytes", "1.0 kB", "3.4 GB",
    ]  # fmt: skip
