"""How likely a match is right: the model, its fit, and what a least confidence rejects."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.confidence import Calibration, check_confidence, evidence_of, fit
from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.export import matches_to_dict
from sdcorr.fusion import Group, MapUse
from sdcorr.geometry import Size
from sdcorr.matchers.mutual import Mutual
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe, read_recipe
from sdcorr.recipes import RECIPES
from sdcorr.types import Matches

ONE = Calibration(
    bias=-1.0, score=2.0, margin=4.0, peak=-3.0, cycle=-0.5, alpha=0.1, threshold="box"
)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


# The model


def test_confidence_by_hand():
    """-1 + 2 * 0.75 + 4 * 0.25 - 3 * 0.5 - 0.5 * 2 = -1; and -1 alone, where there is nothing."""
    evidence = np.array([[0.75, 0.25, 0.5, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert ONE(evidence).tolist() == pytest.approx([1 / (1 + math.e)] * 2)
    assert ONE(np.array([[0.5, 0.0, 0.0, 0.0]])).tolist() == [0.5]
    assert ONE(np.zeros((0, 4))).shape == (0,)


def test_each_kind_of_evidence_has_its_own_coefficient():
    values = np.eye(4)
    expected = [sigmoid(-1 + one) for one in (2.0, 4.0, -3.0, -0.5)]
    assert ONE(values).tolist() == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_extreme_evidence_neither_overflows_nor_leaves_0_to_1():
    confidence = ONE(np.array([[1e6, 0, 0, 0], [-1e6, 0, 0, 0], [20.5, 0, 0, 0], [-19.5, 0, 0, 0]]))
    assert confidence[:2].tolist() == [1.0, 0.0]
    assert confidence[2] == pytest.approx(sigmoid(40))
    assert confidence[3] == pytest.approx(sigmoid(-40), rel=1e-9)
    assert 0 < confidence[3] < 1e-17


def test_evidence_by_hand():
    """3 px of a photo of 100 px are 3 %, so log(1 + 3); of 300 px, 1 %. An infinite margin is 1."""
    evidence = evidence_of([0.9, 0.8, 0.7], [0.1, np.inf, 1.5], [0.3, 0.4, 0.5], [3.0, 3.0, 0.0],
                           [100.0, 300.0, 100.0])  # fmt: skip
    expected = [
        [0.9, 0.1, 0.3, math.log(4)], [0.8, 1.0, 0.4, math.log(2)], [0.7, 1.0, 0.5, 0.0],
    ]  # fmt: skip
    np.testing.assert_allclose(evidence, expected, rtol=1e-12)
    assert evidence.dtype == np.float64


def test_the_confidence_of_matches_is_that_of_their_evidence():
    """The photo is 100 px on its longer side, so 2 px of cycle error are log(1 + 2)."""
    column = torch.tensor
    matches = Matches(
        source=torch.zeros(2, 2).double(), target=torch.zeros(2, 2).double(),
        score=column([0.9, 0.4]), margin=column([math.inf, 0.25]),
        cycle_error=column([0.0, 2.0]).double(), peak=column([0.5, 0.1]),
        matched=column([True, False]),
    )  # fmt: skip
    logits = [-1 + 1.8 + 4 - 1.5, -1 + 0.8 + 1 - 0.3 - 0.5 * math.log(3)]
    for size in (Size(100, 60), Size(60, 100)):
        confidence = ONE.of(matches, size)
        assert confidence.dtype == torch.float32
        assert confidence.tolist() == pytest.approx([sigmoid(one) for one in logits])


# The fit


def sample(count: int, seed: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Evidence of unlike scales, and what is right by a noisy line through it."""
    generator = np.random.default_rng(seed)
    score = generator.uniform(0.3, 1, count)
    margin = 0.1 * generator.random(count) ** 2
    peak = 0.5 * score + generator.normal(0, 0.05, count)
    cycle = generator.exponential(1.5, count)
    evidence = np.column_stack([score, margin, peak, cycle])
    logits = 6 * (score - 0.6) + 30 * (margin - 0.03) - 0.8 * (cycle - 1)
    return evidence, logits + noise * generator.logistic(size=count) > 0


