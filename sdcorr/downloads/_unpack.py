"""Look an archive through, and write what it holds below a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sdcorr.downloads._members import Bounds, Member, members_of
from sdcorr.downloads._watch import Watch
from sdcorr.errors import BadOutput

BLOCK = 4096  # bytes; what a file takes on the disk is a multiple of it


@dataclass(frozen=True)
class Contents:
    """What an archive holds.

    Args:
        files: how many.
        size: bytes of all.
    """

    files: int
    size: int

    @property
    def on_disk(self) -> int:
        """Bytes that all take at most."""
        return self.size + self.files * BLOCK


def survey(archive: Path, name: str, bounds: Bounds, watch: Watch) -> Contents:
    """Read all of an archive and write nothing; see ``members_of``."""
    files = size = 0
    for member in members_of(archive, name, bounds):
        files += 1
        for chunk in member.chunks:
            size += len(chunk)
        watch(f"checking {name}", size, None)
    return Contents(files, size)


def unpack(archive: Path, name: str, folder: Path, bounds: Bounds, watch: Watch) -> None:
    """Write the files of an archive below a folder.

    Args:
        archive: a file.
        name: what it is or will be called; its ending says what it is.
        folder: exists and is empty.
        bounds: the most it may hold.
        watch: is told of bytes.

    Raises:
        BadDownload: see ``members_of``.
        BadOutput: the disk is full.
    """
    size = 0
    for member in members_of(archive, name, bounds):
        for written in _write(member, folder):
            size += written
        watch(f"unpacking {name}", size, None)


def _write(member: Member, folder: Path) -> Iterator[int]:
    """Write a file; the bytes of each step."""
    target = folder.joinpath(*member.parts)
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb", buffering=0)
    with file:
        for chunk in member.chunks:
            rest = chunk
            while rest:
                with _writing(target):
                    rest = rest[file.write(rest) :]
            yield len(chunk)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadOutput(
            f"cannot write {target}: {error.strerror or error}; nothing was unpacked: give the "
            "same command again when that is mended"
        ) from error
