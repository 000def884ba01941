"""Descriptors of many photos, a file each, by one process or by many."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcorr.ahead import ahead
from sdcorr.encodings import encode_each
from sdcorr.errors import BadFeatures, BadImage, BadOutput, BadRun
from sdcorr.evaluation import share
from sdcorr.features import ENDING, find_about, write_features
from sdcorr.files import check_output
from sdcorr.photos import find_photos
from sdcorr.pipeline import Pipeline, find_weights
from sdcorr.processes import World
from sdcorr.recipe import Recipe
from sdcorr.runs import differences
from sdcorr.runtime import Runtime
from sdcorr.types import Encoding


@dataclass(frozen=True)
class Extraction:
    """Of what descriptors are made, how, and where they go.

    Args:
        places: folders, globs, lists and photos, see ``find_photos``.
        out: folder of the files; those in it that were made in the same way are kept.
        recipe: makes the descriptors.
        runtime: of this process.
        root: a folder above all photos, or None; see ``find_photos``.
        category: what all photos show.
    """

    places: Sequence[Path]
    out: Path
    recipe: Recipe
    runtime: Runtime
    root: Path | None = None
    category: str | None = None

    def path(self, name: str) -> Path:
        """Where the descriptors of the photo of a name lie; its own ending stays."""
        return self.out / f"{name}{ENDING}"


@dataclass(frozen=True)
class Part:
    """What one process is to do.

    Args:
        root: a folder above the photos.
        names: paths of this process' photos below it.
        before: number of photos of the whole extraction that had their file before.
    """

    root: Path
    names: tuple[str, ...]
    before: int


def plan(job: Extraction, world: World) -> Part:
    """Look through photos and files; nothing is made but the folder.

    Args:
        job: the same in every process, but for its runtime's device.
        world: the processes that share the photos; each takes a run of neighbours.

    Raises:
        BadImage: see ``find_photos``.
        BadRun: a file was made in another way, or is something else; or the processes were told
            different things.
        BadOutput: the folder cannot be written.
        WeightsNotFound, BadCheckpoint: see ``find_weights``.
    """

    def begin() -> dict[str, Any]:
        photos = find_photos(job.places, job.root)
        made = _made_now(job)
        pending = [
            name for name in photos.names if not _is_there(job, name, photos.path(name), made)
        ]
        _make_folder(job.out)
        check_output(job.path("photo"))
        before = len(photos.names) - len(pending)
        return {"root": str(photos.root), "names": pending, "before": before, "made": made}

    found = world.lead(begin)
    if world.rank > 0 and (change := _change(found["made"], _made_now(job))):
        raise BadRun(f"the processes were told different things: {change}")
    world.wait_for_all()  # for the last time: the leader may hold what they talk through
    mine = share(found["names"], world.rank, world.size)
    return Part(Path(found["root"]), tuple(mine), found["before"])


def extract(job: Extraction, part: Part) -> Iterator[tuple[str, BadImage | None]]:
    """Write the descriptors of a part, photo by photo; memory is bounded.

    Yields:
        The name of each photo, in order, and why it was skipped; None where it was not.

    Raises:
        BadOutput: a file cannot be written; those before are whole.
        NotFinite, OutOfMemory: see ``Pipeline.encode``.
    """
    if not part.names:
        return
    pipeline = Pipeline(job.recipe, job.runtime)

    def write(item: tuple[str, Encoding | BadImage]) -> tuple[str, BadImage | None]:
        name, found = item
        if isinstance(found, BadImage):
            return name, found
        path = job.path(name)
        try:
            _make_folder(path.parent)
            write_features(path, found, pipeline, name)
        except BadOutput as error:
            if getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
                raise
            return name, BadImage(f"{error}; shorten the photo's name")
        return name, None

    photos = [part.root / name for name in part.names]
    encodings = encode_each(pipeline, photos, job.category)
    yield from ahead(write, zip(part.names, encodings, strict=True))


def _made_now(job: Extraction) -> dict[str, Any]:
    return _made(
        job.recipe.describe(), find_weights(job.recipe), job.category,
        {"device": job.runtime.device.type, "dtype": job.runtime.dtype_name},
    )  # fmt: skip


def _made(
    recipe: Mapping[str, Any],
    revisions: Mapping[str, Any],
    category: str | None,
    runtime: Mapping[str, Any],
) -> dict[str, Any]:
    """What decides descriptors. Fusion, matcher and words of a recipe do not."""
    return {
        "backbones": {group["name"]: group["backbone"] for group in recipe["groups"]},
        "flip": recipe["flip"],
        "revisions": dict(revisions),
        "category": category,
        "device": runtime["device"],
        "dtype": runtime["dtype"],
    }


def _is_there(job: Extraction, name: str, photo: Path, made: Mapping[str, Any]) -> bool:
    """Whether a photo has a whole file that was made of it, in this way.

    Raises:
        BadRun: its file is of another photo, made in another way, or something else.
    """
    path = job.path(name)
    try:
        if (about := find_about(path)) is None:
            return False
        before = _made(about.recipe, about.revisions, about.category, about.runtime)
    except BadFeatures as error:
        raise BadRun(f"{error}; {_ADVICE}") from error
    except (KeyError, TypeError) as error:  # of JSON that is no recipe or no runtime
        raise BadRun(f"{path} does not tell how it was made; {_ADVICE}") from error
    if change := _change(before, made):
        raise BadRun(
            f"{path} was made in another way, by recipe {about.recipe.get('name')!r}: {change}; "
            f"{_ADVICE}"
        )
    length = photo.stat().st_size if photo.is_file() else about.photo_bytes
    if about.photo != name or about.photo_bytes not in (length, None):
        raise BadRun(
            f"{path} was made of {about.photo!r} ({about.photo_bytes} bytes), not of {photo} as it "
            f"is now ({length} bytes); {_ADVICE}"
        )
    return True


def _change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first difference in words; empty where there is none."""
    changes = (line for key in now for line in differences(key, before[key], now[key]))
    return next(changes, "")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise BadOutput(f"cannot make the folder {path}: there is a file of this name") from error
    except OSError as error:
        raise BadOutput(f"cannot make the folder {path}: {error.strerror}") from error


_ADVICE = "choose another --out, or delete it to have it made again"
