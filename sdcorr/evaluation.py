"""Predict the keypoints of annotated pairs, each photo encoded once. Generators, no files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sdcorr.ahead import background
from sdcorr.encodings import Encodings, Tally, check_size
from sdcorr.errors import BadImage
from sdcorr.fused import Fused
from sdcorr.pairs import AnyPair, Pair, PhotoPair
from sdcorr.pipeline import Pipeline
from sdcorr.preprocess import read_size
from sdcorr.types import Matches

MEMORY = 2_000_000_000  # bytes of encodings kept, on the device that made them

Item = TypeVar("Item")
Found = TypeVar("Found")
Symmetric = Mapping[str, Sequence[Sequence[str]]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found for a pair.

    Args:
        pair: the annotated pair.
        matches: of ``source_keypoints``, then of ``source_only``; None for a skipped pair.
        skipped: why it was skipped, empty for others.
    """

    pair: Pair
    matches: Matches | None
    skipped: str = ""

    @property
    def joint(self) -> Matches | None:
        """The matches of ``source_keypoints`` alone, in the order of ``target_keypoints``."""
        if self.matches is None:
            return None
        return self.matches.select(torch.arange(len(self.pair.keypoint_ids)))


def predict(
    pipeline: Pipeline,
    pairs: Sequence[Pair],
    *,
    told: bool = True,
    memory: int = MEMORY,
    skip_bad: bool = False,
    tally: Tally | None = None,
    symmetric: Symmetric | None = None,
) -> Iterator[Prediction]:
    """Where the keypoints of each pair's source lie in its target, pair by pair, in order.

    Annotated points beyond the photo's edge are moved onto it before they are looked up.

    Args:
        pipeline: a loaded recipe.
        pairs: best in the order of ``by_affinity``.
        told: tell the model each pair's ``subject``, where its prompt asks for it.
        memory: bytes of encodings kept for later pairs; those that no pair needs any more are
            let go first, then those needed last.
        skip_bad: go on after a photo that cannot be read, or has another size than annotated.
        tally: counts as the work goes on.
        symmetric: keypoints by category that left and right exchange, see ``Fused.match``. One
            whose partner the source does not show is matched as if it were not named.

    Raises:
        BadImage: such a photo, unless ``skip_bad``.
        NotFinite, OutOfMemory: see ``Pipeline.encode``.
    """

    def find(fused: Fused, pair: Pair) -> Matches:
        return _match(fused, pair, (symmetric or {}).get(pair.category))

    for pair, found in find_each(
        find, pipeline, pairs, told=told, memory=memory, skip_bad=skip_bad, tally=tally
    ):
        if isinstance(found, str):
            yield Prediction(pair, None, skipped=found)
        else:
            yield Prediction(pair, found)


def find_each(
    find: Callable[[Fused, AnyPair], Found],
    pipeline: Pipeline,
    pairs: Sequence[AnyPair],
    *,
    told: bool = True,
    memory: int = MEMORY,
    skip_bad: bool = False,
    tally: Tally | None = None,
) -> Iterator[tuple[AnyPair, Found | str]]:
    """Each pair with what ``find`` makes of its photos, or why it was skipped; see ``predict``."""
    tally = tally if tally is not None else Tally()
    told = told and pipeline.recipe.uses_category
    with background() as reader:
        encodings = Encodings(pipeline, pairs, told, memory, tally, reader)
        tally.pairs, tally.images = len(pairs), encodings.distinct
        for position, pair in enumerate(pairs):
            try:
                source, target = encodings.of_pair(position)
            except BadImage as error:
                if not skip_bad:
                    raise
                tally.done += 1
                yield pair, str(error)
                continue
            start = time.perf_counter()
            found = find(pipeline.fuse(source, target), pair)
            del source, target  # not held while the next pair's are made
            tally.matching += time.perf_counter() - start
            tally.done += 1
            yield pair, found


