"""What stands in an archive, each member checked before anybody may write it.

Nothing is handed to the extract() of tarfile or zipfile: of a member only its path and its bytes
are used, so neither links nor owners nor modes can come out of an archive.
"""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sdcorr.downloads._part import in_words
from sdcorr.errors import BadDownload, SdcorrError

_CHUNK = 1 << 20
_DRIVE = re.compile("[A-Za-z]:")
_LONGEST, _LONGEST_PART = 1000, 255  # bytes of a path, and of each step of it
_PADDING = 16 << 20  # bytes of zeros that a tar may end in
_METADATA = 4 << 20  # bytes of the headers of one member, so that they never fill the memory
# what a header for all members may not set, as none of those is kept
_OF_ONE = re.compile(r"path|linkpath|size|hdrcharset|GNU\.sparse\..*")
# zipfile unpacks those of other methods with no bound on what one read gives
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Bounds:
    """The most that an archive may hold; SPair-71k has some 77,000 files.

    Args:
        size: bytes of the archive, and of all its members unpacked.
        members: how many, folders included.
    """

    size: int = 20 * 10**9
    members: int = 500_000


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Args:
        parts: its path, safe to be written below a folder.
        chunks: its bytes; to be read before the next member, if at all.
    """

    parts: tuple[str, ...]
    chunks: Iterator[bytes]


@dataclass
class _Ledger:
    """What has been seen, so that bounds and names hold over all members."""

    bounds: Bounds
    promised: int = 0
    size: int = 0
    members: int = 0
    files: set[tuple[str, ...]] = field(default_factory=set)
    folders: set[tuple[str, ...]] = field(default_factory=set)

    def enter(self, name: str, size: int, is_file: bool) -> tuple[str, ...]:
        """The path of a member that is as it should be; ValueError for any other."""
        self.members += 1
        self.promised += size
        if self.members > self.bounds.members:
            raise ValueError(f"it holds more than {self.bounds.members} members")
        self._check_size(self.promised)
        if size < 0:
            raise ValueError(f"{name[:200]!r} has the size {size}")
        parts = _parts_of(name)
        if is_file and not parts:
            raise ValueError(f"{name[:200]!r} is the folder itself")
        above = [parts[:end] for end in range(1, len(parts))]
        taken = is_file and parts in self.folders
        if taken or any(step in self.files for step in (*above, parts)):
            raise ValueError(f"{name[:200]!r} stands in it twice")
        self.folders.update(above)
        (self.files if is_file else self.folders).add(parts)
        return parts

    def count(self, chunk: bytes) -> bytes:
        """The same bytes, counted: what headers say is not relied on."""
        self.size += len(chunk)
        self._check_size(self.size)
        return chunk

    def _check_size(self, size: int) -> None:
        if size > self.bounds.size:
            raise ValueError(f"it holds more than {in_words(self.bounds.size)}")


def members_of(archive: Path, name: str, bounds: Bounds) -> Iterator[Member]:
    """The files of an archive, in its order, without what macOS adds to them.

    The last step also finds whether the archive is whole.

    Args:
        archive: a file.
        name: what it is or will be called; its ending says what it is.
        bounds: the most it may hold.

    Raises:
        BadDownload: the archive is damaged, or a member is not to be trusted: a path that leaves
            the folder, a link, a device, a name that stands there twice, more than the bounds.
    """
    ledger = _Ledger(bounds)
    members = _of_zip if name.endswith(".zip") else _of_tar
    with _damage(name):
        yield from members(archive, ledger)


def _of_tar(archive: Path, ledger: _Ledger) -> Iterator[Member]:
    with gzip.open(archive) as unpacked:
        stream = _Stream(unpacked)
        for tar, info in _headers_of(stream):
            if info.issym() or info.islnk():
                raise ValueError(f"{info.name[:200]!r} is a link, and links may lead anywhere")
            if not (info.isreg() or info.isdir()):
                raise ValueError(f"{info.name[:200]!r} is neither a file nor a folder")
            parts = ledger.enter(info.name, info.size, is_file=info.isreg())
            file = tar.extractfile(info)
            if file is not None and not _is_litter(parts):
                yield Member(parts, _chunks(archive.name, file, ledger))
        # tarfile takes a torn header for the end, where two blocks of zeros must be
        if stream.last.count(0) != tarfile.BLOCKSIZE:
            raise ValueError("it ends in the middle")
        behind = 0
        while chunk := unpacked.read(_CHUNK):  # to the checksum
            behind += len(chunk)
            if behind > _PADDING:
                raise ValueError("it goes on behind its end")


def _headers_of(stream: _Stream) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The members of a tar; none is kept, nor what stands in it about all."""
    with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
        while (info := tar.next()) is not None:
            if wrong := [key for key in tar.pax_headers if _OF_ONE.fullmatch(key)]:
                raise ValueError(f"a header in it sets {wrong[0][:60]!r} for all members")
            stream.left = None
            yield tar, info
            stream.left = _METADATA
            tar.members.clear()
            tar.pax_headers.clear()


