"""Who may talk to the demo's server, and what every answer of it says of itself."""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest

from sdcorr.demo.app import make_app
from tests.demo.server import (
    Answer,
    ask,
    form,
    hopper,
    part,
    picture,
    raw,
    running,
    send,
    studio_with,
    upload,
)

OWN = {
    "content-security-policy", "x-content-type-options", "referrer-policy",
    "cross-origin-resource-policy", "cache-control",
}  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(make_app(studio_with(), "sift")) as address:
        yield address


def port_of(address: str) -> str:
    return str(urlsplit(address).port)


# -- Host --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "LocalHost", "127.0.0.1:PORT", "localhost:PORT", "[::1]:PORT",
     "[::1]", "localhost:9", "127.0.0.1:65535"],
)  # fmt: skip
def test_this_machine_by_any_of_its_names(address: str, host: str) -> None:
    host = host.replace("PORT", port_of(address))
    assert send(address, "/setup", headers={"Host": host}).status == 200


LAX = (  # which a lenient reader finds a good name in
    "127.0.0.1#@evil.com",
    r"evil.com\@localhost",
    "evil.com@localhost",
    "localhost/",
    "localhost?evil.com",
    "localhost:x",
    "localhost:99999999",
)
FOREIGN = (
    *LAX, "evil.com", "evil.com:PORT", "127.0.0.1.evil.com", "localhost.evil.com",
    "127.0.0.1.evil.com:PORT", "localhost@evil.com", "localhost:PORT@evil.com",
    "127.0.0.1:80@evil.com:PORT", "evil.com/localhost", "evil.com?localhost", "evil.com.localhost",
    "evil.com#localhost", "evil.com/@localhost", "notlocalhost", "xlocalhost", "localhost.",
    "0.0.0.0", "0", "127.1", "127.0.0.2", "2130706433", "0x7f000001", "[::]", "[::ffff:127.0.0.1]",
    "[::1", "::1", "[evil.com]", "192.168.0.1", "", " ", ":PORT", "localhost,evil.com",
    "localhost evil.com", "%6cocalhost", "a" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN, ids=lambda host: host[:30])
def test_another_name_is_refused(address: str, host: str) -> None:
    """Any site may have its name point at 127.0.0.1, and so read what the page reads."""
    host = host.replace("PORT", port_of(address))
    for path in ("/setup", "/", "/photos/x"):
        answer = send(address, path, headers={"Host": host})
        # 400: h11 takes it for no name at all
        assert answer.status in (400, 403), answer
        if answer.status == 403:
            assert answer.error.startswith("expected the host localhost or 127.0.0.1, got ")


def test_a_request_without_host_is_refused(address: str) -> None:
    assert raw(address, b"GET /setup HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert b" 403 " in raw(address, b"GET /setup HTTP/1.0\r\n\r\n").splitlines()[0]


def test_a_second_host_does_not_count(address: str) -> None:
    answer = raw(address, b"GET /setup HTTP/1.1\r\nhost: localhost\r\nhost: evil.com\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("header", ["x-forwarded-host", "forwarded", "x-host", "x-original-host"])
def test_no_other_header_names_the_host(address: str, header: str) -> None:
    mine, foreign = f"localhost:{port_of(address)}", "evil.com"
    assert send(address, "/setup", headers={"Host": foreign, header: mine}).status == 403
    assert send(address, "/setup", headers={"Host": mine, header: foreign}).status == 200


def test_an_address_in_the_first_line_changes_nothing(address: str) -> None:
    line = b"GET http://localhost/setup HTTP/1.1\r\nhost: evil.com\r\nconnection: close\r\n\r\n"
    assert b" 403 " in raw(address, line).splitlines()[0]


# -- Origin ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    ["http://evil.com", "null", "", "https://127.0.0.1:PORT", "http://127.0.0.1", "http://localhost",
     "http://localhost:PORT", "http://127.0.0.1:9", "http://127.0.0.1:PORT.evil.com",
     "http://127.0.0.1:PORT@evil.com", "http://127.0.0.1:PORT/", "http://127.0.0.1.evil.com:PORT",
     "127.0.0.1:PORT", "file://", "chrome-extension://abc", "HTTP://127.0.0.1:PORT",
     "http://127.0.0.1:PORT http://evil.com"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/setup", "/join", "/photos", "/match", "/export"])
def test_another_page_is_refused(address: str, path: str, origin: str) -> None:
    origin = origin.replace("PORT", port_of(address))
    body, headers = form(part(picture(hopper())))
    method = "GET" if path == "/setup" else "POST"
    answer = send(address, path, method, body, headers | {"Origin": origin})
    assert answer.status == 403
    assert "expected the page of http://127.0.0.1" in answer.error
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "localhost:PORT", "[::1]:PORT", "localhost:80"])
def test_the_page_itself_may_ask(address: str, host: str) -> None:
    host = host.replace("PORT", port_of(address))
    body, headers = form(part(picture(hopper())))
    headers |= {"Host": host, "Origin": f"http://{host}"}
    assert send(address, "/photos", "POST", body, headers).status == 200


