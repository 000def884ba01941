"""Who may talk to the page's server, and how much they may send."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE | re.ASCII)
REQUEST = 1_000_000  # bytes of a request, where nothing else is said
DISCARD = 2_000_000_000  # bytes that are read and dropped, so that the answer reaches the sender
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets through what comes from this machine's own page, within limits.

    ``Host`` must name this machine, or another site's name could be pointed at it (DNS rebinding);
    where there is an ``Origin``, it must be the page's own. Any port: a tunnel may change it.

    Args:
        app: what is guarded.
        limits: bytes of a request, by path, where they are not 1 MB.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, int]) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if refusal := _refusal(Headers(scope=scope)):
            answer = JSONResponse({"error": refusal}, status_code=403, headers=HEADERS)
            await answer(scope, receive, send)
            return
        limit = self.limits.get(scope["path"], REQUEST)
        await self.app(scope, _counted(receive, limit), _with_headers(send))


def _refusal(headers: Headers) -> str | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if not HOST.fullmatch(host):
        return f"expected the host localhost or 127.0.0.1, got {host[:100]!r}"
    if origin is not None and origin != f"http://{host}":
        return f"expected the page of http://{host} to ask, not one of {origin[:100]!r}"
    return None


def _counted(receive: Receive, limit: int) -> Receive:
    """The request, which may have so many bytes; all of one that has more is read and dropped."""
    count = 0

    async def counted() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count <= limit:
            return message
        while message.get("more_body", False) and count < DISCARD:
            message = await receive()
            count += len(message.get("body", b""))
        raise HTTPException(413, f"expected at most {limit / 1e6:g} MB, got more")

    return counted


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return with_headers
