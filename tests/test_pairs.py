from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from sdcorr.errors import BadDataset, UnknownName
from sdcorr.pairs import Pair, Selection, no_points, select

TWO = np.array([[1.0, 2.0], [3.0, 4.0]])


def pair(**changes) -> Pair:
    """A pair of two keypoints and one that only the source shows, with some fields changed."""
    fields = {
        "id": "7-8:cat", "category": "cat", "subject": "cat",
        "source": Path("7.jpg"), "target": Path("8.jpg"), "keypoint_ids": ("ear", "nose"),
        "source_keypoints": TWO, "target_keypoints": TWO + 5, "source_only_ids": ("tail",),
        "source_only": np.array([[9.0, 9.0]]),
    }  # fmt: skip
    return Pair(**(fields | changes))


def some_pairs(**counts: int) -> list[Pair]:
    return [
        pair(id=f"{number}:{category}", category=category)
        for category, count in counts.items()
        for number in range(count)
    ]


def ids(pairs: list[Pair]) -> list[str]:
    return [pair.id for pair in pairs]


def test_points_may_lie_anywhere_and_sizes_boxes_and_source_only_be_absent():
    one = pair(
        source_keypoints=TWO - 100, target_box=(0, 0, 1, 1), source_only_ids=(),
        source_only=no_points(),
    )  # fmt: skip
    assert one.source_keypoints.tolist() == [[-99, -98], [-97, -96]]
    assert (one.source_size, one.target_size, one.difficulty) == (None, None, {})


def test_by_default_nothing_is_seen_by_the_source_alone():
    one = Pair("a-b:cat", "cat", "cat", Path("a"), Path("b"), ("ear", "nose"), TWO, TWO)
    assert one.source_only_ids == ()
    assert one.source_only.shape == (0, 2)


def test_a_pair_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair().category = "dog"


@pytest.mark.parametrize(
    ("changes", "shapes"),
    [
        ({"keypoint_ids": ("ear",)}, r"1 ids and points \(2, 2\), \(2, 2\)"),
        ({"source_keypoints": TWO[:1]}, r"2 ids and points \(1, 2\), \(2, 2\)"),
        ({"target_keypoints": TWO[:1]}, r"2 ids and points \(2, 2\), \(1, 2\)"),
        ({"source_keypoints": np.zeros((2, 3))}, r"2 ids and points \(2, 3\), \(2, 2\)"),
        ({"target_keypoints": np.zeros(2)}, r"2 ids and points \(2, 2\), \(2,\)"),
        (
            {"keypoint_ids": (), "source_keypoints": TWO[:0], "target_keypoints": TWO[:0]},
            r"0 ids and points \(0, 2\), \(0, 2\)",
        ),
    ],
)
def test_ids_and_points_must_be_as_many_and_at_least_one(changes, shapes):
    with pytest.raises(BadDataset, match=f"^pair 7-8:cat: expected as many .*; got {shapes}$"):
        pair(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoint_ids": ("ear", "ear")},
        {"source_only_ids": ("ear",)},
        {"source_only_ids": ("tail", "tail"), "source_only": TWO},
        {"source_only_ids": ("tail", "paw")},
        {"source_only_ids": ()},
        {"source_only": no_points()},
        {"source_only": np.zeros((1, 3))},
    ],
)
def test_a_keypoint_id_stands_once_and_has_a_point(changes):
    with pytest.raises(BadDataset, match=r"^pair 7-8:cat: a keypoint id stands twice, or has no p"):
        pair(**changes)


