"""Feature maps kept on disk: a backbone that remembers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sdcorr import plugins
from sdcorr.errors import BadOutput
from sdcorr.files import replacing
from sdcorr.geometry import Grid, Size
from sdcorr.runtime import Runtime, library_versions
from sdcorr.types import Backbone, BackboneConfig, FeatureMap, Image, reads_category

LIMIT = 20_000_000_000  # bytes
SLACK = 1 / 50  # of the limit, written between two counts of the folder
ENDING = ".safetensors"

Maps = dict[str, FeatureMap]


@dataclass(eq=False)
class DiskStore:
    """Feature maps as safetensors files in one folder, the least recently used deleted first.

    Several processes may share the folder: files are written under another name and renamed, and
    a file that another process deletes is one that was never there. What they write between two
    counts may exceed the limit by a fiftieth each.

    Args:
        folder: made when something is first written.
        limit: bytes that the files may take together.
    """

    folder: Path
    limit: int = LIMIT
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
            maps = _read(path)
            os.utime(path)  # used now
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"a cached file is damaged and is computed again: {path}: {error}",
                    stacklevel=2,
                )
            return None
        return maps

    def put(self, key: str, maps: Mapping[str, FeatureMap]) -> None:
        """Keep maps under the key, then delete old files if the limit is passed.

        Raises:
            BadOutput: the folder cannot be written, or its disk is full.
        """
        path = self._path(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadOutput(f"cannot write the cache {self.folder}: {error.strerror}") from error
        with replacing(path) as temporary:
            _write(temporary, maps)
            size = temporary.stat().st_size
        if self._uncounted is not None:
            self._uncounted += size
        if self._uncounted is None or self._uncounted > self.limit * SLACK:
            self._uncounted = 0
            self._trim(keep=path)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{ENDING}"

    def _trim(self, keep: Path) -> None:
        files = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(ENDING):
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # deleted by another process
                    continue
                files.append((stat.st_mtime_ns, stat.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit * (1 - SLACK):
                break
            if path != keep:
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


def _write(path: Path, maps: Mapping[str, FeatureMap]) -> None:
    tensors = {name: one.values.cpu().contiguous() for name, one in maps.items()}
    about = {
        name: {"grid": dataclasses.asdict(one.grid), "crc32": _checksum(tensors[name])}
        for name, one in maps.items()
    }
    try:
        save_file(tensors, path, metadata={"maps": json.dumps(about)})
    except SafetensorError as error:  # a full disk, in the library's words
        raise OSError(str(error)) from error


def _read(path: Path) -> Maps:
    """The maps of a file in their order; raises ValueError where bytes have changed."""
    if not path.is_file():
        raise FileNotFoundError(path)
    maps = {}
    with safe_open(path, framework="pt") as file:
        for name, about in json.loads(file.metadata()["maps"]).items():
            values = file.get_tensor(name)
            if _checksum(values) != about["crc32"]:
                raise ValueError(f"map {name!r} has another checksum")
            fields = about["grid"]
            grid = Grid(
                tuple(fields["shape"]), tuple(fields["stride"]), tuple(fields["offset"]),
                Size(*fields["image"]),
            )  # fmt: skip
            maps[name] = FeatureMap(name, values, grid)
    return maps


def _checksum(values: Tensor) -> int:
    return zlib.crc32(values.view(torch.uint8).numpy().data)
