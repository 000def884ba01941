"""Keypoints by the vote of references: the rule against a slow loop, and photos whose keypoints
are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

import sdcorr
from examples import turned_photo
from sdcorr.annotations import Reference, References, Scheme
from sdcorr.backbones.constant import Constant
from sdcorr.backbones.sift import Sift
from sdcorr.errors import BadAnnotations, BadImage
from sdcorr.evaluation import match_shown
from sdcorr.geometry import Size
from sdcorr.pipeline import Pipeline
from sdcorr.recipes import find_recipe
from sdcorr.transfer import MOST, REACH, TINY, Annotator, Labels, gather, vote
from sdcorr.types import Encoding, Matches
from tests.annotated import draw_photo

PHOTO = Size(height=80, width=100)  # reach: 5 px


# The vote


def slow_vote(places: Tensor, weight: Tensor, reach: float) -> tuple[list[Any], list[list[float]]]:
    """The docstring as loops: the place with most weight around it, moved once to the mean."""
    found, agreement = [], [[math.nan] * weight.shape[1] for _ in weight]

    def near(one: Sequence[float], other: Sequence[float]) -> float:
        return math.exp(-(math.dist(one, other) ** 2) / (2 * reach**2))

    for k in range(weight.shape[1]):
        votes = [(places[r, k].tolist(), weight[r, k].item()) for r in range(len(weight))]
        best, start = -1.0, None
        for place, own in votes:
            around = sum(other * near(place, there) for there, other in votes)
            if own > 0 and around > best:
                best, start = around, place
        if start is None:
            found.append([math.nan, math.nan])
            continue
        shares = [own * near(place, start) for place, own in votes]
        middle = [
            sum(share * place[axis] for share, (place, _) in zip(shares, votes, strict=True))
            / sum(shares)
            for axis in (0, 1)
        ]
        found.append(middle)
        for r, (place, _) in enumerate(votes):
            agreement[r][k] = near(place, middle)
    return found, agreement


def slow_gather(
    found: Sequence[Matches], visible: Tensor, size: Size
) -> tuple[list[Any], list[float], list[float] | None, list[bool]]:
    """Place, score, confidence and matched of each keypoint, one after the other, as loops."""
    places, scores, confidences, every_matched = [], [], [], []
    calibrated = all(one.confidence is not None for one in found)
    for k in range(visible.shape[1]):
        votes = []  # place, score, confidence, matched of each reference that shows it
        for one, shown in zip(found, visible, strict=True):
            if shown[k]:
                index = int(shown[:k].sum())
                sure = one.confidence[index].item() if calibrated else None
                matched = one.matched[index].item()
                votes.append((one.target[index], one.score[index].item(), sure, matched))
        shown_by = len(votes)
        every_matched.append(any(matched for *_, matched in votes))
        if every_matched[-1]:
            votes = [vote for vote in votes if vote[-1]]
        if not votes:
            places.append([math.nan, math.nan])
            scores.append(math.nan)
            confidences.append(math.nan)
            continue
        weights = [(max(score, 0) if sure is None else sure) + TINY for _, score, sure, _ in votes]
        where = torch.stack([place for place, *_ in votes])[:, None]
        reach = 0.05 * max(size.height, size.width)
        (middle,), agreement = slow_vote(
            where, torch.tensor(weights, dtype=torch.float64)[:, None], reach
        )
        shares = [weight * agree for weight, (agree,) in zip(weights, agreement, strict=True)]
        every = zip(shares, votes, strict=True)
        scores.append(sum(share * score for share, (_, score, *_) in every) / sum(shares))
        places.append(middle)
        if calibrated:
            doubts = [
                1 - agree * sure for (agree,), (_, _, sure, _) in zip(agreement, votes, strict=True)
            ]
            confidences.append(1 - math.prod(doubts) ** (1 / math.sqrt(shown_by)))
    return places, scores, confidences if calibrated else None, every_matched


def matches(target: Any, score: Any = None, confidence: Any = None, matched: Any = None) -> Matches:
    places = torch.as_tensor(target, dtype=torch.float64).reshape(-1, 2)
    count = len(places)
    nothing = torch.zeros(count)
    return Matches(
        places,
        places,
        torch.full((count,), 0.5) if score is None else torch.as_tensor(score).float(),
        nothing,
        nothing.double(),
        nothing,
        torch.ones(count, dtype=torch.bool) if matched is None else torch.as_tensor(matched),
        None if confidence is None else torch.as_tensor(confidence).float(),
    )


def random_votes(
    seed: int, references: int = 7, keypoints: int = 6, calibrated: bool = True
) -> tuple[list[Matches], Tensor]:
    """Around a few places, with outliers, rejected matches, and keypoints that some do not show."""
    draw = torch.Generator().manual_seed(seed)
    visible = torch.rand(references, keypoints, generator=draw) < 0.7
    visible[:, 1] = False
    visible[0, 0] = True
    centres = torch.rand(keypoints, 2, generator=draw).double() * 70 + 5
    found = []
    for shown in visible:
        count = int(shown.sum())
        spread = torch.randn(count, 2, generator=draw).double() * 4
        outlier = torch.rand(count, 1, generator=draw) < 0.3
        elsewhere = torch.rand(count, 2, generator=draw).double() * 80
        found.append(
            matches(
                torch.where(outlier, elsewhere, centres[shown] + spread),
                torch.rand(count, generator=draw) * 1.4 - 0.4,
                torch.rand(count, generator=draw) if calibrated else None,
                torch.rand(count, generator=draw) < 0.6,
            )
        )
    return found, visible


def assert_alike(one: Labels, other: Labels) -> None:
    """Up to the order in which floats are added."""
    torch.testing.assert_close(one.places, other.places, rtol=0, atol=1e-9, equal_nan=True)
    torch.testing.assert_close(one.score, other.score, rtol=0, atol=1e-6, equal_nan=True)
    assert torch.equal(one.matched, other.matched)
    assert (one.confidence is None) == (other.confidence is None)
    if one.confidence is not None:
        torch.testing.assert_close(
            one.confidence, other.confidence, rtol=0, atol=1e-6, equal_nan=True
        )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("reach", [0.5, 5.0, 50.0])
def test_the_vote_agrees_with_a_slow_loop(seed, reach):
    draw = torch.Generator().manual_seed(seed)
    places = torch.rand(8, 9, 2, generator=draw).double() * 40
    weight = torch.rand(8, 9, generator=draw).double()
    weight[torch.rand(8, 9, generator=draw) < 0.4] = 0
    weight[:, 2] = 0
    expected, agreement = slow_vote(places, weight, reach)
    found = vote(places, weight, reach)
    for one, other in zip(found, (expected, agreement), strict=True):
        torch.testing.assert_close(
            one, torch.tensor(other, dtype=torch.float64), rtol=0, atol=1e-9, equal_nan=True
        )
    assert found[0].isnan()[:, 0].tolist() == [k == 2 for k in range(9)]


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_labels_agree_with_a_slow_loop(seed, calibrated):
    found, visible = random_votes(seed, calibrated=calibrated)
    size = Size(*[(80, 100), (100, 80), (400, 90)][seed % 3])
    labels = gather(found, visible, size)
    places, scores, confidences, matched = slow_gather(found, visible, size)
    assert labels.places.dtype == torch.float64
    expected = torch.tensor(places, dtype=torch.float64)
    torch.testing.assert_close(labels.places, expected, rtol=0, atol=1e-9, equal_nan=True)
    torch.testing.assert_close(
        labels.score, torch.tensor(scores), rtol=0, atol=1e-6, equal_nan=True
    )
    assert labels.matched.tolist() == matched
    assert labels.size == size
    if not calibrated:
        assert labels.confidence is None
    else:
        torch.testing.assert_close(
            labels.confidence, torch.tensor(confidences), rtol=0, atol=1e-6, equal_nan=True
        )


def test_the_constants_by_hand():
    assert (REACH, TINY) == (0.05, 1e-6)


def test_the_vote_by_hand():
    """Of 0, 3 and 100 px, at a reach of 3: 0 and 3 have exp(-1/2) of the other around them, as much
    as each other, so the first is moved to their mean, where the nearer counts 1."""
    places = torch.tensor([[[0.0, 7.0]], [[3.0, 7.0]], [[100.0, 7.0]]]).double()
    place, agreement = vote(places, torch.ones(3, 1).double(), 3.0)
    half = math.exp(-1 / 2)
    x = 3 * half / (1 + half)
    assert place.tolist() == [[pytest.approx(x), 7.0]]
    assert agreement[:, 0].tolist() == pytest.approx(
        [math.exp(-(x**2) / 18), math.exp(-((3 - x) ** 2) / 18), 0]
    )


def test_of_two_that_disagree_the_heavier_one_wins_whole():
    places = torch.tensor([[[0.0, 7.0]], [[90.0, 7.0]]]).double()
    for weight, x in (([1.0, 0.9], 0), ([0.9, 1.0], 90), ([1.0, 1.0], 0)):  # ties go to the first
        place, _ = vote(places, torch.tensor(weight, dtype=torch.float64)[:, None], 3.0)
        assert place.tolist() == [[pytest.approx(x, abs=1e-9), 7.0]]


def test_a_vote_of_no_weight_has_no_say():
    draw = torch.Generator().manual_seed(0)
    places = torch.rand(6, 3, 2, generator=draw).double() * 10
    weight = torch.rand(6, 3, generator=draw).double()
    weight[4:] = 0
    place, agreement = vote(places, weight, 5.0)
    fewer, of_fewer = vote(places[:4], weight[:4], 5.0)
    torch.testing.assert_close(place, fewer, rtol=0, atol=1e-12)
    torch.testing.assert_close(agreement[:4], of_fewer, rtol=0, atol=1e-12)
    places[4:] = places[:1]  # nor does it lend weight to whom it agrees with
    assert torch.equal(vote(places, weight, 5.0)[0], place)


@pytest.mark.parametrize("factor", [1e-5, 0.5, 7.0, 1e5])
def test_only_the_proportions_of_weights_count(factor):
    draw = torch.Generator().manual_seed(1)
    places = torch.rand(6, 5, 2, generator=draw).double() * 20
    weight = torch.rand(6, 5, generator=draw).double()
    for one, other in zip(
        vote(places, weight, 4.0), vote(places, factor * weight, 4.0), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_votes_that_agree_are_not_moved():
    draw = torch.Generator().manual_seed(2)
    places = torch.rand(1, 5, 2, generator=draw).double().expand(4, 5, 2) * 100
    place, agreement = vote(places, torch.rand(4, 5, generator=draw).double(), 5.0)
    torch.testing.assert_close(place, places[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(agreement, torch.ones(4, 5).double())


def test_the_vote_moves_with_its_places_and_grows_with_them():
    draw = torch.Generator().manual_seed(3)
    places = torch.rand(6, 5, 2, generator=draw).double() * 20
    weight = torch.rand(6, 5, generator=draw).double()
    place, agreement = vote(places, weight, 4.0)
    shift = torch.tensor([30.0, -4.0]).double()
    moved, alike = vote(3 * places + shift, weight, 12.0)
    torch.testing.assert_close(moved, 3 * place + shift)
    torch.testing.assert_close(alike, agreement)


# Labels, made of matches


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_single_reference_is_copied(calibrated):
    """To float32, in which scores and confidences come; rejected and unlikely ones, too."""
    draw = torch.Generator().manual_seed(4)
    one = matches(
        torch.rand(50, 2, generator=draw).double() * 80,
        torch.rand(50, generator=draw) * 2 - 1,
        torch.cat([torch.rand(48, generator=draw), torch.tensor([0.0, 1.0])])
        if calibrated
        else None,
        torch.rand(50, generator=draw) < 0.5,
    )
    labels = gather([one], torch.ones(1, 50, dtype=torch.bool), PHOTO)
    torch.testing.assert_close(labels.places, one.target, rtol=1e-14, atol=0)
    torch.testing.assert_close(labels.score, one.score, rtol=1e-6, atol=0)
    assert torch.equal(labels.matched, one.matched)
    assert (labels.score.dtype, labels.matched.dtype) == (torch.float32, torch.bool)
    if calibrated:
        torch.testing.assert_close(labels.confidence, one.confidence, rtol=0, atol=1e-7)
        assert labels.confidence.dtype == torch.float32
    else:
        assert labels.confidence is None


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_references_does_not_matter(seed, calibrated):
    found, visible = random_votes(seed, calibrated=calibrated)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    turned = gather([found[index] for index in order.tolist()], visible[order], PHOTO)
    assert_alike(turned, gather(found, visible, PHOTO))


def test_the_order_of_keypoints_does_not_matter():
    found, visible = random_votes(5)
    places, scores, confidences, matched = (
        torch.full((*visible.shape, *values[0].shape[1:]), -5, dtype=values[0].dtype)
        for values in zip(
            *((one.target, one.score, one.confidence, one.matched) for one in found), strict=True
        )
    )
    for row, (one, shown) in enumerate(zip(found, visible, strict=True)):
        places[row, shown], scores[row, shown] = one.target, one.score
        confidences[row, shown], matched[row, shown] = one.confidence, one.matched
    order = torch.randperm(visible.shape[1], generator=torch.Generator().manual_seed(6))
    turned = [
        matches(*(values[row, order][visible[row, order]] for values in every))
        for every in [(places, scores, confidences, matched)]
        for row in range(len(found))
    ]
    labels, expected = gather(turned, visible[:, order], PHOTO), gather(found, visible, PHOTO)
    wanted = Labels(
        expected.places[order], expected.score[order], expected.confidence[order],
        expected.matched[order], PHOTO,
    )  # fmt: skip
    assert_alike(labels, wanted)


@pytest.mark.parametrize("count", [2, 4, 9])
def test_references_that_agree_are_as_sure_as_the_root_of_their_number(count):
    """1 - (1 - c) ** (R / sqrt(R)): four of 0.5 are 0.75."""
    one = matches([[10, 20], [30, 40]], [0.25, -0.5], [0.5, 0.0])
    labels = gather([one] * count, torch.ones(count, 2, dtype=torch.bool), PHOTO)
    torch.testing.assert_close(labels.places, one.target, rtol=1e-14, atol=0)
    assert labels.score.tolist() == pytest.approx([0.25, -0.5])
    assert labels.confidence.tolist() == pytest.approx([1 - 0.5 ** math.sqrt(count), 0])
    if count == 4:
        assert labels.confidence[0].item() == pytest.approx(0.75)


def test_references_that_disagree_take_confidence_from_each_other():
    """A second one, elsewhere, has its say in the root alone: 1 - 0.2 ** (1 / sqrt(2))."""
    found = [matches([[10, 20]], [0.9], [0.8]), matches([[90, 20]], [0.1], [0.3])]
    labels = gather(found, torch.ones(2, 1, dtype=torch.bool), PHOTO)
    assert labels.places.tolist() == [[pytest.approx(10), 20]]
    assert labels.score.item() == pytest.approx(0.9)
    assert labels.confidence.item() == pytest.approx(1 - 0.2 ** (1 / math.sqrt(2)))
    assert labels.confidence.item() < 0.8


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_minority_far_off_is_ignored(calibrated):
    """Not averaged: two of seven, 60 px off at a reach of 5, move nothing."""
    draw = torch.Generator().manual_seed(7)
    near = 20 + torch.randn(5, 2, generator=draw).double()
    far = torch.tensor([[80.0, 20], [20, 79]]).double()
    found = [
        matches(place, [0.5], [0.5] if calibrated else None) for place in torch.cat([near, far])
    ]
    labels = gather(found, torch.ones(7, 1, dtype=torch.bool), PHOTO)
    without = gather(found[:5], torch.ones(5, 1, dtype=torch.bool), PHOTO)
    torch.testing.assert_close(labels.places, without.places, rtol=0, atol=1e-9)
    assert (near.amin(dim=0) < labels.places[0]).all()
    assert (labels.places[0] < near.amax(dim=0)).all()


def test_a_vote_weighs_as_its_match_is_confident_or_scores():
    """Of two that disagree, the surer wins, whatever it scores; uncalibrated, what scores more."""
    ends = [[10, 20]], [[90, 20]]
    sure = [matches(ends[0], [0.9], [0.2]), matches(ends[1], [0.1], [0.6])]
    visible = torch.ones(2, 1, dtype=torch.bool)
    assert gather(sure, visible, PHOTO).places.tolist() == [[90, 20]]
    assert gather(sure, visible, PHOTO).score.item() == pytest.approx(0.1)
    plain = [replace(one, confidence=None) for one in sure]
    assert gather(plain, visible, PHOTO).places.tolist() == [[10, 20]]


def test_votes_of_no_confidence_and_below_zero_still_have_a_place():
    """Alike, as it were: their place is the mean of those that agree."""
    ends = [matches([[10, 20]], [-0.5], [0.0]), matches([[11, 20]], [-0.9], [0.0])]
    visible = torch.ones(2, 1, dtype=torch.bool)
    for found in (ends, [replace(one, confidence=None) for one in ends]):
        labels = gather(found, visible, PHOTO)
        # exp(-1/50) / (1 + exp(-1/50)) of a pixel
        assert labels.places[0].tolist() == pytest.approx([10.495, 20], abs=1e-3)
        assert -0.9 < labels.score.item() < -0.5
    assert gather(ends, visible, PHOTO).confidence.item() == 0


def test_confidence_outweighs_what_has_none():
    """A vote without any weighs a millionth; it is there for lack of others."""
    found = [matches([[10, 20]], confidence=[0.0]), matches([[12, 20]], confidence=[0.5])]
    labels = gather(found, torch.ones(2, 1, dtype=torch.bool), PHOTO)
    assert labels.places[0].tolist() == pytest.approx([12, 20], abs=1e-5)


def test_what_no_reference_shows_has_no_place():
    visible = torch.tensor([[True, False, True], [True, False, False]])
    for sure in (True, False):
        found = [
            matches([[10, 20], [30, 40]], confidence=[0.5, 0.25] if sure else None),
            matches([[10, 20]], confidence=[0.5] if sure else None),
        ]
        labels = gather(found, visible, PHOTO)
        assert labels.places.isnan().tolist() == [[False] * 2, [True] * 2, [False] * 2]
        assert labels.score.isnan().tolist() == [False, True, False]
        assert labels.matched.tolist() == [True, False, True]
        assert labels.places[2].tolist() == [30, 40]
        if sure:
            assert labels.confidence.isnan().tolist() == [False, True, False]
            # shown by one alone, it is as sure as that one; by two that agree, surer
            assert labels.confidence[2].item() == pytest.approx(0.25)
            assert labels.confidence[0].item() == pytest.approx(1 - 0.5 ** math.sqrt(2))


def test_a_reference_speaks_for_what_it_shows_alone():
    """The third keypoint of one and the first of the other, each in its own column."""
    found = [matches([[30, 31], [50, 51]]), matches([[10, 11], [40, 41]])]
    visible = torch.tensor([[False, False, True, False, True], [True, False, False, True, False]])
    labels = gather(found, visible, PHOTO)
    assert labels.places[[0, 2, 3, 4]].tolist() == [[10, 11], [30, 31], [40, 41], [50, 51]]
    assert labels.places[1].isnan().all()


def test_rejected_matches_count_only_where_there_is_no_other():
    """Two that are sure of the wrong place are rejected: a third is followed. Where all are
    rejected, they vote, and the keypoint is not matched."""
    wrong = matches([[90, 20], [50, 50]], [0.9, 0.9], [0.9, 0.5], [False, False])
    right = matches([[10, 20], [50, 50]], [0.1, 0.3], [0.2, 0.5], [True, False])
    found, visible = [wrong, wrong, right], torch.ones(3, 2, dtype=torch.bool)
    labels = gather(found, visible, PHOTO)
    assert labels.places.flatten().tolist() == pytest.approx([10, 20, 50, 50])
    assert labels.matched.tolist() == [True, False]
    assert labels.score.tolist() == pytest.approx([0.1, 0.7])
    # rejected ones add nothing, but are among the three that were asked
    assert labels.confidence.tolist() == pytest.approx(
        [1 - 0.8 ** (1 / math.sqrt(3)), 1 - 0.5 ** math.sqrt(3)]
    )
    plain = gather([replace(one, confidence=None) for one in found], visible, PHOTO)
    assert plain.places.flatten().tolist() == pytest.approx([10, 20, 50, 50])


@pytest.mark.parametrize("size", [Size(400, 1000), Size(1000, 400)])
def test_reach_is_a_twentieth_of_the_longer_side(size):
    """Two places 50 px apart agree by exp(-1/2) where that is 50 px, and not at all in a photo of
    100 px; a photo ten times as large, with places ten times as far apart, is the same."""
    visible = torch.ones(2, 1, dtype=torch.bool)
    found = [matches([[10, 20]], confidence=[0.5]), matches([[60, 20]], confidence=[0.5])]
    share = math.exp(-1 / 2)
    middle = 10 + 50 * share / (1 + share)
    labels = gather(found, visible, size)
    assert labels.places.tolist() == [[pytest.approx(middle, abs=1e-4), 20]]
    (alone,) = gather(found, visible, PHOTO).places.tolist()
    assert alone == [10, 20]
    tenth = [replace(one, target=one.target / 10) for one in found]
    small = gather(tenth, visible, Size(size.height // 10, size.width // 10))
    torch.testing.assert_close(small.places * 10, labels.places)
    torch.testing.assert_close(small.confidence, labels.confidence)


# The annotator


class Told:
    """A pipeline that remembers what it is asked to encode."""

    def __init__(self, model: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoded: list[str] = []
        self.categories: set[str | None] = set()
        self._encode = model.encode_batch
        monkeypatch.setattr(model, "encode_batch", self.encode_batch)

    def encode_batch(
        self, photos: Sequence[Any], category: str | None = None, **fields: Any
    ) -> list[Encoding]:
        found = self._encode(photos, category, **fields)
        self.encoded += [one.image.path.name if one.image.path else "" for one in found]
        self.categories |= {one.image.category for one in found}
        return found


(GROUP,) = find_recipe("sift").groups
NAMES = ("right eye", "left eye", "mouth")
EYES = [[205.0, 104.0], [247.0, 110.0], [228.0, 148.0]]  # of the astronaut


def scheme(names: Sequence[str] = NAMES, symmetric: Any = (), name: str = "person") -> Scheme:
    pairs = tuple(map(tuple, symmetric))
    category = {"id": 1, "name": name, "keypoints": list(names)}
    return Scheme(category | {"symmetric": [list(pair) for pair in pairs]}, tuple(names), pairs)


def reference(
    photo: Path, points: Any, visible: Sequence[bool] | None = None, size: Size | None = None
) -> Reference:
    places = torch.as_tensor(points, dtype=torch.float64).reshape(-1, 2)
    shown = torch.ones(len(places), dtype=torch.bool)
    shown = shown if visible is None else torch.tensor(visible)
    return Reference(1, photo, size, places, shown)


FACE = scheme()


def references(*objects: Reference, scheme: Scheme = FACE) -> References:
    return References(scheme, objects, "digest")


@pytest.fixture(scope="module")
def sift() -> Pipeline:
    return sdcorr.load("sift", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def small() -> Pipeline:
    """Quicker: 30 x 30 cells."""
    group = replace(GROUP, backbone=Sift(size=240))
    return sdcorr.load(replace(find_recipe("sift"), groups=(group,)), device="cpu")


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> tuple[Pipeline, Told]:
    """Recipe ``same-position``: each keypoint at its own pixel, whatever the photo."""
    model = sdcorr.load("same-position", device="cpu")
    return model, Told(model, monkeypatch)


@pytest.fixture(scope="module")
def portrait() -> Path:
    return turned_photo.PHOTO


@pytest.fixture(scope="module")
def faces(sift: Pipeline, portrait: Path) -> Annotator:
    return Annotator(sift, references(reference(portrait, EYES, size=Size(512, 512))))


def test_keypoints_of_the_reference_itself_are_found_within_a_cell(faces, portrait):
    """The centre of a cell is at most half a cell off in x and in y; SIFT's is 512 / 60 px."""
    labels = faces(portrait)
    assert (labels.places - torch.tensor(EYES).double()).abs().max() <= 512 / 60 / 2 + 1e-9
    assert labels.matched.all()
    assert (labels.score > 0.9).all()
    assert labels.size == Size(512, 512)
    assert labels.confidence is not None
    assert (labels.confidence > 0.5).all()


