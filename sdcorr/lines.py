"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sdcorr.errors import BadRun


def to_lines(values: Iterable[dict[str, Any]]) -> bytes:
    """JSON lines; the same values give the same bytes."""
    return b"".join(
        json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        for value in values
    )


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON lines file.

    Raises:
        BadRun: the file cannot be read, or a line is no JSON object.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for line in file:
                number += 1
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError("expected an object")
                yield value
    except OSError as error:
        raise BadRun(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadRun(f"{path} is damaged in line {number}: {error}") from error