@pytest.mark.parametrize("field", ["source_keypoints", "target_keypoints", "source_only"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_keypoints_are_finite(field, number):
    points = getattr(pair(), field).copy()
    points[-1, 1] = number
    with pytest.raises(BadDataset, match=r"^pair 7-8:cat: a keypoint is no place in pixels$"):
        pair(**{field: points})


def test_without_a_filter_all_pairs_stay_in_their_order():
    pairs = some_pairs(dog=3, cat=2)
    assert select(pairs, Selection()) == pairs


def test_only_keeps_its_categories_in_the_order_of_the_pairs():
    pairs = some_pairs(dog=2, bird=2, cat=1)
    assert ids(select(pairs, Selection(only=("cat", "dog")))) == ["0:dog", "1:dog", "0:cat"]


def test_an_unknown_category_is_told_what_was_meant():
    message = r"^no category called 'cta'; did you mean 'cat'\? known: bird, cat, dog$"
    with pytest.raises(UnknownName, match=message):
        select(some_pairs(dog=2, bird=2, cat=1), Selection(only=("dog", "cta")))


def test_a_limit_holds_for_each_category_and_keeps_the_order():
    pairs = some_pairs(dog=40, cat=40, bird=2)
    drawn = select(pairs, Selection(limit=5))
    assert [pair.category for pair in drawn] == ["dog"] * 5 + ["cat"] * 5 + ["bird"] * 2
    assert drawn == [pair for pair in pairs if pair in drawn]


def test_a_limit_that_is_not_reached_keeps_all():
    pairs = some_pairs(dog=4, cat=3)
    assert select(pairs, Selection(limit=4)) == pairs


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_pairs_of_lowest_sha256_are_drawn(seed):
    pairs = some_pairs(dog=30, cat=30)
    lots = {one.id: hashlib.sha256(f"{seed}:{one.id}".encode()).hexdigest() for one in pairs}
    expected = {
        name
        for category in ("dog", "cat")
        for name in sorted((n for n in lots if n.endswith(category)), key=lots.get)[:7]
    }
    assert set(ids(select(pairs, Selection(limit=7, seed=seed)))) == expected


def test_a_draw_is_the_same_in_every_release():
    """Digits of sha256sum for 0:0:cat to 0:5:cat: 3dab, 004e, 2218, 5924, 4357, fd31."""
    assert ids(select(some_pairs(cat=6), Selection(limit=2))) == ["1:cat", "2:cat"]


def test_the_same_seed_draws_the_same_and_another_seed_draws_others():
    pairs = some_pairs(dog=40)
    first, again = (ids(select(pairs, Selection(limit=5, seed=3))) for _ in range(2))
    assert first == again
    assert first != ids(select(pairs, Selection(limit=5, seed=4)))


def test_a_draw_does_not_depend_on_the_order_of_the_pairs():
    pairs = some_pairs(dog=40, cat=40)
    mixed = random.Random(0).sample(pairs, len(pairs))
    drawn = select(mixed, Selection(limit=5))
    assert set(ids(drawn)) == set(ids(select(pairs, Selection(limit=5))))
    assert ids(drawn) == [pair.id for pair in mixed if pair in drawn]


def test_a_draw_does_not_depend_on_other_categories():
    pairs = some_pairs(dog=40, cat=40)
    both = ids(select(pairs, Selection(limit=5)))
    cats = ids(select(pairs, Selection(only=("cat",), limit=5)))
    assert cats == [name for name in both if name.endswith("cat")]


def test_a_smaller_draw_is_part_of_a_larger_one():
    pairs = some_pairs(dog=40)
    few, more = (set(ids(select(pairs, Selection(limit=limit)))) for limit in (4, 9))
    assert few < more


def test_a_selection_of_nothing_is_an_error():
    with pytest.raises(BadDataset, match=r"^no pairs are left to evaluate$"):
        select([], Selection())


def test_a_pair_that_is_listed_twice_is_an_error():
    (pair,) = some_pairs(cat=1)
    with pytest.raises(BadDataset, match=f"lists pair {pair.id} 2 times, not once"):
        select([pair, pair], Selection())


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_an_error(limit):
    with pytest.raises(BadDataset, match=f"at least 1 pair a category, got a limit of {limit}"):
        Selection(limit=limit)
