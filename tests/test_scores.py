from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from sdcorr.errors import BadScore
from sdcorr.hits import Rule
from sdcorr.metrics import Replicates, Sample, bootstrap
from sdcorr.records import Records
from sdcorr.scores import Row, Scores, Value, by_difficulty, by_keypoint, compare, score

ALPHAS = (0.05, 0.1, 0.15)
BOX = Rule(ALPHAS, "box")


@dataclass(frozen=True)
class Tried:
    """A pair of a run and the error of each keypoint."""

    id: str
    category: str
    source: str
    target: str
    sides: dict[str, float]
    difficulty: dict[str, str]
    errors: dict[str, float]


def random_run(images: dict[str, int], kept: float = 0.8, seed: int = 0) -> list[Tried]:
    """Pairs among so many images of each category; whole errors, so that some tie."""
    generator = np.random.default_rng(seed)
    pairs = []
    for category, count in images.items():
        names = [f"{category}/{index}.jpg" for index in range(count)]
        for source, target in itertools.permutations(names, 2):
            parts = generator.permutation([str(part) for part in range(12)])
            parts = parts[: generator.integers(2, 9)].tolist()
            pair = Tried(
                id=f"{category}:{source}-{target}",
                category=category,
                source=source,
                target=target,
                sides={
                    "box": 20.0 * generator.integers(2, 12),
                    "keypoints": 20.0 * generator.integers(1, 10),
                    "image": 20.0 * generator.integers(12, 25),
                },
                difficulty={
                    "viewpoint": str(generator.choice(["hard", "easy", "medium"])),
                    "occlusion": str(generator.choice(["target", "both", "none", "source"])),
                },
                errors={part: float(generator.integers(0, 40)) for part in parts},
            )
            if generator.random() < kept:
                pairs.append(pair)
    return [pairs[index] for index in generator.permutation(len(pairs))]


RUN = random_run({"dog": 6, "cat": 5, "aeroplane": 3})


def changed(run: Sequence[Tried], chance: float = 0.3, seed: int = 1) -> list[Tried]:
    """Another run on the same pairs, in which some keypoints have other errors."""
    generator = np.random.default_rng(seed)

    def error(old: float) -> float:
        return float(generator.integers(0, 40)) if generator.random() < chance else old

    return [
        replace(pair, errors={part: error(old) for part, old in pair.errors.items()})
        for pair in run
    ]


def shuffled(run: Sequence[Tried], seed: int = 2) -> list[Tried]:
    """The same pairs and keypoints in another order."""
    generator = np.random.default_rng(seed)
    pairs = []
    for index in generator.permutation(len(run)):
        errors = list(run[index].errors.items())
        mixed = {errors[place][0]: errors[place][1] for place in generator.permutation(len(errors))}
        pairs.append(replace(run[index], errors=mixed))
    return pairs


def to_records(run: Sequence[Tried], skipped: dict[str, str] | None = None) -> Records:
    """The columns that ``read_records`` makes of a run."""
    categories = sorted({pair.category for pair in run})
    photos = sorted({pair.source for pair in run} | {pair.target for pair in run})
    rows = [
        (index, part, error)
        for index, pair in enumerate(run)
        for part, error in pair.errors.items()
    ]
    return Records(
        pairs=tuple(pair.id for pair in run),
        categories=tuple(categories),
        category=np.array([categories.index(pair.category) for pair in run]),
        source=np.array([photos.index(pair.source) for pair in run]),
        target=np.array([photos.index(pair.target) for pair in run]),
        difficulty={
            kind: np.array([pair.difficulty[kind] for pair in run]) for kind in run[0].difficulty
        },
        sides={kind: np.array([pair.sides[kind] for pair in run]) for kind in run[0].sides},
        pair=np.array([index for index, _, _ in rows]),
        keypoint=np.array([part for _, part, _ in rows]),
        error=np.array([error for _, _, error in rows], np.float64),
        skipped=skipped or {},
    )


def slow_hits(pair: Tried, rule: Rule, alpha: float) -> list[bool]:
    limit = alpha * pair.sides[rule.threshold]
    return [error < limit if rule.strict else error <= limit for error in pair.errors.values()]


