"""What a browser, or something that is none, may send to the demo's server, and what it gets."""

from __future__ import annotations

import base64
import binascii
import builtins
import csv
import io
import json
import os
import re
import socket
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import PIL.Image
import pytest

import sdcorr
from sdcorr.demo._photos import BYTES, NAME, make_photo, read_upload
from sdcorr.demo.app import make_app
from sdcorr.errors import BadImage
from sdcorr.types import Image
from tests.demo.server import (
    BOUNDARY,
    Answer,
    ask,
    astronaut,
    complaints,
    form,
    hopper,
    join,
    part,
    picture,
    raw,
    running,
    send,
    studio_with,
    until,
    upload,
)

CHUNK = bytes(1_000_000)
SHAPES_ALIKE = ((4, 6, 3), (6, 4, 3))  # of as many bytes


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(make_app(studio_with(), "sift")) as address:
        yield address


@pytest.fixture(autouse=True)
def goes_on(address: str) -> Iterator[None]:
    """Whatever was sent, the next good photo is taken."""
    yield
    answer = upload(address, picture(hopper()))
    assert answer.status == 200
    assert answer.json().keys() == {"id", "name", "digest", "width", "height", "reduced"}


@pytest.fixture(scope="module")
def pairing(address: str) -> dict[str, Any]:
    """Two photos, 157 x 104 and 100 x 136, joined by ``sift``."""
    first, second = (
        upload(address, picture(photo, quality=95), name).json()["id"]
        for photo, name in ((astronaut(), "astronaut.jpg"), (hopper(), "hopper.jpg"))
    )
    pairing = {"first": first, "second": second, "recipe": "sift"}
    join(address, pairing)
    return pairing


def seen(address: str, answer: Answer) -> np.ndarray:
    """The photo as the page shows it."""
    shown = send(address, f"/photos/{answer.json()['id']}")
    assert (shown.status, shown.headers["content-type"]) == (200, "image/jpeg")
    return np.asarray(PIL.Image.open(io.BytesIO(shown.body)).convert("RGB")).astype(int)


# -- photos that are taken ---------------------------------------------------------------------


def test_a_jpeg_is_turned_as_its_exif_says(address: str) -> None:
    """Left red, right blue, to be turned by a quarter clockwise: top red, bottom blue."""
    photo = PIL.Image.new("RGB", (80, 40), "blue")
    photo.paste("red", (0, 0, 40, 40))
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=95, exif=tags)
    answer = upload(address, buffer.getvalue(), "turned.jpg")
    told = answer.json()
    assert (told["name"], told["width"], told["height"]) == ("turned.jpg", 40, 80)
    shown = seen(address, answer)
    assert shown.shape == (80, 40, 3)
    assert shown[10, 20].argmax() == 0
    assert shown[70, 20].argmax() == 2


def test_alpha_is_laid_on_white(address: str) -> None:
    pixels = np.zeros((40, 60, 4), np.uint8)
    pixels[:, 30:, 3] = 255  # the left half is transparent black
    shown = seen(address, upload(address, picture(pixels, "PNG")))
    assert shown[20, 10].min() > 250
    assert shown[20, 50].max() < 5


def test_of_16_bits_the_high_byte_is_shown(address: str) -> None:
    shown = seen(address, upload(address, picture(np.full((40, 60), 0x8012, np.uint16), "PNG")))
    assert shown[20, 30].tolist() == pytest.approx([128] * 3, abs=2)


@pytest.mark.parametrize(
    "kind",
    ["JPEG", "MPO", "GIF", "BMP", "TIFF", "WEBP"],
)
def test_the_first_frame_of_every_kind(address: str, kind: str) -> None:
    frames = [PIL.Image.new("RGB", (60, 40), colour) for colour in ("red", "blue")]
    several = {} if kind in ("JPEG", "BMP") else {"save_all": True, "append_images": frames[1:]}
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, **several)
    shown = seen(address, upload(address, buffer.getvalue()))
    assert shown.shape == (40, 60, 3)
    assert shown[20, 30].argmax() == 0


def test_a_large_photo_is_shown_smaller_and_keeps_its_size(address: str) -> None:
    answer = upload(address, picture(np.zeros((30, 3000, 3), np.uint8)))
    assert (answer.json()["width"], answer.json()["height"]) == (3000, 30)
    assert seen(address, answer).shape[1] == 2048
    assert answer.json()["reduced"] is True
    whole = send(address, f"/photos/{answer.json()['id']}?whole")
    assert PIL.Image.open(io.BytesIO(whole.body)).size == (3000, 30)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        (r"C:\x\y.jpg", "y.jpg"),
        ("a\x00b\x07\x1b[31m\u202e.jpg", "ab[31m.jpg"),
        ("a\tb\x7f.jpg", "ab.jpg"),
        ("n" * 10_000, "n" * NAME),
        ("..", ".."),
        ("/", "photo"),
        (".", "photo"),
        ("", "photo"),
        ("\ud800\udfff.jpg", ".jpg"),
        ("貓 & <b>犬</b>.jpg", "b>.jpg"),
        ("eñe 貓.jpg", "eñe 貓.jpg"),
    ],
)
def test_a_name_is_made_fit_to_be_shown(sent: str, shown: str) -> None:
    assert read_upload(io.BytesIO(picture(hopper())), sent).name == shown


