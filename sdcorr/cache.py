"""Feature maps kept on disk: a backbone that remembers."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from sdcorr import plugins
from sdcorr.errors import BadOutput
from sdcorr.fields import reads_category
from sdcorr.files import replacing
from sdcorr.geometry import Grid, Size
from sdcorr.runtime import Runtime, library_versions
from sdcorr.types import Backbone, BackboneConfig, FeatureMap, Image

LIMIT = 20_000_000_000  # bytes
SLACK = 1 / 50  # of the limit, written between two counts of the folder
OURS = re.compile(r"[0-9a-f]{64}\.npz")  # nothing else is ever deleted,
LEFT = re.compile(r"\.sdcorr-[0-9a-f]+\.tmp")  # but for files of writers that were killed
STALE = 3600.0  # seconds after which such a file has no writer
ABOUT = "about.json"

Maps = dict[str, FeatureMap]


@dataclass(eq=False)
class DiskStore:
    """Feature maps as ``.npz`` files in one folder, the least recently used deleted first.

    Several processes may share the folder: files are written under another name and renamed, and
    a file that another process deletes is one that was never there. What they write between two
    counts may exceed the limit by a fiftieth each.

    Args:
        folder: made when something is first written.
        limit: bytes that the files may take together.
    """

    folder: Path
    limit: int = LIMIT
    hits: int = field(default=0, init=False)  # times that get found maps
    _uncounted: int | None = field(default=None, init=False, repr=False)  # None: never counted
    _warned: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).expanduser()
        if self.folder.exists() and not self.folder.is_dir():
            raise BadOutput(f"the cache {self.folder} is a file; give a folder")

    def get(self, key: str) -> Maps | None:
        """The maps kept under the key, on the CPU, or None; a damaged file counts as none."""
        path = self._path(key)
        try:
            data = path.read_bytes()  # at once: another process may delete the file
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn(path, error)
            return None
        try:
            maps = _from_bytes(data)
        except Exception as error:  # zipfile and numpy raise nearly anything on damaged data
            self._warn(path, error)
            return None
        with contextlib.suppress(OSError):  # a cache that may only be read
            os.utime(path)  # used now
        self.hits += 1
        if self._uncounted is None:
            self._count(0, path)
        return maps

    def put(self, key: str, maps: Mapping[str, FeatureMap]) -> None:
        """Keep maps under the key, then delete old files if the limit is passed.

        Raises:
            BadOutput: the folder cannot be written, or its disk is full.
        """
        path, data = self._path(key), _to_bytes(maps)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadOutput(f"cannot write the cache {self.folder}: {error.strerror}") from error
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        self._count(len(data), path)

    def _count(self, size: int, keep: Path) -> None:
        """Trim at the first use, then whenever a share of the limit has been written."""
        if self._uncounted is not None and self._uncounted + size <= self.limit * SLACK:
            self._uncounted += size
            return
        self._uncounted = 0
        with contextlib.suppress(OSError):  # a cache that may only be read, or that went away
            self._trim(keep)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def _warn(self, path: Path, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            words = f"a cached file cannot be used and is computed again: {path}: {error}"
            warnings.warn(words, stacklevel=3)

    def _trim(self, keep: Path) -> None:
        files = []
        for entry in os.scandir(self.folder):
            if OURS.fullmatch(entry.name) or LEFT.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):  # deleted by another process
                    stat = entry.stat()
                    files.append((stat.st_mtime, stat.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if path.suffix == ".tmp":
                unwanted = time.time() - used > STALE
            else:
                unwanted = total > self.limit * (1 - SLACK) and path != keep
            if unwanted:
                path.unlink(missing_ok=True)
                total -= size


@dataclass(frozen=True, eq=False)
class CachedBackbone:
    """A backbone whose maps are read from a store where it has them.

    Args:
        inner: computes what the store lacks.
        config: defines the features.
        runtime: device type, dtype and batch, which move features a little.
        store: where maps are kept.
    """

    inner: Backbone
    config: BackboneConfig
    runtime: Runtime
    store: DiskStore

    @property
    def channels(self) -> Mapping[str, int]:
        """Those of the inner backbone."""
        return self.inner.channels

    @property
    def revisions(self) -> Mapping[str, str]:
        """Those of the inner backbone."""
        return self.inner.revisions

    def extract(self, images: Sequence[Image]) -> tuple[Maps, ...]:
        """The maps of each photo; the inner backbone sees those that the store lacks."""
        keys = [self.key(image) for image in images]
        found = {key: maps for key in keys if (maps := self.store.get(key)) is not None}
        lacking = {key: one for key, one in zip(keys, images, strict=True) if key not in found}
        computed = self.inner.extract(list(lacking.values()))
        for key, maps in zip(lacking, computed, strict=True):
            self.store.put(key, maps)
            found[key] = maps
        return tuple(self._on_device(found[key]) for key in keys)

    def key(self, image: Image) -> str:
        """Digest of all that decides the maps of a photo."""
        about = {
            "kind": plugins.name_of(self.config),
            "config": dataclasses.asdict(self.config),  # type: ignore[call-overload]
            "revisions": dict(self.revisions),
            "device": self.runtime.device.type,
            "dtype": self.runtime.dtype_name,
            "batch": self.runtime.batch,
            "versions": library_versions(),
            "category": image.category if reads_category(self.config) else None,
            "size": list(image.size),
        }
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        digest.update(image.pixels.tobytes())
        return digest.hexdigest()

    def _on_device(self, maps: Maps) -> Maps:
        device = self.runtime.device
        return {
            name: dataclasses.replace(one, values=one.values.to(device))
            for name, one in maps.items()
        }


def _to_bytes(maps: Mapping[str, FeatureMap]) -> bytes:
    """A zip of arrays, which checks every part when it is read."""
    about = {name: dataclasses.asdict(one.grid) for name, one in maps.items()}
    arrays = {ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}
    arrays |= {name: one.values.cpu().numpy() for name, one in maps.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # names of maps, never savez' own
    return file.getvalue()


def _from_bytes(data: bytes) -> Maps:
    """The maps in their order; raises whatever damage makes numpy raise."""
    maps = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        about = json.loads(arrays[ABOUT].tobytes())
        for name, grid in about.items():
            place = Grid(
                tuple(grid["shape"]), tuple(grid["stride"]), tuple(grid["offset"]),
                Size(*grid["image"]),
            )  # fmt: skip
            maps[name] = FeatureMap(name, torch.from_numpy(arrays[name]), place)
    return maps