def _match(fused: Fused, pair: Pair, symmetric: Sequence[Sequence[str]] | None) -> Matches:
    """The matches of a pair's source keypoints, then of those that only the source shows."""
    points = torch.from_numpy(np.concatenate([pair.source_keypoints, pair.source_only]))
    ids = (*pair.keypoint_ids, *pair.source_only_ids)
    return match_shown(fused, ids, fused.source.size.clamp(points), symmetric or ())


def match_shown(
    fused: Fused, names: Sequence[str], points: Tensor, symmetric: Sequence[Sequence[str]]
) -> Matches:
    """``Fused.match`` for points of which not all partners need be there.

    Args:
        fused: two photos.
        names: of N points.
        points: ``(N, 2)`` xy pixels of the source.
        symmetric: pairs of names, see ``Fused.match``. A point whose partner is not among the
            points is matched as if it were not named.
    """
    if not symmetric:
        return replace(fused.match(points), names=tuple(names))
    shown = [couple for couple in symmetric if set(couple) <= set(names)]
    lone = {end for couple in symmetric for end in couple} - {e for couple in shown for e in couple}
    numbers = {name: str(index) for index, name in enumerate(names)}  # a name may be any text
    places = dict(zip(numbers.values(), points.tolist(), strict=True))
    couples = [[numbers[end] for end in couple] for couple in shown]
    found = fused.match(places, symmetric=couples)
    alone = torch.tensor([name in lone for name in names])
    found = _either(alone, fused.match(points), found) if alone.any() else found
    return replace(found, names=tuple(names))


def _either(first: Tensor, one: Matches, other: Matches) -> Matches:
    """Of each point the match in ``one`` where ``first (N,)`` is True, else that in ``other``."""
    order = torch.arange(len(one)) + (~first) * len(one)
    values: dict[str, Any] = {
        item.name: torch.cat([value, getattr(other, item.name)])
        for item in fields(one)
        if isinstance(value := getattr(one, item.name), Tensor)
    }
    return replace(one, **values).select(order)


def by_affinity(pairs: Sequence[AnyPair]) -> list[AnyPair]:
    """The pairs in an order in which neighbours share photos, category by category.

    Along a Morton curve over (photo, photo), pairs of the same few photos stand together at every
    scale: whatever number of encodings fits into memory, few are made twice.
    """
    index: dict[Path, int] = {}
    categories: dict[str, int] = {}
    for pair in pairs:
        categories.setdefault(pair.category, len(categories))
        for photo in (pair.source, pair.target):
            index.setdefault(photo, len(index))

    def place(pair: PhotoPair) -> tuple[int, int, str]:
        first, second = sorted((index[pair.source], index[pair.target]))
        return categories[pair.category], _interleave(second, first), pair.id

    return sorted(pairs, key=place)


def share(items: Sequence[Item], rank: int, processes: int) -> Sequence[Item]:
    """The part of one process: a run of neighbours, within one item as long as any other."""
    return items[len(items) * rank // processes : len(items) * (rank + 1) // processes]


def wrong_photos(pairs: Iterable[PhotoPair]) -> list[str]:
    """What is wrong with the photos, in words, as far as their headers tell."""
    wrong = []
    ends = ((pair.source, pair.source_size, pair.target, pair.target_size) for pair in pairs)
    sizes = {one: None for end in ends for one in (end[:2], end[2:])}
    for photo, annotated in sizes:
        try:
            check_size(photo, read_size(photo), annotated)
        except BadImage as error:
            wrong.append(str(error))
    return wrong


def _interleave(high: int, low: int) -> int:
    """The bits of two numbers in turn, a place on the Morton (Z-order) curve.

    Example:
        >>> [_interleave(high, low) for high, low in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))]
        [0, 1, 2, 3, 8]
    """
    place = 0
    for bit in range(max(high.bit_length(), low.bit_length())):
        place |= ((low >> bit) & 1) << (2 * bit) | ((high >> bit) & 1) << (2 * bit + 1)
    return place
