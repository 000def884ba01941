"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sdcorr.errors import BadOutput


def check_output(path: Path, inputs: tuple[Path, ...] = (), endings: tuple[str, ...] = ()) -> None:
    """Refuse a file that could not be written, before any work is done for it.

    Args:
        path: where a result is to go.
        inputs: files that must not be overwritten.
        endings: allowed endings of the name; empty allows all.

    Raises:
        BadOutput: the folder is missing or closed, the path is a folder or an input, or the
            ending is unknown.
    """
    if endings and path.suffix.lower() not in endings:
        raise BadOutput(f"cannot write {path}: expected a name that ends in {', '.join(endings)}")
    try:
        if path.is_dir():
            raise BadOutput(f"cannot write {path}: it is a folder; give a file name")
        if not path.parent.is_dir():
            raise BadOutput(f"cannot write {path}: there is no folder {path.parent}; make it first")
        if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
            raise BadOutput(f"cannot write {path}: it is one of the files to be read")
        if path.is_fifo():
            raise BadOutput(f"cannot write {path}: it is a pipe; give a file, or - for --json")
        if path.exists() and not os.access(path, os.W_OK):
            raise BadOutput(f"cannot write {path}: it is read-only")
        if not _is_device(path):
            probe = _temporary(path.resolve())
            probe.open("wb").close()
            probe.unlink()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go in circles
        reason = getattr(error, "strerror", None) or error
        raise BadOutput(f"cannot write {str(path)[:300]}: {reason}") from error


def to_json(value: dict[str, Any]) -> str:
    """JSON as files and standard output get it; NaN is an error, as no reader takes it."""
    return json.dumps(value, indent=2, allow_nan=False)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON, replacing the file at once when it is whole."""
    with replacing(path) as temporary:
        temporary.write_text(to_json(value) + "\n", encoding="utf-8")


@contextmanager
def replacing(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A temporary file that takes the place of ``path`` if nothing goes wrong.

    Args:
        path: what is replaced.
        folder: where the temporary file lies, on the same disk; None is beside ``path``.
    """
    if _is_device(path):
        try:
            yield path
        except OSError as error:
            raise BadOutput(f"cannot write {path}: {error.strerror or error}") from error
        return
    home = path.resolve()
    temporary = _temporary(home if folder is None else folder / home.name)
    try:
        yield temporary
        with suppress(FileNotFoundError):  # a new file, or deleted by another process
            shutil.copymode(home, temporary)
        temporary.replace(home)
    except OSError as error:
        raise BadOutput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # a file system that may only be read
            temporary.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    """A device or a pipe: it can be written to, never replaced."""
    try:
        mode = path.stat().st_mode  # one look: files come and go
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    except OSError:
        return False


def _temporary(path: Path) -> Path:
    """A new name beside it, also for another process or thread that writes there now."""
    return path.with_name(f".sdcorr-{secrets.token_hex(8)}.tmp")


def parse_json(data: bytes) -> Any:
    """What JSON text says, with or without a BOM; a name may stand in an object once.

    Raises:
        ValueError: it is no JSON in UTF-8, too deep, or names a thing twice.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8; save it as that") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:60]!r} stands in it twice")
        found[name] = value
    return found
