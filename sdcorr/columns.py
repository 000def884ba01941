"""A run's pairs as columns: what records of keypoints and of dense flow have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np

from sdcorr.errors import BadScore
from sdcorr.metrics import Ints

Columns = TypeVar("Columns", bound="PairColumns")
Texts = np.ndarray[Any, np.dtype[np.str_]]


@dataclass(frozen=True, eq=False)
class PairColumns:
    """A run's pairs, skipped ones left out.

    Args:
        pairs: P ids.
        categories: C names, sorted.
        category: ``(P,)`` index into ``categories``.
        source: ``(P,)`` index of the source photo; a photo may be source and target.
        target: ``(P,)`` likewise.
        difficulty: level of each pair, ``(P,)`` text, for each kind of difficulty.
        skipped: reason by id of the pairs that were skipped.
    """

    pairs: tuple[str, ...]
    categories: tuple[str, ...]
    category: Ints
    source: Ints
    target: Ints
    difficulty: dict[str, Texts]
    skipped: dict[str, str]

    @property
    def images(self) -> int:
        """Number of photos that take part."""
        return len(np.union1d(self.source, self.target))

    def sorted_places(self, pairs: Set[str]) -> list[int]:
        """Where some of the pairs stand, sorted by id."""
        places = (index for index, name in enumerate(self.pairs) if name in pairs)
        return sorted(places, key=self.pairs.__getitem__)

    def only(self, pairs: Set[str]) -> Self:
        """The columns of some of the pairs, sorted by id."""
        return self.taken(self.sorted_places(pairs))

    def taken(self, order: Sequence[int], **others: Any) -> Self:
        """The pairs at these places; ``others`` replaces the columns of the kind of record."""
        names, category = np.unique(
            np.array(self.categories)[self.category[order]], return_inverse=True
        )
        return replace(
            self,
            pairs=tuple(self.pairs[index] for index in order),
            categories=tuple(names.tolist()),
            category=category,
            source=self.source[order],
            target=self.target[order],
            difficulty={kind: levels[order] for kind, levels in self.difficulty.items()},
            **others,
        )


def on_common_pairs(first: Columns, second: Columns) -> tuple[Columns, Columns]:
    """Both records of the pairs that both have, in one order; the first with both's skipped.

    Raises:
        BadScore: there is no such pair.
    """
    common = set(first.pairs) & set(second.pairs)
    if not common:
        raise BadScore("the two runs have no pair in common; compare runs on one data set")
    one, other = first.only(common), second.only(common)
    return replace(one, skipped=first.skipped | second.skipped), other


def pair_columns(pairs: Sequence[Mapping[str, Any]], skipped: dict[str, str]) -> dict[str, Any]:
    """The fields of ``PairColumns``, of the lines of ``pairs.jsonl``."""
    categories = sorted({pair["category"] for pair in pairs})
    # a photo that stands in two categories is drawn in each on its own
    photos = sorted({pair[end] for pair in pairs for end in ("source", "target")})
    numbers = {name: index for index, name in enumerate(photos)}
    kinds = sorted({kind for pair in pairs for kind in pair["difficulty"]})
    return {
        "pairs": tuple(pair["pair"] for pair in pairs),
        "categories": tuple(categories),
        "category": np.array([categories.index(pair["category"]) for pair in pairs]),
        "source": np.array([numbers[pair["source"]] for pair in pairs]),
        "target": np.array([numbers[pair["target"]] for pair in pairs]),
        "difficulty": {
            kind: np.array([pair["difficulty"].get(kind, "") for pair in pairs]) for kind in kinds
        },
        "skipped": skipped,
    }
