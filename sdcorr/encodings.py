"""Encodings of many photos: one after another, or as annotated pairs need them, each made once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from sdcorr.ahead import ahead
from sdcorr.errors import BadImage
from sdcorr.geometry import Size
from sdcorr.pairs import PhotoPair
from sdcorr.pipeline import Pipeline
from sdcorr.preprocess import load_image
from sdcorr.types import Encoding, FeatureMap, Image

LOOK = 64  # pairs; as far ahead photos are looked for that can be encoded together

Key = tuple[Path, str | None]  # photo, and what the model is told of it


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


@dataclass(eq=False)
class Encodings:
    """Encodings that pairs yet to come need, within a bound.

    The pairs are known ahead: photos needed soon are encoded together, those after them are read
    meanwhile, and the one needed last can be let go first (Belady, 1966).

    Args:
        pipeline: a loaded recipe.
        pairs: in the order in which they are asked for.
        told: tell the model each pair's subject.
        memory: bytes of encodings kept for later pairs; a few photos that are read ahead come
            on top.
        tally: counts as the work goes on.
        reader: reads photos in the background.
    """

    pipeline: Pipeline
    pairs: Sequence[PhotoPair]
    told: bool
    memory: int
    tally: Tally
    reader: ThreadPoolExecutor
    _kept: dict[Key, Encoding] = field(default_factory=dict, init=False)
    _failed: dict[Key, str] = field(default_factory=dict, init=False)
    _read: dict[Key, Future[Image]] = field(default_factory=dict, init=False)
    _uses: dict[Key, deque[int]] = field(default_factory=dict, init=False)  # by pairs to come

    def __post_init__(self) -> None:
        for position, pair in enumerate(self.pairs):
            for key in self._keys(pair):
                self._uses.setdefault(key, deque()).append(position)

    @property
    def distinct(self) -> int:
        """Photos of all pairs; one of which the model is told two things counts twice."""
        return len(self._uses)

    def of_pair(self, position: int) -> tuple[Encoding, Encoding]:
        """Source and target of a pair; positions must be asked for in order.

        Raises:
            BadImage: a photo cannot be read, or has another size than annotated.
        """
        pair = self.pairs[position]
        source, target = self._keys(pair)
        for key in (source, target):
            self._uses[key].popleft()
        try:
            first = self._get(position, source, pair.source_size)
            return first, self._get(position, target, pair.target_size)
        finally:
            self._let_go()

    def _keys(self, pair: PhotoPair) -> tuple[Key, Key]:
        subject = pair.subject if self.told else None
        return (pair.source, subject), (pair.target, subject)

    def _get(self, position: int, key: Key, annotated: Size | None) -> Encoding:
        if key not in self._kept and key not in self._failed:
            start = time.perf_counter()
            self._encode(position, max(1, min(self.pipeline.runtime.photos, self._room())))
            self.tally.encoding += time.perf_counter() - start
        if key in self._failed:
            raise BadImage(self._failed[key])
        check_size(key[0], self._kept[key].size, annotated)
        return self._kept[key]

    def _encode(self, position: int, together: int) -> None:
        """Encode photos that this pair and the next lack; those after them are read meanwhile."""
        missing = list(islice(self._missing(position), together + self.pipeline.runtime.photos))
        for key in missing:
            if key not in self._read:
                self._read[key] = self.reader.submit(load_image, *key)
        images: dict[Key, Image] = {}
        for key in missing[:together]:
            self.tally.encoded += 1
            try:
                images[key] = self._read.pop(key).result()
            except BadImage as error:
                self._failed[key] = str(error)  # not the error, which holds on to the photo
        if images:
            self._keep(images)

    def _keep(self, images: dict[Key, Image]) -> None:
        """Encode photos together, and note those that the recipe cannot take."""
        encodings = _encode_some(self.pipeline, list(images.values()))
        for key, encoding in zip(images, encodings, strict=True):
            if isinstance(encoding, BadImage):
                self._failed[key] = str(encoding)
            else:
                self._kept[key] = encoding

    def _missing(self, position: int) -> Iterator[Key]:
        """Photos to encode for this pair and the next ones, in order, each once."""
        pairs = islice(self.pairs, position, position + LOOK)
        keys = dict.fromkeys(key for pair in pairs for key in self._keys(pair))
        return (key for key in keys if key not in self._kept and key not in self._failed)

    def _room(self) -> int:
        """Encodings that fit beside those kept; 0 as long as none tells how large they are."""
        sizes = [_bytes(one) for one in self._kept.values()]
        return (self.memory - sum(sizes)) // max(sizes) if sizes else 0

    def _let_go(self) -> None:
        for key in [key for key in self._kept if not self._uses[key]]:
            del self._kept[key]
        by_need = sorted(self._kept, key=lambda key: self._uses[key][0], reverse=True)
        held = sum(map(_bytes, self._kept.values()))
        for key in by_need:  # moments first: they cost the least to compute again
            if held > self.memory:
                held -= _bytes(self._kept[key])
                for one in _maps(self._kept[key]):
                    one.forget_moments()
                held += _bytes(self._kept[key])
        for key in by_need:
            if held > self.memory:
                held -= _bytes(self._kept.pop(key))


def encode_each(
    pipeline: Pipeline, photos: Sequence[Path], category: str | None = None, mirrored: bool = True
) -> Iterator[Encoding | BadImage]:
    """Each photo's encoding, in order, or why it has none; the next photos are read meanwhile.

    Args:
        pipeline: a loaded recipe.
        photos: files, in any number; a few are held at a time.
        category: what all of them show.
        mirrored: see ``Pipeline.encode_batch``.

    Raises:
        NotFinite, OutOfMemory: see ``Pipeline.encode``.
    """

    def read(photo: Path) -> Image | BadImage:
        try:
            return load_image(photo, category)
        except BadImage as error:
            return BadImage(str(error))  # not the error, which holds on to the photo

    together = pipeline.runtime.photos
    waiting = ahead(read, photos, depth=together)
    while some := list(islice(waiting, together)):
        images = [one for one in some if isinstance(one, Image)]
        encodings = iter(_encode_some(pipeline, images, mirrored))
        yield from (next(encodings) if isinstance(one, Image) else one for one in some)
        del some, images, encodings  # not held while the next are made


def _encode_some(
    pipeline: Pipeline, images: Sequence[Image], mirrored: bool = True
) -> list[Encoding | BadImage]:
    """Encode photos together; where the recipe cannot take one of them, each on its own."""
    try:
        return list(pipeline.encode_batch(images, mirrored=mirrored)) if images else []
    except BadImage as error:
        if len(images) == 1:
            return [BadImage(str(error))]
        return [one for image in images for one in _encode_some(pipeline, [image], mirrored)]


def check_size(photo: Path, actual: Size, annotated: Size | None) -> None:
    """Raise BadImage where a photo has another size than annotated."""
    if annotated is not None and actual != annotated:
        swapped = actual == annotated[::-1]
        why = "annotated before EXIF turned it" if swapped else "the annotated copy"
        raise BadImage(
            f"{photo} is {actual.width} x {actual.height} (wide x high), annotated as "
            f"{annotated.width} x {annotated.height}; is it {why}?"
        )


def _bytes(encoding: Encoding) -> int:
    return sum(one.nbytes for one in _maps(encoding)) + encoding.image.pixels.nbytes


def _maps(encoding: Encoding) -> list[FeatureMap]:
    return [*encoding.maps.values(), *(encoding.mirrored or {}).values()]
