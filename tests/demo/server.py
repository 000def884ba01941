"""The demo's server as a user meets it: on a socket, in a thread, spoken to over plain HTTP."""

from __future__ import annotations

import dataclasses
import http.client
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import PIL.Image
import uvicorn
from starlette.applications import Starlette

import sdcorr
from sdcorr.demo._studio import Studio
from sdcorr.demo.app import listen
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES

OFFERED = ("sift", "sift-hough", "same-position")
ASSETS = Path(__file__).parents[2] / "assets"
BOUNDARY = "a-boundary-that-no-photo-holds"


def studio_with(
    recipes: Sequence[str] = OFFERED,
    load: Callable[[Recipe], Pipeline] = sdcorr.load,
    memory: int = 10**9,
) -> Studio:
    """A studio that offers these recipes, by default those without weights."""
    return Studio({name: RECIPES[name] for name in recipes}, load, memory)


def small(name: str) -> Recipe:
    """A recipe without weights that looks at small photos as they are: much faster.

    It has another digest, and so no confidence.
    """
    (group,) = RECIPES[name].groups
    sizes = {"size": 160} if hasattr(group.backbone, "size") else {}
    group = dataclasses.replace(group, backbone=dataclasses.replace(group.backbone, **sizes))
    return dataclasses.replace(RECIPES[name], groups=(group,))


@contextmanager
def running(app: Starlette) -> Iterator[str]:
    """Serve until the block ends; the address, ``http://127.0.0.1:PORT``.

    As ``sdcorr.demo.app.serve`` does it, which takes signals and so the main thread.
    """
    # no tracebacks: Python 3.11 parses source to write one, and fails while pytest does so too
    config = uvicorn.Config(app, log_level="critical", access_log=False, ws="none", lifespan="off")
    server, place = uvicorn.Server(config), listen(0)
    address = f"http://127.0.0.1:{place.getsockname()[1]}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield address
    finally:
        server.should_exit = True
        thread.join(10)
        place.close()
        assert not thread.is_alive(), "the server does not end"


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What the server would write to the terminal, a line each."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("uvicorn.error")
    level, logger.propagate = logger.level, False
    logger.setLevel("WARNING")
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = True


@dataclass(frozen=True)
class Answer:
    """Status, headers with names in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, which must be JSON as the standard has it: no NaN, no Infinity."""
        return json.loads(self.body, parse_constant=_refuse)

    @property
    def error(self) -> str:
        """The sentence that an answer of status 4xx holds, and nothing else."""
        assert 400 <= self.status < 500, (self.status, self.body[:300])
        answer = self.json()
        assert list(answer) == ["error"]
        sentence = answer["error"]
        assert isinstance(sentence, str)
        assert sentence.strip()
        assert "Traceback" not in sentence
        assert len(sentence) < 500
        return sentence


def send(
    address: str,
    path: str,
    method: str = "GET",
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own. ``headers`` take the place of those of http.client.

    Args:
        address: of ``running``.
        path: sent as it is.
        method: likewise.
        body: bytes; or an iterable of bytes, sent in chunks unless ``headers`` tell a length.
        headers: likewise; ``Host`` among them replaces the usual one.
    """
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


def raw(address: str, request: bytes, patience: float = 1) -> bytes:
    """What comes back to these very bytes until the server hangs up, or has been silent."""
    place = urlsplit(address)
    answer = b""
    with socket.create_connection((place.hostname, place.port), timeout=patience) as line:
        line.sendall(request)
        with suppress(TimeoutError, ConnectionError):
            while some := line.recv(65536):
                answer += some
    return answer


def ask(address: str, path: str, body: Any) -> Answer:
    """POST of JSON; ``str`` and ``bytes`` are sent as they are."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    data = text.encode() if isinstance(text, str) else text
    return send(address, path, "POST", data, {"content-type": "application/json"})


def upload(address: str, data: bytes, name: str | bytes = "photo.jpg") -> Answer:
    """POST of one file as a browser's form sends it."""
    body, headers = form(part(data, name))
    return send(address, "/photos", "POST", body, headers)


def part(data: bytes, name: str | bytes | None = "photo.jpg", field: str = "photo") -> bytes:
    """One part of a form; without a name it is a plain field."""
    head = f'content-disposition: form-data; name="{field}"'.encode()
    if name is not None:
        raw = name.encode() if isinstance(name, str) else name
        head += b'; filename="' + raw + b'"\r\ncontent-type: image/jpeg'
    return head + b"\r\n\r\n" + data


def form(*parts: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a form, RFC 7578."""
    body = b"".join(b"--%s\r\n%s\r\n" % (BOUNDARY.encode(), one) for one in parts)
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return body + b"--%s--\r\n" % BOUNDARY.encode(), headers


def picture(pixels: np.ndarray, kind: str = "JPEG", **how: Any) -> bytes:
    """A photo as a file."""
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, **how)
    return buffer.getvalue()


def astronaut() -> np.ndarray:
    """A small photo, ``(104, 157, 3)``."""
    return _asset("astronaut.png", (157, 104))


def hopper() -> np.ndarray:
    """Another one, upright, ``(136, 100, 3)``."""
    return _asset("hopper.jpg", (100, 136))


def join(address: str, pairing: Mapping[str, Any], patience: float = 20) -> list[dict[str, Any]]:
    """Ask until two photos are joined: what was answered on the way."""
    answers: list[dict[str, Any]] = []

    def ready() -> bool:
        answer = ask(address, "/join", pairing)
        assert answer.status == 200, answer.body
        answers.append(answer.json())
        return bool(answers[-1]["ready"])

    until(ready, patience)
    return answers


def until(true: Callable[[], Any], patience: float = 10, pause: float = 0.01) -> None:
    """Wait until something is so."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, f"not within {patience} s"
        time.sleep(pause)


def _asset(name: str, size: tuple[int, int]) -> np.ndarray:
    with PIL.Image.open(ASSETS / name) as photo:
        return np.asarray(photo.convert("RGB").resize(size))


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
