"""Labels of a folder of photos until all are there: kept beside the file, killed at any moment.

OUT.parts/about.json     how the labels are made
OUT.parts/plan.json      the photos of this launch
OUT.parts/records.jsonl  lines of photos that were labelled before
OUT.parts/shards/        what each process of this launch adds
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcorr.errors import BadOutput, BadRun
from sdcorr.files import replacing, write_json
from sdcorr.labels import Line, file_bytes, read_labels
from sdcorr.lines import to_lines
from sdcorr.photos import Photos
from sdcorr.runs import TEMPORARY, differences, read_object
from sdcorr.shards import join_shards, locked, refuse_open_shards, shards_in, whole_lines

IDENTITY = ("schema", "references", "recipe", "weights", "runtime")
_OURS = {".lock", ".merge.lock", "about.json", "plan.json", "records.jsonl", "shards"}


@dataclass(frozen=True)
class Parts:
    """The folder beside one output, ``OUT.parts``.

    Args:
        out: where the labels go.
    """

    out: Path

    @property
    def path(self) -> Path:
        """The folder, on the disk of the file that ``out`` stands for."""
        home = self.out.resolve() if self.out.is_symlink() else self.out
        return home.with_name(f"{home.name}.parts")

    @property
    def about(self) -> Path:
        """How the labels are made."""
        return self.path / "about.json"

    @property
    def records(self) -> Path:
        """A line per photo: of those done before, and at last of all."""
        return self.path / "records.jsonl"

    @property
    def plan(self) -> Path:
        """Names of all photos, and of those to do: too long for what processes tell each other."""
        return self.path / "plan.json"

    @property
    def shards(self) -> Path:
        """Where processes write."""
        return self.path / "shards"

    def lead(self, stack: ExitStack, alone: bool) -> None:
        """Keep other launches out until the stack ends.

        Args:
            stack: ends with the launch.
            alone: no other process takes part: after an error before the first result, leave
                nothing behind.

        Raises:
            BadRun: another launch writes here, or the folder holds something else.
            BadOutput: the folder cannot be made, or ``out`` is no file.
        """
        if self.out.exists() and not self.out.is_file():
            raise BadOutput(f"cannot write {self.out}: it is no file; give a file name")
        try:
            self.path.mkdir(exist_ok=True)
            strange = [
                name for name in sorted(set(os.listdir(self.path)) - _OURS)
                if not Path(name).match(TEMPORARY)
            ]  # fmt: skip
        except OSError as error:
            raise BadOutput(f"cannot make {self.path}: {error.strerror}") from error
        if strange:
            raise BadRun(
                f"{self.path} is needed for unfinished labels and holds something else, "
                f"{strange[0]}; move it, or choose another --out"
            )
        stack.enter_context(locked(self.path / ".lock"))
        refuse_open_shards(self.shards)
        if alone:
            stack.push(lambda kind, *_: self._tidy() if kind else None)
        for left in self.path.glob(TEMPORARY):
            left.unlink()

    def begin(self, about: Mapping[str, Any], photos: Photos) -> int:
        """Gather what was done before, in ``out`` or by launches that were stopped.

        Args:
            about: how labels are made now.
            photos: all that are asked for.

        Returns:
            Number of labels that are dropped, since their photos are gone. ``plan`` has the names
            of the photos that are still to do: those that were not labelled, were skipped, or have
            files of another length now.

        Raises:
            BadRun: it was made in another way, was changed by hand, or is of other photos.
        """
        earlier: list[Iterator[Line]] = []
        if self.out.exists():
            there, lines = read_labels(self.out)
            _compare(self.out, there, about)
            _check_root(self.out, lines, photos)
            earlier.append(iter(lines))
        if self.about.exists() and self._has_results():
            _compare(self.path, read_object(self.about), about)
            files = [*([self.records] if self.records.exists() else []), *shards_in(self.shards)]
            earlier += [whole_lines(file) for file in files]
        names = set(photos.names)
        done: set[str] = set()
        others: set[str] = set()
        gone: set[str] = set()
        with replacing(self.records) as temporary, temporary.open("wb") as file:
            for line in (line for lines in earlier for line in lines if "skipped" not in line):
                name = line["photo"]
                if name not in names:
                    (others if photos.path(name).exists() else gone).add(name)
                elif line["bytes"] == file_bytes(photos.path(name)):
                    if name not in done:
                        file.write(to_lines([line]))
                    done.add(name)
            if others:
                raise BadRun(
                    f"{self.out} also labels {len(others)} photos that are not asked for now, "
                    f"first {min(others)}; name them, too, or choose another --out"
                )
            file.flush()
            os.fsync(file.fileno())
        write_json(self.about, dict(about))
        pending = [name for name in photos.names if name not in done]
        write_json(self.plan, {"photos": list(photos.names), "pending": pending})
        shutil.rmtree(self.shards, ignore_errors=True)
        return len(gone)

    def check(self, about: Mapping[str, Any]) -> None:
        """Make sure that this process makes labels as the leader does."""
        _compare(self.out, read_object(self.about), about)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """One process after the other; the last one of a launch finishes."""
        with locked(self.path / ".merge.lock", timeout=-1):
            yield

    def join(self, photos: Photos) -> None:
        """Make one file of all lines, in the order of the names."""
        parts = [self.records, *shards_in(self.shards)]
        join_shards(parts, dict.fromkeys(photos.names, 1), self.records)

    def delete(self) -> None:
        """All is written."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _tidy(self) -> None:
        if not self._has_results():
            self.delete()

    def _has_results(self) -> bool:
        return any(
            file.exists() and file.stat().st_size
            for file in (self.records, *shards_in(self.shards))
        )


def _compare(path: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with labels that were made in another way."""
    if absent := [key for key in IDENTITY if key not in there]:
        raise BadRun(f"{path} does not say by what {absent[0]} it was made; choose another --out")
    if changes := [line for key in IDENTITY for line in differences(key, there[key], now[key])]:
        changes = [
            "the references are others" if line.startswith("references.digest") else line
            for line in changes
        ]
        more = f" (and {len(changes) - 2} more)" if len(changes) > 2 else ""
        raise BadRun(
            f"{path} was made in another way: {'; '.join(changes[:2])}{more}; choose another "
            "--out, or delete it"
        )


def _check_root(out: Path, lines: list[Line], photos: Photos) -> None:
    """Refuse to take all photos for new ones because their names begin elsewhere."""
    names = [line["photo"] for line in lines]
    if names and not any(photos.path(name).exists() for name in names):
        raise BadRun(
            f"none of the {len(names)} photos that {out} labels lies below {photos.root}, first "
            f"{names[0]}; give the --root of before, or choose another --out"
        )
