from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from sdcorr.metrics import (
    Floats,
    Replicates,
    Sample,
    bootstrap,
    box_side,
    correct,
    hits_of_pairs,
    interval,
    keypoint_box_side,
    keypoint_errors,
    per_image,
    per_point,
)

# test pair 000158 of SPair-71k: three points, two of them off by 46 and 47 px
BOX = (36, 92, 500, 200)
ANNOTATED = [[39, 145], [93, 106], [112, 96]]
PREDICTED = [[39, 145], [139, 106], [112, 143]]

ALPHAS = ("1/20", "1/10", "3/20")


def slow_correct(
    errors: list[float], sides: list[float], alphas: list[float], strict: bool
) -> list[list[bool]]:
    rows = []
    for error, side in zip(errors, sides, strict=True):
        row = []
        for alpha in alphas:
            if strict:
                row.append(error < alpha * side)
            else:
                row.append(error <= alpha * side)
        rows.append(row)
    return rows


def slow_per_image(pairs: list[list[bool]]) -> float:
    shares = [sum(pair) / len(pair) for pair in pairs]
    return sum(shares) / len(shares) if shares else math.nan


def slow_per_point(pairs: list[list[bool]]) -> float:
    points = [point for pair in pairs for point in pair]
    return sum(points) / len(points) if points else math.nan


def slow_macro(values: list[float]) -> float:
    drawn = [value for value in values if not math.isnan(value)]
    return sum(drawn) / len(drawn) if drawn else math.nan


def random_hits(
    pairs: int = 40, alphas: int = 3, seed: int = 0
) -> tuple[list[list[list[bool]]], Floats, Floats]:
    """Which points of which pair are correct at which alpha, and the same as sums."""
    generator = np.random.default_rng(seed)
    lists = [
        (generator.random((generator.integers(1, 12), alphas)) < 0.4).tolist() for _ in range(pairs)
    ]
    hits = [[sum(point[alpha] for point in pair) for alpha in range(alphas)] for pair in lists]
    return lists, np.array(hits, np.float64), np.array([len(pair) for pair in lists], np.float64)


def at(alpha: int, pairs: list[list[list[bool]]]) -> list[list[bool]]:
    return [[point[alpha] for point in pair] for pair in pairs]


def test_two_of_three_points_of_the_official_pair_are_correct():
    errors = keypoint_errors(PREDICTED, ANNOTATED)
    assert errors.tolist() == [0, 46, 47]
    assert box_side(BOX) == 464  # the threshold at 0.1 is 46.4
    assert correct(errors, [464.0] * 3, [0.1])[:, 0].tolist() == [True, True, False]


def test_per_image_and_per_point_differ_where_pairs_do_in_size():
    is_correct = np.array([[True], [True], [False], [True], [True], [True], [True]])
    hits, counts = hits_of_pairs(is_correct, np.array([0, 0, 0, 1, 1, 1, 1]), 2)
    assert hits.tolist() == [[2], [4]]
    assert counts.tolist() == [3, 4]
    assert per_image(hits, counts)[0] == pytest.approx(0.8333, abs=5e-5)
    assert per_point(hits, counts)[0] == pytest.approx(0.8571, abs=5e-5)


def test_an_error_of_exactly_the_threshold_is_correct_unless_strict():
    error = keypoint_errors([[26, 38]], [[20, 30]])
    side = box_side((0, 0, 100, 60))
    assert (error.tolist(), side) == ([10], 100)
    assert correct(error, [side], [0.1]).tolist() == [[True]]
    assert correct(error, [side], [0.1], strict=True).tolist() == [[False]]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_ties_are_exact_for_integer_sides(alpha: str):
    sides = np.arange(1, 601)
    exact = [Fraction(alpha) * int(side) for side in sides]
    ties = np.array([Fraction(float(value)) == value for value in exact])
    assert ties.sum() == 120  # each fifth: others are no float64
    errors, sides = np.array(exact, np.float64)[ties], sides[ties]
    tolerance = [float(Fraction(alpha))]
    assert correct(errors, sides, tolerance).all()
    assert not correct(errors, sides, tolerance, strict=True).any()


def test_float32_input_is_compared_in_float64():
    side = np.array([100, 180, 200, 340], np.float32)  # 0.15 * side is below the tie in float32
    error = np.array([15, 27, 30, 51], np.float32)
    assert (np.float32(0.15) * side != error).any()
    assert correct(error, side, [0.15]).all()
    assert not correct(error, side, [0.15], strict=True).any()


def test_errors_of_float32_points_are_float64():
    points = np.array([[0.1, 0.7]], np.float32)
    errors = keypoint_errors(points, np.zeros((1, 2)))
    assert errors.dtype == np.float64
    assert errors[0] == math.hypot(float(points[0, 0]), float(points[0, 1]))


def test_box_side_is_the_longer_one_without_plus_one():
    assert box_side((10, 20, 110, 80)) == 100
    assert box_side((10, 20, 70, 120)) == 100
    assert box_side((7, 7, 7, 7)) == 0