def test_keypoints_of_a_turned_copy_are_found_within_a_cell(faces, portrait, tmp_path):
    """Turned by ten degrees about the middle, and cropped; as far off as a cell's diagonal."""
    photo = PIL.Image.open(portrait).convert("RGB")
    turned = photo.rotate(turned_photo.DEGREES, PIL.Image.Resampling.BICUBIC)
    turned.crop(turned_photo.BOX).save(tmp_path / "turned.png")
    expected = turned_photo.true_places(torch.tensor(EYES).double(), (512, 512))
    labels = faces(tmp_path / "turned.png")
    assert (labels.places - expected).norm(dim=1).max() <= 512 / 60 * math.sqrt(2)
    assert labels.size == Size(392, 392)
    (again,) = faces.each([tmp_path / "turned.png"])
    assert_alike(again, labels)


def test_labels_are_gathered_from_matches_with_each_reference(small, portrait, tmp_path):
    """Against single calls of ``match``; the second shows the mouth alone, the third the eyes."""
    photo = PIL.Image.open(portrait).convert("RGB")
    photo.crop((100, 0, 400, 300)).save(tmp_path / "near.png")
    photo.resize((300, 340)).save(tmp_path / "far.png")
    objects = [
        reference(portrait, EYES),
        reference(tmp_path / "near.png", [[0, 0], [0, 0], [128, 148]], [False, False, True]),
        reference(tmp_path / "far.png", [[120, 69], [145, 73], [9, 9]], [True, True, False]),
    ]
    target = small.encode(photo.crop((40, 0, 512, 400)))
    labels = Annotator(small, references(*objects))(target)
    found = [small.match(one.photo, target, one.points[one.visible]) for one in objects]
    visible = torch.stack([one.visible for one in objects])
    assert_alike(labels, gather(found, visible, Size(400, 472)))