def slow_image(run: Sequence[Tried], rule: Rule) -> list[float]:
    values = []
    for alpha in rule.alphas:
        shares = []
        for pair in run:
            hits = slow_hits(pair, rule, alpha)
            shares.append(sum(hits) / len(hits))
        values.append(sum(shares) / len(shares))
    return values


def slow_point(run: Sequence[Tried], rule: Rule) -> list[float]:
    values = []
    for alpha in rule.alphas:
        hits = []
        for pair in run:
            hits += slow_hits(pair, rule, alpha)
        values.append(sum(hits) / len(hits))
    return values


def slow_macro(
    run: Sequence[Tried], rule: Rule, slow: Callable[[Sequence[Tried], Rule], list[float]]
) -> list[float]:
    names = {pair.category for pair in run}
    rows = [slow([pair for pair in run if pair.category == name], rule) for name in names]
    return [sum(row[index] for row in rows) / len(rows) for index in range(len(rule.alphas))]


def numbers(values: Sequence[Value]) -> list[float]:
    return [value.value for value in values]


def bounds(values: Sequence[Value]) -> list[tuple[float | None, float | None]]:
    return [(value.low, value.high) for value in values]


def agrees(row: Row, run: Sequence[Tried], rule: Rule) -> bool:
    """Whether a row says what loops say of these pairs."""
    assert row.pairs == len(run)
    assert row.keypoints == sum(len(pair.errors) for pair in run)
    assert numbers(row.image) == pytest.approx(slow_image(run, rule), rel=1e-12)
    assert numbers(row.point) == pytest.approx(slow_point(run, rule), rel=1e-12)
    return True


def rows_of(scores: Scores) -> list[Row]:
    return [scores.overall, scores.macro, *scores.categories]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("threshold", ["box", "keypoints", "image"])
def test_scores_agree_with_loops(threshold: str, strict: bool):
    rule = Rule(ALPHAS, threshold, strict)
    scores = score(to_records(RUN), rule, replicates=0)
    assert agrees(scores.overall, RUN, rule)
    assert numbers(scores.macro.image) == pytest.approx(slow_macro(RUN, rule, slow_image))
    assert numbers(scores.macro.point) == pytest.approx(slow_macro(RUN, rule, slow_point))
    assert [row.name for row in scores.categories] == ["aeroplane", "cat", "dog"]
    for row in scores.categories:
        assert agrees(row, [pair for pair in RUN if pair.category == row.name], rule)


def test_thresholds_and_comparisons_give_different_scores():
    records = to_records(RUN)
    rules = [Rule(ALPHAS, kind, strict) for kind in ("box", "image") for strict in (False, True)]
    seen = {tuple(numbers(score(records, rule, replicates=0).overall.point)) for rule in rules}
    assert len(seen) == len(rules)


def test_scores_say_what_they_are_of():
    scores = score(to_records(RUN, skipped={"lost": "no photo"}), BOX, replicates=0)
    assert scores.rule == BOX
    assert scores.skipped == 1
    assert scores.images == len({photo for pair in RUN for photo in (pair.source, pair.target)})
    assert (scores.overall.name, scores.macro.name) == ("all", "macro")


@pytest.mark.parametrize(
    ("alphas", "got"),
    [((0.0,), "0"), ((0.1, -1.0), "-1"), ((math.nan,), "nan"), ((0.1, 1.5), "1.5"), ((), "none")],
)
def test_an_alpha_outside_its_range_is_refused(alphas: tuple[float, ...], got: str):
    with pytest.raises(BadScore, match=f"above 0 and at most 1; got {got}$"):
        Rule(alphas, "box")


def test_an_alpha_of_one_is_the_whole_side():
    pair = replace(RUN[0], errors={"1": 40.0, "2": 41.0}, sides={"box": 40.0})
    rule = Rule((1.0,), "box")
    assert numbers(score(to_records([pair]), rule, replicates=0).overall.point) == [1 / 2]