def test_a_refusal_does_not_repeat_all_that_was_sent(address: str) -> None:
    for header in ("Host", "Origin"):
        answer = send(address, "/setup", headers={header: "http://" + "x" * 5000})
        assert answer.status == 403
        assert len(answer.error) < 250


def test_a_question_before_a_foreign_request_is_not_granted(address: str) -> None:
    """What a browser sends before JSON from another page: without a yes, nothing follows."""
    headers = {"Origin": "http://evil.com", "Access-Control-Request-Method": "POST"}
    answer = send(address, "/join", "OPTIONS", headers=headers)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


# -- what every answer says --------------------------------------------------------------------


def answers(address: str) -> dict[str, Answer]:
    large = ask(address, "/join", b"x" * 1_100_000)
    photo = upload(address, picture(hopper()))
    return {
        "page 200": send(address, "/"),
        "script 200": send(address, "/page.js"),
        "setup 200": send(address, "/setup"),
        "head 200": send(address, "/setup", "HEAD"),
        "upload 200": photo,
        "photo 200": send(address, f"/photos/{photo.json()['id']}"),
        "none 400": ask(address, "/join", "["),
        "form 400": send(address, "/photos", "POST", *form(part(b"x", name=None))),
        "host 403": send(address, "/", headers={"Host": "evil.com"}),
        "origin 403": send(address, "/", headers={"Origin": "http://evil.com"}),
        "path 404": send(address, "/nothing"),
        "method 405": send(address, "/join", "PUT"),
        "large 413": large,
        "photo 422": upload(address, b"no photo"),
        "id 422": send(address, "/photos/nothing"),
    }


def test_every_answer_is_guarded(address: str) -> None:
    for name, answer in answers(address).items():
        assert str(answer.status) == name.split()[1], name
        assert answer.headers.keys() >= OWN, name
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in str(policy)
        assert "http" not in str(policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "set-cookie" not in answer.headers


def test_the_page_needs_nothing_that_its_policy_forbids(address: str) -> None:
    """No script, style or handler within the HTML, and nothing from elsewhere."""
    page = send(address, "/").body.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<base|<iframe|<form\s", page)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page)
    for place in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert not re.match(r"[a-z]+:|//", place), place


def test_no_websocket_is_opened(address: str) -> None:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    for path in ("/", "/setup", "/join", "/ws"):
        request = (
            f"GET {path} HTTP/1.1\r\nhost: {urlsplit(address).netloc}\r\nconnection: upgrade\r\n"
            f"upgrade: websocket\r\nsec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n\r\n"
        )
        assert b" 101 " not in raw(address, request.encode(), 0.2).splitlines()[0]


@pytest.mark.parametrize(
    "request_",
    [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\r\n" * 5, b"GET / HTTP/9.9\r\n\r\n",
     b"GET / HTTP/1.1\r\nx: " + b"y" * 200_000 + b"\r\n\r\n", b"SSH-2.0-x\r\n",
     b"POST /join HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
     b"POST /join HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
     b"POST /join HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"],
    ids=lambda request: repr(request[:24]),
)  # fmt: skip
def test_what_is_no_http_does_no_harm(address: str, request_: bytes) -> None:
    raw(address, request_, 0.1)
    assert send(address, "/setup").status == 200


def test_two_requests_on_one_connection_are_both_looked_at(address: str) -> None:
    place = urlsplit(address)
    line = http.client.HTTPConnection(place.netloc, timeout=5)
    try:
        for host, status in ((place.netloc, 200), ("evil.com", 403), (place.netloc, 200)):
            line.request("GET", "/setup", headers={"Host": host})
            answer = line.getresponse()
            answer.read()
            assert answer.status == status
    finally:
        line.close()


def test_the_server_listens_on_this_machine_alone(address: str) -> None:
    assert urlsplit(address).hostname == "127.0.0.1"


def test_a_limit_is_of_one_request_not_of_a_connection(address: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    photo = picture(noise, quality=100)
    assert len(photo) > 300_000
    body, headers = form(part(photo))
    line = http.client.HTTPConnection(urlsplit(address).netloc, timeout=5)
    try:
        for _ in range(5):  # 1.5 MB in all, of which 1 MB is the limit where nothing is said
            line.request("POST", "/photos", body, headers)
            answer = line.getresponse()
            assert answer.status == 200
            answer.read()
    finally:
        line.close()


def test_a_limit_holds_by_its_path_however_that_is_written(address: str) -> None:
    """``/%70hotos`` is ``/photos``; ``/photos/`` is not, and takes a megabyte."""
    body = io.BytesIO(form(part(picture(hopper())) + bytes(1_200_000))[0]).getvalue()
    headers = form()[1]
    assert send(address, "/%70hotos", "POST", body, headers).status == 200
    assert send(address, "/photos/", "POST", body, headers).status in (404, 405, 413)
