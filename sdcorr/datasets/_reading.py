"""Read a data set's files, and say all that is wrong with a root in one message."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from sdcorr.errors import BadDataset, UnknownName
from sdcorr.files import parse_json
from sdcorr.pairs import Points

FEW = 8  # problems told one by one
LONGEST = 200  # characters of a photo's name; file systems take 255 bytes


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
        self._problems: dict[str, None] = {}  # in order, each once
        self._listings: dict[Path, frozenset[str]] = {}
        if not root.is_dir():
            reason = "is no folder" if root.exists() else "does not exist"
            raise BadDataset(
                f"{root} {reason}; expected the folder that holds {title}, which `sdcorr data "
                "download` fetches"
            )

    def find(self, folder: Path, *names: str) -> Path | None:
        """The first of the names that the folder holds."""
        if folder not in self._listings:
            found = (one.name for one in folder.iterdir()) if folder.is_dir() else ()
            self._listings[folder] = frozenset(found)
        return next((folder / name for name in names if name in self._listings[folder]), None)

    def need_folders(self, *names: str) -> None:
        """Note which of these folders the root lacks."""
        for name in names:
            if not (self._root / name).is_dir():
                self.note(f"no folder {name}")

    def need_list(self, places: Sequence[str], names: Sequence[str]) -> Path:
        """The first file of these names in these folders of the root.

        Raises:
            BadDataset: there is none, or something was noted before.
        """
        wanted = [Path(place) / name for place in places for name in names]
        found = [path for path in wanted if self.find((self._root / path).parent, path.name)]
        if not found:
            self.note(f"no list {' or '.join(path.as_posix() for path in wanted)}")
            for inner in sorted(self._root.iterdir()):
                if any((inner / path).is_file() for path in wanted):
                    self.note(f"did you mean its folder {inner.name}?")
        self.close()
        return self._root / found[0]

    def need_files(self, what: str, wanted: Iterable[tuple[Path, bool]]) -> None:
        """Note how many of the files are missing; each comes with whether it is there."""
        files = dict(wanted)
        missing = [path for path, there in files.items() if not there]
        if missing:
            self.note(
                f"{what}: {len(missing)} of {len(files)} files are missing, first "
                f"{self._name(missing[0])}"
            )

    @contextmanager
    def damage(self, path: Path) -> Iterator[None]:
        """Note that a file is not what it should be, and go on after the block."""
        try:
            yield
        except KeyError as error:
            self.note(f"{self._name(path)} lacks {error.args[0]!r}")
        except Exception as error:  # readers of JSON and .mat raise nearly anything on damage
            self.note(f"{self._name(path)}: {' '.join(str(error).split())}")

    def note(self, problem: str) -> None:
        """One more problem."""
        self._problems[problem] = None

    def close(self) -> None:
        """Raise BadDataset if anything was noted."""
        if self._problems:
            self._fail()

    def _fail(self) -> NoReturn:
        problems = list(self._problems)
        more = [f"and {len(problems) - FEW} more"] if len(problems) > FEW else []
        told = "; ".join([*problems[:FEW], *more])
        raise BadDataset(f"{self._root} is not a whole {self._title}: {told}")

    def _name(self, path: Path) -> str:
        inside = path.is_relative_to(self._root)
        return (path.relative_to(self._root) if inside else path).as_posix()


def check_part(kind: str, value: str, known: Sequence[str]) -> None:
    """Refuse a split or layout that the data set does not have."""
    if value not in known:
        raise UnknownName(kind, value, known)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises ValueError where the file holds something else, or names one twice."""
    value = parse_json(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a list of pairs in CSV, below its header; raises ValueError where none are.

    The first two cells of each name photos: ``FOLDER/.../NAME``, below the root.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if header and Path(header[0]).suffix:
        raise ValueError(f"expected a line of column names first, got {','.join(header)[:80]}")
    if not rows:
        raise ValueError("it lists no pairs")
    for row in rows:
        for name in row[:2]:
            parts = Path(name).parts
            if len(name) > LONGEST or len(parts) < 2 or Path(name).is_absolute() or ".." in parts:
                raise ValueError(f"expected photos like FOLDER/NAME.png, got {name[:99]!r}")
    return rows


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
