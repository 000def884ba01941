"""Files that processes append whole results to, until all are there and become one.

A result is the lines of one pair of a benchmark, or of one photo. A process writes to a shard of
its own and never touches another. A new launch reads what the shards of earlier ones hold, passes
over what was torn, and computes the rest.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from sdcorr.errors import BadOutput, BadRun
from sdcorr.files import replacing, write_json

Lengths = Mapping[str, int]  # number of lines of each result by its name, in the order of the list
UNITS = ("pair", "photo")  # the field that names a line's result


class Shard:
    """What one process appends to; locked as long as it is open.

    Args:
        folder: of all shards of a run.
        name: unique for launch and process.
        about: what is known of the process; written beside the shard.
    """

    def __init__(self, folder: Path, name: str, about: dict[str, Any]) -> None:
        self._path = folder / f"{name}.jsonl"
        self._about_path = folder / f"{name}.json"
        self._about = {"name": name, **about, "ended": None}
        self._locked = locked(folder / f"{name}.lock")

    def __enter__(self) -> Shard:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadOutput(f"cannot make {self._path.parent}: {error.strerror}") from error
        self._locked.__enter__()
        write_json(self._about_path, self._about)
        self._file = self._path.open("ab", buffering=0)
        return self

    def write(self, lines: bytes) -> None:
        """Append the lines of one result.

        Raises:
            BadOutput: the disk is full; what was written before stays.
        """
        try:
            while lines:
                lines = lines[self._file.write(lines) :]
        except OSError as error:
            raise BadOutput(
                f"cannot write {self._path}: {error.strerror}; what was done before is kept: give "
                "the same command again when that is mended"
            ) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._locked.__exit__(kind, error, trace)

    def note(self, about: dict[str, Any]) -> None:
        """Note what the process took, and under ``ended`` that its part is done."""
        write_json(self._about_path, self._about | about)


def shards_in(folder: Path) -> list[Path]:
    """The shards of all launches, sorted."""
    return sorted(folder.glob("*.jsonl"))


def processes_in(folder: Path) -> list[dict[str, Any]]:
    """What is known of the processes that wrote the shards."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def refuse_open_shards(folder: Path) -> None:
    """Raise BadRun where a process still writes."""
    for lock in sorted(folder.glob("*.lock")):
        with locked(lock):
            pass


def written(shards: Sequence[Path], lengths: Lengths) -> set[str]:
    """Names of results that the shards hold whole; skipped ones are not among them."""
    spans = itertools.chain.from_iterable(_spans(path, lengths) for path in shards)
    return {span.name for span in spans if not span.skipped}


def all_ended(folder: Path, names: Sequence[str]) -> bool:
    """Whether the processes that write the shards of these names have done their parts."""
    try:
        texts = [(folder / f"{name}.json").read_text(encoding="utf-8") for name in names]
    except FileNotFoundError:  # one has not begun, or another process has merged them
        return False
    return all(json.loads(text)["ended"] for text in texts)


def join_shards(shards: Sequence[Path], lengths: Lengths, out: Path) -> None:
    """Write each result's lines once, in the order of the list.

    Args:
        shards: where they are looked for; a result that one skipped and another holds is taken
            from the other. ``out`` itself may be among them.
        lengths: of all results.
        out: replaced when the new file is whole and on the disk.

    Raises:
        BadRun: a result is in none of them.
        BadOutput: the disk is full.
    """
    found: dict[str, _Span] = {}
    for span in itertools.chain.from_iterable(_spans(path, lengths) for path in shards):
        if span.name not in found or (found[span.name].skipped and not span.skipped):
            found[span.name] = span
    if missing := [name for name in lengths if name not in found]:
        raise BadRun(f"{out} lacks {len(missing)} of {len(lengths)} results, first {missing[0]}")
    with replacing(out) as temporary, temporary.open("wb") as whole:
        files = {path: path.open("rb") for path in shards}
        try:
            for name in lengths:
                span = found[name]
                files[span.path].seek(span.start)
                whole.write(files[span.path].read(span.length))
        finally:
            for file in files.values():
                file.close()
        whole.flush()
        os.fsync(whole.fileno())


@contextmanager
def locked(path: Path, timeout: float = 0) -> Iterator[None]:
    """Hold a lock that dies with the process; wait for it, for ever if the timeout is -1.

    Raises:
        BadRun: another process holds it.
        BadOutput: the file system cannot lock.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout as error:
        raise BadRun(
            f"another process is writing to {path.parent}; wait for it to end, or choose another "
            "--out"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise BadOutput(f"cannot lock {path}: {error}") from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Span:
    """Where all lines of a result stand in a file."""

    name: str
    path: Path
    start: int
    length: int
    skipped: bool


def _spans(path: Path, lengths: Lengths) -> Iterator[_Span]:
    """The whole results of a shard; torn and damaged lines are passed over."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadRun(f"cannot read {path}: {error.strerror}") from error
    with file:
        start = 0
        for (name, skipped), group in itertools.groupby(file, key=_name_of):
            sizes = [len(line) for line in group]
            if name in lengths and len(sizes) == (1 if skipped else lengths[name]):
                yield _Span(name, path, start, sum(sizes), skipped)
            start += sum(sizes)


def whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a shard's lines; torn and damaged ones are passed over.

    Raises:
        BadRun: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for line in file:
                if _name_of(line)[0]:
                    yield json.loads(line)
    except OSError as error:
        raise BadRun(f"cannot read {path}: {error.strerror}") from error


def _name_of(line: bytes) -> tuple[str, bool]:
    """The name of a line's result and whether it was skipped; none for what is no whole record."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else {}
        unit = next(unit for unit in UNITS if unit in record)
        return str(record[unit]), "skipped" in record
    except (ValueError, KeyError, TypeError, StopIteration):
        return "", False
