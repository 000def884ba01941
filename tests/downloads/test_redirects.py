"""Addresses are of the web or refused in words; redirects lead to such, and are not read."""

from __future__ import annotations

import pytest

from sdcorr.downloads import SOURCES
from sdcorr.downloads._address import check_address, leads_to, shown
from sdcorr.errors import BadDownload
from tests.downloads.conftest import CONTENT, NAME
from tests.downloads.server import Answer

SCHEME = "that begins with http:// or https://"
HOST = "with a host and maybe a port"
ASCII = "in visible ASCII, all else as %20 and the like"
SECRET = "without a name and a password, as it is shown and stored"


@pytest.mark.parametrize(
    "url",
    ["https://example.org", "HTTP://example.org:8080/a?b=c#d", "http://[::1]:80/", "http://1.2.3.4/",
     "https://a_b.example.org./", "https://xn--mller-kva.de/a%20b", f"http://{'a' * 63}.org/",
     "https://example.org/a@b"],
)  # fmt: skip
def test_addresses_of_the_web_are_taken(url):
    check_address(url)
    assert SOURCES["tss"].at(url).archive.url.startswith(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *((url, SCHEME) for url in ("ftp://a/b", "file:///etc/passwd", "a.zip", "//a/b")),
        *((url, HOST) for url in ("http://", "http://[", "http://[::x]/", "http:///a", "http://:1/")),
        *((url, HOST) for url in (f"http://{'a' * 64}/", "http://a..b/")),
        *((url, HOST) for url in (f"http://{'a.' * 127}b/", "http://a%2f/", "http://1.2.3.400/")),
        *((url, HOST) for url in ("http://a:0/", "http://a:70000/", "http://a:b/")),
        *((f"http://a/{one}", ASCII) for one in ("\udcff", "é", "a b", "\n", "\x1b[0m")),
        ("", ASCII), ("http://müller.de/", ASCII),
        *((f"http://{user}@a/", SECRET) for user in ("me:word", "me", "", ":")),
    ],
)  # fmt: skip
def test_other_addresses_are_refused_in_words(url, expected):
    with pytest.raises(BadDownload) as got:
        SOURCES["tss"].at(url)
    assert str(got.value) == f"expected an address {expected}, got {shown(url)}"


def test_a_password_is_not_shown():
    with pytest.raises(BadDownload) as got:
        SOURCES["tss"].at("https://me:wo@rd@example.org/a.zip")
    assert str(got.value) == f"expected an address {SECRET}, got 'https://...@example.org/a.zip'"
    assert shown("ftp://me:word@a") == "'ftp://...@a'"
    assert len(shown("x" * 10**6)) == 202


@pytest.mark.parametrize(
    ("place", "target"),
    [("/c", "http://a.org/c"), ("c?d", "http://a.org/b/c?d"), ("//b.org/c", "http://b.org/c"),
     ("https://b.org/#x", "https://b.org/")],
)  # fmt: skip
def test_redirects_may_be_relative(place, target):
    assert leads_to("http://a.org/b/z", place) == target


@pytest.mark.parametrize(
    ("place", "problem"),
    [("ftp://b.org/c", SCHEME), (f"http://{'a' * 64}/", HOST), ("http://[", HOST), ("/é", "ASCII"),
     ("https://me:word@b.org/", r"a password, .*, got 'https://\.\.\.@b\.org/'"),
     ("http://b.org/", r"redirects from https to http \('http://b\.org/'\)")],
)  # fmt: skip
def test_redirects_elsewhere_are_refused(place, problem):
    with pytest.raises(ValueError, match=problem):
        leads_to("https://a.org/b", place)


def test_redirects_are_followed_with_the_range(site, bring):
    place = site.put("there", Answer(CONTENT, drop=3000), Answer(CONTENT))
    assert bring(Answer(status=302, place=place)) == CONTENT
    assert site.ranges("there") == [None, "bytes=3000-"]


@pytest.mark.parametrize("encoding", [None, "gzip"])
def test_the_body_of_a_redirect_is_not_read(site, bring, encoding):
    """Its length promises a terabyte and 100 bytes come, which are no gzip: nobody minds."""
    site.put("there", Answer(CONTENT))
    moved = {"status": 302, "place": "/there", "length": "1" + 12 * "0", "encoding": encoding}
    assert bring(Answer(bytes(100), **moved)) == CONTENT
    assert [name for name, _ in site.requests] == [NAME, "there"]


def test_ten_redirects_are_followed_and_no_more(site, bring, part):
    for number in range(1, 10):
        site.put(f"{number}", Answer(status=307, place=f"/{number + 1}"))
    site.put("10", Answer(CONTENT))
    assert bring(Answer(status=301, place="1")) == CONTENT
    part.drop()
    site.put("10", Answer(status=307, place="/11"))
    site.requests.clear()
    with pytest.raises(BadDownload, match="redirects more than 10 times; open the address"):
        bring(Answer(status=301, place="1"))
    assert len(site.requests) == 11


@pytest.mark.parametrize(
    ("place", "problem"),
    [("ftp://127.0.0.1/a", SCHEME), ("file:///etc/passwd", SCHEME), (f"http://{'a' * 64}/", HOST),
     ("http://me:word@127.0.0.1/", SECRET), ("http://a/\xe9", ASCII)],
)  # fmt: skip
def test_redirects_that_lead_nowhere_end_the_fetch(site, bring, place, problem):
    with pytest.raises(
        BadDownload, match=f"redirects elsewhere: expected an address {problem}, got "
    ):
        bring(Answer(status=302, place=place))
    assert len(site.requests) == 1
