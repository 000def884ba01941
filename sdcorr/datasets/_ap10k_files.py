"""AP-10K's annotation files: photos, each with the first annotation that names it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sdcorr.datasets._reading import LONGEST, Report, read_json
from sdcorr.errors import BadDataset
from sdcorr.geometry import Size
from sdcorr.pairs import FARTHEST, Box, Points

HOME, PHOTOS = "annotations", "data"
DIGITS = 12  # of an id in names of photos and of pairs
# split 1, in the order in which the published rules merge its files
FILES = tuple(f"ap10k-{part}-split1.json" for part in ("train", "test", "val"))
LISTS = ("images", "annotations", "categories")
# ids where the files name no keypoints
KEYPOINTS = (
    "left_eye", "right_eye", "nose", "neck", "root_of_tail", "left_shoulder", "left_elbow",
    "left_front_paw", "right_shoulder", "right_elbow", "right_front_paw", "left_hip", "left_knee",
    "left_back_paw", "right_hip", "right_knee", "right_back_paw",
)  # fmt: skip

Content = Mapping[Path, Mapping[str, Sequence[Mapping[str, Any]]]]


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and its animal.

    Args:
        id: of the image.
        path: the file.
        size: as annotated.
        species: name of the category.
        family: its supercategory.
        keypoints: ``(K, 2)``, meaningless where not visible.
        visible: ``(K,)``, v of 1 or 2.
        box: of the animal.
    """

    id: int
    path: Path
    size: Size
    species: str
    family: str
    keypoints: Points = field(repr=False)
    visible: npt.NDArray[np.bool_] = field(repr=False)
    box: Box


@dataclass(frozen=True, eq=False)
class Listed:
    """A photo as the files list it; of its annotation only the species and ``shown`` are checked.

    Args:
        image: as it stands in ``images``.
        annotation: the first one of the image.
        species: name of the category.
        family: its supercategory.
        file: where the annotation stands.
    """

    image: Mapping[str, Any] = field(repr=False)
    annotation: Mapping[str, Any] = field(repr=False)
    species: str
    family: str
    file: Path

    @property
    def id(self) -> int:
        """Of the image."""
        return int(self.image["id"])

    @property
    def shown(self) -> int:
        """``num_keypoints``, as the file says; raises ValueError where it says nothing."""
        return _whole(self.annotation.get("num_keypoints"), "num_keypoints", self._what)

    def read(self, root: Path, keypoints: int) -> Photo:
        """The photo; raises ValueError where its annotation is damaged."""
        points = self._numbers("keypoints", 3 * keypoints).reshape(-1, 3)  # x, y, v
        if not np.isin(points[:, 2], (0, 1, 2)).all():
            raise ValueError(f"{self._what}: expected v of 0, 1 or 2 in keypoints")
        left, top, width, height = self._numbers("bbox", 4).tolist()
        if width <= 0 or height <= 0:
            raise ValueError(f"{self._what}: its bbox {self.annotation['bbox']} has no area")
        what = f"image {self.id}"
        return Photo(
            id=self.id,
            path=root / PHOTOS / self.image["file_name"],
            size=Size(*(_whole(self.image.get(side), side, what, 1) for side in Size._fields)),
            species=self.species,
            family=self.family,
            keypoints=points[:, :2],
            visible=points[:, 2] > 0,
            box=(left, top, left + width, top + height),
        )

    @property
    def _what(self) -> str:
        return f"annotation {str(self.annotation.get('id'))[:60]} of image {self.id}"

    def _numbers(self, name: str, count: int) -> npt.NDArray[np.float64]:
        values = self.annotation.get(name)
        if not isinstance(values, list) or len(values) != count:
            got = f"{len(values)}" if isinstance(values, list) else f"{values!r:.60}"
            raise ValueError(f"{self._what}: expected {count} numbers in {name}, got {got}")
        # not bool; nor NaN, which no comparison holds for
        if not all(type(one) in (int, float) and -FARTHEST < one < FARTHEST for one in values):
            raise ValueError(f"{self._what}: {name} holds something else than numbers of pixels")
        return np.array(values, np.float64)


@dataclass(frozen=True, eq=False)
class Lists:
    """What the three files list together.

    Args:
        keypoints: K names of parts.
        images: ids of all images.
        photos: those with an annotation, sorted by id.
    """

    keypoints: tuple[str, ...]
    images: frozenset[int]
    photos: tuple[Listed, ...]


def read_lists(report: Report, root: Path) -> Lists:
    """The lists of the three files as one.

    Raises:
        BadDataset: files are missing, or contradict themselves or each other.
    """
    contents = {}
    for file in _find_files(report, root):
        with report.damage(file):
            contents[file] = _lists_of(read_json(file))
    report.close()
    images = _read_images(report, contents)
    kinds, keypoints = _read_categories(report, contents)
    report.close()
    photos: dict[int, Listed] = {}
    for file, one in _each(contents, "annotations"):
        with report.damage(file):
            image, kind = (_known(one, key, known) for key, known in
                           (("image_id", images), ("category_id", kinds)))  # fmt: skip
            photos.setdefault(image, Listed(images[image], one, *kinds[kind], file))
    report.close()
    return Lists(keypoints, frozenset(images), tuple(photos[key] for key in sorted(photos)))