HOSTILE = (
    b"../../etc/passwd", rb"C:\x\y.jpg", b"a\x00b", b"\x01\x02\x03", b"n" * 4000, b"", b"\xff\xfe",
    b"/etc/passwd", b"file:///etc/passwd", b"a; name=photo", b"/dev/zero", "貓".encode(),
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name[:20]))
def test_nothing_opens_what_a_client_names(
    address: str, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    opened: list[Any] = []

    def watch(place: str, function: Callable[..., Any]) -> None:
        def watched(path: Any, *rest: Any, **options: Any) -> Any:
            opened.append(path)
            return function(path, *rest, **options)

        monkeypatch.setattr(place, watched)

    for place, function in (
        ("builtins.open", builtins.open), ("io.open", io.open), ("os.open", os.open),
        ("os.stat", os.stat),
    ):  # fmt: skip
        watch(place, function)
    answer = upload(address, picture(hopper()), name)
    assert answer.status in (200, 400), answer.body  # 400: no part of a form may be named so
    texts = [os.fsdecode(path) for path in opened if isinstance(path, str | bytes | os.PathLike)]
    assert not [text for text in texts if "passwd" in text or "y.jpg" in text or "zero" in text]
    if answer.status == 200:
        assert answer.json()["name"].isprintable()
        assert 1 <= len(answer.json()["name"]) <= NAME


# -- photos that are refused -------------------------------------------------------------------


def claims(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", binascii.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b""))
    )


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("photo.jpg", picture(hopper()))
    return buffer.getvalue()


NO_PHOTOS = {
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "zip": archive(),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\nshowpage\n%%EOF\n",
    "pdf": b"%PDF-1.7\n1 0 obj\n<< >>\nendobj\ntrailer\n<< >>\n%%EOF\n",
    "text": b"This is no photo.\n" * 50,
    "empty": b"",
    "ppm": b"P6 4 4 255\n" + bytes(48),  # Pillow reads it; the page does not offer it
}


@pytest.mark.parametrize("kind", NO_PHOTOS)
def test_what_is_no_photo_is_refused_in_words(address: str, kind: str) -> None:
    answer = upload(address, NO_PHOTOS[kind], "holiday.jpg")
    assert answer.status == 422
    assert answer.error.startswith("holiday.jpg is no photo that can be read; expected JPEG")


@pytest.mark.parametrize("kind", ["eps", "svg", "pdf"])
def test_no_program_is_started_for_a_photo(
    address: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        pytest.fail("started a program")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", fail)
    monkeypatch.setattr(subprocess, "Popen", fail)
    PIL.Image.init()  # all that Pillow knows: EPS is among it
    assert "EPS" in PIL.Image.OPEN
    assert upload(address, NO_PHOTOS[kind], "photo.eps").status == 422


def test_a_truncated_jpeg_is_told_as_damaged(address: str) -> None:
    whole = picture(astronaut(), quality=95)
    answer = upload(address, whole[: len(whole) // 2], "cut.jpg")
    assert answer.status == 422
    assert answer.error.startswith("cut.jpg is damaged and cannot be read")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (30_000, 10, "huge.png is 30000 x 10 pixels; expected at most 16384 on a side"),
        (10, 30_000, "huge.png is 10 x 30000 pixels; expected at most 16384 on a side"),
        (12_000, 12_000, "12000 x 12000 pixels; .* 50 million in all; make it smaller"),
        (60_000, 60_000, "huge.png has too many pixels to be decoded safely"),
        (2**31 - 1, 2**31 - 1, "huge.png has too many pixels to be decoded safely"),
    ],
)
def test_photos_too_large_are_refused_by_their_header(
    address: str, monkeypatch: pytest.MonkeyPatch, width: int, height: int, words: str
) -> None:
    def fail(_photo: PIL.Image.Image) -> None:
        pytest.fail("decoded it")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    with pytest.raises(BadImage, match=words):
        read_upload(io.BytesIO(claims(width, height)), "huge.png")
    assert upload(address, claims(width, height)).status == 422


def test_a_jpeg_too_wide_is_refused(address: str) -> None:
    answer = upload(address, picture(np.zeros((8, 30_000, 3), np.uint8)), "wide.jpg")
    assert answer.status == 422
    assert answer.error == (
        "wide.jpg is 30000 x 8 pixels; expected at most 16384 on a side and 50 million in all; "
        "make it smaller"
    )


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (part(b"text", name=None),),  # a field in place of a file
        (part(picture(hopper()), field="foto"),),  # under another name
        (part(picture(hopper())), part(picture(hopper()))),  # two files
        (part(picture(hopper())), part(b"x", name=None, field="more")),  # a file and a field
        (b"content-type: image/jpeg\r\n\r\n" + picture(hopper()),),  # no name at all
        (b"\r\n" + picture(hopper()),),
    ],
    ids=["none", "field", "other-name", "two", "file-and-field", "nameless", "no-headers"],
)
def test_a_form_holds_one_photo_and_nothing_else(address: str, parts: tuple[bytes, ...]) -> None:
    body, headers = form(*parts)
    answer = send(address, "/photos", "POST", body, headers)
    assert answer.status == 400
    assert answer.error


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),  # no boundary told
        ("multipart/form-data; boundary=x", b"nothing of the kind"),
        ("multipart/form-data; boundary=x", b""),
        (f"multipart/form-data; boundary={BOUNDARY}", form(part(picture(hopper())))[0][:-40]),
        ("multipart/form-data; boundary=" + "b" * 5000, b"--b\r\n"),
        ("application/x-www-form-urlencoded", b"photo=text"),
        ("application/json", b'{"photo": "/etc/passwd"}'),
        ("image/jpeg", picture(hopper())),
        ("", picture(hopper())),
    ],
)
def test_a_request_that_is_no_form_is_refused(address: str, kind: str, body: bytes) -> None:
    answer = send(address, "/photos", "POST", body, {"content-type": kind} if kind else {})
    assert answer.status == 400
    assert answer.error


