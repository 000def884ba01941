"""The part of a file that has come so far, and of which version of the file it is."""

from __future__ import annotations

import errno
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sdcorr.errors import BadOutput
from sdcorr.files import parse_json, write_json


@dataclass(frozen=True)
class Version:
    """By what two answers are known to be of one file.

    Args:
        url: that was asked.
        etag: strong ETag, None where the server gives none.
        modified: Last-Modified, likewise.
        total: bytes of the whole file, likewise.
    """

    url: str
    etag: str | None
    modified: str | None
    total: int | None

    @property
    def mark(self) -> str | None:
        """What If-Range takes (RFC 9110, 13.1.5)."""
        return self.etag or self.modified

    @classmethod
    def of(cls, found: Any) -> Version:
        """The version that JSON gives; ValueError or TypeError where it gives none."""
        version = cls(**found)
        texts = (version.etag, version.modified)
        if any(mark_of(text) != text for text in texts):
            raise ValueError("a mark that cannot be sent")
        if version.total is not None and type(version.total) is not int:
            raise ValueError("no length")
        return version


def mark_of(text: Any) -> str | None:
    """A value of ETag or Last-Modified if it can be sent back, else None."""
    usable = isinstance(text, str) and text.isascii() and text.isprintable()
    return text if usable else None


class Part:
    """A file that grows; ``NAME.part``, with its version in ``NAME.part.json``.

    Links, pipes and the like under these names are never read or written: they are replaced.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(f"{final.name}.part")
        self._about = final.with_name(f"{final.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.path.lstat().st_size if _is_own(self.path) else 0

    def version(self, url: str) -> Version | None:
        """The version that the bytes are of, None where they are of no use for this address."""
        if not self.size or not _is_own(self._about):
            return None
        try:
            found = Version.of(parse_json(self._about.read_bytes()))
        except (OSError, ValueError, TypeError):  # torn, or of another release
            return None
        return found if found.url == url else None

    def begin(self, version: Version) -> None:
        """Empty it, for a file of this version."""
        if version.total is not None:
            self.check_room(version.total)
        self.drop()
        with self._writing():
            self.path.touch(exist_ok=False)
            write_json(self._about, asdict(version))

    def append(self, chunk: bytes) -> None:
        """Add bytes; they stay, whatever comes.

        Raises:
            BadOutput: the disk is full.
        """
        with self._writing(), self.path.open("ab", buffering=0) as file:
            while chunk:
                chunk = chunk[file.write(chunk) :]

    def check_room(self, more: int) -> None:
        """Raise BadOutput where the disk has no room for so many bytes more."""
        need_room(self.path.parent, more, self.final.name)

    def finish(self) -> None:
        """Give the file its name."""
        with self._writing():
            self.path.replace(self.final)
            self._about.unlink(missing_ok=True)

    def drop(self) -> None:
        """Delete what came: it is of no use."""
        with self._writing():
            self.path.unlink(missing_ok=True)
            self._about.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kept = "; what has come is kept: give the same command again when there is room"
            raise BadOutput(
                f"cannot write {self.path}: {error.strerror or error}"
                f"{kept if error.errno == errno.ENOSPC else ''}"
            ) from error


def _is_own(path: Path) -> bool:
    """Whether it is a file with this name alone: no link leads from or to it."""
    try:
        found = path.lstat()
    except OSError:  # there is none, or nobody may look
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def need_room(folder: Path, needed: int, what: str) -> None:
    """Raise BadOutput where the disk that holds a folder has fewer bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BadOutput(
            f"{what} takes up to {in_words(needed)} and {folder} has {in_words(free)} free; make "
            "room, or choose another --out"
        )


def in_words(size: int) -> str:
    """Bytes, in powers of a thousand.

    Example:
        >>> in_words(227_300_000), in_words(640)
        ('227.3 MB', '640 bytes')
    """
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.1f} {unit}"
    return f"{size} bytes"
