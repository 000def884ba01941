"""What others published: PCK in percent, with source, mean and sign; none of it was measured here.

``published.json`` beside this module holds the rows. A recipe is named where it does what the row
describes, or comes near; ``note`` says in what it differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

FILE = Path(__file__).with_suffix(".json")
MEANS = {"image": "per image", "point": "per point", "unstated": "mean not stated"}
Percents = Mapping[float, float]  # by alpha


@dataclass(frozen=True)
class ByCategory:
    """A row's numbers by category.

    Args:
        mean: ``"image"`` or ``"point"``, within a category.
        alpha: tolerance.
        values: percent by category.
    """

    mean: str
    alpha: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class PublishedRow:
    """One method on one data set.

    Args:
        dataset: as ``sdcorr eval`` names it.
        part: fields of that data set, such as ``split``, by name.
        method: in words.
        recipe: of sdcorr, None where there is none.
        supervised: whether it was trained on annotated keypoints.
        threshold: whose longer side it is, see ``hits.Rule``.
        strict: ``<`` rather than ``<=``; None where that is not known.
        source: publication.
        note: what a reader must know to compare.
        numbers: percent by alpha, of all pairs, for each mean in ``MEANS``.
        categories: None where they were not published.
    """

    dataset: str
    part: Mapping[str, str]
    method: str
    recipe: str | None
    supervised: bool
    threshold: str
    strict: bool | None
    source: str
    note: str
    numbers: Mapping[str, Percents]
    categories: ByCategory | None


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """All rows, in the order of tables.

    Example:
        >>> row = next(row for row in published_rows() if row.recipe == "sd-dino")
        >>> row.numbers["image"][0.1], row.numbers["point"][0.1]
        (59.9, 64.0)
    """
    return tuple(map(_row, _read()["rows"]))


def published_of(recipe: str, dataset: str = "spair") -> PublishedRow | None:
    """The row that a recipe stands beside; None if there is none.

    Where a data set has several parts, the first.
    """
    fit = (row for row in published_rows() if (row.dataset, row.recipe) == (dataset, recipe))
    return next(fit, None)


def pairs_of(dataset: str) -> int | None:
    """Pairs of the list that a data set's rows are of; None where there is no such list."""
    count: int | None = _read()["pairs"].get(dataset)
    return count


def categories_of(dataset: str) -> frozenset[str]:
    """Categories of a data set that rows name; empty where none does."""
    rows = (row.categories for row in published_rows() if row.dataset == dataset)
    return frozenset(name for found in rows if found is not None for name in found.values)


@cache
def _read() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return value


def _row(line: dict[str, Any]) -> PublishedRow:
    found = line["categories"]
    categories = found and ByCategory(
        found["mean"], float(found["alpha"]), MappingProxyType(found["values"])
    )
    return PublishedRow(
        **{key: line[key] for key in _PLAIN},
        part=MappingProxyType(line["part"]),
        numbers=MappingProxyType({mean: _percents(line[mean]) for mean in MEANS if line[mean]}),
        categories=categories or None,
    )


_PLAIN = (
    "dataset", "method", "recipe", "supervised", "threshold", "strict", "source", "note",
)  # fmt: skip


def _percents(values: dict[str, float]) -> Percents:
    return MappingProxyType({float(alpha): value for alpha, value in values.items()})