def test_an_encoding_a_picture_an_array_and_a_path_are_all_photos(small, portrait):
    faces = Annotator(small, references(reference(portrait, EYES)))
    photo = PIL.Image.open(portrait).convert("RGB")
    labels = faces(small.encode(portrait))
    for same in (photo, np.asarray(photo), str(portrait), small.encode(photo)):
        assert_alike(faces(same), labels)


# What is encoded how often


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    for index in range(4):
        draw_photo(tmp_path / f"{index}.png", *((60, 80) if index == 1 else (80, 60)), seed=index)
    return [tmp_path / f"{index}.png" for index in range(4)]


def test_references_are_encoded_once(still, photos):
    model, told = still
    inside = torch.tensor(EYES) / 10
    objects = reference(photos[0], inside), reference(photos[1], inside)
    annotator = Annotator(model, references(*objects))
    assert told.encoded == ["0.png", "1.png"]
    list(annotator.each(photos[2:]))
    annotator(photos[2])
    assert told.encoded == ["0.png", "1.png", "2.png", "3.png", "2.png"]


def test_objects_of_one_photo_share_its_encoding(still, photos):
    model, told = still
    inside = torch.tensor(EYES) / 10
    objects = [
        reference(photos[0], inside), reference(photos[1], inside + 1),
        reference(photos[0], inside + 2),
    ]  # fmt: skip
    labels = Annotator(model, references(*objects))(photos[2])
    assert told.encoded == ["0.png", "1.png", "2.png"]
    # all at the same score, within the reach: somewhere between them, in the middle's favour
    assert (labels.places - inside - 1).abs().max() < 0.1


