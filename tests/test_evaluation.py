from __future__ import annotations

import dataclasses
import itertools
import random
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sdcorr
from sdcorr.backbones.sift import Sift
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.datasets.spair import Spair
from sdcorr.encodings import Tally, _bytes
from sdcorr.errors import BadImage
from sdcorr.evaluation import by_affinity, predict, share, wrong_photos
from sdcorr.fusion import Group, MapUse
from sdcorr.geometry import Size
from sdcorr.pairs import Pair
from sdcorr.preprocess import load_image
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from sdcorr.runtime import Runtime
from sdcorr.types import Encoding, Image
from tests.annotated import draw_photo, write_spair
from tests.tiny import shrink

SIFT = Recipe("small sift", (Group("sift", Sift(size=64), (MapUse("rootsift"),)),))
SAME_POSITION = find_recipe("same-position")  # the quickest to encode
ONE = 80 * 60 * 3 + 4  # bytes of its encoding of any photo of ``write_spair``: photo and one cell


class Watched:
    """A pipeline that remembers what it encoded, and which encodings are still kept."""

    def __init__(self, recipe: Recipe = SAME_POSITION) -> None:
        self.pipeline = sdcorr.load(recipe, device="cpu", dtype="float32")
        self.encoded: list[str] = []
        self.categories: list[str | None] = []
        self._born: list[weakref.ref[Encoding]] = []
        self.together: list[int] = []  # photos of each call
        self._encode = self.pipeline.encode_batch
        self.pipeline.encode_batch = self.encode_batch  # type: ignore[method-assign]

    def encode_batch(self, images: Sequence[Image], mirrored: bool = True) -> list[Encoding]:
        encodings = self._encode(images)
        self.together.append(len(images))
        self.encoded += [image.path.name for image in images]
        self.categories += [image.category for image in images]
        self._born += map(weakref.ref, encodings)
        return encodings

    @property
    def alive(self) -> list[str]:
        """Photos whose encodings are in memory."""
        return [one.image.path.name for ref in self._born if (one := ref()) is not None]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Twelve pairs of six photos, all ordered pairs of each category's three."""
    return Spair(write_spair(tmp_path_factory.mktemp("spair"))).pairs()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """The 90 ordered pairs of ten photos, shuffled."""
    folder = tmp_path_factory.mktemp("many")
    for index in range(10):
        draw_photo(folder / f"{index}.png", 80, 60, seed=index)
    found = [
        pair_of(folder / f"{first}.png", folder / f"{second}.png")
        for first, second in itertools.permutations(range(10), 2)
    ]
    random.Random(0).shuffle(found)
    return found


def pair_of(source: Path, target: Path, **fields: Any) -> Pair:
    """A pair with one keypoint."""
    point = np.array([[3.0, 4.0]])
    about = {"category": "cat", "subject": "cat", "keypoint_ids": ("0",)}
    about |= {"source_keypoints": point, "target_keypoints": point}
    return Pair(f"{source.stem}-{target.stem}", source=source, target=target, **about | fields)


def photos_of(pairs: Sequence[Pair]) -> set[Path]:
    return {photo for pair in pairs for photo in (pair.source, pair.target)}


