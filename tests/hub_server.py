"""A hub on 127.0.0.1 that serves folders as repositories, for tests of downloads."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.tiny import SHA

STATUS = {"RepoNotFound": 404, "RevisionNotFound": 404, "GatedRepo": 403}
SILENT = "Silent"  # accepts, and never answers


@dataclass
class Hub:
    """What the server offers, and what it was asked for.

    Args:
        folders: repositories by id; all of them at the commit ``tiny.SHA`` and no other.
        refused: X-Error-Code by id, or ``SILENT``.
        url: for HF_ENDPOINT.
        requests: ``METHOD /path`` of each request, in order.
    """

    folders: dict[str, Path]
    refused: dict[str, str]
    url: str = ""
    requests: list[str] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def fetched(self, model: str) -> set[str]:
        """Names of the files of a repository that were sent."""
        start = f"GET /{model}/resolve/{SHA}/"
        return {one.removeprefix(start) for one in self.requests if one.startswith(start)}


@contextmanager
def serve(folders: dict[str, Path], refused: dict[str, str] | None = None) -> Iterator[Hub]:
    """Run a hub until the block ends."""
    hub = Hub(folders, refused or {})
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def hub_environment(home: Path, url: str | None = None) -> dict[str, str]:
    """Environment of a subprocess that keeps its cache in ``home``; without a url, offline."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING")) and not name.lower().endswith("_proxy")
    }
    online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url} if url else {"HF_HUB_OFFLINE": "1"}
    # tiny models gain nothing from threads, and lose much where the cores are shared
    return kept | {"HF_HOME": str(home), "OMP_NUM_THREADS": "1"} | online


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        model, rest = "/".join(parts[:2]), parts[2:]
        if self.hub.refused.get(model) == SILENT:
            self.hub.closing.wait()
        elif model in self.hub.refused:
            self._refuse(self.hub.refused[model])
        elif model not in self.hub.folders:
            self._refuse("RepoNotFound")
        elif len(rest) > 1 and rest[1] not in ("main", SHA):
            self._refuse("RevisionNotFound")
        else:
            self._answer(model, rest)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_arguments: Any) -> None:
        """Silent."""

    def _answer(self, model: str, rest: list[str]) -> None:
        folder = self.hub.folders[model]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = {str(path.relative_to(folder)): path for path in files}
        if rest[:1] == ["tree"]:
            self._send_json([_entry(name, path) for name, path in names.items()])
        elif rest[:1] == ["resolve"]:
            self._send(names["/".join(rest[2:])].read_bytes())
        else:
            siblings = [{"rfilename": name} for name in names]
            self._send_json({"id": model, "sha": SHA, "siblings": siblings})

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, content: bytes, kind: str = "application/octet-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self, code: str) -> None:
        self.send_response(STATUS[code])
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _entry(name: str, path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    identity = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": identity}