def test_each_gives_labels_and_errors_in_order(still, photos, tmp_path):
    model, _ = still
    annotator = Annotator(model, references(reference(photos[0], torch.tensor(EYES) / 10)))
    (tmp_path / "text.png").write_text("no photo")
    gone, text = tmp_path / "gone.png", tmp_path / "text.png"
    found = list(annotator.each([gone, photos[1], text, photos[2]]))
    assert [isinstance(one, BadImage) for one in found] == [True, False, True, False]
    assert str(found[0]) == f"no such file: {gone}"
    assert str(found[2]).startswith(f"{text} is no photo")
    assert [found[index].size for index in (1, 3)] == [Size(80, 60), Size(60, 80)]
    with pytest.raises(BadImage, match="no such file"):
        annotator(gone)
    assert list(annotator.each([])) == []


def test_nothing_is_labelled_before_it_is_asked_for(still, photos):
    model, told = still
    annotator = Annotator(model, references(reference(photos[0], torch.tensor(EYES) / 10)))
    each = annotator.each(photos[1:])
    assert told.encoded == ["0.png"]
    next(each)
    assert told.encoded == ["0.png", "1.png"]
    each.close()


# What the model is told


@dataclass(frozen=True)
class Prompted(Constant):
    """Features that tell nothing, of a model that has a prompt."""

    prompt: str = ""


