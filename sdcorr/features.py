"""Descriptors of a photo in a safetensors file: what an ``Encoding`` holds, but for the pixels.

group/layer             float32 (C, h, w), as the backbone gave it
mirrored/group/layer    of the mirror image, turned back onto the photo, where the recipe flips
__metadata__["sdcorr"]  JSON: schema, photo, photo_bytes, size, category, mirrored, grids, recipe,
                        revisions, runtime

Everything told stands under one key, because safetensors writes several in random order: the same
descriptors make the same file.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sdcorr.errors import BadFeatures, BadImage, BadOutput, BadRecipe, NotFinite, UnknownName
from sdcorr.fields import read
from sdcorr.files import parse_json, replacing
from sdcorr.geometry import Grid, Size
from sdcorr.preprocess import Photo, load_image
from sdcorr.recipe import read_recipe
from sdcorr.runtime import library_versions
from sdcorr.types import Encoding, FeatureMap, Image

if TYPE_CHECKING:
    from sdcorr.pipeline import Pipeline

SCHEMA = "sdcorr.features/1"
ENDING = ".safetensors"
KEY = "sdcorr"  # of the metadata
MIRRORED = "mirrored/"  # before the name of a map
_versions = cache(library_versions)  # asked for with every photo, and slower than some models


@dataclass(frozen=True)
class About:
    """What a file says of its descriptors; what has no comment is as in ``Features``."""

    schema: str  # SCHEMA
    photo: Any  # text, or None; half a surrogate is a byte of a name that is not UTF-8
    photo_bytes: Any  # of its file, or None; they tell it from another of the same name
    size: tuple[int, int]
    category: str | None
    mirrored: bool  # whether each map has a mirrored one, of the same grid
    grids: dict[str, Any]  # of each map, see _Cells
    recipe: dict[str, Any]
    revisions: dict[str, Any]
    runtime: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Features:
    """Descriptors of a photo, and how they were made; on the CPU.

    Args:
        photo: its name, a path below some folder; None where it had none.
        size: of the photo.
        category: what the model was told that it shows; None where nothing.
        maps: raw feature maps by ``group/layer``.
        mirrored: maps of the mirror image, turned back; None of a recipe that does not flip.
        recipe: the recipe as ``Recipe.describe`` gives it; ``read_recipe`` makes one of it.
        revisions: revision of each model id that took part.
        runtime: ``device``, its type; ``dtype`` inside the models; ``versions`` of libraries.
    """

    photo: str | None
    size: Size
    category: str | None
    maps: Mapping[str, FeatureMap] = field(repr=False)
    mirrored: Mapping[str, FeatureMap] | None = field(repr=False)
    recipe: Mapping[str, Any] = field(repr=False)
    revisions: Mapping[str, str]
    runtime: Mapping[str, Any] = field(repr=False)

    def encoding(
        self, photo: Photo | None = None, *, device: str | torch.device = "cpu",
        allow_plugins: bool = False,
    ) -> Encoding:  # fmt: skip
        """What ``Pipeline.match`` takes; it gives the matches that the photo itself would.

        To the last bit on a like machine, if the photo was encoded by itself, as on a CPU.

        Args:
            photo: the photo, for pictures of matches; None shows a white one.
            device: where the maps go; both photos of a pair must be on the same.
            allow_plugins: let the recipe name modules outside of sdcorr, which runs their code.

        Raises:
            BadImage: the photo cannot be read, or has another size.
            BadRecipe, UnknownName: see ``read_recipe``.
            BadFeatures: a map of the recipe is missing.
        """
        recipe = read_recipe(self.recipe, allow_plugins)
        maps = [f"{name}/{one}" for name, each in recipe.backbones.items() for one in each.maps]
        if missing := [name for name in maps if name not in self.maps]:
            raise BadFeatures(f"the descriptors of {self.photo!r} lack the map {missing[0]!r}")
        return Encoding(
            self._image(photo), _on(device, self.maps), recipe.backbones, dict(self.revisions),
            None if self.mirrored is None else _on(device, self.mirrored),
        )  # fmt: skip

    def _image(self, photo: Photo | None) -> Image:
        if photo is None:
            white = np.broadcast_to(np.uint8(255), (*self.size, 3))  # takes no memory
            return Image(white, self.category)
        image = load_image(photo, self.category)
        if image.size != self.size:
            raise BadImage(
                f"{image.path or 'the photo'} is {image.size.width} x {image.size.height} px, and "
                f"the descriptors are of {self.photo!r}, {self.size.width} x {self.size.height}; "
                "give the photo that they were made of"
            )
        return image


def write_features(
    path: Path | str, encoding: Encoding, model: Pipeline, photo: str | None = None
) -> None:
    """Write the descriptors of a photo, whole or not at all; ``read_features`` reads them.

    Args:
        path: a name that ends in ``.safetensors``; what is there is replaced.
        encoding: made by ``model``.
        model: tells recipe and runtime.
        photo: the photo's name; None takes that of its file, if it has one.

    Raises:
        BadRecipe: another recipe made the encoding.
        BadOutput: the path ends otherwise, or cannot be written.
    """
    path, recipe = Path(path), model.recipe
    if path.suffix != ENDING:
        raise BadOutput(f"cannot write {path}: expected a name that ends in {ENDING}")
    made_by = (encoding.backbones, encoding.revisions, encoding.mirrored is not None)
    if made_by != (recipe.backbones, model.revisions, recipe.flip):
        raise BadRecipe(f"another recipe than {recipe.name!r} made this encoding; give its model")
    maps = dict(encoding.maps)
    maps |= {MIRRORED + name: one for name, one in (encoding.mirrored or {}).items()}
    about = json.dumps(asdict(_describe(encoding, model, photo)), allow_nan=False)
    data = save({name: one.values.cpu().numpy() for name, one in maps.items()}, {KEY: about})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _describe(encoding: Encoding, model: Pipeline, photo: str | None) -> About:
    image, length = encoding.image, None
    if image.path is not None:
        photo = image.path.name if photo is None else photo
        with suppress(OSError):  # deleted since it was read
            length = image.path.stat().st_size
    return About(
        schema=SCHEMA,
        photo=photo,
        photo_bytes=length,
        size=(image.size.height, image.size.width),
        category=image.category if model.recipe.uses_category else None,
        mirrored=encoding.mirrored is not None,
        grids={
            name: {key: getattr(one.grid, key) for key in ("shape", "stride", "offset")}
            for name, one in encoding.maps.items()
        },
        recipe=model.recipe.describe(),
        revisions=dict(encoding.revisions),
        runtime={
            "device": model.runtime.device.type,
            "dtype": model.runtime.dtype_name,
            "versions": _versions(),
        },
    )


def read_features(path: Path | str) -> Features:
    """The descriptors that ``sdcorr extract`` or ``write_features`` wrote.

    Raises:
        BadFeatures: no such file, a damaged one, something else, or one of another version.

    Example:
        ``sdcorr.read_features("features/a.jpg.safetensors").maps["sift/rootsift"].values``
    """
    path = Path(path)
    try:
        _check_file(path)
        with safe_open(path, "numpy") as file:  # "pt" takes no names that are not UTF-8
            about = _read_about(path, file.metadata())
            tensors = {name: _tensor(path, file, name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise BadFeatures(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise BadFeatures(f"{path} is damaged, or no safetensors file: {error}") from error
    plain = _maps(path, about, tensors, "")
    mirrored = _maps(path, about, tensors, MIRRORED) if about.mirrored else None
    if len(tensors) > len(plain) + len(mirrored or ()):
        raise BadFeatures(f"{path} is damaged: it holds tensors of which it does not tell")
    return Features(
        about.photo, Size(*about.size), about.category, plain, mirrored, about.recipe,
        about.revisions, about.runtime,
    )  # fmt: skip


def find_about(path: Path) -> About | None:
    """What a file says, from its header alone; None where there is none, or not a whole one.

    Raises:
        BadFeatures: it is whole and something else, or of another version.
    """
    try:
        _check_file(path)
        with safe_open(path, "numpy") as file:  # refuses one of another length than it says
            metadata = file.metadata()
    except (FileNotFoundError, SafetensorError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise BadFeatures(f"cannot read {path}: {error.strerror or error}") from error
    return _read_about(path, metadata)


def _check_file(path: Path) -> None:
    """Refuse what is no file: opening a pipe would wait for its writer."""
    if path.exists() and not path.is_file():
        raise BadFeatures(f"{path} is no file; expected descriptors, as of sdcorr extract")


def _read_about(path: Path, metadata: Mapping[str, str] | None) -> About:
    if not metadata or KEY not in metadata:
        raise BadFeatures(f"{path} holds no descriptors of sdcorr (no {KEY!r} in its metadata)")
    try:
        parsed = parse_json(metadata[KEY].encode())
        schema = parsed["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadFeatures(f"{path} is damaged: its metadata is not as expected: {error}") from error
    if schema != SCHEMA:
        raise BadFeatures(
            f"{path} was written as {schema!r}, and this version of sdcorr reads {SCHEMA!r}; "
            "extract it again, or use the version that wrote it"
        )
    about: About = _read(About, parsed, path, "its metadata")
    if not (about.photo is None or isinstance(about.photo, str)) or min(about.size) < 1:
        raise BadFeatures(f"{path} is damaged: its photo has no name or size")
    return about


@dataclass(frozen=True)
class _Cells:
    """A ``Grid`` but for its photo, in pixels of it."""

    shape: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[float, float]


def _tensor(path: Path, file: Any, name: str) -> torch.Tensor:
    if (dtype := file.get_slice(name).get_dtype()) != "F32":
        raise BadFeatures(f"{path} is damaged: expected float32 in {name!r}, got {dtype}")
    # copied: sums may differ in the last bit where numbers begin elsewhere in memory
    return torch.from_numpy(file.get_tensor(name)).clone()


def _maps(
    path: Path, about: About, tensors: Mapping[str, torch.Tensor], prefix: str
) -> dict[str, FeatureMap]:
    maps = {}
    for name, grid in about.grids.items():
        cells = _read(_Cells, grid, path, f"grid of {name!r}")
        if prefix + name not in tensors or min(*cells.shape, *cells.stride) <= 0:
            raise BadFeatures(f"{path} is damaged: it lacks {prefix + name!r}, or cells for it")
        place = Grid(cells.shape, cells.stride, cells.offset, Size(*about.size))
        try:
            maps[name] = FeatureMap(name.partition("/")[2], tensors[prefix + name], place)
        except (ValueError, NotFinite) as error:
            raise BadFeatures(f"{path} is damaged: {error}") from error
    return maps


def _read(kind: type, parsed: object, path: Path, where: str) -> Any:
    try:
        return read(kind, parsed, where, allow_plugins=False)
    except (BadRecipe, UnknownName) as error:
        raise BadFeatures(f"{path} is damaged: {error}") from error


def _on(device: str | torch.device, maps: Mapping[str, FeatureMap]) -> dict[str, FeatureMap]:
    return {name: replace(one, values=one.values.to(device)) for name, one in maps.items()}
