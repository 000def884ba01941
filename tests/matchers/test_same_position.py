from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

import sdcorr
from sdcorr.matchers.same_position import SamePosition
from sdcorr.pipeline import Pipeline
from sdcorr.types import Similarity

UNREAD = cast(Similarity, None)  # positions need no similarity


@pytest.fixture(scope="module")
def model() -> Pipeline:
    return sdcorr.load("same-position", device="cpu")


def test_each_point_stays_where_it_is():
    points = torch.tensor([[0.0, 0.0], [-0.5, 311.25], [1e6, 1 / 3]], dtype=torch.float64)
    matches = SamePosition()(UNREAD, points)
    assert torch.equal(matches.source, points)
    assert torch.equal(matches.target, points)
    assert matches.matched.tolist() == [True] * 3
    for number in (matches.score, matches.margin, matches.cycle_error, matches.peak):
        assert number.tolist() == [0.0] * 3


def test_numbers_have_the_promised_types():
    matches = SamePosition()(UNREAD, torch.zeros(2, 2, dtype=torch.float64))
    for places in (matches.source, matches.target, matches.cycle_error):
        assert places.dtype == torch.float64
    for number in (matches.score, matches.margin, matches.peak):
        assert number.dtype == torch.float32
    assert matches.matched.dtype == torch.bool


def test_no_points_no_matches():
    matches = SamePosition()(UNREAD, torch.zeros(0, 2, dtype=torch.float64))
    assert len(matches) == 0
    assert matches.target.shape == (0, 2)
    for number in (matches.score, matches.margin, matches.cycle_error, matches.peak):
        assert number.shape == (0,)
    assert matches.matched.shape == (0,)


def test_a_point_may_lie_beyond_a_smaller_target(model: Pipeline, photo: Any, other_photo: Any):
    points = [[10.5, 20.25], [470.5, 312.5], [300, 290]]  # the target is 199 wide, 271 high
    matches = model.match(photo, other_photo, points)
    assert matches.target.tolist() == points
    assert matches.target_image is not None
    assert matches.target_image.size.contains(matches.target).tolist() == [True, False, False]


def test_names_and_empty_lists_go_through(model: Pipeline, photo: Any, other_photo: Any):
    matches = model.match(photo, other_photo, {"eye": (3, 4), "nose": (5, 6)})
    assert matches.names == ("eye", "nose")
    assert matches.target.tolist() == [[3, 4], [5, 6]]
    assert len(model.match(photo, other_photo, [])) == 0


def test_without_points_the_middle_of_the_source_comes(
    model: Pipeline, photo: Any, other_photo: Any
):
    matches = model.match(photo, other_photo)  # 471 wide, 313 high: pixels 0..470 and 0..312
    assert matches.source.tolist() == [[235.0, 156.0]]
    assert matches.target.tolist() == [[235.0, 156.0]]


def test_photos_are_not_looked_at(model: Pipeline, photo: Any):
    points = [[1, 2], [100, 200]]
    expected = model.match(photo, photo, points)
    found = model.match(photo, np.zeros_like(photo), points)
    assert torch.equal(found.target, expected.target)
    assert torch.equal(found.score, expected.score)
