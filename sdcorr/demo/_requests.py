"""What a page may ask, read strictly: whatever else comes is refused in one sentence.

Every function raises HTTPException of status 400 for what is malformed.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from sdcorr.demo._answers import Wanted
from sdcorr.demo._studio import Joined, Pairing
from sdcorr.errors import BadPoints
from sdcorr.preprocess import read_points

POINTS = 1000  # of the page's list
LONGEST = 500  # characters of a word
FIELDS = {"name", "place", "turned", "corrected"}  # of each

Body = dict[str, Any]


async def body_of(request: Request) -> Body:
    """The JSON object that was sent."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"expected JSON: {error}") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "expected a JSON object")
    return body


def pairing_of(body: Body) -> Pairing:
    """The photos to be joined, and how."""
    words = [_word(body, key) for key in ("first", "second", "recipe")]
    matcher, category = (_word(body, key, "") for key in ("matcher", "category"))
    return Pairing(words[0], words[1], words[2], matcher, category or None)


def points_of(body: Body) -> list[tuple[float, float]]:
    """Points (x, y), not yet known to lie on their photo."""
    return [_pair(point) for point in _few(body)]


def flag_of(body: Body, key: str) -> bool:
    """A field that says yes or no; no where it is left out."""
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise HTTPException(400, f"expected true or false as {key}, got {_short(value)}")
    return value


def least_of(body: Body) -> float | None:
    """The confidence below which matches are rejected; None where it is left out, or null.

    Whether it is 0 to 1, and the recipe has one, is told by ``Fused.match``.
    """
    value = body.get("least")
    if value is None:
        return None
    if type(value) not in (int, float):
        raise HTTPException(400, f"expected a number as least, got {_short(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise HTTPException(400, "expected a confidence of 0 to 1 as least") from error


def choice_of(body: Body, key: str, known: tuple[str, ...]) -> str:
    """A field that is one of some words."""
    value = body.get(key)
    if not isinstance(value, str) or value not in known:
        raise HTTPException(400, f"expected a {key} {', '.join(known)}, got {_short(value)}")
    return value


def wanted_of(body: Body, joined: Joined) -> list[Wanted]:
    """The points of the page's list, which lie on their photos.

    Raises:
        BadPoints: one does not, or its name cannot be shown.
    """
    return [_wanted(described, joined) for described in _few(body)]


def _wanted(described: Any, joined: Joined) -> Wanted:
    if not isinstance(described, dict) or not described.keys() >= FIELDS:
        raise HTTPException(
            400, f"expected points with {', '.join(sorted(FIELDS))}, got {_short(described)}"
        )
    name, turned = _word(described, "name"), flag_of(described, "turned")
    place, correction = _pair(described["place"]), described["corrected"]
    pair = joined.back if turned else joined.forth
    read_points({name: place}, pair.source.size)
    if correction is None:
        return Wanted(name, place, turned)
    corrected = _pair(correction)
    try:
        read_points({name: corrected}, pair.target.size)
    except BadPoints as error:
        height, width = pair.target.size
        raise BadPoints(
            f"the corrected place of point {name!r} is not on its photo; expected x in "
            f"0..{width - 1} and y in 0..{height - 1}"
        ) from error
    return Wanted(name, place, turned, corrected)


def _few(body: Body) -> list[Any]:
    points = body.get("points")
    if not isinstance(points, list) or len(points) > POINTS:
        raise HTTPException(400, f"expected a list of at most {POINTS} points")
    return points


def _pair(point: Any) -> tuple[float, float]:
    numbers = isinstance(point, list) and [type(value) for value in point]
    if not numbers or len(numbers) != 2 or not set(numbers) <= {int, float}:
        raise HTTPException(400, f"expected a point [x, y] of two numbers, got {_short(point)}")
    try:
        return float(point[0]), float(point[1])
    except OverflowError as error:
        raise HTTPException(400, "expected a point [x, y] of two numbers on a photo") from error


def _word(body: Body, key: str, default: str | None = None) -> str:
    value = body.get(key, default)
    if not isinstance(value, str) or len(value) > LONGEST:
        raise HTTPException(
            400, f"expected text of at most {LONGEST} characters as {key}, got {_short(value)}"
        )
    return value


def _short(value: Any) -> str:
    return repr(value)[:60]