@pytest.mark.parametrize("scored", [score, by_difficulty, by_keypoint])
def test_an_unknown_threshold_is_refused(scored: Callable[[Records, Rule], object]):
    with pytest.raises(BadScore, match="must be one of box, keypoints, image"):
        scored(to_records(RUN), Rule(ALPHAS, "bbox"))


def test_an_unknown_threshold_is_refused_by_compare():
    with pytest.raises(BadScore, match="must be one of box, keypoints, image"):
        compare(to_records(RUN), to_records(RUN), Rule(ALPHAS, "bbox"))


def without_box(run: Sequence[Tried]) -> list[Tried]:
    return [replace(pair, sides=pair.sides | {"box": math.nan}) for pair in run]


def test_pairs_without_a_box_are_not_scored_by_it():
    records = to_records(without_box(RUN))
    with pytest.raises(
        BadScore, match="no annotated object box; take the threshold from keypoints"
    ):
        score(records, BOX)
    with pytest.raises(BadScore, match="no annotated object box"):
        compare(records, records, BOX)
    assert agrees(score(records, Rule(ALPHAS, "image")).overall, RUN, Rule(ALPHAS, "image"))


def test_one_pair_without_a_box_is_enough_to_refuse_it():
    with pytest.raises(BadScore, match="no annotated object box"):
        score(to_records([*RUN[:3], *without_box(RUN[3:4]), *RUN[4:]]), BOX)


def test_a_pair_with_a_single_keypoint_has_no_keypoint_box():
    single = replace(RUN[0], errors={"3": 0.0}, sides=RUN[0].sides | {"keypoints": 0.0})
    records = to_records([single, *RUN[1:4]])
    words = "in 1 of 4 pairs the longer side of the box around the target's keypoints is 0"
    with pytest.raises(BadScore, match=words):
        score(records, Rule(ALPHAS, "keypoints"))
    assert agrees(score(records, BOX).overall, [single, *RUN[1:4]], BOX)


def test_levels_of_difficulty_agree_with_loops_in_the_order_of_tables():
    levels = by_difficulty(to_records(RUN), BOX)
    assert {kind: [row.name for row in rows] for kind, rows in levels.items()} == {
        "viewpoint": ["easy", "medium", "hard"],
        "occlusion": ["none", "source", "target", "both"],
    }
    for kind, rows in levels.items():
        for row in rows:
            assert agrees(row, [pair for pair in RUN if pair.difficulty[kind] == row.name], BOX)
            assert {*bounds(row.image), *bounds(row.point)} == {(None, None)}


def test_pairs_without_a_level_come_last():
    run = [replace(pair, difficulty={"viewpoint": ""}) for pair in RUN[:3]]
    run += [replace(pair, difficulty={"viewpoint": "hard"}) for pair in RUN[3:5]]
    rows = by_difficulty(to_records(run), BOX)["viewpoint"]
    assert [(row.name, row.pairs) for row in rows] == [("hard", 2), ("", 3)]


def test_no_difficulty_makes_no_table():
    assert by_difficulty(to_records([replace(pair, difficulty={}) for pair in RUN]), BOX) == {}


def test_keypoints_agree_with_loops_in_natural_order():
    rows = by_keypoint(to_records(RUN), BOX)
    wanted = []
    for category in ("aeroplane", "cat", "dog"):
        for part in range(12):
            mine = [
                replace(pair, errors={str(part): pair.errors[str(part)]})
                for pair in RUN
                if pair.category == category and str(part) in pair.errors
            ]
            if mine:
                wanted.append((f"{category}/{part}", mine))
    assert [row.name for row in rows] == [name for name, _ in wanted]
    for row, (_, mine) in zip(rows, wanted, strict=True):
        assert (row.pairs, row.keypoints) == (len(mine), len(mine))
        assert numbers(row.point) == pytest.approx(slow_point(mine, BOX), rel=1e-12)
        assert row.image == ()


