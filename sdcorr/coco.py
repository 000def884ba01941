"""COCO keypoints JSON: a scheme of keypoints, and photos annotated with it.

The format is that of https://cocodataset.org/#format-data, "Keypoint Detection", with one more
field of a category, ``symmetric``: pairs of keypoint names that left and right exchange. Keypoint
coordinates are taken as they stand: whole numbers are centres of pixels, as everywhere here.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sdcorr.annotations import Reference, References, Scheme
from sdcorr.errors import BadAnnotations, UnknownName
from sdcorr.files import parse_json
from sdcorr.geometry import Size

VISIBLE = 2  # COCO's v: 0 not labelled, 1 labelled but hidden, 2 visible
LARGEST = 10**9  # pixels of a side; no photo is so large
NEAR = 1.0  # pixels beyond the photo's edge that rounding explains


def read_references(
    path: Path, images: Path | None = None, category: str | None = None
) -> References:
    """The annotated objects of a COCO keypoints file.

    Keypoints marked visible (v = 2) count; at a hidden one (v = 1) the photo shows something
    else. Crowds (``iscrowd`` 1) and objects without visible keypoints are passed over, masks are
    not read.

    Args:
        path: of the JSON.
        images: folder that ``file_name`` is relative to; None is the JSON's own.
        category: name of the one to take; None is the only one with annotated keypoints.

    Raises:
        BadAnnotations: the file cannot be read, contradicts itself, or annotates no visible
            keypoint; a photo is missing; or several categories are annotated and none is named.
        UnknownName: there is no such category.
    """
    folder = path.parent if images is None else images
    content = _read(path)
    photos = _by_id(path, "images", content["images"])
    _by_id(path, "annotations", content["annotations"])
    kinds = _by_id(path, "categories", content["categories"])
    keys = [_key(path, one, "category_id", kinds) for one in content["annotations"]]
    used = Counter(
        key
        for key, one in zip(keys, content["annotations"], strict=True)
        if one.get("keypoints") and not one.get("iscrowd")
    )
    scheme = _scheme(path, _choose(path, kinds, used, category))
    objects = [
        _reference(path, one, photos[_key(path, one, "image_id", photos)], folder, scheme)
        for one in content["annotations"]
        if one["category_id"] == scheme.category["id"] and not one.get("iscrowd")
    ]
    shown = [one for one in objects if one.visible.any()]
    if not shown:
        raise BadAnnotations(
            f"{path}: no annotation of {scheme.name!r} has a visible keypoint; set v to 2 where "
            f"one can be seen; objects: {len(objects)}"
        )
    # os.path's: Path's raises where a name is too long
    if missing := sorted({str(one.photo) for one in shown if not os.path.isfile(one.photo)}):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise BadAnnotations(
            f"{path}: there is no photo {missing[0]}{more}; file_name is relative to {folder}, "
            "--images names another folder"
        )
    return References(scheme, tuple(shown), _digest(scheme, shown))


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists of a COCO file."""
    wanted = "expected COCO keypoints JSON, an object with images, annotations and categories"
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise BadAnnotations(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadAnnotations(f"{path}: {wanted}; {error}") from error
    if not isinstance(content, dict):
        raise BadAnnotations(f"{path}: {wanted}; got a {type(content).__name__}")
    for name in ("images", "annotations", "categories"):
        values = content.get(name)
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            raise BadAnnotations(f"{path}: {wanted}; {name} is no list of objects")
    return content


def _by_id(path: Path, name: str, values: Iterable[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """The objects of a list by their ids; photos must also have names of their own."""
    found: dict[Any, dict[str, Any]] = {}
    files: set[str] = set()
    for one in values:
        key = one.get("id")
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise BadAnnotations(
                f"{path}: {name} holds an object with id {key!r}; expected a number"
            )
        if key in found:
            raise BadAnnotations(f"{path}: {name} holds id {key!r} twice")
        found[key] = one
        if name == "images":
            file = one.get("file_name")
            if not isinstance(file, str) or not file:
                raise BadAnnotations(f"{path}: image {key!r} has no file_name")
            if file in files:
                raise BadAnnotations(f"{path}: images holds file_name {file!r} twice")
            files.add(file)
    return found


def _key(path: Path, annotation: dict[str, Any], field: str, known: Mapping[Any, object]) -> Any:
    """What an annotation refers to."""
    key = annotation.get(field)
    if isinstance(key, list | dict) or key not in known:
        raise BadAnnotations(
            f"{path}: annotation {annotation['id']!r} has {field} {key!r}, which is not in the file"
        )
    return key


def _choose(
    path: Path, kinds: Mapping[Any, dict[str, Any]], used: Mapping[Any, int], name: str | None
) -> dict[str, Any]:
    """The category to transfer."""
    for key, kind in kinds.items():
        if not isinstance(kind.get("name"), str) or not kind["name"]:
            raise BadAnnotations(f"{path}: category {key!r} has no name")
    names = [kind["name"] for kind in kinds.values()]
    if name is not None:
        if name not in names:
            raise UnknownName("category", name, names)
        if names.count(name) > 1:
            raise BadAnnotations(f"{path}: {names.count(name)} categories are called {name!r}")
        return next(kind for kind in kinds.values() if kind["name"] == name)
    able = [kind for key, kind in kinds.items() if kind.get("keypoints") and used.get(key)]
    if not able:
        raise BadAnnotations(
            f"{path}: no category has both keypoints (a list of names) and an annotation"
        )
    if len(able) > 1:
        raise BadAnnotations(
            f"{path} annotates several categories, {', '.join(kind['name'] for kind in able)}; "
            "choose one with --category"
        )
    return able[0]


def _scheme(path: Path, category: dict[str, Any]) -> Scheme:
    """A category, checked."""
    what = f"{path}: category {category['name']!r}"
    names = category.get("keypoints")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise BadAnnotations(f"{what}: expected keypoints, a list of names, got {names!r:.80}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadAnnotations(f"{what} has keypoint {twice[0]!r} twice")
    try:
        json.dumps(category, allow_nan=False)
    except ValueError as error:
        raise BadAnnotations(f"{what} holds NaN or infinity, which JSON lacks") from error
    skeleton = category.get("skeleton") or []
    if not _are_pairs(skeleton, range(1, len(names) + 1)):
        raise BadAnnotations(
            f"{what}: expected skeleton, pairs of keypoint numbers from 1 to {len(names)}"
        )
    symmetric = category.get("symmetric") or []
    if not _are_pairs(symmetric, names):
        raise BadAnnotations(
            f"{what}: expected symmetric, pairs of keypoint names, got {symmetric!r:.80}"
        )
    if len({end for pair in symmetric for end in pair}) < 2 * len(symmetric):
        raise BadAnnotations(f"{what}: symmetric gives a keypoint two partners, or itself")
    return Scheme(category, tuple(names), tuple((one, other) for one, other in symmetric))


def _are_pairs(values: object, known: Sequence[object]) -> bool:
    return isinstance(values, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(end) is type(known[0]) and end in known for end in pair)
        for pair in values
    )


def _reference(
    path: Path, annotation: dict[str, Any], image: dict[str, Any], folder: Path, scheme: Scheme
) -> Reference:
    """An annotation, checked."""
    what = f"{path}: annotation {annotation['id']!r}"
    numbers, wanted = annotation.get("keypoints"), 3 * len(scheme.keypoints)
    if numbers in (None, []) and not annotation.get("num_keypoints"):
        numbers = [0] * wanted  # an object with a box or a mask alone
    if not isinstance(numbers, list) or len(numbers) != wanted:
        got = len(numbers) if isinstance(numbers, list) else repr(numbers)
        raise BadAnnotations(
            f"{what}: expected {wanted} numbers in keypoints, x, y, v of each of the "
            f"{len(scheme.keypoints)} of category {scheme.name!r}, got {got}"
        )
    if not all(isinstance(n, int | float) and abs(n) <= sys.float_info.max for n in numbers):
        raise BadAnnotations(f"{what}: keypoints holds something else than finite numbers")
    values = torch.tensor(numbers, dtype=torch.float64).reshape(-1, 3)
    if not torch.isin(values[:, 2], torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)).all():
        raise BadAnnotations(f"{what}: expected v of 0, 1 or 2 in keypoints")
    visible, size, points = values[:, 2] == VISIBLE, _size(path, image), values[:, :2]
    reference = Reference(annotation["id"], folder / image["file_name"], size, points, visible)
    try:
        return reference if size is None else on_photo(reference, size, scheme)
    except BadAnnotations as error:
        raise BadAnnotations(f"{what}: {error}") from error


def on_photo(reference: Reference, size: Size, scheme: Scheme) -> Reference:
    """The reference with points a rounding beyond the photo's edge moved onto it.

    Raises:
        BadAnnotations: a visible point lies farther outside.
    """
    points = size.clamp(reference.points)
    beyond = reference.visible & ((points - reference.points).abs().amax(dim=1) > NEAR)
    if beyond.any():
        index = int(beyond.nonzero()[0])
        x, y = reference.points[index].tolist()
        raise BadAnnotations(
            f"keypoint {scheme.keypoints[index]!r} at ({x:g}, {y:g}) lies outside "
            f"{reference.photo.name}, {size.width} x {size.height}"
        )
    return replace(reference, points=points)


def _size(path: Path, image: dict[str, Any]) -> Size | None:
    sides = image.get("height"), image.get("width")
    if sides == (None, None):
        return None
    if not all(isinstance(side, int) and 0 < side < LARGEST for side in sides):
        raise BadAnnotations(f"{path}: image {image['file_name']!r} has height and width {sides}")
    return Size(*sides)  # type: ignore[arg-type]  # checked above


def _digest(scheme: Scheme, objects: Sequence[Reference]) -> str:
    every = dict.fromkeys(one.photo for one in objects)
    photos = {photo: index for index, photo in enumerate(every)}
    points = [
        [photos[one.photo], one.points[one.visible].tolist(), one.visible.tolist()]
        for one in objects
    ]
    digest = hashlib.sha256(json.dumps([scheme.category, points], sort_keys=True).encode())
    for photo in photos:
        try:
            with photo.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise BadAnnotations(f"cannot read reference {photo}: {error.strerror}") from error
    return digest.hexdigest()
