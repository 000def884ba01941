"""A benchmark run's folder: started, continued, merged; killed at any moment, nothing is lost.

run.json        how the predictions are made, and by which processes they were
pairs.jsonl     the pairs, in the order of the records
records.jsonl   the predictions, once all are there
shards/         one file per process of each launch, until they are merged
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcorr.errors import BadOutput, BadRun
from sdcorr.files import replacing, write_json
from sdcorr.flow_records import FlowRecords, read_flow_records
from sdcorr.lines import read_lines, to_lines
from sdcorr.records import Records, read_records
from sdcorr.run_about import check_about
from sdcorr.shards import (
    all_ended,
    join_shards,
    locked,
    processes_in,
    refuse_open_shards,
    shards_in,
)

SCHEMA = "sdcorr.run/1"
IDENTITY = (
    "schema", "dataset", "recipe", "weights", "told_category", "symmetric", "runtime",
)  # fmt: skip
TEMPORARY = ".sdcorr-*.tmp"  # of files.replacing, left by a process that was killed


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def about(self) -> Path:
        """How the predictions are made."""
        return self.path / "run.json"

    @property
    def manifest(self) -> Path:
        """The pairs."""
        return self.path / "pairs.jsonl"

    @property
    def records(self) -> Path:
        """The predictions."""
        return self.path / "records.jsonl"

    @property
    def shards(self) -> Path:
        """Where processes write."""
        return self.path / "shards"

    def read_about(self) -> dict[str, Any]:
        """``run.json``.

        Raises:
            BadRun: there is none, it is damaged, or of another schema version.
        """
        if not self.about.is_file():
            raise BadRun(f"{self.path} is no run: it has no run.json; make one with sdcorr eval")
        about = read_object(self.about)
        if "schema" not in about:
            raise BadRun(f"{self.about} is damaged: it has no schema")
        if (schema := about["schema"]) != SCHEMA:
            raise BadRun(
                f"{self.path} was written as {schema!r}, and this version of sdcorr reads "
                f"{SCHEMA!r}; run the benchmark again, or use the version that wrote it"
            )
        check_about(self.about, about)
        return about

    def read(self) -> tuple[dict[str, Any], Records | FlowRecords]:
        """How the predictions were made, and the predictions: of keypoints, or of dense flow.

        Raises:
            BadRun: the folder holds no finished run, or a file is damaged.
        """
        about = self.read_about()
        if not self.records.is_file():
            raise BadRun(
                f"{self.path} is not finished; give its sdcorr eval command again to resume it"
            )
        if file_digest(self.manifest) != about["dataset"]["digest"]:
            raise BadRun(f"{self.manifest} is not the list that run.json was written for")
        if "bins" in about["dataset"]:
            return about, read_flow_records(self.manifest, self.records)
        return about, read_records(self.manifest, self.records)

    def read_keypoints(self) -> tuple[dict[str, Any], Records]:
        """As ``read``; raises BadRun for a run on dense flow, too."""
        about, records = self.read()
        if not isinstance(records, Records):
            raise BadRun(f"{self.path} is a run on dense flow; expected one on keypoints")
        return about, records

    def lengths(self) -> dict[str, int]:
        """Number of records of each pair, in the order of the list."""
        return {
            line["pair"]: len(line["keypoints"]) + len(line["source_only"])
            if "keypoints" in line
            else 1
            for line in read_lines(self.manifest)
        }

    @contextmanager
    def led(self) -> Iterator[None]:
        """Keep every other launch out, also while shards of one are still being written.

        Raises:
            BadRun: another launch writes here, or the folder holds something else.
            BadOutput: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            strange = [] if self.about.is_file() else sorted(set(os.listdir(self.path)) - _OURS)
        except OSError as error:
            raise BadOutput(f"cannot make {self.path}: {error.strerror}") from error
        if any(not Path(name).match(TEMPORARY) for name in strange):
            raise BadRun(f"{self.path} exists and holds no run of sdcorr; choose another --out")
        with locked(self.path / ".lock"):
            refuse_open_shards(self.shards)
            for left in self.path.glob(TEMPORARY):
                left.unlink()
            yield

    def check(self, about: dict[str, Any], manifest: Iterable[dict[str, Any]]) -> None:
        """Make sure that this is the run that was started here; see ``begin``."""
        digest = _write_lines(Path(os.devnull), manifest)
        about = about | {"dataset": about["dataset"] | {"digest": digest}}
        _compare(self.path, self.read_about(), json.loads(json.dumps(about)))

    def begin(self, about: dict[str, Any], manifest: Iterable[dict[str, Any]]) -> None:
        """Start the run, or make sure that it is the same run that was started here.

        Args:
            about: what ``IDENTITY`` names, and more; gets the digest of the manifest.
            manifest: one object per pair.

        Raises:
            BadRun: the folder holds another run.
            BadOutput: it cannot be written.
        """
        with replacing(self.manifest) as temporary:
            about["dataset"]["digest"] = _write_lines(temporary, manifest)
            if self.about.is_file():
                _compare(self.path, self.read_about(), json.loads(json.dumps(about)))
            elif self.records.exists():
                raise BadRun(f"{self.path} is damaged: run.json is missing")
        if not self.about.is_file():
            write_json(self.about, about)

    def parts(self) -> list[Path]:
        """Files that hold predictions: of a finished run its records, and every shard."""
        return [*([self.records] if self.records.exists() else []), *shards_in(self.shards)]

    def merge(self, launch: Sequence[str]) -> bool:
        """Make one file of all shards once each process of the launch has done its part.

        Args:
            launch: names of the shards of this launch.

        Returns:
            Whether this call merged them: False where others still work, or another was first.

        Raises:
            BadRun: a pair is missing.
            BadOutput: the disk is full; the shards stay.
        """
        if not all_ended(self.shards, launch):
            return False
        with locked(self.path / ".merge.lock", timeout=-1):
            if not all_ended(self.shards, launch):
                return False
            self.join()
        return True

    def join(self) -> None:
        """Merge whatever shards there are, while no other process may; see ``merge``."""
        join_shards(self.parts(), self.lengths(), self.records)
        about = self.read_about()
        known = {one["name"]: one for one in (*about["processes"], *processes_in(self.shards))}
        write_json(self.about, about | {"processes": list(known.values())})
        shutil.rmtree(self.shards, ignore_errors=True)