def _of_zip(archive: Path, ledger: _Ledger) -> Iterator[Member]:
    with archive.open("rb") as file:
        if not zipfile.is_zipfile(file):  # its table of contents stands at its end
            raise ValueError("it ends in the middle")
        with zipfile.ZipFile(file) as packed:
            for info in packed.infolist():
                _check(info)
                folder = info.is_dir()
                parts = ledger.enter(info.orig_filename, info.file_size, is_file=not folder)
                if not folder and not _is_litter(parts):
                    with packed.open(info) as content:
                        yield Member(parts, _chunks(archive.name, content, ledger))


def _check(info: zipfile.ZipInfo) -> None:
    """Raise ValueError for a member of a zip that is no plain file or folder."""
    name, kind = repr(info.filename[:200]), stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise ValueError(f"{name} is a link, and links may lead anywhere")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ValueError(f"{name} is neither a file nor a folder")
    if info.flag_bits & 1:
        raise ValueError(f"{name} is encrypted")
    if info.compress_type not in _METHODS:
        raise ValueError(
            f"{name} is packed by method {info.compress_type}, where 0 (stored) or 8 (deflate) "
            "was expected"
        )


def _chunks(archive: str, file: IO[bytes], ledger: _Ledger) -> Iterator[bytes]:
    with _damage(archive):
        while chunk := ledger.count(file.read(_CHUNK)):
            yield chunk


class _Stream:
    """A stream for tarfile that bounds what headers take, and remembers its last block.

    Args:
        inner: what is read.
        left: bytes that may still be read; None while it is a member's content.
    """

    def __init__(self, inner: gzip.GzipFile) -> None:
        self._inner = inner
        self.tell, self.seek = inner.tell, inner.seek
        self.left: int | None = _METADATA
        self.last = b""

    def read(self, size: int) -> bytes:
        if self.left is not None:
            self.left -= size
        if self.left is not None and self.left < 0:
            raise ValueError("a header in it is too long")
        self.last = self._inner.read(size)
        return self.last


def _parts_of(name: str) -> tuple[str, ...]:
    """The steps of a path that stays below where it begins; ValueError for any other."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or any(part == ".." or _DRIVE.match(part) for part in parts):
        raise ValueError(f"{name[:200]!r} does not stay in the folder")
    if "\\" in name or "\0" in name:
        raise ValueError(f"{name[:200]!r} is no path: it holds a backslash or a zero byte")
    sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if sum(sizes) > _LONGEST or max(sizes, default=0) > _LONGEST_PART:
        raise ValueError(f"{name[:60]!r}... is too long for a path")
    return parts


def _is_litter(parts: tuple[str, ...]) -> bool:
    """What macOS adds: resource forks and views of folders."""
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


@contextmanager
def _damage(archive: str) -> Iterator[None]:
    """Say what is wrong with the archive; writing happens outside, between two steps."""
    try:
        yield
    except (SdcorrError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:  # of gzip
            raise BadDownload(f"{archive} is damaged: {error}") from error
        raise BadDownload(f"cannot read {archive}: {error.strerror}") from error
    except Exception as error:  # readers of archives raise nearly anything on damage
        words = " ".join(str(error).split()) or type(error).__name__
        raise BadDownload(f"{archive} is damaged or not to be trusted: {words}") from error