def test_keypoint_box_of_a_single_point_has_no_size():
    assert keypoint_box_side([[12.5, 40.0]]) == 0


def test_no_points_have_no_errors():
    assert keypoint_errors(np.empty((0, 2)), np.empty((0, 2))).shape == (0,)


def test_keypoint_errors_agree_with_a_loop():
    generator = np.random.default_rng(1)
    predicted, annotated = generator.uniform(-50, 700, (2, 60, 2)).tolist()
    slow = [
        math.sqrt((px - ax) ** 2 + (py - ay) ** 2)
        for (px, py), (ax, ay) in zip(predicted, annotated, strict=True)
    ]
    assert keypoint_errors(predicted, annotated).tolist() == pytest.approx(slow, rel=1e-14)


def test_box_sides_agree_with_a_loop():
    generator = np.random.default_rng(2)
    for points in generator.uniform(-20, 500, (50, 7, 2)).tolist():
        xs, ys = [x for x, _ in points], [y for _, y in points]
        width, height = max(xs) - min(xs), max(ys) - min(ys)
        slow = width if width > height else height
        assert keypoint_box_side(points) == slow
        assert box_side((min(xs), min(ys), max(xs), max(ys))) == slow


@pytest.mark.parametrize("strict", [False, True])
def test_correct_agrees_with_a_loop(strict: bool):
    generator = np.random.default_rng(3)
    errors = generator.integers(0, 60, 300).astype(float).tolist()  # whole, so that some tie
    sides = (20.0 * generator.integers(1, 25, 300)).tolist()
    alphas = [0.05, 0.1, 0.15]
    slow = slow_correct(errors, sides, alphas, strict)
    assert correct(errors, sides, alphas, strict).tolist() == slow
    assert slow != slow_correct(errors, sides, alphas, not strict)


def test_hits_of_pairs_agree_with_a_loop_in_any_order_of_keypoints():
    lists, hits, counts = random_hits()
    rows = [(index, point) for index, pair in enumerate(lists) for point in pair]
    order = np.random.default_rng(4).permutation(len(rows))
    pair = np.array([rows[index][0] for index in order])
    is_correct = np.array([rows[index][1] for index in order])
    got = hits_of_pairs(is_correct, pair, len(lists))
    assert got[0].tolist() == hits.tolist()
    assert got[1].tolist() == counts.tolist()


def test_per_image_and_per_point_agree_with_loops():
    lists, hits, counts = random_hits(seed=5)
    image = [slow_per_image(at(alpha, lists)) for alpha in range(3)]
    point = [slow_per_point(at(alpha, lists)) for alpha in range(3)]
    assert per_image(hits, counts).tolist() == pytest.approx(image, rel=1e-13)
    assert per_point(hits, counts).tolist() == pytest.approx(point, rel=1e-13)


@dataclass(frozen=True)
class Drawn:
    """A pair as the slow bootstrap sees it: which points are correct at which alpha."""

    category: int
    source: int
    target: int
    points: list[list[bool]]


def random_pairs(images: list[int], kept: float = 0.7, seed: int = 0) -> list[Drawn]:
    """Pairs among so many images of each category; numbers of images leave gaps."""
    generator = np.random.default_rng(seed)
    pairs = []
    for category, count in enumerate(images):
        names = [100 * category + 3 * index for index in range(count)]
        for source, target in itertools.permutations(names, 2):
            if generator.random() < kept:
                points = generator.random((generator.integers(1, 8), 2)) < (0.3, 0.6)
                pairs.append(Drawn(category, source, target, points.tolist()))
    return [pairs[index] for index in generator.permutation(len(pairs))]


def to_sample(pairs: list[Drawn]) -> Sample:
    return Sample(
        hits=np.array([np.sum(pair.points, axis=0) for pair in pairs], np.float64),
        counts=np.array([len(pair.points) for pair in pairs], np.float64),
        category=np.array([pair.category for pair in pairs]),
        source=np.array([pair.source for pair in pairs]),
        target=np.array([pair.target for pair in pairs]),
    )


