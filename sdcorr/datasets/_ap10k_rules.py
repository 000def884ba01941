"""Which photos of AP-10K are paired, by the rules of its published benchmark.

Zhang et al., "Telling Left from Right" (CVPR 2024), made pairs of AP-10K by these rules, but drew
them at random from folders in the order of a file system. Here a draw is of the lowest SHA-256.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Protocol, TypeVar

import numpy as np

from sdcorr.datasets._ap10k_files import DIGITS, Photo

LEAST = 3  # parts that both photos of a pair show
SEED = 42  # the published one
# the last 30 photos of a species are test, the 20 before them val
SLICES = {"test": slice(-30, None), "val": slice(-50, -30), "trn": slice(None, -50)}
PER_PHOTO = 50  # training pairs of a species, at most, for each of its training photos
MOST = {
    "cross-species": {"test": 900, "val": 400},  # of a family
    "cross-family": {"test": 30, "val": 20},  # of two families
}
PROTOCOLS = ("intra-species", *MOST)

Couple = tuple[Photo, Photo]


class _Animal(Protocol):
    @property
    def species(self) -> str: ...


Animal = TypeVar("Animal", bound=_Animal)


def of_split(photos: Iterable[Animal], split: str) -> list[Animal]:
    """The photos of a split; ``photos`` are sorted by id. A short slice is what there is."""
    species: dict[str, list[Animal]] = {}
    for photo in photos:
        species.setdefault(photo.species, []).append(photo)
    return [photo for name in sorted(species) for photo in species[name][SLICES[split]]]


def category_of(source: Photo, protocol: str) -> str:
    """As tables name a pair: the source's species, or its family where species differ."""
    return source.species if protocol == "intra-species" else source.family


def name_of(couple: Couple, protocol: str) -> str:
    """The id of a pair."""
    source, target = couple
    return f"{source.id:0{DIGITS}}-{target.id:0{DIGITS}}:{category_of(source, protocol)}"


def find_couples(photos: Sequence[Photo], protocol: str, split: str) -> list[Couple]:
    """The pairs of a split's photos, sorted by category and ids; of two, the lower id is source."""
    found: list[Couple] = []
    for group, kinds in _groups(photos, protocol):
        couples = _joint(group, kinds)
        most = _most(len(group), protocol, split)
        if most is not None and len(couples) > most:
            couples = heapq.nsmallest(most, couples, lambda one: _lot(name_of(one, protocol)))
        found += couples
    return sorted(found, key=lambda one: (category_of(one[0], protocol), one[0].id, one[1].id))


def _groups(
    photos: Sequence[Photo], protocol: str
) -> Iterator[tuple[list[Photo], list[str] | None]]:
    """Photos to be paired, sorted by id, and what must differ within a pair."""
    kinds: dict[str, list[Photo]] = {}
    for photo in sorted(photos, key=lambda photo: photo.id):
        kinds.setdefault(category_of(photo, protocol), []).append(photo)
    if protocol == "intra-species":
        yield from ((group, None) for group in kinds.values())
    elif protocol == "cross-species":
        yield from ((group, [photo.species for photo in group]) for group in kinds.values())
    else:
        for one, other in combinations(kinds.values(), 2):
            group = sorted([*one, *other], key=lambda photo: photo.id)
            yield group, [photo.family for photo in group]


def _joint(photos: Sequence[Photo], kinds: Sequence[str] | None) -> list[Couple]:
    """Pairs of N photos that show enough parts both, in order."""
    visible = np.array([photo.visible for photo in photos], np.int64)  # (N, K)
    enough = np.triu(visible @ visible.T >= LEAST, k=1)  # (N, N)
    if kinds is not None:
        names = np.array(kinds)
        enough &= names[:, None] != names
    return [(photos[one], photos[other]) for one, other in np.argwhere(enough).tolist()]


def _most(photos: int, protocol: str, split: str) -> int | None:
    if protocol == "intra-species":
        return PER_PHOTO * photos if split == "trn" else None
    return MOST[protocol][split]


def _lot(name: str) -> bytes:
    return hashlib.sha256(f"{SEED}:{name}".encode()).digest()