def test_keypoint_2_comes_before_10_and_names_are_sorted():
    parts = ["tail", "10", "nose", "2", "ear", "paw", "chin", "hip"]
    pair = replace(RUN[0], category="cow", errors=dict.fromkeys(parts, 1.0))
    names = [row.name.removeprefix("cow/") for row in by_keypoint(to_records([pair]), BOX)]
    words = [name for name in names if not name.isdecimal()]
    assert names.index("2") < names.index("10")
    assert words == ["chin", "ear", "hip", "nose", "paw", "tail"]


def drawn(run: Sequence[Tried], rule: Rule, replicates: int) -> Replicates:
    """The bootstrap of ``metrics`` on sums made by loops."""
    records = to_records(run)
    hits = [[sum(slow_hits(pair, rule, alpha)) for alpha in rule.alphas] for pair in run]
    counts = np.array([len(pair.errors) for pair in run], np.float64)
    sample = Sample(
        np.array(hits, np.float64), counts, records.category, records.source, records.target
    )
    return bootstrap(sample, replicates)


def percentiles(values: np.ndarray) -> list[tuple[float, float]]:
    """Of each alpha's draws ``(R, A)``; those without a pair are left out."""
    columns = [column[~np.isnan(column)] for column in values.T]
    return [tuple(np.percentile(column, [2.5, 97.5]).tolist()) for column in columns]


def same_bounds(values: Sequence[Value], wanted: list[tuple[float, float]]) -> bool:
    return np.allclose(bounds(values), wanted, rtol=0, atol=1e-12)


def test_intervals_are_percentiles_of_the_bootstrap():
    scores, draws = score(to_records(RUN), BOX, replicates=60), drawn(RUN, BOX, 60)
    assert same_bounds(scores.overall.image, percentiles(draws.overall[:, 0]))
    assert same_bounds(scores.overall.point, percentiles(draws.overall[:, 1]))
    assert {*bounds(scores.macro.image), *bounds(scores.macro.point)} == {(None, None)}
    for index, row in enumerate(scores.categories[1:], start=1):  # the first has few images
        assert same_bounds(row.image, percentiles(draws.categories[:, index, 0]))
        assert same_bounds(row.point, percentiles(draws.categories[:, index, 1]))


def test_macro_intervals_are_percentiles_of_the_bootstrap():
    run = random_run({"cat": 6, "dog": 7})
    scores, draws = score(to_records(run), BOX, replicates=60), drawn(run, BOX, 60)
    assert same_bounds(scores.macro.image, percentiles(draws.overall[:, 2]))
    assert same_bounds(scores.macro.point, percentiles(draws.overall[:, 3]))


def test_intervals_do_not_change_the_numbers():
    with_intervals, without = (score(to_records(RUN), BOX, replicates) for replicates in (20, 0))
    for row, plain in zip(rows_of(with_intervals), rows_of(without), strict=True):
        assert numbers(row.image) == numbers(plain.image)
        assert numbers(row.point) == numbers(plain.point)


def test_no_replicates_give_no_intervals():
    for row in rows_of(score(to_records(RUN), BOX, replicates=0)):
        assert {*bounds(row.image), *bounds(row.point)} == {(None, None)}


def test_fewer_than_five_images_of_a_category_give_it_no_interval():
    scores = score(to_records(random_run({"cat": 4, "dog": 5}, kept=1)), BOX, replicates=50)
    cat, dog = scores.categories
    for row in (cat, scores.overall, scores.macro):  # 12 of the 32 pairs are cats
        assert {*bounds(row.image), *bounds(row.point)} == {(None, None)}
    assert all(low < high for low, high in (*bounds(dog.image), *bounds(dog.point)))


def test_a_few_pairs_of_small_categories_cost_the_pooled_interval_nothing():
    scores = score(to_records(random_run({"cat": 2, "dog": 6}, kept=1)), BOX, replicates=50)
    assert all(low < high for low, high in bounds(scores.overall.point))  # 2 of 32 are cats
    assert bounds(scores.macro.point) == [(None, None)] * 3


def test_five_images_give_an_interval_whatever_their_roles():
    star = [pair for pair in random_run({"cat": 5}, kept=1) if pair.source == "cat/0.jpg"]
    scores = score(to_records(star), BOX, replicates=50)
    assert (scores.images, scores.overall.pairs) == (5, 4)
    assert None not in itertools.chain(*bounds(scores.overall.image))


