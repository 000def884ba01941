"""The published rows hold together; that they are true is for the reader of their sources."""

from __future__ import annotations

import json
from statistics import mean

import pytest

from sdcorr import recipes
from sdcorr.published import (
    FILE,
    MEANS,
    PublishedRow,
    categories_of,
    pairs_of,
    published_of,
    published_rows,
)

ROWS = published_rows()
SPAIR = [row for row in ROWS if row.dataset == "spair"]


def test_every_line_of_the_file_is_read():
    lines = json.loads(FILE.read_text(encoding="utf-8"))["rows"]
    assert len(ROWS) == len(lines)
    for row, line in zip(ROWS, lines, strict=True):
        assert {kind: {f"{a:g}": v for a, v in row.numbers[kind].items()} for kind in row.numbers} \
            == {kind: line[kind] for kind in MEANS if line[kind]}  # fmt: skip
        assert (row.categories is None) == (not line["categories"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.dataset} {row.method}")
def test_a_row_says_what_it_is(row: PublishedRow):
    assert row.numbers
    assert row.source
    assert row.method
    assert row.threshold in ("box", "keypoints", "image")
    assert row.recipe is None or row.recipe in recipes.RECIPES
    assert not (row.supervised and row.recipe)
    for values in row.numbers.values():
        assert list(values) == sorted(values)
        assert list(values.values()) == sorted(values.values())  # PCK rises with alpha
        assert all(0 < alpha < 1 and 1 < value < 100 for alpha, value in values.items())


def test_a_recipe_has_one_row_in_a_part_of_a_data_set():
    keys = [(row.dataset, *row.part.values(), row.recipe) for row in ROWS if row.recipe]
    assert len(set(keys)) == len(keys)


def test_methods_of_a_part_have_different_names():
    keys = [(row.dataset, *row.part.values(), row.method) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_pooled_numbers_lie_among_those_of_the_categories():
    found = [row for row in ROWS if row.categories is not None]
    assert len(found) == 7
    for row in found:
        values = row.categories.values.values()
        pooled = row.numbers[row.categories.mean][row.categories.alpha]
        assert min(values) < pooled < max(values)
        assert len(values) == {"spair": 18, "tss": 3}[row.dataset]


def test_the_average_of_tss_is_weighted_by_pairs():
    """195, 81 and 124 pairs; the averages were published with one decimal."""
    for row in ROWS:
        if row.dataset == "tss":
            parts = row.categories.values
            pooled = 195 * parts["FG3DCar"] + 81 * parts["JODS"] + 124 * parts["PASCAL"]
            assert pooled / 400 == pytest.approx(row.numbers["image"][0.05], abs=0.11)


def test_per_point_differs_from_the_mean_of_the_categories():
    """A check of the columns: the two means of SPair-71k lie within two points of each other."""
    for row in SPAIR:
        if row.categories is not None:
            assert mean(row.categories.values.values()) == pytest.approx(
                row.numbers["point"][0.1], abs=2.5
            )


def test_the_rows_that_readers_look_for():
    assert published_of("sd-dino").numbers["image"] == {0.01: 7.9, 0.05: 44.7, 0.1: 59.9}
    assert published_of("dinov2-b", "pf-pascal").numbers["unstated"][0.1] == 77.3
    assert published_of("dift").strict is False
    assert published_of("sift") is None
    assert pairs_of("spair") == 12_234
    assert pairs_of("ap10k") is None
    assert pairs_of("mine") is None
    assert len(categories_of("spair")) == 18
    assert categories_of("tss") == {"FG3DCar", "JODS", "PASCAL"}
    assert categories_of("mine") == frozenset()
    assert {row.dataset for row in ROWS} == {"spair", "pf-pascal", "pf-willow", "tss", "ap10k"}
    assert sum(row.supervised for row in SPAIR) == 3
