"""Predict the keypoints of annotated pairs, each photo encoded once. Generators, no files."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdcorr.errors import BadImage
from sdcorr.fused import Fused
from sdcorr.geometry import Size
from sdcorr.pairs import Pair
from sdcorr.pipeline import Pipeline
from sdcorr.preprocess import load_image, read_size
from sdcorr.types import Encoding, Matches

MEMORY = 2_000_000_000  # bytes of encodings kept, on the device that made them

Symmetric = Mapping[str, Sequence[Sequence[str]]]
_Key = tuple[Path, str | None]  # photo, and what the model is told of it


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


@dataclass
class Tally:
    """How far a prediction has come, and what it took.

    Args:
        before: pairs of the whole run that were done before.
        pairs: to be predicted.
        images: to be encoded for them; one that has to be let go and encoded again counts twice
            in ``encoded``.
        done: pairs predicted or skipped.
        encoded: images encoded.
        encoding: seconds spent on images.
        matching: seconds spent on pairs.
    """

    before: int = 0
    pairs: int = 0
    images: int = 0
    done: int = 0
    encoded: int = 0
    encoding: float = 0.0
    matching: float = 0.0

    def seconds_left(self) -> float | None:
        """Estimate from the images and pairs so far; None before the first pair."""
        if not self.done or not self.encoded:
            return None
        images = max(self.images - self.encoded, 0) * self.encoding / self.encoded
        return images + (self.pairs - self.done) * self.matching / self.done


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
    tally = tally if tally is not None else Tally()
    encodings = _Encodings(pipeline, pairs, told and pipeline.recipe.uses_category, memory, tally)
    tally.pairs, tally.images = len(pairs), encodings.distinct
    for position, pair in enumerate(pairs):
        try:
            source, target = encodings.of_pair(position)
        except BadImage as error:
            if not skip_bad:
                raise
            tally.done += 1
            yield Prediction(pair, None, skipped=str(error))
            continue
        start = time.perf_counter()
        matches = _match(pipeline.fuse(source, target), pair, (symmetric or {}).get(pair.category))
        del source, target  # not held while the next pair's are made
        tally.matching += time.perf_counter() - start
        tally.done += 1
        yield Prediction(pair, matches)


def _match(fused: Fused, pair: Pair, symmetric: Sequence[Sequence[str]] | None) -> Matches:
    """The matches of a pair's source keypoints, then of those that only the source shows."""
    points = torch.from_numpy(np.concatenate([pair.source_keypoints, pair.source_only]))
    points = fused.source.size.clamp(points)
    if not symmetric:
        return fused.match(points)
    ids = (*pair.keypoint_ids, *pair.source_only_ids)
    shown = [couple for couple in symmetric if set(couple) <= set(ids)]
    lone = {end for couple in symmetric for end in couple} - {e for couple in shown for e in couple}
    found = fused.match(dict(zip(ids, points.tolist(), strict=True)), symmetric=shown)
    alone = torch.tensor([name in lone for name in ids])
    return _either(alone, fused.match(points), found) if alone.any() else found


def _either(first: Tensor, one: Matches, other: Matches) -> Matches:
    """Of each point the match in ``one`` where ``first (N,)`` is True, else that in ``other``."""
    order = torch.arange(len(one)) + (~first) * len(one)
    values: dict[str, Any] = {
        item.name: torch.cat([value, getattr(other, item.name)])
        for item in fields(one)
        if isinstance(value := getattr(one, item.name), Tensor)
    }
    return replace(one, **values).select(order)


def by_affinity(pairs: Sequence[Pair]) -> list[Pair]:
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

    def place(pair: Pair) -> tuple[int, int, str]:
        first, second = sorted((index[pair.source], index[pair.target]))
        return categories[pair.category], _interleave(second, first), pair.id

    return sorted(pairs, key=place)


def share(pairs: Sequence[Pair], rank: int, processes: int) -> Sequence[Pair]:
    """The part of one process: a run of neighbours, within one pair as long as any other."""
    return pairs[len(pairs) * rank // processes : len(pairs) * (rank + 1) // processes]


def wrong_photos(pairs: Iterable[Pair]) -> list[str]:
    """What is wrong with the photos, in words, as far as their headers tell."""
    wrong = []
    ends = ((pair.source, pair.source_size, pair.target, pair.target_size) for pair in pairs)
    sizes = {one: None for end in ends for one in (end[:2], end[2:])}
    for photo, annotated in sizes:
        try:
            _check_size(photo, read_size(photo), annotated)
        except BadImage as error:
            wrong.append(str(error))
    return wrong


@dataclass(eq=False)
class _Encodings:
    """Encodings that pairs yet to come need, within a bound.

    The pairs are known ahead, so that the one needed last can be let go first (Belady, 1966).
    """

    pipeline: Pipeline
    pairs: Sequence[Pair]
    told: bool
    memory: int
    tally: Tally
    kept: dict[_Key, Encoding] = field(default_factory=dict, init=False)
    failed: dict[_Key, str] = field(default_factory=dict, init=False)
    uses: dict[_Key, deque[int]] = field(default_factory=dict, init=False)  # by pairs to come

    def __post_init__(self) -> None:
        for position, pair in enumerate(self.pairs):
            for key in self._keys(pair):
                self.uses.setdefault(key, deque()).append(position)

    @property
    def distinct(self) -> int:
        return len(self.uses)

    def of_pair(self, position: int) -> tuple[Encoding, Encoding]:
        """Source and target of a pair; positions must be asked for in order."""
        pair = self.pairs[position]
        source, target = self._keys(pair)
        for key in (source, target):
            self.uses[key].popleft()
        try:
            return self._encode(source, pair.source_size), self._encode(target, pair.target_size)
        finally:
            self._let_go()

    def _keys(self, pair: Pair) -> tuple[_Key, _Key]:
        subject = pair.subject if self.told else None
        return (pair.source, subject), (pair.target, subject)

    def _encode(self, key: _Key, annotated: Size | None) -> Encoding:
        if key in self.failed:
            raise BadImage(self.failed[key])
        if key not in self.kept:
            photo, subject = key
            start = time.perf_counter()
            self.tally.encoded += 1
            try:
                self.kept[key] = self.pipeline.encode(load_image(photo, subject))
            except BadImage as error:
                self.failed[key] = str(error)  # not the error, which holds on to the photo
                raise
            finally:
                self.tally.encoding += time.perf_counter() - start
        _check_size(key[0], self.kept[key].size, annotated)
        return self.kept[key]

    def _let_go(self) -> None:
        for key in [key for key in self.kept if not self.uses[key]]:
            del self.kept[key]
        sizes = {key: _bytes(one) for key, one in self.kept.items()}
        while sum(sizes.values()) > self.memory:
            last = max(sizes, key=lambda key: self.uses[key][0])
            del self.kept[last], sizes[last]


def _bytes(encoding: Encoding) -> int:
    maps = [*encoding.maps.values(), *(encoding.mirrored or {}).values()]
    return sum(one.values.nbytes for one in maps) + encoding.image.pixels.nbytes


def _check_size(photo: Path, actual: Size, annotated: Size | None) -> None:
    if annotated is not None and actual != annotated:
        raise BadImage(
            f"{photo} is {actual.width} x {actual.height} (wide x high), annotated as "
            f"{annotated.width} x {annotated.height}; is it the data set's own copy?"
        )


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
