"""From a data set's name to its folder: fetch, compare, look through, unpack, move."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from sdcorr.downloads._catalogue import Remote, Source
from sdcorr.downloads._content import head_of, problem_of
from sdcorr.downloads._fetch import Patience, fetch
from sdcorr.downloads._members import Bounds
from sdcorr.downloads._part import Part, need_room
from sdcorr.downloads._unpack import survey, unpack
from sdcorr.downloads._watch import Quiet, Watch
from sdcorr.errors import BadDownload, BadOutput
from sdcorr.files import replacing

_LONGEST_LIST = 100 * 10**6  # bytes, far more than lists of pairs have


def download(
    source: Source,
    out: Path,
    watch: Watch | None = None,
    patience: Patience | None = None,
    bounds: Bounds | None = None,
) -> Path:
    """Fetch a data set and unpack it; the root, which is there whole or not at all.

    What is in ``out`` under a file's own name is used and not fetched. Its SHA-256 is compared
    with ``FILE.sha256``, written when the data set was first made of it.

    Args:
        source: what; see ``find_source`` and ``Source.at``.
        out: the folder in which the root, the archive and the lists are to be; made if missing.
        watch: is told how far it is.
        patience: with servers.
        bounds: the most that the archive may hold.

    Raises:
        BadDownload: something cannot be fetched, is not what it should be, or differs from what
            was here before; another process fetches the same.
        BadOutput: nothing can be written there, or the disk is full.
    """
    root = source.root(out)
    if is_there(source, out):
        return root
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOutput(f"cannot make {out}: {error.strerror}") from error
    job = _Job(source, out, watch or Quiet(), patience or Patience(), bounds or Bounds())
    with _locked(out / f".sdcorr-{source.name}.lock"):
        if not is_there(source, out):  # another process may have been faster
            for file in source.files:
                job.bring(file)
            job.unpack(root)
    return root


def is_there(source: Source, out: Path) -> bool:
    """Whether the data set's root is in a folder.

    Raises:
        BadDownload: something else has the root's name.
    """
    root = source.root(out)
    try:
        if not root.exists() and not root.is_symlink():
            return False
    except OSError as error:
        raise BadDownload(f"cannot look into {out}: {error.strerror}") from error
    if missing := _missing(root, source):
        raise BadDownload(
            f"{root} exists and is not {source.title}: it has no folder {missing[0]}; move it "
            "away, or choose another --out"
        )
    return True


class _Job:
    """One download into one folder, which no other process does at the same time."""

    def __init__(
        self, source: Source, out: Path, watch: Watch, patience: Patience, bounds: Bounds
    ) -> None:
        self._source, self._out = source, out
        self._watch, self._patience, self._bounds = watch, patience, bounds
        self._takes = 0  # bytes of the unpacked archive on the disk

    def bring(self, remote: Remote) -> None:
        """See that a file is here under its name, whole, and the same as ever."""
        final = self._out / remote.name
        if _stands(final):
            self._use(final, remote)
            return
        part = Part(final)
        most = self._bounds.size if remote == self._source.archive else _LONGEST_LIST
        fetch(remote, part, most, self._patience, self._watch)
        _compare_pin(part.path, final)
        try:
            self._look_through(part.path, remote)
        except BadDownload as error:
            part.drop()
            raise BadDownload(
                f"{error}; it came from {remote.url} and was deleted: give the same command "
                "again, or name a mirror with --url"
            ) from error
        part.finish()

    def _use(self, final: Path, remote: Remote) -> None:
        """Take what is here under the file's name, if it is what it should be."""
        try:
            if problem := problem_of(head_of(final), remote.name):
                raise BadDownload(f"{final} is {problem}")
            self._look_through(final, remote)
        except OSError as error:
            raise BadDownload(f"cannot read {final}: {error.strerror or error}") from error
        except BadDownload as error:
            raise BadDownload(f"{error}; delete {final} to have it fetched") from error
        _compare_pin(final, final)

    def _look_through(self, path: Path, remote: Remote) -> None:
        if remote == self._source.archive:
            self._takes = survey(path, remote.name, self._bounds, self._watch).on_disk

    def unpack(self, root: Path) -> None:
        """Unpack beside the root, and move there in one step."""
        archive = self._source.archive.name
        need_room(self._out, self._takes, f"{archive}, unpacked,")
        with _scratch(self._out / f".sdcorr-{self._source.name}.tmp") as scratch:
            unpack(self._out / archive, archive, scratch, self._bounds, self._watch)
            home = self._home(scratch)
            for remote in self._source.lists:
                shutil.copyfile(self._out / remote.name, home / remote.name)
            for remote in self._source.files:
                _pin(self._out / remote.name)
            home.rename(root)

    def _home(self, scratch: Path) -> Path:
        """What is to be the root: all that was unpacked, or a folder in it."""
        for home in (scratch, *sorted(scratch.iterdir())):
            if not _missing(home, self._source):
                return home
        raise BadDownload(
            f"{self._out / self._source.archive.name} is not {self._source.title}: it has no "
            f"folder {_missing(scratch, self._source)[0]}; delete it and fetch the right one"
        )


def _stands(path: Path) -> bool:
    """Whether a file has this name, or a link to one; BadDownload where anything else has it."""
    if path.is_file():
        return True
    if not os.path.lexists(path):
        return False
    raise BadDownload(
        f"{path} is neither a file nor a link to one; move it away and give the same command again"
    )


def _missing(root: Path, source: Source) -> list[str]:
    return [name for name in source.needed if not (root / name).is_dir()]


def _compare_pin(path: Path, final: Path) -> None:
    """Refuse a file whose digest is not the one of which the data set was first made."""
    pin = _pin_of(final)
    if not _stands(pin):  # it is here for the first time
        return
    try:
        expected = pin.read_text(encoding="utf-8").partition(" ")[0].strip().lower()
    except (OSError, ValueError) as error:
        raise BadDownload(f"cannot read {pin}: {error}") from error
    found = _digest(path)
    if found != expected:
        raise BadDownload(
            f"{path} has the SHA-256 {found}, and {pin} says {expected[:64]!r}; if the file was "
            f"published anew, delete {pin} and give the same command again, else delete {path}"
        )


def _pin(final: Path) -> None:
    """Write the digest of a file beside it, as sha256sum does, unless one is there."""
    if _stands(_pin_of(final)):
        return
    with replacing(_pin_of(final)) as temporary:
        temporary.write_text(f"{_digest(final)}  {final.name}\n", encoding="utf-8")


def _pin_of(final: Path) -> Path:
    return final.with_name(f"{final.name}.sha256")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadDownload(f"cannot read {path}: {error.strerror}") from error


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards, also one that a killed process left."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        yield folder
    except OSError as error:
        raise BadOutput(f"cannot unpack in {folder.parent}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that dies with the process; its file goes when all went well.

    Who opened that file before it went holds another lock than who comes later. Both find the
    data set in its place, and do nothing.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise BadDownload(
            f"another process is fetching the same into {path.parent}; wait for it to end, or "
            "choose another --out"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise BadOutput(f"cannot write in {path.parent}: {error}") from error
    try:
        yield
        with suppress(OSError):  # where open files cannot be deleted, it stays
            path.unlink(missing_ok=True)
    finally:
        lock.release()