def test_draws_that_all_left_no_pair_give_no_interval():
    star = [pair for pair in random_run({"cat": 5}, kept=1) if pair.source == "cat/1.jpg"]
    assert np.isnan(drawn(star, BOX, 1).overall).all()  # the one draw lacks the one source
    scores = score(to_records(star), BOX, replicates=1)
    assert bounds(scores.overall.image) == [(None, None)] * 3
    json.dumps(scores.to_dict(), allow_nan=False)


def test_the_same_records_give_the_same_scores():
    first, again = (score(to_records(RUN), BOX, replicates=50) for _ in range(2))
    assert first == again


def test_the_order_of_pairs_does_not_change_the_scores():
    first, other = (score(to_records(run), BOX, 50) for run in (RUN, shuffled(RUN)))
    for row, mixed in zip(rows_of(first), rows_of(other), strict=True):
        assert numbers(row.image) == pytest.approx(numbers(mixed.image), rel=1e-12)
        assert numbers(row.point) == pytest.approx(numbers(mixed.point), rel=1e-12)
    assert same_bounds(first.overall.image, bounds(other.overall.image))


def test_compare_is_the_difference_on_the_pairs_of_both():
    first, second = RUN[:-6], shuffled(changed(RUN)[6:])
    common = {pair.id for pair in first} & {pair.id for pair in second}
    assert 0 < len(common) < min(len(first), len(second))
    one = [pair for pair in first if pair.id in common]
    other = [pair for pair in second if pair.id in common]
    gap = compare(to_records(first), to_records(second), BOX, replicates=0)
    assert gap.overall.pairs == len(common)
    assert gap.overall.keypoints == sum(len(pair.errors) for pair in one)
    for row, kind in ((gap.overall, None), *((row, row.name) for row in gap.categories)):
        a = [pair for pair in one if kind in (None, pair.category)]
        b = [pair for pair in other if kind in (None, pair.category)]
        assert row.pairs == len(a)
        image = np.subtract(slow_image(a, BOX), slow_image(b, BOX))
        point = np.subtract(slow_point(a, BOX), slow_point(b, BOX))
        assert numbers(row.image) == pytest.approx(image.tolist(), abs=1e-12)
        assert numbers(row.point) == pytest.approx(point.tolist(), abs=1e-12)
        assert np.abs(image).max() > 0
    for kind, slow in (("image", slow_image), ("point", slow_point)):
        macro = np.subtract(slow_macro(one, BOX, slow), slow_macro(other, BOX, slow))
        assert numbers(getattr(gap.macro, kind)) == pytest.approx(macro.tolist(), abs=1e-12)


def test_compare_leaves_out_a_category_without_common_pairs():
    second = [pair for pair in changed(RUN) if pair.category != "cat"]
    gap = compare(to_records(RUN), to_records(second), BOX, replicates=0)
    assert [row.name for row in gap.categories] == ["aeroplane", "dog"]
    assert gap.images == len({photo for pair in second for photo in (pair.source, pair.target)})


def test_intervals_of_a_difference_are_of_paired_draws():
    other = changed(RUN)
    gap = compare(to_records(RUN), to_records(shuffled(other)), BOX, replicates=60)
    one, two = drawn(RUN, BOX, 60), drawn(other, BOX, 60)
    overall = one.overall - two.overall
    assert same_bounds(gap.overall.image, percentiles(overall[:, 0]))
    assert same_bounds(gap.overall.point, percentiles(overall[:, 1]))
    dogs = one.categories[:, 2] - two.categories[:, 2]
    assert same_bounds(gap.categories[2].image, percentiles(dogs[:, 0]))
    assert same_bounds(gap.categories[2].point, percentiles(dogs[:, 1]))


def test_few_changes_make_a_difference_surer_than_either_score():
    records = to_records(RUN)
    gap = compare(records, to_records(changed(RUN, chance=0.05)), BOX, replicates=100).overall
    alone = score(records, BOX, replicates=100).overall
    for (low, high), (bottom, top) in zip(bounds(gap.image), bounds(alone.image), strict=True):
        assert high - low < top - bottom


