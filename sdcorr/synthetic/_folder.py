"""The folder of a drawn set: written whole or not at all, and marked as drawn."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sdcorr.errors import BadDataset, BadOutput
from sdcorr.files import write_json

MARK = "drawn.json"  # in the root of a data set that was drawn


def write_mark(root: Path, seed: int, pairs: int) -> None:
    """Mark a data set as drawn, so that no run on it is taken for one on photos."""
    write_json(root / MARK, {"seed": seed, "pairs": pairs})


def read_mark(root: Path) -> dict[str, Any] | None:
    """``seed`` and ``pairs`` of a data set that was drawn, None of any other.

    Raises:
        BadDataset: the mark is damaged.
    """
    file = root / MARK
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {name: int(found[name]) for name in ("seed", "pairs")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadDataset(f"{file} is damaged; draw the set again with sdcorr data synth") from error


def check_folder(path: Path) -> None:
    """Refuse a folder that could not be written, or that holds something.

    Raises:
        BadOutput: it is a file or not empty, or what is above it is a file or closed.
    """
    try:
        if path.is_dir():
            if any(path.iterdir()):
                raise BadOutput(f"cannot write {path}: it is not empty; give a new folder")
        elif path.exists() or path.is_symlink():
            raise BadOutput(f"cannot write {path}: it is a file; give a new folder")
        whole = path.resolve()
        if whole == Path.cwd() or os.path.ismount(whole):  # it is replaced, which these cannot be
            raise BadOutput(f"cannot write {path}: it is in use; give a new folder in it")
        above = next(one for one in whole.parents if one.exists())
        if not above.is_dir():
            raise BadOutput(f"cannot write {path}: {above} is a file")
        if not os.access(above, os.W_OK | os.X_OK):
            raise BadOutput(f"cannot write {path}: {above} may only be read")
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go in circles
        raise BadOutput(f"cannot write {str(path)[:300]}: {_reason(error)}") from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place if nothing goes wrong.

    Folders above it are made where they are missing, and go again if something does.

    Raises:
        BadOutput: see ``check_folder``; or it cannot be written.
    """
    check_folder(path)
    home = path.resolve()
    temporary = home.with_name(f".sdcorr-{secrets.token_hex(8)}.tmp")
    made = [one for one in home.parents if not one.exists()]  # the deepest first
    try:
        temporary.mkdir(parents=True)
        yield temporary
        with suppress(FileNotFoundError):
            home.rmdir()  # only an empty one goes
        temporary.rename(home)
    except OSError as error:
        raise BadOutput(f"cannot write {path}: {_reason(error)}") from error
    except BadOutput as error:  # of a file in the temporary folder, which is no name of the user's
        raise BadOutput(f"cannot write {path}: {_reason(error.__cause__ or error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for one in made:
            with suppress(OSError):  # not empty: all went well
                one.rmdir()


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)
