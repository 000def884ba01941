"""Read a data set's files, and say all that is wrong with a root in one message."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sdcorr.errors import BadDataset, UnknownName
from sdcorr.pairs import Points

FEW = 8  # problems told one by one


class Report:
    """What is wrong with a root, gathered so that the user reads it once.

    Args:
        title: official name of the data set.
        root: the folder that should hold it.

    Raises:
        BadDataset: there is no such folder.
    """

    def __init__(self, title: str, root: Path) -> None:
        self._title, self._root = title, root
        self._problems: list[str] = []
        self._listings: dict[Path, frozenset[str]] = {}
        if not root.is_dir():
            reason = "is no folder" if root.exists() else "does not exist"
            raise BadDataset(f"{root} {reason}; expected the folder that holds {title}")

    def need_folders(self, *names: str) -> None:
        """Raise unless the root holds these folders."""
        missing = [name for name in names if not (self._root / name).is_dir()]
        self._problems += [f"no folder {name}" for name in missing]
        if missing:
            inner = [
                one.name
                for one in sorted(self._root.iterdir())
                if all((one / name).is_dir() for name in names)
            ]
            self._problems += [f"did you mean its folder {inner[0]}?"] if inner else []
            self.close()

    def find(self, folder: Path, *names: str) -> Path | None:
        """The first of the names that the folder holds."""
        if folder not in self._listings:
            found = (one.name for one in folder.iterdir()) if folder.is_dir() else ()
            self._listings[folder] = frozenset(found)
        return next((folder / name for name in names if name in self._listings[folder]), None)

    def need_files(self, what: str, wanted: Sequence[tuple[Path, bool]]) -> None:
        """Note how many of the files are missing; each comes with whether it is there."""
        files = dict(wanted)
        missing = [path for path, there in files.items() if not there]
        if missing:
            self._problems.append(
                f"{what}: {len(missing)} of {len(files)} files are missing, first "
                f"{missing[0].relative_to(self._root).as_posix()}"
            )

    @contextmanager
    def damage(self, path: Path) -> Iterator[None]:
        """Note a file that is there and not what it should be, and go on."""
        try:
            yield
        except KeyError as error:
            self._problems.append(f"{self._name(path)} lacks {error.args[0]!r}")
        except Exception as error:  # readers of JSON and .mat raise nearly anything on damage
            self._problems.append(f"{self._name(path)}: {' '.join(str(error).split())}")

    def need_list(self, folders: Sequence[Path], names: Sequence[str]) -> Path:
        """The first of the files there is; raises where no folder holds any of the names."""
        found = next(filter(None, (self.find(folder, *names) for folder in folders)), None)
        if found is None:
            places = (folder.relative_to(self._root).as_posix() for folder in folders)
            wanted = (f"{place}/{name}".removeprefix("./") for place in places for name in names)
            self._problems.append(f"no list {' or '.join(wanted)}")
            self.close()
            raise AssertionError("close raises")
        return found

    def close(self) -> None:
        """Raise BadDataset if anything was noted."""
        if not self._problems:
            return
        more = len(self._problems) - FEW
        told = [*self._problems[:FEW], *([f"and {more} more"] if more > 0 else [])]
        raise BadDataset(f"{self._root} is not a whole {self._title}: {'; '.join(told)}")

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def check_part(kind: str, value: str, known: Sequence[str]) -> None:
    """Refuse a split or layout that the data set does not have."""
    if value not in known:
        raise UnknownName(kind, value, known)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ValueError where the file holds something else."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file below its header, empty ones left out."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [row for row in list(csv.reader(file))[1:] if row]


def to_points(values: Any) -> Points:
    """Points ``(N, 2)`` of nested lists or an array; raises ValueError for any other shape."""
    points = np.asarray(values, np.float64)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"expected points (N, 2), got shape {points.shape}")
    return points


def find_photo(root: Path, name: str) -> tuple[Path, bool]:
    """Where a photo of a list lies, and whether it is there.

    Lists name ``PF-dataset/x.png``; repacked copies have no such first folder.
    """
    path = root / name
    if path.is_file():
        return path, True
    inner = root.joinpath(*Path(name).parts[1:])
    return (inner, True) if inner.is_file() else (path, False)