@pytest.mark.parametrize(
    ("prompt", "category"),
    [("a photo of a {category}", "polar bear cub"), ("a photo of a cat", None)],
)
def test_the_category_is_told_where_the_prompt_asks(photos, monkeypatch, prompt, category):
    (group,) = find_recipe("same-position").groups
    group = replace(group, backbone=Prompted(prompt))
    model = sdcorr.load(replace(find_recipe("same-position"), groups=(group,)), device="cpu")
    told = Told(model, monkeypatch)
    bear = scheme(name="polar_bear_cub")
    inside = torch.tensor(EYES) / 10
    annotator = Annotator(model, references(reference(photos[0], inside), scheme=bear))
    assert annotator.subject == category
    assert told.categories == {category}
    told.categories.clear()
    annotator(photos[2])
    assert told.categories == {category}
    told.categories.clear()
    list(annotator.each(photos[2:]))
    assert told.categories == {category}


# Left and right


WIDTH = 96
SYMMETRIC = scheme(("left", "right", "middle"), [("left", "right")])
POINTS = torch.tensor([[20.0, 30.0], [70.0, 34.0], [44.0, 50.0]]).double()
SMALL = replace(  # 48 x 32 cells of 2 px; not calibrated, as it is not recipe sift any more
    find_recipe("sift"),
    groups=(replace(GROUP, backbone=Sift(size=192, stride=4, diameters=(8.0, 16.0))),),
)


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A photo without symmetry, patches of noise, and its mirror image."""
    coarse = np.random.default_rng(3).random((8, 12, 3))
    pixels = np.round(255 * np.kron(coarse, np.ones((8, 8, 1)))).astype(np.uint8)
    folder = tmp_path_factory.mktemp("patches")
    PIL.Image.fromarray(pixels).save(folder / "plain.png")
    PIL.Image.fromarray(pixels[:, ::-1].copy()).save(folder / "mirrored.png")
    return folder / "plain.png", folder / "mirrored.png"


@pytest.fixture(scope="module")
def flipping() -> Pipeline:
    return sdcorr.load(replace(SMALL, flip=True), device="cpu")


def mirrored(points: Tensor) -> Tensor:
    return torch.stack([WIDTH - 1 - points[:, 0], points[:, 1]], dim=1)


def test_on_a_mirrored_photo_left_and_right_are_exchanged(flipping, patches):
    """It shows at its left what the reference shows at its right: that is its left."""
    plain, other = patches
    annotator = Annotator(flipping, references(reference(plain, POINTS), scheme=SYMMETRIC))
    np.testing.assert_allclose(annotator(plain).places, POINTS, atol=1.1)  # half a cell
    found = annotator(other).places
    np.testing.assert_allclose(found, mirrored(POINTS[[1, 0, 2]]), atol=2.1)
    (again,) = annotator.each([other])
    assert torch.equal(again.places, found)


def test_without_a_list_of_left_and_right_nothing_is_exchanged(flipping, patches):
    """And without flip the list has no say: there is no mirrored photo to tell by."""
    plain, other = patches
    unlisted = scheme(SYMMETRIC.keypoints)
    found = Annotator(flipping, references(reference(plain, POINTS), scheme=unlisted))(other)
    np.testing.assert_allclose(found.places, mirrored(POINTS), atol=2.1)
    model = sdcorr.load(SMALL, device="cpu")
    listed = Annotator(model, references(reference(plain, POINTS), scheme=SYMMETRIC))(other)
    unlisted = Annotator(model, references(reference(plain, POINTS), scheme=unlisted))(other)
    assert_alike(listed, unlisted)


@pytest.mark.parametrize("visible", [(True, False, True), (False, True, True)])
def test_a_keypoint_whose_partner_is_hidden_is_sought_as_itself(flipping, patches, visible):
    """Where the partner would be looked up, the reference shows something else."""
    plain, other = patches
    points = POINTS.clone()
    points[~torch.tensor(visible)] = torch.tensor([5.0, 5.0]).double()
    one = references(reference(plain, points, visible), scheme=SYMMETRIC)
    labels = Annotator(flipping, one)(other)
    shown = torch.tensor(visible)
    np.testing.assert_allclose(labels.places[shown], mirrored(POINTS[shown]), atol=2.1)
    assert labels.places[~shown].isnan().all()


def test_only_references_are_encoded_mirrored(flipping, patches, monkeypatch):
    """A photo that is labelled is never a source, so its mirror image is not needed."""
    (backbone,) = flipping.backbones.values()
    extract, counts = backbone.extract, []
    monkeypatch.setattr(
        type(backbone),
        "extract",
        lambda self, images: counts.append(len(images)) or extract(images),
    )
    plain, other = patches
    annotator = Annotator(flipping, references(reference(plain, POINTS), scheme=SYMMETRIC))
    assert sum(counts) == 2
    annotator(other)
    list(annotator.each([plain, other]))
    assert sum(counts) == 2 + 3


def test_each_pair_whose_partners_are_both_there_is_exchanged(flipping, patches):
    """Of four pairs two are whole, one half, one not there; the points are in no order."""
    plain, other = patches
    names = ("right ear", "tail", "left eye", "right paw", "nose", "right eye", "left paw")
    places = [[70.0, 20], [30, 44], [20, 30], [60, 44], [44, 50], [70, 34], [36, 26]]
    pairs = [
        ("left eye", "right eye"), ("right paw", "left paw"), ("right ear", "left ear"),
        ("left hand", "right hand"),
    ]  # fmt: skip
    points = torch.tensor(places).double()
    fused = flipping.fuse(plain, other)
    assert fused.mirrored
    found = match_shown(fused, names, points, pairs)
    expected = mirrored(points[[0, 1, 5, 6, 4, 2, 3]])
    np.testing.assert_allclose(found.target, expected, atol=2.1)
    assert torch.equal(found.source, points)
    # without any whole pair, and without pairs, it is what ``match`` finds
    for few in (pairs[2:], pairs[3:], ()):
        alone = match_shown(fused, names, points, few)
        for part in ("source", "target", "score", "cycle_error", "matched"):
            assert torch.equal(getattr(alone, part), getattr(fused.match(points), part))


def test_without_partners_any_name_will_do(still, photos):
    model, _ = still
    odd = scheme(("left\n", "\x00", ""))
    one = reference(photos[0], torch.tensor(EYES) / 10)
    assert Annotator(model, references(one, scheme=odd))(photos[2]).matched.all()


def test_any_name_of_a_keypoint_may_have_a_partner(flipping, patches):
    plain, other = patches
    odd = scheme(("left\n", "right\n", "middle"), [("left\n", "right\n")])
    found = Annotator(flipping, references(reference(plain, POINTS), scheme=odd))(other)
    np.testing.assert_allclose(found.places, mirrored(POINTS[[1, 0, 2]]), atol=2.1)


# Mistakes


def test_a_reference_that_cannot_be_read_is_told(still, photos, tmp_path):
    model, _ = still
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:900])
    for name, words in (("cut.png", "is damaged"), ("gone.png", "")):
        bad = reference(tmp_path / name, EYES)
        with pytest.raises(BadAnnotations, match=rf"^reference .*{name} ?{words}"):
            Annotator(model, references(reference(photos[0], EYES), bad))


@pytest.mark.parametrize("size", [Size(80, 60), Size(60, 81), Size(61, 80)])
def test_a_reference_of_another_size_than_annotated_is_told(still, photos, size):
    model, _ = still
    bad = references(reference(photos[1], EYES), reference(photos[0], EYES, size=size))
    words = rf"^reference \S+0\.png is 80 x 60 .* annotated as {size.width} x {size.height}"
    with pytest.raises(BadAnnotations, match=words):
        Annotator(model, bad)
    right = reference(photos[0], torch.tensor(EYES) / 10, size=Size(60, 80))
    assert Annotator(model, references(right))(photos[2]).matched.all()


def test_a_keypoint_outside_a_reference_of_unknown_size_is_told(still, photos):
    model, _ = still
    bad = references(reference(photos[0], [[5, 5], [90, 5], [5, 5]]))
    with pytest.raises(BadAnnotations, match=r"left eye.*90.*0\.png|0\.png.*left eye.*90"):
        Annotator(model, bad)


def test_a_keypoint_just_outside_a_reference_of_unknown_size_is_moved_onto_it(still, photos):
    """As ``read_references`` does it where the size is annotated."""
    model, _ = still
    bad = references(reference(photos[0], [[80, 60], [5, 5], [5, 5]]))
    assert Annotator(model, bad)(photos[2]).places[0].tolist() == [79.5, 59.5]


def test_places_lie_on_the_photo(still, photos):
    """Else the file that is written of them is none that ``read_references`` takes."""
    model, _ = still
    labels = Annotator(model, references(reference(photos[0], [[75, 5], [5, 5], [5, 5]])))(
        photos[1]
    )
    assert labels.size == Size(80, 60)
    assert labels.size.contains(labels.places)[labels.matched].all()


def test_too_many_references_are_refused_before_any_is_encoded():
    """Each is kept encoded, and matched with each photo."""
    one = Reference(1, Path("never/read.png"), None, torch.zeros(3, 2), torch.ones(3).bool())
    model = sdcorr.load("same-position", device="cpu")
    with pytest.raises(BadAnnotations, match="expected at most 100 references, got 101"):
        Annotator(model, references(*[one] * (MOST + 1)))
    with pytest.raises(BadAnnotations, match=r"reference no such file: never/read\.png"):
        Annotator(model, references(*[one] * MOST))