def cut_off(photo: Path) -> None:
    """Keep the header and half of the pixels."""
    content = photo.read_bytes()
    photo.write_bytes(content[: len(content) // 2])


# -- what is predicted -------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [0, 200_000, 2_000_000_000], ids=["none", "some", "all"])
def test_predictions_agree_with_a_slow_loop(pairs, memory):
    """Both photos encoded anew for each pair."""
    model = sdcorr.load(SIFT, device="cpu")
    order = random.Random(0).sample(pairs, len(pairs))
    predictions = list(predict(model, order, memory=memory))
    assert len(predictions) == len(order)
    for pair, prediction in zip(order, predictions, strict=True):
        points = np.concatenate([pair.source_keypoints, pair.source_only])
        expected = model.match(pair.source, pair.target, points)
        assert prediction.pair is pair
        assert prediction.skipped == ""
        for part in ("source", "target", "score", "margin", "cycle_error", "peak", "matched"):
            assert torch.equal(getattr(prediction.matches, part), getattr(expected, part)), part


def test_points_that_only_the_source_shows_come_last(pairs):
    for prediction in predict(Watched().pipeline, pairs):
        pair = prediction.pair
        joint, rest = pair.source_keypoints.tolist(), pair.source_only.tolist()
        assert len(joint) == 3
        assert len(rest) == 1
        assert prediction.matches.source.tolist() == joint + rest
        assert prediction.joint.source.tolist() == joint


def test_points_beyond_the_photo_are_moved_onto_it(pairs):
    points = np.array([[-3.0, 5.0], [200.0, 200.0], [79.6, -0.4], [7.25, 8.0]])
    pair = dataclasses.replace(
        pairs[0], keypoint_ids=tuple("abc"), source_keypoints=points[:3],
        target_keypoints=points[:3], source_only_ids=("d",), source_only=points[3:] - 100,
    )  # fmt: skip
    assert pair.source_size == Size(height=60, width=80)
    (prediction,) = predict(Watched().pipeline, [pair])
    on_photo = [[-0.5, 5.0], [79.5, 59.5], [79.5, -0.4], [-0.5, -0.5]]
    assert prediction.matches.source.tolist() == on_photo
    assert prediction.matches.target.tolist() == on_photo


def test_predictions_come_one_by_one(pairs):
    watched = Watched()
    predictions = predict(watched.pipeline, pairs)
    assert watched.encoded == []
    assert next(predictions).pair is pairs[0]
    assert watched.encoded == [pairs[0].source.name, pairs[0].target.name]


def test_no_pairs_no_predictions():
    tally = Tally()
    assert list(predict(Watched().pipeline, [], tally=tally)) == []
    assert tally == Tally()


# -- what it takes -----------------------------------------------------------------------------


def test_each_photo_is_encoded_once(pairs):
    watched, tally = Watched(), Tally()
    list(predict(watched.pipeline, pairs, tally=tally))
    assert len(watched.encoded) == 6
    assert (tally.images, tally.encoded) == (6, 6)
    assert (tally.pairs, tally.done) == (12, 12)
    assert tally.encoding > 0
    assert tally.matching > 0


def test_a_photo_that_is_paired_with_itself_is_encoded_once(pairs):
    watched, photo = Watched(), pairs[0].source
    list(predict(watched.pipeline, [pair_of(photo, photo)] * 3, memory=ONE))
    assert watched.encoded == [photo.name]


def test_what_no_later_pair_needs_is_let_go(many):
    watched = Watched()
    for position, prediction in enumerate(predict(watched.pipeline, many)):
        at_hand = {prediction.pair.source.name, prediction.pair.target.name}
        later = {photo.name for photo in photos_of(many[position + 1 :])}
        assert set(watched.alive) <= at_hand | later
    assert len(watched.encoded) == 10


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_no_more_is_kept_than_memory_allows(many, kept):
    watched = Watched()
    for prediction in predict(watched.pipeline, many, memory=kept * ONE + ONE - 1):
        at_hand = {prediction.pair.source.name, prediction.pair.target.name}
        assert len(set(watched.alive) - at_hand) <= kept
        assert len(watched.alive) == len(set(watched.alive))


def test_without_memory_each_pair_costs_two_encodings(many):
    watched, tally = Watched(), Tally()
    list(predict(watched.pipeline, many, memory=0, tally=tally))
    assert len(watched.encoded) == 2 * len(many)
    assert (tally.images, tally.encoded) == (10, 180)


@pytest.fixture
def four_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where several photos at once are quicker."""
    monkeypatch.setattr(Runtime, "photos", property(lambda runtime: runtime.batch))


def test_photos_needed_soon_are_encoded_together_where_that_is_quicker(many, four_together):
    """The first alone: it tells how much memory each takes. 10 photos: 1 + 4 + 4 + 1."""
    alone, watched = Watched(), Watched()
    expected = [one.matches.target for one in predict(alone.pipeline, many)]
    found = [one.matches.target for one in predict(watched.pipeline, many)]
    assert watched.together == [1, 4, 4, 1]
    assert len(set(watched.encoded)) == len(watched.encoded) == 10
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("kept", [2, 3, 5])
def test_no_more_is_encoded_together_than_memory_allows(many, four_together, kept):
    watched = Watched()
    tally = Tally()
    for _ in predict(watched.pipeline, by_affinity(many), memory=kept * ONE, tally=tally):
        assert len(watched.alive) <= kept
    assert tally.encoded == len(watched.encoded)
    assert max(watched.together) <= max(1, kept - 1)


def test_a_bad_photo_read_ahead_spoils_only_its_own_pairs(damaged, four_together, monkeypatch):
    watched = Watched()
    predictions = list(predict(watched.pipeline, damaged, skip_bad=True))
    skipped = {one.pair.id for one in predictions if one.skipped}
    monkeypatch.undo()  # one by one
    plain = predict(Watched().pipeline, damaged, skip_bad=True)
    expected = {one.pair.id for one in plain if one.skipped}
    assert skipped == expected != set()


def test_a_photo_that_a_recipe_cannot_take_spoils_only_its_own_pairs(
    tmp_path, four_together, checkpoints
):
    """Unlike a file that cannot be read, it shows while several are encoded."""
    for index in range(6):
        thin = index == 3
        draw_photo(tmp_path / f"{index}.png", 300 if thin else 80, 10 if thin else 60, seed=index)
    pairs = [pair_of(tmp_path / f"{i}.png", tmp_path / f"{i + 1}.png") for i in range(5)]
    recipe = find_recipe("dino-v1")
    places = {key: str(checkpoints[one.model]) for key, one in recipe.weights.items()}
    model = sdcorr.load(shrink(recipe), models=places)
    found = list(predict(model, pairs, skip_bad=True))
    assert [bool(one.skipped) for one in found] == [False, False, True, True, False]
    assert all("too long and thin" in one.skipped for one in found[2:4])


def test_moments_give_way_before_encodings(many):
    """PCA from moments keeps more than the maps themselves, and costs less to do again."""
    sift = Group("sift", Sift(size=64), (MapUse("rootsift", pca=4),))
    recipe = Recipe("reduced", (sift,))
    watched = Watched(recipe)
    kept = _bytes(sdcorr.load(recipe).encode(many[0].source))
    tally = Tally()
    for _ in predict(watched.pipeline, by_affinity(many), memory=10 * kept, tally=tally):
        pass
    assert tally.encoded == 10  # each once


def test_what_is_needed_last_is_let_go_first(tmp_path):
    """Room for one: after a-b, a is needed next, so b goes; after a-c only c is needed."""
    for seed, name in enumerate("abc"):
        draw_photo(tmp_path / f"{name}.png", 80, 60, seed)
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    watched = Watched()
    list(predict(watched.pipeline, [pair_of(a, b), pair_of(a, c), pair_of(b, c)], memory=ONE))
    assert watched.encoded == ["a.png", "b.png", "c.png", "b.png"]


def test_large_encodings_count_by_their_bytes(pairs):
    """A 6 x 8 map of 384 float32 channels, beside the photo: room for one, not for two."""
    one = 80 * 60 * 3 + 384 * 6 * 8 * 4
    counts = []
    for memory in (one, 2 * one - 1, 2 * one):
        watched = Watched(SIFT)
        # two pairs that share both photos, and one in between that needs others
        order = [pairs[1], pairs[7], pairs[1]]
        list(predict(watched.pipeline, order, memory=memory))
        counts.append(len(watched.encoded))
    assert counts == [5, 5, 4]


@pytest.mark.parametrize(
    ("tally", "seconds"),
    [
        (Tally(pairs=10, images=6), None),
        (Tally(pairs=10, images=6, encoded=1, encoding=2.0), None),
        # 3 images of 2 s, and 6 pairs of 0.5 s
        (Tally(pairs=10, images=6, done=4, encoded=3, encoding=6.0, matching=2.0), 9.0),
        # more encoded than there are, as some twice: 2 pairs of 1 s
        (Tally(pairs=4, images=2, done=2, encoded=5, encoding=5.0, matching=2.0), 2.0),
        (Tally(pairs=4, images=2, done=4, encoded=2, encoding=5.0, matching=2.0), 0.0),
    ],
    ids=["nothing yet", "no pair yet", "half way", "encoded twice", "done"],
)
def test_seconds_left_by_hand(tally, seconds):
    assert tally.seconds_left() == seconds


# -- what the model is told --------------------------------------------------------------------


def prompted(folder: Path, prompt: str) -> Recipe:
    config = StableDiffusion(
        model=str(folder), size=64, window=None, prompt=prompt, layers=("up_blocks.1",)
    )
    return Recipe("small sd", (Group("sd", config, (MapUse("up_blocks.1"),)),))


@pytest.mark.parametrize(
    ("prompt", "told", "category"),
    [
        ("a photo of a {category}", True, "house cat"),
        ("a photo of a {category}", False, None),
        ("a photo of a cat", True, None),
    ],
)
def test_the_subject_is_told_only_where_the_prompt_asks(sd_folder, pairs, prompt, told, category):
    watched = Watched(prompted(sd_folder, prompt))
    pair = dataclasses.replace(pairs[0], category="n02123045", subject="house cat")
    (prediction,) = predict(watched.pipeline, [pair], told=told)
    assert watched.categories == [category, category]
    photos = [load_image(photo, category) for photo in (pair.source, pair.target)]
    plain = sdcorr.load(watched.pipeline.recipe, device="cpu", dtype="float32")
    expected = plain.match(*photos, np.concatenate([pair.source_keypoints, pair.source_only]))
    assert torch.equal(prediction.matches.score, expected.score)
    assert torch.equal(prediction.matches.target, expected.target)


@pytest.mark.parametrize(("told", "encoded"), [(True, 4), (False, 2)])
def test_a_photo_of_two_subjects_is_encoded_for_each(sd_folder, pairs, told, encoded):
    watched, tally = Watched(prompted(sd_folder, "a photo of a {category}")), Tally()
    two = [dataclasses.replace(pairs[0], id=name, subject=name) for name in ("cat", "dog")]
    list(predict(watched.pipeline, two, told=told, tally=tally))
    assert len(watched.encoded) == encoded
    assert tally.images == encoded


def test_recipes_without_a_prompt_are_told_nothing(pairs):
    watched = Watched(SIFT)
    list(predict(watched.pipeline, pairs, told=True))
    assert set(watched.categories) == {None}


# -- photos that cannot be read ----------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path) -> list[Pair]:
    """Twelve pairs; four of them need a photo whose file is cut off."""
    found = Spair(write_spair(tmp_path / "damaged")).pairs()
    cut_off(found[0].target)
    return found


def test_a_photo_that_cannot_be_read_ends_the_prediction(damaged):
    bad = damaged[0].target
    good = [pair for pair in damaged if bad not in (pair.source, pair.target)]
    predictions = predict(Watched().pipeline, [*good, *damaged])
    assert [next(predictions).pair for _ in good] == good
    with pytest.raises(BadImage, match=rf"{bad.parent.name}/{bad.name} is damaged"):
        next(predictions)


def test_pairs_of_a_bad_photo_are_skipped_on_demand(damaged, monkeypatch):
    bad, tried, watched = damaged[0].target, [], Watched()

    def read(photo: Path, category: str | None = None) -> Image:
        tried.append(photo)
        return load_image(photo, category)

    monkeypatch.setattr("sdcorr.encodings.load_image", read)
    predictions = list(predict(watched.pipeline, damaged, skip_bad=True))
    assert [prediction.pair for prediction in predictions] == damaged
    skipped = [prediction for prediction in predictions if prediction.matches is None]
    needing = [pair for pair in damaged if bad in (pair.source, pair.target)]
    assert [prediction.pair for prediction in skipped] == needing
    assert len(needing) == 4
    assert all(f"{bad} is damaged" in prediction.skipped for prediction in skipped)
    assert all(one.skipped == "" for one in predictions if one.matches is not None)
    assert sorted(tried) == sorted(photos_of(damaged))  # each once, the bad one too
    assert len(watched.encoded) == 5


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_size_that_is_annotated_otherwise_is_told(pairs, side):
    pair = dataclasses.replace(pairs[1], **{f"{side}_size": Size(height=60, width=81)})
    words = rf"{getattr(pair, side).name} is 80 x 60 .* annotated as 81 x 60"
    with pytest.raises(BadImage, match=words):
        list(predict(Watched().pipeline, [pair]))
    (prediction,) = predict(Watched().pipeline, [pair], skip_bad=True)
    assert prediction.matches is None
    assert "81 x 60" in prediction.skipped


@pytest.mark.parametrize("memory", [0, 2_000_000_000])
def test_a_wrong_size_costs_the_pair_that_annotates_it_alone(pairs, memory):
    wrong = dataclasses.replace(pairs[0], source_size=Size(9, 9))
    found = predict(Watched().pipeline, [pairs[1], wrong, *pairs], memory=memory, skip_bad=True)
    skipped = [number for number, prediction in enumerate(found) if prediction.skipped]
    assert skipped == [1]
    assert len(wrong_photos([pairs[0], wrong, pairs[0]])) == 1


def test_a_size_that_is_not_annotated_is_not_checked(pairs):
    pair = dataclasses.replace(pairs[0], source_size=None, target_size=None)
    assert len(list(predict(Watched().pipeline, [pair]))) == 1


def test_a_pair_counts_as_done_when_it_comes(damaged):
    tally = Tally()
    predictions = predict(Watched().pipeline, damaged, skip_bad=True, tally=tally)
    assert [tally.done for _ in predictions] == list(range(1, 13))


def test_wrong_photos_are_listed_by_their_headers(tmp_path):
    pairs = Spair(write_spair(tmp_path)).pairs()
    missing, empty, cut, text, *_ = sorted(photos_of(pairs))
    missing.unlink()
    empty.write_bytes(b"")
    cut_off(cut)  # its header is whole
    text.write_text("no photo")
    other = sorted(photos_of(pairs))[4]
    sizes = {other: Size(height=61, width=60)}
    annotated = [
        dataclasses.replace(
            pair,
            source_size=sizes.get(pair.source, pair.source_size),
            target_size=sizes.get(pair.target, pair.target_size),
        )
        for pair in pairs
    ]
    wrong = wrong_photos(annotated)
    assert len(wrong) == 4  # each once
    for words in (
        f"no such file: {missing}",
        f"{empty} is empty",
        f"{text} is no photo",
        f"{other} is 60 x 80 (wide x high), annotated as 60 x 61",
    ):
        assert any(words in sentence for sentence in wrong), words


@pytest.mark.parametrize("side", ["source", "target"])
def test_photos_without_annotated_sizes_are_checked_too(tmp_path, side):
    pair = pair_of(tmp_path / "source.jpg", tmp_path / "target.jpg")
    for photo in photos_of([pair]) - {getattr(pair, side)}:
        draw_photo(photo, 80, 60, seed=0)
    assert wrong_photos([pair]) == [f"no such file: {tmp_path / side}.jpg"]


def test_good_photos_are_not_listed(pairs):
    assert wrong_photos(pairs) == []


# -- order and shares --------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [2, 4, 6])
def test_neighbours_share_photos_so_that_few_are_encoded_twice(many, kept):
    counts = []
    for order in (by_affinity(many), many):
        watched = Watched()
        list(predict(watched.pipeline, order, memory=kept * ONE))
        counts.append(len(watched.encoded))
    assert counts[0] < 2 / 3 * counts[1]


def test_every_pair_comes_once_in_an_order_that_repeats(many):
    order = by_affinity(many)
    assert order != many
    assert sorted(map(id, order)) == sorted(map(id, many))
    assert by_affinity(many) == order
    assert by_affinity([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_categories_stand_together_whatever_the_order_was(pairs, seed):
    order = by_affinity(random.Random(seed).sample(pairs, len(pairs)))
    runs = [name for name, _ in itertools.groupby(order, key=lambda pair: pair.category)]
    assert sorted(runs) == ["cat", "dog"]
    assert sorted(pair.id for pair in order) == sorted(pair.id for pair in pairs)


def test_both_directions_of_a_pair_stand_together(many):
    together = [frozenset((pair.source, pair.target)) for pair in by_affinity(many)]
    assert together[::2] == together[1::2]
    assert len(set(together)) == 45


def test_the_order_along_the_curve_by_hand(tmp_path):
    """The bits of the later photo's number before those of the earlier one's, in turn."""
    a, b, c, d, e, f = (tmp_path / name for name in "abcdef")  # 0 to 5, as they come
    places = {(a, b): 2, (c, d): 14, (e, f): 50, (e, b): 33, (e, c): 36, (f, a): 34}
    order = by_affinity([pair_of(*ends) for ends in places])
    assert [places[pair.source, pair.target] for pair in order] == [2, 14, 33, 34, 36, 50]


@pytest.mark.parametrize("processes", range(1, 8))
@pytest.mark.parametrize("count", [0, 1, 6, 12])
def test_shares_are_a_partition_into_equal_runs(pairs, processes, count):
    shares = [share(pairs[:count], rank, processes) for rank in range(processes)]
    assert list(itertools.chain(*shares)) == pairs[:count]
    lengths = [len(one) for one in shares]
    assert max(lengths) - min(lengths) <= 1