def read_crowd(file: Path) -> frozenset[int]:
    """The image ids in a text file, one a line.

    Raises:
        BadDataset: it cannot be read, or holds something else.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise BadDataset(f"cannot read the list of crowds {file}: {error.strerror}") from error
    except ValueError as error:
        raise BadDataset(f"{file} is no text; expected image ids, one a line") from error
    ids = set()
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not (line.isascii() and line.isdigit() and len(line) <= LONGEST):
            raise BadDataset(
                f"{file}, line {number}: expected the id of an image, as in 37516, got {line!r:.60}"
            )
        ids |= {int(line)} if line else set()
    if not ids:
        raise BadDataset(f"{file} lists no image; expected image ids, one a line")
    return frozenset(ids)


def _find_files(report: Report, root: Path) -> list[Path]:
    home = root / HOME
    missing = [name for name in FILES if report.find(home, name) is None]
    others = sorted(one.name for one in home.glob("ap10k-*-split[23].json"))
    if missing and others:
        report.note(f"split 1 is read, and {HOME} holds {', '.join(others)}")
    for name in missing[1:]:
        report.note(f"no list {HOME}/{name}")
    return [report.need_list([HOME], [name]) for name in FILES]


def _lists_of(content: dict[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    for name in LISTS:
        values = content[name]
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            raise ValueError(f"expected {name}, a list of objects")
    if not content["images"]:
        raise ValueError("it lists no images")
    return {name: content[name] for name in LISTS}


def _each(contents: Content, name: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    return ((file, one) for file, content in contents.items() for one in content[name])


def _read_images(report: Report, contents: Content) -> dict[int, Mapping[str, Any]]:
    """The images by id; each has a file of its own."""
    found: dict[int, Mapping[str, Any]] = {}
    owners: dict[str, int] = {}
    homes: dict[int, Path] = {}
    for file, one in _each(contents, "images"):
        with report.damage(file):
            key = _whole(one.get("id"), "id", "an image")
            name = one.get("file_name")
            if key in found:
                raise ValueError(f"image {key} is listed twice, first in {homes[key].name}")
            if not isinstance(name, str) or not name or name != Path(name[:LONGEST]).name:
                raise ValueError(
                    f"image {key}: expected a file_name like 000000000001.jpg, got {name!r:.60}"
                )
            if name in owners:
                raise ValueError(f"{name} is listed twice, as image {owners[name]} and {key}")
            found[key], owners[name], homes[key] = one, key, file
    return found


def _read_categories(
    report: Report, contents: Content
) -> tuple[dict[int, tuple[str, str]], tuple[str, ...]]:
    """Species and family by id, and the keypoints of them all."""
    found: dict[int, tuple[str, str]] = {}
    owners: dict[str, int] = {}
    schemes = []
    for file, one in _each(contents, "categories"):
        with report.damage(file):
            key = _whole(one.get("id"), "id", "a category")
            kind = one.get("name"), one.get("supercategory")
            if not all(isinstance(name, str) and name for name in kind):
                raise ValueError(f"category {key}: expected name and supercategory, got {kind}")
            species, family = map(str, kind)
            if found.setdefault(key, (species, family)) != (species, family):
                before = " of ".join(found[key])
                raise ValueError(f"category {key} is {species} of {family}, and {before} before")
            if owners.setdefault(species, key) != key:
                raise ValueError(f"{species!r} is listed as category {owners[species]} and {key}")
            if "keypoints" in one:
                schemes.append(_scheme(one["keypoints"], key))
            if schemes and schemes[-1] != schemes[0]:
                raise ValueError(f"category {key} has other keypoints than those before")
    return found, schemes[0] if schemes else KEYPOINTS


def _scheme(names: object, key: int) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f"category {key}: expected keypoints, a list of names, got {names!r:.60}")
    if len(set(names)) < len(names):
        raise ValueError(f"category {key} names a keypoint twice")
    return tuple(names)


def _known(annotation: Mapping[str, Any], name: str, known: Mapping[int, object]) -> int:
    """What an annotation refers to."""
    key = annotation.get(name)
    if type(key) is not int or key not in known:
        raise ValueError(
            f"annotation {str(annotation.get('id'))[:60]} has {name} {key!r:.60}, which is in no "
            "list"
        )
    return key


def _whole(value: object, name: str, what: str, least: int = 0) -> int:
    if type(value) is not int or not least <= value < 10**DIGITS:
        raise ValueError(f"{what}: expected {name}, a whole number from {least}, got {value!r:.60}")
    return value