# -- more than may be sent ---------------------------------------------------------------------


def stream(megabytes: int, watch: Callable[[], Any] = lambda: None) -> Iterator[bytes]:
    yield b"--%s\r\n%s" % (BOUNDARY.encode(), part(b""))
    for _ in range(megabytes):
        watch()
        yield CHUNK
    yield b"\r\n--%s--\r\n" % BOUNDARY.encode()


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
@pytest.mark.parametrize(("megabytes", "length"), [(60, True), (60, False), (200, False)], ids=str)
def test_too_much_is_dropped_as_it_comes_and_told(
    address: str, megabytes: int, length: bool
) -> None:
    """With a length and in chunks without one; what came lies on disk at most, not in memory."""
    headers = dict(form()[1])
    if length:
        headers["content-length"] = str(sum(map(len, stream(megabytes))))
    before, most = resident(), []
    body = stream(megabytes, lambda: most.append(resident()))
    answer = send(address, "/photos", "POST", body, headers)
    assert answer.status == 413
    assert answer.error == f"expected at most {(BYTES + 10_000) / 1e6:g} MB, got more"
    assert max(most) - before < 30_000_000  # half of the smallest


def test_json_may_have_a_megabyte(address: str) -> None:
    answer = ask(address, "/join", b'{"first": "' + CHUNK + b'"}')
    assert answer.status == 413
    assert answer.error == "expected at most 1 MB, got more"


def test_a_length_that_says_less_than_comes(address: str) -> None:
    """The rest is taken for another request, and for a bad one."""
    body, headers = form(part(picture(hopper())))
    head = _head("/photos", headers | {"content-length": "100"}, address)
    first_line = raw(address, head + body).split(b"\r\n")[0]
    assert first_line == b"HTTP/1.1 400 Bad Request"


def _head(path: str, headers: dict[str, str], address: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"host: {urlsplit(address).netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", ["/photos", "/join"])
def test_a_request_that_breaks_off_is_no_error_of_the_server(address: str, path: str) -> None:
    """A length that says more than comes, as when a page is closed while a photo is sent."""
    headers = form()[1] | {"content-length": "1000000"}
    place = urlsplit(address)
    with complaints() as told:
        with socket.create_connection((place.hostname, place.port)) as line:
            line.sendall(_head(path, headers, address) + next(stream(0)) + CHUNK[:1000])
        assert upload(address, picture(hopper())).status == 200
        with pytest.raises(AssertionError):  # it is told at once, or not at all
            until(lambda: told, 0.3)


# -- paths and methods -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../app.py", "/../_guard.py", "/%2e%2e/app.py", "/%2e%2e%2fapp.py", "/..%2fapp.py",
        "/x/../../app.py", "/..%5capp.py", "/%252e%252e/app.py", "//etc/passwd", "/%2fetc/passwd",
        "/etc/passwd", "/page/index.html", "/app.py", "/.git/config", "/nothing",
        "/setup/", "/photos/a/b", "/docs", "/openapi.json",
    ],
)  # fmt: skip
def test_nothing_but_the_page_is_served(address: str, path: str) -> None:
    answer = send(address, path)
    assert answer.status == 404
    assert answer.error == "Not Found"