def slow_bootstrap(pairs: list[Drawn], replicates: int, seed: int) -> Replicates:
    """Really resamples: a list that holds each pair as often as it was drawn."""
    generator = np.random.default_rng(seed)
    categories = sorted({pair.category for pair in pairs})
    photos, draws = [], []
    for category in categories:
        mine = [pair for pair in pairs if pair.category == category]
        names = sorted({pair.source for pair in mine} | {pair.target for pair in mine})
        photos.append(names)
        draws.append(generator.multinomial(len(names), [1 / len(names)] * len(names), replicates))
    overall, single = [], []
    for replicate in range(replicates):
        copies: list[list[list[list[bool]]]] = []
        for category in categories:
            times = dict(zip(photos[category], draws[category][replicate].tolist(), strict=True))
            copies.append([])
            for pair in pairs:
                if pair.category == category:
                    for _ in range(times[pair.source]):
                        for _ in range(times[pair.target]):
                            copies[-1].append(pair.points)
        every = [points for copy in copies for points in copy]
        alphas = range(len(pairs[0].points[0]))
        image = [[slow_per_image(at(alpha, copy)) for alpha in alphas] for copy in copies]
        point = [[slow_per_point(at(alpha, copy)) for alpha in alphas] for copy in copies]
        single.append([list(rows) for rows in zip(image, point, strict=True)])
        overall.append(
            [
                [slow_per_image(at(alpha, every)) for alpha in alphas],
                [slow_per_point(at(alpha, every)) for alpha in alphas],
                [slow_macro([row[alpha] for row in image]) for alpha in alphas],
                [slow_macro([row[alpha] for row in point]) for alpha in alphas],
            ]
        )
    return Replicates(np.array(overall), np.array(single), np.array([len(one) for one in photos]))


def test_bootstrap_agrees_with_really_resampling():
    pairs = random_pairs([6, 2, 4])
    assert {pair.source for pair in pairs} & {pair.target for pair in pairs}
    fast, slow = bootstrap(to_sample(pairs), 80, seed=3), slow_bootstrap(pairs, 80, seed=3)
    assert fast.images.tolist() == slow.images.tolist() == [6, 2, 4]
    assert fast.overall.shape == (80, 4, 2)
    assert fast.categories.shape == (80, 3, 2, 2)
    # two images: a copy of one twice makes no pair, and macro goes without that category
    empty = np.isnan(slow.categories[:, 1]).all(axis=(1, 2))
    assert 0 < empty.sum() < 80
    assert np.isfinite(slow.overall).all()
    np.testing.assert_allclose(fast.categories, slow.categories, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.overall, slow.overall, rtol=0, atol=1e-12)


def test_a_draw_without_any_pair_is_nan():
    pairs = random_pairs([2], kept=1)
    fast, slow = bootstrap(to_sample(pairs), 30), slow_bootstrap(pairs, 30, seed=0)
    assert 0 < np.isnan(slow.overall).all(axis=(1, 2)).sum() < 30
    np.testing.assert_allclose(fast.overall, slow.overall, rtol=0, atol=1e-12)


def test_bootstrap_of_equal_pairs_never_varies():
    points = [[True, True], [False, True]]
    pairs = [
        Drawn(0, source, target, points) for source, target in itertools.permutations(range(7), 2)
    ]
    drawn = bootstrap(to_sample(pairs), 50)
    expected = np.broadcast_to([1 / 2, 1], (50, 4, 2))
    np.testing.assert_allclose(drawn.overall, expected, rtol=1e-13)


def test_the_same_seed_draws_the_same():
    sample = to_sample(random_pairs([5, 6]))
    first, again, other = (bootstrap(sample, 20, seed) for seed in (7, 7, 8))
    assert np.array_equal(first.overall, again.overall)
    assert np.array_equal(first.categories, again.categories)
    assert not np.array_equal(first.overall, other.overall)


def test_the_order_of_pairs_does_not_change_the_draws():
    pairs = random_pairs([5, 6])
    first, other = bootstrap(to_sample(pairs), 20), bootstrap(to_sample(pairs[::-1]), 20)
    np.testing.assert_allclose(first.overall, other.overall, rtol=1e-13)


def test_resampling_images_gives_wider_intervals_than_pairs_where_images_matter():
    generator = np.random.default_rng(11)
    quality = generator.uniform(0.1, 0.9, 12)  # of a photo: its pairs succeed or fail together
    pairs = []
    for source, target in itertools.permutations(range(12), 2):
        chance = (quality[source] + quality[target]) / 2
        pairs.append(Drawn(0, source, target, (generator.random((10, 1)) < chance).tolist()))
    sample = to_sample(pairs)
    low, high = interval(bootstrap(sample, 500).overall[:, 0])
    shares = sample.hits[:, 0] / sample.counts
    drawn = shares[generator.integers(0, len(shares), (500, len(shares)))].mean(axis=1)
    narrow_low, narrow_high = interval(drawn[:, None])
    assert high[0] - low[0] > 1.5 * (narrow_high[0] - narrow_low[0])


def test_interval_is_between_percentiles():
    values = np.arange(201.0)[::-1, None] * [1, 10]  # 0 to 200, and ten times as much
    low, high = interval(values)
    assert low.tolist() == pytest.approx([5, 50])
    assert high.tolist() == pytest.approx([195, 1950])
    low, high = interval(values, level=0.5)
    assert low.tolist() == pytest.approx([50, 500])
    assert high.tolist() == pytest.approx([150, 1500])


def test_interval_sets_draws_without_a_pair_aside():
    values = np.arange(201.0)
    with_gaps = np.insert(values, [0, 17, 17, 90], np.nan)
    low, high = interval(with_gaps[:, None])
    assert (low[0], high[0]) == pytest.approx((5, 195))
