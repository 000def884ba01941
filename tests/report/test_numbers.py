from __future__ import annotations

from dataclasses import replace

import pytest

from sdcorr.hits import Rule
from sdcorr.report._numbers import (
    CURVE,
    Agreement,
    PairResult,
    agreements,
    best_and_worst,
    most_unlike,
    pair_results,
    shares_at,
)
from tests.test_scores import (
    ALPHAS,
    RUN,
    Tried,
    changed,
    shuffled,
    slow_hits,
    slow_image,
    slow_point,
    to_records,
)

RULES = [Rule(ALPHAS, side, strict) for side in ("box", "keypoints") for strict in (False, True)]


def test_the_curve_goes_from_a_hundredth_to_a_fifth():
    assert (CURVE[0], CURVE[1], CURVE[-1], len(CURVE)) == (0.01, 0.015, 0.2, 39)


@pytest.mark.parametrize("rule", RULES)
def test_shares_are_those_of_the_slow_loops(rule: Rule):
    found = shares_at(to_records(RUN), rule, CURVE)
    longer = replace(rule, alphas=CURVE)
    assert found.image == pytest.approx(slow_image(RUN, longer), abs=1e-12)
    assert found.point == pytest.approx(slow_point(RUN, longer), abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_agreements_are_those_of_a_slow_loop(rule: Rule):
    other = changed(RUN)[5:]
    first = {one.id: one for one in RUN}
    expected = []
    for alpha in rule.alphas:
        counts = {(one, two): 0 for one in (True, False) for two in (True, False)}
        for pair in other:
            parts = dict(zip(pair.errors, slow_hits(pair, rule, alpha), strict=True))
            before = first[pair.id]
            known = dict(zip(before.errors, slow_hits(before, rule, alpha), strict=True))
            for part, right in parts.items():
                counts[known[part], right] += 1
        order = [(True, True), (True, False), (False, True), (False, False)]
        expected.append(Agreement(alpha, *(counts[key] for key in order)))
    found = agreements(to_records(RUN), to_records(shuffled(other)), rule)
    assert found == tuple(expected)
    assert all(min(one.both, one.first, one.second, one.neither) > 0 for one in found)


def test_pair_results_by_hand():
    one = Tried(
        "p", "cat", "s", "t", {"box": 100.0}, {"viewpoint": "easy"},
        {"0": 0.0, "1": 10.0, "2": 35.0},
    )  # fmt: skip
    run = to_records([one, replace(one, id="q", errors={"0": 20.0})])
    found = pair_results(run, Rule((0.5,), "box"), 0.1)
    assert found == {
        "p": PairResult("p", "cat", 2, 3, pytest.approx(0.15), frozenset({0, 1})),
        "q": PairResult("q", "cat", 0, 1, 0.2, frozenset({0, 1})),
    }
    strict = pair_results(run, Rule((0.5,), "box", strict=True), 0.1)
    assert strict["p"].right == 1  # the error of exactly 10 px


def result(name: str, right: int, error: float, points: int = 4, photos: str = "") -> PairResult:
    photos = frozenset(map(ord, photos or name))
    return PairResult(name, "cat", right, points, error, photos)


def test_of_two_photos_one_pair_is_shown():
    there, back = result("a", 4, 0.1, photos="xy"), result("b", 0, 0.9, photos="yx")
    others = [result("c", 3, 0.1), result("d", 1, 0.1)]
    found = {one.pair: one for one in (there, back, *others)}
    best, worst = best_and_worst(found, 6)
    assert [one.pair for one in best] == ["a", "c"]
    assert [one.pair for one in worst] == ["d"]  # not the way back of the best
    none = {name: replace(one, right=2) for name, one in found.items()}
    assert [one.pair for one, _ in most_unlike(found, none, 6)] == ["a", "c", "d"]


def test_best_and_worst_by_share_then_error_then_id():
    results = [
        result("e", 4, 0.1), result("d", 4, 0.1), result("c", 4, 0.05), result("b", 2, 0.3),
        result("a", 1, 0.2), result("z", 0, 0.5), result("y", 0, 0.9),
    ]  # fmt: skip
    best, worst = best_and_worst({one.pair: one for one in results}, 3)
    assert [one.pair for one in best] == ["c", "d", "e"]
    assert [one.pair for one in worst] == ["y", "z", "a"]


@pytest.mark.parametrize(("pairs", "best", "worst"), [(1, 1, 0), (2, 1, 1), (3, 2, 1), (9, 3, 3)])
def test_no_pair_is_among_the_best_and_the_worst(pairs: int, best: int, worst: int):
    results = {str(number): result(str(number), 2, 0.1) for number in range(pairs)}
    found = best_and_worst(results, 3)
    assert (len(found[0]), len(found[1])) == (best, worst)
    assert len({one.pair for some in found for one in some}) == best + worst


def test_most_unlike_by_share_then_error_then_id():
    first = [result("a", 4, 0.0), result("b", 0, 0.4), result("c", 2, 0.1), result("d", 1, 0.1)]
    second = [result("a", 1, 0.2), result("b", 3, 0.1), result("c", 2, 0.9), result("e", 4, 0.0)]
    found = most_unlike({one.pair: one for one in first}, {one.pair: one for one in second}, 5)
    # both differ by 3 of 4; the errors of b differ by 0.3, those of a by 0.2; c has the same share
    assert [one.pair for one, _ in found] == ["b", "a"]
    assert found[0] == (first[1], second[1])