@pytest.mark.parametrize("path", ["/%00", "/index.html%00", "/" + "n" * 5000, "/%ff%fe", "/\xe4"])
def test_odd_paths_are_not_found(address: str, path: str) -> None:
    line = f"GET {path} HTTP/1.1\r\nhost: {urlsplit(address).netloc}\r\nconnection: close\r\n\r\n"
    answer = raw(address, line.encode("latin-1"))
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer[:300]


@pytest.mark.parametrize("name", ["", "index.html", "page.css", "page.js", "api.js", "icon.svg"])
def test_the_page_is_served(address: str, name: str) -> None:
    answer = send(address, f"/{name}")
    assert answer.status == 200
    folder = Path(sdcorr.__file__).parent / "demo" / "page"
    assert answer.body == (folder / (name or "index.html")).read_bytes()


def test_every_file_of_the_page_has_a_kind_that_browsers_take(address: str) -> None:
    """``nosniff`` makes them refuse a script or a style sheet that is called something else."""
    kinds = {
        ".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"
    }  # fmt: skip
    for file in (Path(sdcorr.__file__).parent / "demo" / "page").iterdir():
        told = send(address, f"/{file.name}").headers["content-type"]
        assert told.partition(";")[0] == kinds[file.suffix], file.name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/photos"), ("DELETE", "/photos"), ("PATCH", "/join"), ("POST", "/setup"),
        ("POST", "/"), ("PUT", "/index.html"), ("DELETE", "/page.js"), ("OPTIONS", "/join"),
        ("OPTIONS", "/setup"), ("TRACE", "/setup"), ("DELETE", "/photos/x"), ("POST", "/photos/x"),
    ],
)  # fmt: skip
def test_other_methods_are_refused(address: str, method: str, path: str) -> None:
    answer = send(address, path, method)
    assert answer.status == 405
    assert answer.error == "Method Not Allowed"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/photos", "/join", "/match", "/export"])
def test_what_is_posted_cannot_be_got(address: str, path: str) -> None:
    assert send(address, path).status in (404, 405)


