"""What ``run.json`` of a benchmark run must hold for others to read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdcorr.errors import BadRun

THRESHOLDS = ("box", "keypoints", "image")


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _list_of(good: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(good, value))


_TEXT, _OBJECT, _COUNT, _NOTHING = _is(str), _is(dict), _is(int), type(None)
# each field by its path: what it must be; all that others read is here
FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "dataset": _OBJECT,
    "dataset.name": _TEXT,
    "dataset.threshold": lambda value: isinstance(value, str) and value in THRESHOLDS,
    "dataset.alphas": _list_of(_is(int, float), least=1),
    "dataset.only": _list_of(_TEXT),
    "dataset.limit": _is(int, _NOTHING),
    "dataset.seed": _COUNT,
    "dataset.pairs": _COUNT,
    "dataset.digest": _TEXT,
    "dataset.drawn": _is(dict, _NOTHING),
    "recipe": _OBJECT,
    "recipe.name": _TEXT,
    "weights": _OBJECT,
    "told_category": _is(bool, _NOTHING),
    "symmetric": _is(dict, _NOTHING),
    "runtime": _OBJECT,
    "runtime.device": _TEXT,
    "runtime.dtype": _TEXT,
    "runtime.versions": _OBJECT,
    "root": _is(str, _NOTHING),
    "processes": _list_of(_OBJECT),
}
MAY_LACK = ("dataset.drawn", "symmetric", "root")


def check_about(file: Path, about: Mapping[str, Any]) -> None:
    """Refuse a ``run.json`` in which a field is missing or of another kind.

    Raises:
        BadRun: the first such field is named.
    """
    for path, good in FIELDS.items():
        *above, name = path.split(".")
        place = about[above[0]] if above else about
        if name not in place and path in MAY_LACK:
            continue
        if name not in place or not good(place[name]):
            got = f"got {place[name]!r:.60}" if name in place else "it is missing"
            raise BadRun(f"{file} is damaged: {path} is not as expected; {got}")
