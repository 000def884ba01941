"""A server on 127.0.0.1 that sends files in all the ways in which servers fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What is sent; what is None is as an honest server has it.

    Args:
        content: the whole file.
        status: of a request that is answered with ``content``; 200 and 206 by its Range if None.
        etag: of the file.
        modified: Last-Modified.
        kind: Content-Type.
        drop: close after so many bytes of this answer.
        length: Content-Length in place of the true one; "" sends none.
        ranges: whether a Range is honoured.
        conditions: whether If-Range is.
        place: for Location.
        silent: seconds without a word before the answer.
        range_start: bytes by which Content-Range lies.
        encoding: Content-Encoding.
        chunk: bytes that are sent at once.
        extra: sent behind the content, though nothing says so.
        digits: of the whole length in Content-Range, in place of the true ones.
    """

    content: bytes = b""
    status: int | None = None
    etag: str | None = '"1"'
    modified: str | None = None
    kind: str = "application/octet-stream"
    drop: int | None = None
    length: str | None = None
    ranges: bool = True
    conditions: bool = True
    place: str | None = None
    silent: float = 0
    range_start: int = 0
    encoding: str | None = None
    chunk: int = 1 << 16
    extra: bytes = b""
    digits: int | None = None


@dataclass
class Site:
    """What the server sends, and what it was asked for.

    Args:
        answers: by path, one for each request in order; the last one holds for all after it.
        url: of the folder of all paths, with / at its end.
        requests: path and headers of each request, lower case.
    """

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    url: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def put(self, name: str, *answers: Answer) -> str:
        """Serve a file; its address."""
        self.answers[name] = list(answers)
        return self.url + name

    def ranges(self, name: str) -> list[str | None]:
        """The Range of each request for a file."""
        return [headers.get("range") for path, headers in self.requests if path == name]


@contextmanager
def serve() -> Iterator[Site]:
    """Run a site until the block ends."""
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    site.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.site.requests.append((name, headers))
        waiting = self.site.answers.get(name, [Answer(status=404)])
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        time.sleep(answer.silent)
        self._send(answer, headers)

    def log_message(self, *_arguments: Any) -> None:
        """Silent."""

    def _send(self, answer: Answer, asked: dict[str, str]) -> None:
        start = self._start(answer, asked)
        body = answer.content[start:]
        length = str(len(body)) if answer.length is None else answer.length
        status = answer.status or (206 if start else 200)
        if start >= len(answer.content) > 0:
            status, body, length = 416, b"", "0"
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        if length:
            self.send_header("Content-Length", length)
        for key, value in (
            ("ETag", answer.etag),
            ("Last-Modified", answer.modified),
            ("Location", answer.place),
            ("Content-Encoding", answer.encoding),
        ):
            if value is not None:
                self.send_header(key, value)
        if status == 206:
            end = len(answer.content) - 1
            first = start + answer.range_start
            total = "1" * answer.digits if answer.digits else end + 1
            self.send_header("Content-Range", f"bytes {first}-{end}/{total}")
        self.send_header("Connection", "close")
        self.end_headers()
        body = body if answer.drop is None else body[: answer.drop]
        self._write(body + answer.extra, answer.chunk)
        self.close_connection = True

    def _write(self, body: bytes, size: int) -> None:
        try:
            for begin in range(0, len(body), size):
                self.wfile.write(body[begin : begin + size])
        except OSError:  # the client has enough
            pass

    @staticmethod
    def _start(answer: Answer, asked: dict[str, str]) -> int:
        """The first byte that is sent; 0 where the Range does not count."""
        if not answer.ranges or answer.status is not None or "range" not in asked:
            return 0
        known = (None, answer.etag, answer.modified)
        if answer.conditions and asked.get("if-range") not in known:
            return 0
        return int(asked["range"].removeprefix("bytes=").removesuffix("-"))
