"""Annotated pairs of photos, what a data set must offer, and how to take a part of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from sdcorr.errors import BadDataset, UnknownName
from sdcorr.geometry import Size

Points = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]
FARTHEST = 1e6  # pixels; no photo is so large
Threshold = Literal["box", "keypoints", "image"]


def no_points() -> Points:
    """An array ``(0, 2)``."""
    return np.empty((0, 2))


class PhotoPair(Protocol):
    """Two photos of one category, whatever is annotated of them; see ``Pair``."""

    @property
    def id(self) -> str:
        """Unique in its data set."""
        ...

    @property
    def category(self) -> str:
        """As tables name it."""
        ...

    @property
    def subject(self) -> str:
        """What the photos show, in words for a text prompt."""
        ...

    @property
    def source(self) -> Path:
        """File of the source photo."""
        ...

    @property
    def target(self) -> Path:
        """File of the target photo."""
        ...

    @property
    def source_size(self) -> Size | None:
        """Annotated size, None where the data set gives none."""
        ...

    @property
    def target_size(self) -> Size | None:
        """Likewise."""
        ...


AnyPair = TypeVar("AnyPair", bound=PhotoPair)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two photos and the keypoints that both show.

    Points are (x, y) in pixels of the photo, as annotated; they may lie outside the box.

    Args:
        id: unique in its data set; the key of its records.
        category: as tables name it.
        subject: what the photos show, in words for a text prompt.
        source: file of the source photo.
        target: file of the target photo.
        keypoint_ids: N names of parts, unique.
        source_keypoints: ``(N, 2)``.
        target_keypoints: ``(N, 2)``, in the same order.
        source_only_ids: M parts that only the source shows.
        source_only: ``(M, 2)``, on the source; there is no match for them.
        source_size: annotated size, None where the data set gives none.
        target_size: likewise.
        target_box: box (x0, y0, x1, y1) of the target object, None where there is none.
        difficulty: a level for each kind of difficulty, as in ``{"viewpoint": "hard"}``.

    Raises:
        BadDataset: ids and points do not fit each other, or there are none.
    """

    id: str
    category: str
    subject: str
    source: Path
    target: Path
    keypoint_ids: tuple[str, ...]
    source_keypoints: Points = field(repr=False)
    target_keypoints: Points = field(repr=False)
    source_only_ids: tuple[str, ...] = ()
    source_only: Points = field(default_factory=no_points, repr=False)
    source_size: Size | None = None
    target_size: Size | None = None
    target_box: Box | None = None
    difficulty: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = (len(self.keypoint_ids), 2)
        shapes = (self.source_keypoints.shape, self.target_keypoints.shape)
        if shapes != (wanted, wanted) or wanted[0] == 0:
            raise BadDataset(
                f"pair {self.id}: expected as many source and target points as keypoint ids, at "
                f"least one; got {len(self.keypoint_ids)} ids and points {shapes[0]}, {shapes[1]}"
            )
        every = (*self.keypoint_ids, *self.source_only_ids)
        if len(set(every)) < len(every) or self.source_only.shape != (len(self.source_only_ids), 2):
            raise BadDataset(f"pair {self.id}: a keypoint id stands twice, or has no point")
        points = (self.source_keypoints, self.target_keypoints, self.source_only)
        if not all((np.abs(one) < FARTHEST).all() for one in points):
            raise BadDataset(f"pair {self.id}: a keypoint is no place in pixels")
        if self.target_box is not None:
            x0, y0, x1, y1 = self.target_box
            if not (-FARTHEST < x0 < x1 < FARTHEST and -FARTHEST < y0 < y1 < FARTHEST):
                raise BadDataset(f"pair {self.id}: the target's box {self.target_box} has no area")


class Dataset(Protocol):
    """Annotated pairs on disk: a frozen dataclass, one per file of ``datasets/``.

    Its pairs are all of keypoints (``Pair``), or all of dense flow (``FlowPair``). A data set with
    parts has fields for them, such as ``split``.
    """

    @property
    def root(self) -> Path:
        """The folder that holds it."""
        ...

    @property
    def threshold(self) -> Threshold:
        """What its PCK threshold is usually taken from; see ``metrics``."""
        ...

    @property
    def alphas(self) -> tuple[float, ...]:
        """The tolerances that papers report for it."""
        ...

    def pairs(self) -> Sequence[PhotoPair]:
        """All pairs in the official order.

        Raises:
            BadDataset: files are missing or wrong; one message on all that is missing.
        """
        ...


@dataclass(frozen=True)
class Selection:
    """Which pairs of a data set are used.

    Args:
        only: categories; empty takes all.
        limit: at most so many pairs of each category: those whose SHA-256 of ``seed:id`` is
            lowest, so that a draw depends on neither order, versions, nor other filters.
        seed: of the draw; of no meaning without a limit.

    Raises:
        BadDataset: the limit is below 1.
    """

    only: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise BadDataset(f"expected at least 1 pair a category, got a limit of {self.limit}")


def select(pairs: Sequence[AnyPair], selection: Selection) -> list[AnyPair]:
    """The selected pairs, in their order.

    Raises:
        UnknownName: no pair has a category of that name.
        BadDataset: nothing is left.

    Example:
        >>> select([], Selection(limit=3))
        Traceback (most recent call last):
        ...
        sdcorr.errors.BadDataset: no pairs are left to evaluate
    """
    ids = Counter(pair.id for pair in pairs)
    if twice := [name for name, count in ids.items() if count > 1]:
        raise BadDataset(f"the data set lists pair {twice[0]} {ids[twice[0]]} times, not once")
    known = sorted({pair.category for pair in pairs})
    wanted = set(selection.only)
    for name in sorted(wanted.difference(known)):
        raise UnknownName("category", name, known)
    chosen = [pair for pair in pairs if not wanted or pair.category in wanted]
    if selection.limit is not None:
        drawn: dict[str, list[str]] = {}
        for pair in sorted(chosen, key=lambda pair: _lot(selection.seed, pair.id)):
            drawn.setdefault(pair.category, []).append(pair.id)
        kept = {name for ids in drawn.values() for name in ids[: selection.limit]}
        chosen = [pair for pair in chosen if pair.id in kept]
    if not chosen:
        raise BadDataset("no pairs are left to evaluate")
    return chosen


def _lot(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
