"""The photos that a user names by folders, globs and lists, each with its name below a root."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from sdcorr.errors import BadImage

# those of load_image's formats that a folder is searched for
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Photos:
    """Photos, each once.

    Args:
        root: a folder above all of them.
        names: paths below the root, with ``/``; sorted.
    """

    root: Path
    names: tuple[str, ...]

    def path(self, name: str) -> Path:
        """Where the photo of a name lies."""
        return self.root / name


def find_photos(places: Sequence[Path | str], root: Path | None = None) -> Photos:
    """The photos of folders, globs, lists and single files.

    A folder is searched to its bottom for files of ``ENDINGS``, without hidden ones and without
    following links to folders; likewise what ``**`` of a glob stands for. A ``.txt`` file lists a
    photo a line, relative to the working folder as ``find`` prints them; a listed photo need not
    exist.

    Args:
        places: what the user gave.
        root: a folder above all photos; None is the one folder given, or else the lowest
            folder above all.

    Raises:
        BadImage: a place is not there, cannot be read or holds no photo, or a photo lies outside
            the root.
    """
    found: dict[Path, None] = {}
    for place in places:
        try:
            found |= dict.fromkeys(_photos_of(Path(place)))
        except OSError as error:
            raise BadImage(f"cannot read {error.filename or place}: {error.strerror}") from error
    if not found:
        raise BadImage("no photo is given; expected a folder, a glob, a .txt list or photos")
    if root is None:
        root = Path(os.path.commonpath([path.parent for path in found]))
        if len(places) == 1 and Path(places[0]).is_dir():
            root = Path(places[0])
    above = _absolute(root)
    names = set()
    for path in found:
        if not path.is_relative_to(above):
            raise BadImage(f"{path} lies outside the root {above}; give a --root above all photos")
        names.add(path.relative_to(above).as_posix())
    return Photos(root, tuple(sorted(names)))


def _photos_of(place: Path) -> Iterable[Path]:
    """Absolute paths of the photos of one place."""
    if place.is_dir():
        photos = list(_below(place))
        if not photos:
            raise BadImage(f"{place} holds no photo ({', '.join(ENDINGS)})")
    elif place.exists():
        photos = _listed(place) if place.suffix.lower() == ".txt" else [place]
    else:  # a name that exists is no pattern, whatever brackets it has
        photos = [one for one in _matching(str(place)) if one.is_file() and _is_photo(one)]
        if not photos:
            what = "matches no photo" if glob.has_magic(str(place)) else "does not exist"
            raise BadImage(f"{place} {what}; expected a folder, a glob, a .txt list or a photo")
    return [_absolute(photo) for photo in photos]


def _matching(pattern: str) -> list[Path]:
    """What a glob matches, sorted; ``**`` follows no link, which may lead round in circles."""
    parts = Path(pattern).parts
    if "**" not in parts:
        return sorted(map(Path, glob.glob(pattern)))
    plain = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    home, wanted = Path(*plain), parts[len(plain) :]
    return [photo for photo in _below(home) if _fits(photo.relative_to(home).parts, wanted)]


def _fits(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether a path fits a pattern, part by part; ``**`` stands for any number of them."""
    if not wanted:
        return not parts
    if wanted[0] == "**" and _fits(parts, wanted[1:]):
        return True
    rest = wanted if wanted[0] == "**" else wanted[1:]
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _fits(parts[1:], rest)


def _below(folder: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise error

    for home, folders, files in os.walk(folder, onerror=stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(home, name) for name in sorted(files) if _is_photo(PurePath(name)))


def _is_photo(path: PurePath) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def _listed(file: Path) -> list[Path]:
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    if "\0" in text:  # as other systems' shells write lists
        raise BadImage(f"{file} is no list in UTF-8; save it as that")
    # not splitlines: a name may hold what Unicode takes for the end of a line
    lines = [line.strip(" \t\r") for line in text.split("\n")]
    if not (photos := [Path(line) for line in lines if line]):
        raise BadImage(f"{file} lists no photo; expected one a line")
    return photos


def _absolute(path: Path) -> Path:
    """Without ``..``, and with links as they are: a linked photo keeps its name."""
    return Path(os.path.abspath(path))
