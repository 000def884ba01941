"""The page's server: what it answers, and on which socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sdcorr.demo._answers import answer, as_csv, as_json, as_png
from sdcorr.demo._guard import HEADERS, Guard
from sdcorr.demo._photos import BYTES, Photo, read_upload, whole
from sdcorr.demo._requests import (
    POINTS,
    Body,
    body_of,
    choice_of,
    flag_of,
    least_of,
    pairing_of,
    points_of,
    wanted_of,
)
from sdcorr.demo._studio import Job, Joined, Studio, matcher_names
from sdcorr.errors import BadPort, SdcorrError
from sdcorr.files import to_json
from sdcorr.plugins import name_of

PAGE = Path(__file__).parent / "page"
ENVELOPE = 10_000  # bytes of a request around a photo
FORMATS = {"json": "application/json", "csv": "text/csv; charset=utf-8", "png": "image/png"}

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(
    studio: Studio, recipe: str, photos: Sequence[Photo] = (), category: str | None = None
) -> Starlette:
    """The server of one page.

    Args:
        studio: what it works with.
        recipe: name of the one that is chosen at first.
        photos: none, or the two that are shown at first.
        category: what they show.
    """
    start = {
        "recipe": recipe,
        "category": category,
        "photos": [_of_photo(photo) for photo in photos],
    }
    return Starlette(
        routes=[
            Route("/setup", _setup(studio, start)),
            Route("/photos", _upload(studio), methods=["POST"]),
            Route("/photos/{id}", _shown(studio)),
            Route("/join", _join(studio), methods=["POST"]),
            Route("/match", _match(studio), methods=["POST"]),
            Route("/export", _export(studio), methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        middleware=[Middleware(Guard, limits={"/photos": BYTES + ENVELOPE})],
        exception_handlers={
            SdcorrError: lambda _, error: _error(422, str(error)),
            HTTPException: _refused,
            ClientDisconnect: lambda _, error: _error(400, "the request broke off"),
            Exception: lambda _, error: _error(
                500, f"a mistake in sdcorr, {type(error).__name__}; the terminal shows where"
            ),
        },
    )


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1; port 0 takes a free one.

    Raises:
        BadPort: it is taken or not allowed.
    """
    # TCP by name: asyncio sends at once (TCP_NODELAY) only where the socket says what it is
    place = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind(("127.0.0.1", port))
        place.listen()
    except OSError as error:
        place.close()
        raise BadPort(
            f"cannot serve on port {port}: {error.strerror}; give another one with --port, or "
            "--port 0 for a free one"
        ) from error
    return place


def serve(app: Starlette, place: socket.socket) -> None:
    """Serve until interrupted, which ends the program."""
    # no log_config: uvicorn's asks whether stdout is a terminal, and there may be none
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, ws="none", lifespan="off"
    )
    _Server(config).run(sockets=[place])


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End at once: torch aborts where a thread is at work in it, and uploads may never end."""
        os._exit(128 + sig)


def _setup(studio: Studio, start: dict[str, Any]) -> Endpoint:
    def recipes() -> list[dict[str, Any]]:
        found = [
            {
                "name": name,
                "about": recipe.about,
                "category": recipe.uses_category,
                "matcher": name_of(recipe.matcher),
                "ready": studio.is_ready(name),
            }
            for name, recipe in studio.recipes.items()
        ]
        return sorted(found, key=lambda one: not one["ready"])  # those that can be chosen first

    async def setup(_request: Request) -> Response:
        limits = {"bytes": BYTES, "points": POINTS}
        more = {"recipes": await run_in_threadpool(recipes), "matchers": matcher_names()}
        return JSONResponse(start | more | {"limits": limits})

    return setup


def _upload(studio: Studio) -> Endpoint:
    async def upload(request: Request) -> Response:
        async with request.form(max_files=1, max_fields=0) as form:
            file = form.get("photo")
            if not isinstance(file, UploadFile):
                raise HTTPException(400, "expected one photo, got none")
            photo = await run_in_threadpool(read_upload, file.file, file.filename or "")
        return JSONResponse(_of_photo(studio.add(photo)))

    return upload


def _shown(studio: Studio) -> Endpoint:
    async def shown(request: Request) -> Response:
        photo = studio.photo(request.path_params["id"])
        if "whole" not in request.query_params:
            return Response(photo.shown, media_type="image/jpeg")
        return Response(await run_in_threadpool(whole, photo), media_type="image/jpeg")

    return shown


def _join(studio: Studio) -> Endpoint:
    async def join(request: Request) -> Response:
        state = await run_in_threadpool(studio.joined, pairing_of(await body_of(request)))
        if isinstance(state, Job):
            return JSONResponse(
                {"ready": False, "step": state.step, "number": state.number, "steps": state.steps}
            )
        return JSONResponse({"ready": True, "calibrated": state.forth.calibration is not None})

    return join


def _match(studio: Studio) -> Endpoint:
    async def match(request: Request) -> Response:
        body = await body_of(request)
        turned, points, around = flag_of(body, "turned"), points_of(body), flag_of(body, "around")
        if around and not points:
            raise HTTPException(400, "expected a point to look around, got none")
        joined = await run_in_threadpool(_ready, studio, body)
        least = least_of(body)
        return JSONResponse(await run_in_threadpool(answer, joined, turned, points, around, least))

    return match


def _export(studio: Studio) -> Endpoint:
    def write(body: Body) -> Response:
        kind, joined = choice_of(body, "format", tuple(FORMATS)), _ready(studio, body)
        wanted, least = wanted_of(body, joined), least_of(body)
        if kind == "csv":
            content: str | bytes = as_csv(joined, wanted, least)
        elif kind == "png":
            content = as_png(joined, wanted, least)
        else:
            names = (studio.photo(body["first"]).name, studio.photo(body["second"]).name)
            content = to_json(as_json(joined, wanted, names, least))
        return Response(content, media_type=FORMATS[kind])

    async def export(request: Request) -> Response:
        return await run_in_threadpool(write, await body_of(request))

    return export


def _ready(studio: Studio, body: Body) -> Joined:
    state = studio.joined(pairing_of(body))
    if isinstance(state, Job):  # let go meanwhile: the page waits, and asks again
        raise HTTPException(409, "these photos are being joined again; wait")
    return state


def _of_photo(photo: Photo) -> dict[str, Any]:
    height, width = photo.image.size
    about = {"id": photo.id, "name": photo.name, "digest": photo.digest}
    return about | {"width": width, "height": height, "reduced": photo.reduced}


def _error(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> Response:
    """All headers: what the server cannot answer leaves it without passing the guard."""
    more = HEADERS | dict(headers or {})
    return JSONResponse({"error": sentence}, status_code=status, headers=more)