_OURS = {".lock", ".merge.lock", "shards", "pairs.jsonl", "records.jsonl"}


def _write_lines(path: Path, values: Iterable[dict[str, Any]]) -> str:
    """Write them one by one; their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for value in values:
            line = to_lines([value])
            digest.update(line)
            file.write(line)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        BadRun: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadRun(f"cannot read {path}: {error.strerror}") from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object that sdcorr wrote.

    Raises:
        BadRun: it is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError) as error:
        raise BadRun(f"{path} is damaged: {error}") from error
    return value


def _compare(path: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    changes = [line for key in IDENTITY for line in differences(key, there.get(key), now.get(key))]
    if changes:
        more = f" (and {len(changes) - 3} more)" if len(changes) > 3 else ""
        raise BadRun(
            f"{path} holds a run made in another way: {'; '.join(changes[:3])}{more}; choose "
            "another --out, or delete that folder"
        )


def differences(name: str, there: Any, now: Any) -> Iterator[str]:
    """What has changed between two values made for JSON, in words."""
    if isinstance(there, dict) and isinstance(now, dict):
        if there.get("name") != now.get("name"):  # all else differs with it
            there, now = ({"name": one.get("name")} for one in (there, now))
        for key in dict.fromkeys([*now, *there]):
            yield from differences(f"{name}.{key}", there.get(key), now.get(key))
    elif isinstance(there, list) and isinstance(now, list) and len(there) == len(now):
        for index, pair in enumerate(zip(there, now, strict=True)):
            yield from differences(f"{name}[{index}]", *pair)
    elif there != now:
        yield f"{name} was {json.dumps(there)}, now {json.dumps(now)}"