def test_identical_runs_differ_by_nothing():
    gap = compare(to_records(RUN), to_records(shuffled(RUN)), BOX, replicates=50)
    few, *rows = gap.categories
    assert {*numbers(gap.macro.image), *numbers(gap.macro.point)} == {0}
    for row in (gap.overall, *rows):
        assert {*numbers(row.image), *numbers(row.point)} == {0}
        assert {*bounds(row.image), *bounds(row.point)} == {(0, 0)}
    assert bounds(few.image) == [(None, None)] * 3  # aeroplane: three images


def test_swapped_runs_differ_by_the_opposite():
    first, second = to_records(RUN), to_records(changed(RUN))
    there, back = compare(first, second, BOX, 50), compare(second, first, BOX, 50)
    opposite = [(-high, -low) for low, high in bounds(back.overall.image)]
    assert same_bounds(there.overall.image, opposite)
    negative = [-value for value in numbers(back.overall.image)]
    assert numbers(there.overall.image) == pytest.approx(negative, abs=1e-12)


def test_runs_without_a_common_pair_are_not_compared():
    with pytest.raises(BadScore, match="no pair in common"):
        compare(to_records(RUN[:5]), to_records(RUN[5:]), BOX)


def with_other_keypoint(pair: Tried) -> Tried:
    (_, error), *rest = pair.errors.items()
    return replace(pair, errors={"other": error, **dict(rest)})


def with_a_keypoint_more(pair: Tried) -> Tried:
    return replace(pair, errors=pair.errors | {"other": 1.0})


def with_another_box(pair: Tried) -> Tried:
    return replace(pair, sides=pair.sides | {"box": pair.sides["box"] + 1})


@pytest.mark.parametrize("change", [with_other_keypoint, with_a_keypoint_more, with_another_box])
def test_runs_that_annotate_a_pair_differently_are_not_compared(change: Callable[[Tried], Tried]):
    second = [*RUN[:4], change(RUN[4]), *RUN[5:]]
    with pytest.raises(BadScore, match="annotate the same pairs differently"):
        compare(to_records(RUN), to_records(second), BOX)


def test_runs_that_share_out_the_same_keypoints_differently_are_not_compared():
    pairs = sorted(RUN[:2], key=lambda pair: pair.id)
    parts = [({"1": 0.0, "2": 0.0}, {"3": 0.0}), ({"1": 0.0}, {"2": 0.0, "3": 0.0})]
    first, second = (
        to_records([replace(pair, errors=errors) for pair, errors in zip(pairs, two, strict=True)])
        for two in parts
    )
    assert first.keypoint.tolist() == second.keypoint.tolist()
    with pytest.raises(BadScore, match="annotate the same pairs differently"):
        compare(first, second, BOX)


def test_pairs_that_only_one_run_has_may_be_annotated_in_any_way():
    second = [with_other_keypoint(replace(RUN[0], id="mine")), *RUN[1:]]
    gap = compare(to_records(RUN), to_records(second), BOX, replicates=0)
    assert gap.overall.pairs == len(RUN) - 1


def test_a_box_that_the_threshold_does_not_need_may_differ():
    second = [with_another_box(pair) for pair in RUN]
    gap = compare(to_records(RUN), to_records(second), Rule(ALPHAS, "image"), replicates=0)
    assert {*numbers(gap.overall.image)} == {0}


def test_scores_become_json():
    scores = score(to_records(RUN, skipped={"lost": "no photo"}), BOX, replicates=20)
    plain = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert plain["rule"] == {"alphas": list(ALPHAS), "threshold": "box", "strict": False}
    assert plain["skipped"] == 1
    value = scores.overall.image[1]
    assert plain["overall"]["image"][1] == {
        "value": value.value,
        "low": value.low,
        "high": value.high,
    }
    assert [row["name"] for row in plain["categories"]] == ["aeroplane", "cat", "dog"]
    assert plain["categories"][0]["point"][0]["low"] is None