@pytest.mark.parametrize("path", ["/", "/setup", "/page.js"])
def test_head_has_no_body(address: str, path: str) -> None:
    answer = send(address, path, "HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_setup_says_what_there_is(address: str) -> None:
    setup = send(address, "/setup").json()
    assert (setup["recipe"], setup["category"], setup["photos"]) == ("sift", None, [])
    assert [one["name"] for one in setup["recipes"]] == ["sift", "sift-hough", "same-position"]
    assert all(one["ready"] for one in setup["recipes"])
    assert setup["matchers"] == sorted(set(setup["matchers"]))
    assert {"nearest", "hough", "soft_argmax"} <= set(setup["matchers"])
    assert setup["limits"]["bytes"] == BYTES


def test_photos_given_at_the_start_are_in_setup() -> None:
    studio = studio_with()
    given = [
        studio.add(make_photo(Image(photo()), name))
        for photo, name in ((astronaut, "a.png"), (hopper, "b.png"))
    ]
    with running(make_app(studio, "sift", given, "cat")) as address:
        setup = send(address, "/setup").json()
        assert setup["category"] == "cat"
        assert setup["photos"] == [
            {
                "id": one.id,
                "name": name,
                "digest": one.digest,
                "width": width,
                "height": height,
                "reduced": False,
            }
            for one, (name, width, height) in zip(
                given, (("a.png", 157, 104), ("b.png", 100, 136)), strict=True
            )
        ]
        assert send(address, f"/photos/{given[1].id}").body == given[1].shown


def test_a_digest_tells_photos_apart_and_knows_one_again() -> None:
    one = make_photo(Image(astronaut()), "a.png").digest
    assert make_photo(Image(astronaut()), "b.png").digest == one
    assert make_photo(Image(astronaut()[::-1].copy()), "a.png").digest != one
    flat = [make_photo(Image(np.zeros(shape, np.uint8)), "a").digest for shape in SHAPES_ALIKE]
    assert len(set(flat)) == 2


def test_a_file_whose_name_is_no_unicode_is_shown() -> None:
    """As of ``sdcorr demo $'\\xff.jpg' b.jpg``."""
    studio = studio_with()
    given = [studio.add(make_photo(Image(hopper()), os.fsdecode(b"\xff.jpg"))) for _ in range(2)]
    with running(make_app(studio, "sift", given)) as address:
        assert send(address, "/setup").status == 200


@pytest.mark.parametrize("key", ["nothing", "%00", "..", "x" * 3000])
def test_an_unknown_photo_is_told(address: str, key: str) -> None:
    answer = send(address, f"/photos/{key}")
    assert answer.status in (404, 422)
    assert answer.error


def test_ids_of_photos_cannot_be_guessed(address: str) -> None:
    ids = {upload(address, picture(hopper())).json()["id"] for _ in range(3)}
    assert len(ids) == 3
    assert all(len(base64.urlsafe_b64decode(f"{one}==")) == 16 for one in ids)


# -- requests in JSON --------------------------------------------------------------------------

JSON = pytest.mark.parametrize("path", ["/join", "/match", "/export"])


@JSON
@pytest.mark.parametrize(
    "body",
    [
        "", "{", "nothing", "[]", "null", "5", '"text"', "[1, 2]", b"\xff\xfe\x00", b"\x80",
        "[" * 100_000, '{"a":' * 100_000, "9" * 10_000, '{"first": }', "{'first': 1}",
    ],
    ids=lambda body: repr(body[:10]),
)  # fmt: skip
def test_what_is_no_json_object_is_refused(address: str, path: str, body: str | bytes) -> None:
    answer = ask(address, path, body)
    assert answer.status == 400
    assert answer.error.startswith("expected ")


@JSON
@pytest.mark.parametrize("key", ["first", "second", "recipe", "matcher", "category"])
@pytest.mark.parametrize("value", [5, 1.5, True, ["sift"], {"a": 1}, float("nan")], ids=repr)
def test_names_must_be_text(
    address: str, pairing: dict[str, Any], path: str, key: str, value: Any
) -> None:
    answer = ask(address, path, pairing | {key: value, "points": [], "format": "csv"})
    assert answer.status == 400
    assert re.fullmatch(f"expected text of at most 500 characters as {key}, got .*", answer.error)


@JSON
@pytest.mark.parametrize("key", ["matcher", "category"])
@pytest.mark.parametrize("value", [0, False, [], {}], ids=repr)
def test_nothing_is_told_by_null_or_no_text_alone(
    address: str, pairing: dict[str, Any], path: str, key: str, value: Any
) -> None:
    answer = ask(address, path, pairing | {key: value, "points": [], "format": "csv"})
    assert 400 <= answer.status < 500


@JSON
@pytest.mark.parametrize("key", ["first", "second", "recipe"])
@pytest.mark.parametrize("value", [None, "", "nothing", "\ud800", "x" * 500, "MISSING"])
def test_names_must_be_known(
    address: str, pairing: dict[str, Any], path: str, key: str, value: Any
) -> None:
    body = pairing | {key: value, "points": [], "format": "csv"}
    if value == "MISSING":
        del body[key]
    answer = ask(address, path, body)
    assert answer.status == (400 if value in (None, "MISSING") else 422)
    words = "no recipe called" if key == "recipe" else "choose it again"
    words = "expected text" if answer.status == 400 else words
    assert words in json.loads(answer.body)["error"]


@JSON
def test_a_sentence_is_short_whatever_was_sent(
    address: str, pairing: dict[str, Any], path: str
) -> None:
    body = pairing | {"recipe": "x" * 100_000, "points": [], "format": "csv"}
    assert ask(address, path, body).error


@JSON
def test_a_category_that_no_prompt_reads_is_refused(
    address: str, pairing: dict[str, Any], path: str
) -> None:
    answer = ask(address, path, pairing | {"category": "cat", "points": [], "format": "csv"})
    assert answer.status == 422
    assert "no prompt that names a category" in answer.error


def test_an_unknown_matcher_is_told(address: str, pairing: dict[str, Any]) -> None:
    last = _ask_until_told(address, pairing | {"matcher": "houhg"})
    assert last.status == 422
    assert "no matcher called 'houhg'; did you mean 'hough'?" in last.error


def test_an_unknown_matcher_is_told_before_the_work_begins(
    address: str, pairing: dict[str, Any]
) -> None:
    assert ask(address, "/join", pairing | {"matcher": "nothing"}).status == 422


def test_a_page_cannot_have_modules_imported(
    address: str, pairing: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names with a dot are plug-ins from outside; who asks over HTTP may choose what is listed."""
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "__init__.py").write_text(
        f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()"
    )
    monkeypatch.syspath_prepend(tmp_path)
    last = _ask_until_told(address, pairing | {"matcher": "planted.PLUGIN"})
    assert last.status == 422
    assert not (tmp_path / "ran").exists()
    assert "no matcher called" in last.error


@pytest.mark.parametrize("name", ["_rows", "..", ".nearest", "nearest/", "NEAREST", " nearest"])
def test_what_is_not_listed_is_no_matcher(address: str, pairing: dict[str, Any], name: str) -> None:
    last = _ask_until_told(address, pairing | {"matcher": name})
    assert last.status == 422
    assert "no matcher called" in last.error


@pytest.mark.parametrize("format", [None, "json", "csv", "png"])
def test_matches_may_be_asked_to_be_confident(
    address: str, pairing: dict[str, Any], format: str | None
) -> None:
    """Of the sharpest and the mildest limit, only the first rejects a match."""
    point = {"name": "a", "place": [60, 40], "turned": False, "corrected": None}
    body = pairing | {"points": [[60, 40]] if format is None else [point], "format": format}
    answers = [
        ask(address, "/export" if format else "/match", body | {"least": least})
        for least in (None, 0, 1.0)
    ]
    assert [answer.status for answer in answers] == [200] * 3
    if format == "json":
        assert [answer.json()["min_confidence"] for answer in answers] == [None, 0, 1]
    else:
        assert answers[0].body == answers[1].body
    assert answers[2].body != answers[0].body
    if format in (None, "json"):
        assert [answer.json()["matches"][0]["matched"] for answer in answers] == [True, True, False]


@pytest.mark.parametrize(
    ("least", "sentence"),
    [
        ("0.5", "a number as least"),
        (True, "a number as least"),
        (2, "0 to 1"),
        (-0.1, "0 to 1"),
        (10**400, "0 to 1"),
        (float("nan"), "0 to 1"),
    ],
)
def test_a_confidence_that_is_none_is_refused(
    address: str, pairing: dict[str, Any], least: Any, sentence: str
) -> None:
    assert sentence in ask(address, "/match", pairing | {"points": [[1, 1]], "least": least}).error


def test_a_recipe_without_confidence_can_ask_for_none(
    address: str, pairing: dict[str, Any]
) -> None:
    plain = pairing | {"matcher": "soft_argmax"}
    assert _ask_until_told(address, plain).json() == {"ready": True, "calibrated": False}
    assert _ask_until_told(address, pairing).json() == {"ready": True, "calibrated": True}
    assert "not calibrated" in ask(address, "/match", plain | {"points": [], "least": 0.5}).error


def _ask_until_told(address: str, pairing: dict[str, Any]) -> Answer:
    answers: list[Answer] = []

    def told() -> bool:
        answers.append(ask(address, "/join", pairing))
        return answers[-1].status != 200 or answers[-1].json()["ready"]

    until(told)
    return answers[-1]


BAD_POINTS = (
    None, 5, "ab", True, {}, {"a": [1, 2]}, [5], [1, 2], ["ab"], [[1]], [[1, 2, 3]], [["1", "2"]],
    [[None, 1]], [None], [{}], [[1, 2], [3]], [[[1, 2]]], [[float("nan"), 1]],
    [[1, float("inf")]], [[-float("inf"), 1]], [[-5, 5]], [[5, -5]], [[157, 5]], [[5, 104]],
    [[1, 1], [1e300, 1]], [[10**400, 1]], [[1, 1]] * 1001,
)  # fmt: skip


@pytest.mark.parametrize("points", BAD_POINTS, ids=lambda points: repr(points)[:20])
@pytest.mark.parametrize("around", [False, True])
def test_points_that_are_none_are_refused(
    address: str, pairing: dict[str, Any], points: Any, around: bool
) -> None:
    answer = ask(address, "/match", pairing | {"points": points, "around": around})
    assert answer.status in (400, 422)
    assert "expected" in answer.error


def test_points_must_be_there(address: str, pairing: dict[str, Any]) -> None:
    assert ask(address, "/match", pairing).error == "expected a list of at most 1000 points"


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("points", [[[]], [[], []], [[[[[[]]]]]] * 2], ids=repr)
def test_a_point_without_numbers_is_none(
    address: str, pairing: dict[str, Any], points: Any, around: bool
) -> None:
    assert ask(address, "/match", pairing | {"points": points, "around": around}).error


@pytest.mark.parametrize("depth", [100, 500, 900, 960, 980])
def test_deep_lists_are_no_points(address: str, pairing: dict[str, Any], depth: int) -> None:
    """Deep enough for ``repr`` or numpy to give up, not for the reader of JSON."""
    text = json.dumps(pairing)[:-1] + ', "points": ' + "[" * depth + "1" + "]" * depth + "}"
    assert ask(address, "/match", text).error
    one = '{"turned": false, "corrected": null, "place": [1, 1], "name": '
    text = json.dumps(pairing)[:-1] + ', "format": "json", "points": [' + one
    assert ask(address, "/export", text + "[" * depth + "]" * depth + "}]}").status < 500


def test_no_points_have_no_matches(address: str, pairing: dict[str, Any]) -> None:
    for turned in (False, True):
        answer = ask(address, "/match", pairing | {"points": [], "turned": turned})
        assert answer.json() == {"matches": []}


def test_there_is_nothing_around_no_point(address: str, pairing: dict[str, Any]) -> None:
    assert "got none" in ask(address, "/match", pairing | {"points": [], "around": True}).error


def test_a_thousand_points_are_matched(address: str, pairing: dict[str, Any]) -> None:
    points = [[number % 157, number % 104] for number in range(1000)]
    assert len(ask(address, "/match", pairing | {"points": points}).json()["matches"]) == 1000


@pytest.mark.parametrize("flag", ["turned", "around"])
@pytest.mark.parametrize("value", ["no", 5, ["x"], {"a": 1}], ids=repr)
def test_flags_are_true_or_false(
    address: str, pairing: dict[str, Any], flag: str, value: Any
) -> None:
    assert ask(address, "/match", pairing | {"points": [[5, 5]], flag: value}).error


@pytest.mark.parametrize("path", ["/match", "/export"])
def test_a_pair_that_is_not_joined_is_told_as_a_conflict(
    address: str, pairing: dict[str, Any], path: str
) -> None:
    """And joined again: the page waits, and asks anew."""
    asked = pairing | {"second": upload(address, picture(hopper())).json()["id"]}
    asked |= {"points": [[5, 5]], "format": "json"}
    answer = ask(address, path, asked)
    assert answer.status == 409
    assert "wait" in answer.error
    join(address, asked)
    assert ask(address, "/match", asked).status == 200


# -- what is exported --------------------------------------------------------------------------

POINT = {"name": "1", "place": [20, 30], "turned": False, "corrected": None}


@pytest.mark.parametrize("kind", [None, "", "pdf", 5, ["json"], {}, "JSON", "../json", "x" * 999])
def test_other_formats_are_refused(address: str, pairing: dict[str, Any], kind: Any) -> None:
    answer = ask(address, "/export", pairing | {"points": [POINT], "format": kind})
    assert answer.status == 400
    assert answer.error.startswith("expected a format json, csv, png, got ")


BAD_WANTED = (
    5, None, "text", [], [1, 2], {}, {"name": "1"}, {"place": [1, 2]},
    *({key: value for key, value in POINT.items() if key != gone} for gone in POINT),
    *(POINT | {"place": place} for place in (None, 5, "ab", {}, [1], [1, 2, 3], [[1, 2]], [-5, 5],
                                             [157, 5], [float("nan"), 5], ["1", "2"])),
    *(POINT | {"corrected": place} for place in (5, "ab", {}, [1], [1, 2, 3], [100, 5], [5, 136],
                                                 [float("inf"), 5], False, "")),
    *(POINT | {"name": name} for name in ("a\nb", "a\rb", "\x00", "\u202e", "\ud800", "\x1b[1m")),
    POINT | {"turned": True, "place": [5, 5], "corrected": [-5, 5]},
    POINT | {"turned": True, "place": [110, 5]},  # on the first photo, not on the second
)  # fmt: skip


@pytest.mark.parametrize("point", BAD_WANTED, ids=lambda point: repr(point)[:60])
def test_points_that_cannot_be_exported_are_refused(
    address: str, pairing: dict[str, Any], point: Any
) -> None:
    answer = ask(address, "/export", pairing | {"points": [POINT, point], "format": "csv"})
    assert answer.status in (400, 422)
    assert answer.error


@pytest.mark.parametrize("key", ["place", "corrected"])
@pytest.mark.parametrize("place", [[], [[]], [[], []]], ids=repr)
def test_a_place_without_numbers_cannot_be_exported(
    address: str, pairing: dict[str, Any], key: str, place: Any
) -> None:
    answer = ask(address, "/export", pairing | {"points": [POINT | {key: place}], "format": "csv"})
    assert answer.error


def test_a_correction_off_its_photo_is_told_of_that_photo(
    address: str, pairing: dict[str, Any]
) -> None:
    point = POINT | {"corrected": [5, 999]}
    sentence = ask(address, "/export", pairing | {"points": [point], "format": "csv"}).error
    assert "source" not in sentence


@pytest.mark.parametrize("name", [None, 5, ["a"], {"a": 1}], ids=repr)
def test_a_name_is_text(address: str, pairing: dict[str, Any], name: Any) -> None:
    point = POINT | {"name": name}
    assert ask(address, "/export", pairing | {"points": [point], "format": "csv"}).error


NAMES = (
    "a, b",
    'say "ah"',
    "=1+1",
    "+cmd|' /C calc'!A0",
    "@x",
    "-2",
    "貓",
    "",
    " ",
    "$x^",
    "1",
    "1",
)


def close(*numbers: float) -> Any:
    """A product of one row rounds otherwise than one of many."""
    return pytest.approx(numbers, abs=1e-5)


def test_json_that_is_exported(address: str, pairing: dict[str, Any]) -> None:
    points = [
        POINT | {"name": "a", "place": [20, 30]},
        POINT | {"name": "b", "place": [60, 70.5], "turned": True},
        POINT | {"name": "c", "place": [100, 50], "corrected": [50, 60]},
        POINT | {"name": "d", "place": [40, 90], "turned": True, "corrected": [10.5, 0]},
        POINT | {"name": "e", "place": [0, 0]},
    ]
    answer = ask(address, "/export", pairing | {"points": points, "format": "json"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    told = answer.json()
    assert told["schema"] == "sdcorr.matches/1"
    assert told["recipe"]["name"] == "sift"
    assert (told["source"]["path"], told["source"]["size"]) == ("astronaut.jpg", [104, 157])
    assert told["target"]["size"] == [136, 100]
    forth = ask(
        address, "/match", pairing | {"points": [[20, 30], [0, 0]], "turned": False}
    ).json()["matches"]
    (back,) = ask(address, "/match", pairing | {"points": [[60, 70.5]], "turned": True}).json()[
        "matches"
    ]
    a, b, c, d, e = told["matches"]
    assert [one["name"] for one in told["matches"]] == list("abcde")
    for one, place, match in ((a, [20, 30], forth[0]), (e, [0, 0], forth[1])):
        assert (one["source"], one["target"]) == (place, match["place"])
        assert (one["asked"], one["corrected"]) == ("source", False)
        assert [one["score"], one["confidence"]] == close(match["score"], match["confidence"])
        assert one["matched"] == match["matched"]
    assert (b["source"], b["target"]) == (back["place"], [60, 70.5])
    assert (b["asked"], b["corrected"]) == ("target", False)
    assert [b["score"], b["confidence"]] == close(back["score"], back["confidence"])
    assert (c["source"], c["target"], c["asked"]) == ([100, 50], [50, 60], "source")
    assert (d["source"], d["target"], d["asked"]) == ([10.5, 0], [40, 90], "target")
    for one in (c, d):
        assert (one["score"], one["confidence"]) == (None, None)
        assert (one["matched"], one["corrected"]) == (True, True)


def test_csv_that_is_exported_reads_back(address: str, pairing: dict[str, Any]) -> None:
    points = [
        POINT | {"name": name, "place": [10 + number, 20 + number], "turned": number % 3 == 0}
        for number, name in enumerate(NAMES)
    ]
    points[4]["corrected"] = [12.25, 34]
    asked = pairing | {"points": points}
    answer = ask(address, "/export", asked | {"format": "csv"})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    matches = ask(address, "/export", asked | {"format": "json"}).json()["matches"]
    assert [row["name"] for row in rows] == list(NAMES)
    for row, match in zip(rows, matches, strict=True):
        for side in ("source", "target"):
            assert [float(row[f"{side}_{axis}"]) for axis in "xy"] == match[side]
        for key in ("score", "confidence"):
            assert (float(row[key]) if row[key] else None) == match[key]
        for key in ("matched", "corrected"):
            assert row[key] == json.dumps(match[key])
        assert row["asked"] == match["asked"]
    assert (rows[4]["target_x"], rows[4]["target_y"], rows[4]["score"]) == ("12.25", "34.0", "")


@pytest.mark.parametrize("name", [r"$\frac$", "$x^", "a" * 300, "\\", "", "貓"])
def test_png_that_is_exported_opens(address: str, pairing: dict[str, Any], name: str) -> None:
    points = [POINT | {"name": name}, POINT | {"turned": True, "corrected": [3, 4]}]
    answer = ask(address, "/export", pairing | {"points": points, "format": "png"})
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    with PIL.Image.open(io.BytesIO(answer.body)) as drawn:
        drawn.load()
        assert drawn.format == "PNG"


def test_no_points_are_exported_as_an_empty_list(address: str, pairing: dict[str, Any]) -> None:
    asked = pairing | {"points": []}
    assert ask(address, "/export", asked | {"format": "json"}).json()["matches"] == []
    (header,) = ask(address, "/export", asked | {"format": "csv"}).body.decode().splitlines()
    assert header == (
        "name,source_x,source_y,target_x,target_y,score,confidence,matched,asked,corrected"
    )
    png = ask(address, "/export", asked | {"format": "png"}).body
    PIL.Image.open(io.BytesIO(png)).load()


# -- errors of ours ----------------------------------------------------------------------------


def broken(*_arguments: Any, **_options: Any) -> None:
    raise RuntimeError("a mistake of ours, with a secret")


def test_our_mistake_is_told_without_its_story(
    address: str, pairing: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcorr.demo.app.as_csv", broken)
    with complaints() as told:
        answer = ask(address, "/export", pairing | {"points": [POINT], "format": "csv"})
        until(lambda: told)  # the terminal has it
    assert answer.status == 500
    assert b"secret" not in answer.body


def test_our_mistake_is_told_like_every_error(
    address: str, pairing: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdcorr.demo.app.as_csv", broken)
    answer = ask(address, "/export", pairing | {"points": [POINT], "format": "csv"})
    assert "content-security-policy" in answer.headers
    assert list(answer.json()) == ["error"]