def newton(evidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Bias and coefficients of the same penalised likelihood, of standardised evidence."""
    mean = evidence.mean(axis=0)
    spread = np.array([column.std() if column.std() > 1e-9 else 1 for column in evidence.T])
    design = np.column_stack([np.ones(len(evidence)), (evidence - mean) / spread])
    ridge = np.diag([0.0, 1.0, 1.0, 1.0, 1.0])
    values = np.zeros(5)
    for _ in range(200):
        chances = 1 / (1 + np.exp(-design @ values))
        gradient = design.T @ (chances - right) + ridge @ values
        curvature = (design * (chances * (1 - chances))[:, None]).T @ design + ridge
        step = np.linalg.solve(curvature, gradient)
        values -= step / max(1.0, np.abs(step).max())  # damped
    assert np.abs(gradient).max() < 1e-8
    coefficients = values[1:] / spread
    return np.array([values[0] - coefficients @ mean, *coefficients])


def values_of(found: Calibration) -> list[float]:
    return [found.bias, found.score, found.margin, found.peak, found.cycle]


@pytest.mark.parametrize(("count", "noise"), [(12, 1.0), (200, 1.0), (200, 0.1), (3000, 2.0)])
def test_the_fit_agrees_with_newton_s_method(count: int, noise: float):
    """To a thousandth of what each coefficient moves: L-BFGS stops when the loss stands still."""
    evidence, right = sample(count, seed=count, noise=noise)
    found, expected = fit(evidence, right, 0.1, "box"), newton(evidence, right)
    scale = np.array([1.0, *evidence.std(axis=0)])
    got = np.array(values_of(found))
    assert np.abs((got - expected)[1:] * scale[1:]).max() < 2e-3
    logits = evidence @ expected[1:] + expected[0]
    np.testing.assert_allclose(found(evidence), 1 / (1 + np.exp(-logits)), atol=1e-3)
    assert (found.alpha, found.threshold, found.fitted) == (0.1, "box", "")


def test_the_fit_does_not_depend_on_units_or_order():
    """Evidence is standardised, so that the pull towards 0 is the same in any unit."""
    evidence, right = sample(200, 0)
    plain = fit(evidence, right, 0.1, "box")
    scaled = fit(evidence * [1, 1000, 1, 0.01] + [5, 0, 0, 0], right, 0.1, "box")
    np.testing.assert_allclose(
        scaled(evidence * [1, 1000, 1, 0.01] + [5, 0, 0, 0]), plain(evidence), atol=1e-4
    )
    order = np.random.default_rng(0).permutation(200)
    turned = fit(evidence[order], right[order], 0.1, "box")
    np.testing.assert_allclose(turned(evidence), plain(evidence), atol=1e-4)


def test_its_mean_is_the_share_that_is_right():
    """The bias is not drawn to 0: at the optimum, confidence sums to what is right."""
    evidence, right = sample(300, 1)
    right[: 200] = False  # fmt: skip
    assert fit(evidence, right, 0.1, "box")(evidence).mean() == pytest.approx(
        right.mean(), abs=1e-4
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [2, 100])
def test_separable_evidence_gives_finite_coefficients(count: int):
    score = np.linspace(0, 1, count)
    evidence = np.column_stack([score, np.zeros(count), np.zeros(count), np.zeros(count)])
    found = fit(evidence, score > 0.5, 0.1, "box")
    assert np.isfinite(values_of(found)).all()
    assert 0 < found.score < 1000
    confidence = found(evidence)
    assert (confidence[score > 0.5] > 0.5).all()
    assert (confidence[score < 0.5] < 0.5).all()


@pytest.mark.parametrize("constant", [0.0, 1.0, 1e6])
def test_what_is_the_same_in_all_says_nothing(constant: float):
    """As the margin, where no place is elsewhere."""
    evidence, right = sample(200, 2)
    evidence[:, 1] = constant
    found = fit(evidence, right, 0.1, "box")
    assert found.margin == pytest.approx(0, abs=1e-9)
    evidence[:, 1] = 0
    np.testing.assert_allclose(found(evidence), fit(evidence, right, 0.1, "box")(evidence))


@pytest.mark.parametrize(("right", "word"), [(True, "right"), (False, "wrong")])
def test_nothing_is_learned_of_all_right_or_all_wrong(right: bool, word: str):
    evidence, _ = sample(7, 0)
    with pytest.raises(ValueError, match=f"all 7 matches are {word}"):
        fit(evidence, np.full(7, right), 0.1, "box")


# In a recipe


@pytest.mark.parametrize("least", [-0.01, 1.01, math.nan, math.inf])
def test_a_least_confidence_is_between_0_and_1(least: float):
    with pytest.raises(BadRecipe, match=f"expected a least confidence of 0 to 1, got {least}"):
        check_confidence(ONE, least)
    for good in (0, 0.0, 0.5, 1, None):
        check_confidence(ONE, good)


def test_without_a_calibration_there_is_no_least_confidence():
    check_confidence(None, None)
    for least in (0.0, 0.5, 7):
        with pytest.raises(BadRecipe, match=r"not calibrated \(run sdcorr calibrate on a bench"):
            check_confidence(None, least)


def recipe(**changes) -> Recipe:
    group = Group("sift", Sift(size=128, diameters=(16.0,)), (MapUse("rootsift"),))
    return Recipe("mine", (group,), **changes)


POINTS = [[x, y] for x in range(20, 460, 60) for y in range(20, 300, 60)]


@pytest.fixture(scope="module")
def calibrated() -> Pipeline:
    """Of score alone: 0.5 at 0.8."""
    by_score = Calibration(-16.0, 20.0, 0.0, 0.0, 0.0, alpha=0.1, threshold="box", fitted="words")
    return sdcorr.load(recipe(calibration=by_score), device="cpu")


def test_matches_of_a_calibrated_recipe_carry_their_confidence(calibrated, photo, other_photo):
    plain = sdcorr.load(recipe(), device="cpu").match(photo, other_photo, POINTS)
    assert plain.confidence is None
    found = calibrated.match(photo, other_photo, POINTS)
    expected = [sigmoid(20 * score - 16) for score in plain.score.tolist()]
    assert found.confidence.tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(found.target, plain.target)
    assert torch.equal(found.matched, plain.matched)
    described = matches_to_dict(found, calibrated)
    assert [one["confidence"] for one in described["matches"]] == found.confidence.tolist()


def test_the_source_photo_s_size_counts_not_the_target_s(photo, other_photo):
    """The cycle error is of the source: 471 px there, 271 px here."""
    by_cycle = dataclasses.replace(ONE, score=0.0, margin=0.0, peak=0.0)
    found = sdcorr.load(recipe(calibration=by_cycle), device="cpu").match(
        photo, other_photo, POINTS
    )
    expected = [sigmoid(-1 - 0.5 * math.log1p(e / 4.71)) for e in found.cycle_error.tolist()]
    assert found.confidence.tolist() == pytest.approx(expected, abs=1e-5)


def test_unlikely_matches_are_rejected(calibrated, photo, other_photo):
    free = calibrated.match(photo, other_photo, POINTS)
    least = free.confidence.median().item()
    found = calibrated.match(photo, other_photo, POINTS, min_confidence=least)
    assert torch.equal(found.matched, free.matched & (free.confidence >= least))
    assert 0 < found.matched.sum() < len(POINTS)
    assert torch.equal(found.target, free.target)
    assert torch.equal(found.confidence, free.confidence)
    assert calibrated.match(photo, other_photo, POINTS, min_confidence=0).matched.all()
    assert not calibrated.match(photo, other_photo, POINTS, min_confidence=1).matched.any()


def test_likely_matches_that_the_matcher_rejects_stay_rejected(photo, other_photo):
    sure = dataclasses.replace(ONE, bias=50.0)
    mutual = recipe(matcher=Nearest(mutual=True), calibration=sure)
    found = sdcorr.load(mutual, device="cpu").match(photo, other_photo, POINTS, min_confidence=0.9)
    assert (found.confidence > 0.9).all()
    assert not found.matched.all()


def test_without_points_unlikely_matches_are_left_out(calibrated, photo, other_photo):
    free = calibrated.match(photo, other_photo)
    least = free.confidence.median().item()
    found = calibrated.match(photo, other_photo, min_confidence=least)
    kept = free.confidence >= least
    assert 0 < len(found) < len(free)
    assert torch.equal(found.source, free.source[kept])
    assert found.matched.all()
    assert (found.confidence >= least).all()
    assert (found.score.diff() <= 0).all()
    assert len(calibrated.match(photo, other_photo, min_confidence=1)) == 0


def test_without_points_the_most_confident_come_first_and_apart(photo, other_photo):
    """Of cycle error alone, which says another order than the score."""
    by_cycle = Calibration(1.0, 0.0, 0.0, 0.0, -1.0, alpha=0.1, threshold="box")
    matcher = SoftArgmax(window=5, temperature=0.1)
    model = sdcorr.load(recipe(matcher=matcher, calibration=by_cycle), device="cpu")
    found = model.match(photo, other_photo)
    assert 2 <= len(found) <= 20
    assert (found.confidence.diff() <= 0).all()
    assert (found.score.diff() > 0).any()
    for points, side in ((found.source, 471), (found.target, 271)):
        gaps = torch.cdist(points, points) + 1e9 * torch.eye(len(points))
        assert gaps.min() >= side / 20
    assert torch.equal(model.match(photo, other_photo, found.source).target, found.target)


def test_a_least_confidence_that_cannot_be_taken(calibrated, photo):
    plain = sdcorr.load(recipe(), device="cpu")
    with pytest.raises(BadRecipe, match="run sdcorr calibrate"):
        plain.match(photo, photo, [[1, 1]], min_confidence=0.5)
    with pytest.raises(BadRecipe, match=r"0 to 1, got 1\.5"):
        calibrated.match(photo, photo, [[1, 1]], min_confidence=1.5)


def test_a_calibration_is_written_and_read_with_its_recipe():
    mine = recipe(calibration=dataclasses.replace(ONE, fitted="spair, 9 matches"))
    described = json.loads(json.dumps(mine.describe()))
    assert described["calibration"] == {
        "bias": -1.0, "score": 2.0, "margin": 4.0, "peak": -3.0, "cycle": -0.5, "alpha": 0.1,
        "threshold": "box", "fitted": "spair, 9 matches", "recipe": "",
    }  # fmt: skip
    again = read_recipe(described)
    assert again == mine
    assert hash(again) == hash(mine)
    assert recipe().describe()["calibration"] is None


def test_the_digits_of_a_fit_are_kept():
    evidence, right = sample(50, 0)
    mine = recipe(calibration=fit(evidence, right, 0.1, "box"), matcher=Mutual(Nearest()))
    assert read_recipe(json.loads(json.dumps(mine.describe()))) == mine


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bias": "high"}, BadRecipe, r"recipe\.calibration\.bias must be a number, got 'high'"),
        ({"score": None}, BadRecipe, r"calibration\.score must be a number"),
        ({"peak": math.nan}, BadRecipe, r"calibration\.peak must be finite"),
        ({"cycles": 1.0}, UnknownName, r"calibration called 'cycles'; did you mean 'cycle'"),
    ],
)
def test_a_damaged_calibration_is_told(change, error, message):
    described = recipe(calibration=ONE).describe()
    described["calibration"] |= change
    with pytest.raises(error, match=message):
        read_recipe(described)
    del described["calibration"]["margin"]
    described["calibration"] = {
        key: value for key, value in described["calibration"].items() if key not in change
    }
    with pytest.raises(BadRecipe, match=r"recipe\.calibration lacks the field"):
        read_recipe(described)


def test_a_calibration_holds_for_the_recipe_it_was_fitted_to_alone():
    for name in ("sift", "sift-hough"):
        own = RECIPES[name]
        assert own.calibration.recipe == own.digest, "calibrate it anew: eval/README.md"
        assert own.own_calibration == own.calibration
        renamed = dataclasses.replace(own, name="mine", about="the same")
        assert renamed.own_calibration == own.calibration
        for change in ({"matcher": Nearest(mutual=True)}, {"flip": True}):
            assert dataclasses.replace(own, **change).own_calibration is None
    plain = dataclasses.replace(RECIPES["sift"], calibration=None)
    assert plain.own_calibration is None
    unbound = dataclasses.replace(RECIPES["sift"].calibration, recipe="")
    flipped = dataclasses.replace(plain, flip=True, calibration=unbound)
    assert flipped.own_calibration == unbound


def test_coefficients_are_bounded_and_a_least_confidence_is_a_number():
    with pytest.raises(BadRecipe, match="coefficients must be within 1e6"):
        dataclasses.replace(ONE, peak=1e7)
    for least in ("0.5", [0.5], True, 2, -1, math.nan):
        with pytest.raises(BadRecipe, match="a least confidence of 0 to 1, got"):
            check_confidence(ONE, least)
