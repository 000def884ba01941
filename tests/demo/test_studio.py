from __future__ import annotations

import dataclasses
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import sdcorr
from sdcorr.demo import _studio
from sdcorr.demo._photos import Photo, make_photo
from sdcorr.demo._shelf import nbytes
from sdcorr.demo._studio import Job, Joined, Pairing, Studio, matcher_names, with_matcher
from sdcorr.errors import BadImage, BadRecipe, SdcorrError, UnknownName, WeightsNotFound
from sdcorr.export import how_made
from sdcorr.matchers.mutual import Mutual
from sdcorr.matchers.nearest import Nearest
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES
from sdcorr.types import Encoding, Image
from tests.demo.server import OFFERED, astronaut, hopper, small, studio_with, until

WEIGHTLESS = RECIPES["same-position"]


class Gate:
    """Loads recipes; loading and encoding are written down, and wait while the gate is shut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.done = threading.Event(), []
        self.open.set()
        self.models: list[weakref.ref[Pipeline]] = []
        self.alive: list[int] = []  # models, whenever one is about to be loaded
        self.errors: list[BaseException] = []  # raised by loading, one after the other
        self.look: Callable[[], object] = lambda: None
        encode = Pipeline.encode

        def waiting(model: Pipeline, photo: Image, category: str | None = None) -> Encoding:
            self.done.append(f"encode by {model.recipe.name}")
            assert self.open.wait(10)
            self.look()
            return encode(model, photo, category)

        monkeypatch.setattr(Pipeline, "encode", waiting)

    def load(self, recipe: Recipe) -> Pipeline:
        self.done.append(f"load {recipe.name}")
        assert self.open.wait(10)
        self.look()
        self.alive.append(self.count())
        if self.errors:
            raise self.errors.pop(0)
        model = sdcorr.load(recipe)
        self.models.append(weakref.ref(model))
        return model

    def count(self) -> int:
        return sum(model() is not None for model in self.models)

    def studio(self, count: int, memory: int = 10**9) -> Studio:
        """Of recipes "0" to "count - 1"."""
        names = map(str, range(count))
        recipes = {name: dataclasses.replace(WEIGHTLESS, name=name) for name in names}
        return Studio(recipes, self.load, memory)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def photos(studio: Studio) -> tuple[str, str]:
    one, other = make_photo(Image(astronaut()), "a.jpg"), make_photo(Image(hopper()), "b.jpg")
    return studio.add(one).id, studio.add(other).id


def wait(studio: Studio, pairing: Pairing) -> Joined:
    until(lambda: isinstance(studio.joined(pairing), Joined))
    found = studio.joined(pairing)
    assert isinstance(found, Joined)
    return found


def error_of(studio: Studio, pairing: Pairing) -> SdcorrError:
    """What the page is told; the work must fail."""
    told: list[SdcorrError] = []

    def failed() -> bool:
        try:
            assert isinstance(studio.joined(pairing), Job)
        except SdcorrError as error:
            told.append(error)
        return bool(told)

    until(failed)
    return told[0]


# -- one pair ----------------------------------------------------------------------------------


def test_steps_come_in_order(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.open.clear()
    studio = gate.studio(1)
    pairing = Pairing(*photos(studio), "0")
    job = studio.joined(pairing)
    assert isinstance(job, Job)
    seen: list[tuple[str, int, int]] = []

    def look() -> None:
        seen.append((job.step, job.number, job.steps))

    fuse = Pipeline.fuse
    gate.look = look
    monkeypatch.setattr(Pipeline, "fuse", lambda *ends: (look(), fuse(*ends))[1])
    gate.open.set()
    wait(studio, pairing)
    assert seen == [
        ("loading 0", 1, 4),
        ("encoding a.jpg", 2, 4),
        ("encoding b.jpg", 3, 4),
        ("joining both photos", 4, 4),
        ("joining both photos", 4, 4),
    ]


def test_a_pair_that_waits_for_others_says_so(gate: Gate) -> None:
    gate.open.clear()
    studio = gate.studio(2)
    first, second = photos(studio)
    studio.joined(Pairing(first, second, "0"))
    until(lambda: gate.done)
    job = studio.joined(Pairing(first, second, "1"))
    assert isinstance(job, Job)
    assert (job.step, job.number, job.error) == ("waiting for its turn", 0, None)


@pytest.mark.parametrize("recipe", OFFERED)
def test_both_directions_are_what_the_model_finds(recipe: str) -> None:
    model = sdcorr.load(small(recipe))
    studio = Studio({recipe: model.recipe}, sdcorr.load, 10**9)
    joined = wait(studio, Pairing(*photos(studio), recipe))
    first, second = Image(astronaut()), Image(hopper())
    points = [[20, 30], [60.5, 90.25], [0, 0], [99, 103]]
    for pair, ends in ((joined.forth, (first, second)), (joined.back, (second, first))):
        found, wanted = pair.match(points), model.match(*ends, points)
        for field in dataclasses.fields(found):
            one, other = getattr(found, field.name), getattr(wanted, field.name)
            if field.name not in ("source_image", "target_image", "names"):
                assert (one is None and other is None) or one.equal(other), field.name
    assert joined.made["recipe"] == model.recipe.describe()


def test_a_joined_pair_is_kept_and_so_are_encodings(gate: Gate) -> None:
    studio = gate.studio(1)
    first, second = photos(studio)
    joined = wait(studio, Pairing(first, second, "0"))
    assert studio.joined(Pairing(first, second, "0")) is joined
    wait(studio, Pairing(second, first, "0"))
    wait(studio, Pairing(first, first, "0", "nearest"))
    assert gate.done == ["load 0", "encode by 0", "encode by 0"]


def test_two_pages_ask_for_one_pair(gate: Gate) -> None:
    gate.open.clear()
    studio = gate.studio(1)
    pairing = Pairing(*photos(studio), "0")
    assert studio.joined(pairing) is studio.joined(dataclasses.replace(pairing))
    gate.open.set()
    wait(studio, pairing)
    assert gate.done.count("load 0") == 1


def test_every_matcher_that_is_listed_can_be_chosen() -> None:
    studio = Studio({"sift": small("sift")}, sdcorr.load, 10**9)
    ends = photos(studio)
    for name in matcher_names():
        joined = wait(studio, Pairing(*ends, "sift", name))
        for pair in (joined.forth, joined.back):
            assert type(pair.matcher) is type(with_matcher(RECIPES["sift"], name).matcher)
            assert len(pair.match([[20, 30], [40, 50]])) == 2
        assert joined.made["recipe"]["matcher"]["kind"] == name


def test_a_matcher_goes_around_the_recipes_own() -> None:
    assert with_matcher(RECIPES["sift"], "") is RECIPES["sift"]
    assert with_matcher(RECIPES["sift-hough"], "nearest").matcher == Nearest()
    mutual = with_matcher(RECIPES["sift-hough"], "mutual")
    assert mutual.matcher == Mutual(RECIPES["sift-hough"].matcher)
    assert mutual.own_calibration is None
    with pytest.raises(UnknownName, match="no matcher called 'huogh'; did you mean 'hough'"):
        with_matcher(RECIPES["sift"], "huogh")


@pytest.mark.parametrize("name", ["", "nearest", "hough"])
def test_what_all_points_share_is_computed_before_a_pair_is_ready(name: str) -> None:
    studio = Studio({"sift-hough": small("sift-hough")}, sdcorr.load, 10**9)
    ends = photos(studio)
    for pairing in (Pairing(*ends, "sift-hough", name), Pairing(*ends, "sift-hough")):
        until(lambda: isinstance(studio.joined(pairing), Joined), pause=0)  # noqa: B023
        joined = studio.joined(pairing)
        assert "_prepared" in vars(joined.forth)
        assert "_prepared" in vars(joined.back)


def test_another_matcher_finds_what_a_recipe_with_it_finds_and_joins_nothing_anew() -> None:
    studio = Studio({"sift": small("sift")}, sdcorr.load, 10**9)
    ends = photos(studio)
    own = wait(studio, Pairing(*ends, "sift"))
    for name in matcher_names():
        joined = wait(studio, Pairing(*ends, "sift", name))
        assert joined.forth.similarity is own.forth.similarity
        assert joined.back.similarity is own.back.similarity
        model = sdcorr.load(with_matcher(small("sift"), name))
        images = [studio.photo(end).image for end in ends]
        for pair, wanted in ((joined.forth, images), (joined.back, images[::-1])):
            found, there = (one.match([[20, 30]]) for one in (pair, model.fuse(*wanted)))
            assert found.target.equal(there.target)
            assert (found.confidence is None) == (there.confidence is None)
        assert joined.made == how_made(model)
        assert own.made["recipe"] == small("sift").describe()  # as it was


def test_a_matcher_that_does_not_go_with_the_recipe_is_told_at_once() -> None:
    flipped = dataclasses.replace(small("sift"), flip=True)
    studio = Studio({"flipped": flipped}, sdcorr.load, 10**9)
    with pytest.raises(BadRecipe, match="use another matcher"):
        studio.joined(Pairing(*photos(studio), "flipped", "pixel"))


def test_a_page_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    studio = Studio({"far": RECIPES["dinov2-s"]}, lambda _: pytest.fail("loaded"), 10**9)
    ends = photos(studio)
    for _ in range(2):
        with pytest.raises(WeightsNotFound, match="sdcorr models download far"):
            studio.joined(Pairing(*ends, "far"))


@pytest.mark.parametrize("side", ["first", "second"])
def test_the_photo_that_is_gone_is_named(gate: Gate, side: str) -> None:
    studio = gate.studio(1)
    ends = dict(zip(("first", "second"), photos(studio), strict=True)) | {side: "gone"}
    with pytest.raises(BadImage, match=f"^the {side} photo was let go .*; choose it again$"):
        studio.joined(Pairing(ends["first"], ends["second"], "0"))


def test_what_cannot_be_joined_is_told_at_once(gate: Gate) -> None:
    studio = gate.studio(1)
    first, second = photos(studio)
    for pairing, kind, words in (
        (Pairing(first, "gone", "0"), BadImage, "choose it again"),
        (Pairing("", second, "0"), BadImage, "choose it again"),
        (Pairing(first, second, "1"), UnknownName, "no recipe called '1'"),
        (Pairing(first, second, "0", category="cat"), BadRecipe, "no prompt that names a category"),
        (Pairing(first, second, "0", category=" "), BadRecipe, "the category is empty"),
    ):
        with pytest.raises(kind, match=words):
            studio.joined(pairing)
    assert gate.done == []


# -- failures ----------------------------------------------------------------------------------


def test_a_failure_is_told_once_and_the_next_call_tries_again(gate: Gate) -> None:
    gate.errors = [WeightsNotFound("no weights here; get them"), RuntimeError("a\nsurprise")]
    studio = gate.studio(2)
    first, second = photos(studio)
    pairing = Pairing(first, second, "0")
    assert str(error_of(studio, pairing)) == "no weights here; get them"
    told = str(error_of(studio, pairing))
    assert told.startswith("RuntimeError: a")
    assert "the terminal shows where" in told
    wait(studio, pairing)
    wait(studio, Pairing(first, second, "1"))
    assert gate.done[:3] == ["load 0"] * 3


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), KeyError("x"), OSError()])
def test_no_surprise_ends_the_worker(gate: Gate, error: Exception) -> None:
    studio = gate.studio(1)
    pairing = Pairing(*photos(studio), "0")
    gate.errors = [error]
    assert str(error_of(studio, pairing)).startswith(type(error).__name__)
    wait(studio, pairing)


def test_weights_that_are_missing_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
    studio = studio_with(("dinov2-s", "sift"))
    assert (studio.is_ready("dinov2-s"), studio.is_ready("sift")) == (False, True)
    first, second = photos(studio)
    sentence = str(error_of(studio, Pairing(first, second, "dinov2-s")))
    assert "sdcorr models download dinov2-s" in sentence
    wait(studio, Pairing(first, second, "sift"))


def test_failures_of_closed_pages_are_forgotten(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = gate.studio(2)
    gate.errors = [RuntimeError("nobody reads this")]
    first, second = photos(studio)
    studio.joined(Pairing(first, second, "0"))
    until(lambda: studio._jobs[Pairing(first, second, "0")].error is not None)
    monkeypatch.setattr(_studio, "PATIENCE", 0.1)
    time.sleep(0.5)
    wait(studio, Pairing(first, second, "1"))
    assert studio._jobs == {}


# -- pages that are closed, and several --------------------------------------------------------


def test_a_closed_page_is_dropped_before_the_next_step(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its recipe is loading when it is closed; the other page's is served, with nothing between."""
    monkeypatch.setattr(_studio, "PATIENCE", 0.15)
    gate.open.clear()
    studio = gate.studio(2)
    first, second = photos(studio)
    closed, open_ = Pairing(first, second, "0"), Pairing(first, second, "1")
    studio.joined(closed)
    until(lambda: gate.done == ["load 0"])
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert isinstance(studio.joined(open_), Job)
        time.sleep(0.02)
    gate.open.set()
    wait(studio, open_)
    assert gate.done == ["load 0", "load 1", "encode by 1", "encode by 1"]
    assert studio._jobs == {}
    wait(studio, closed)  # opened again: its model is still there
    assert gate.done[4:] == ["encode by 0", "encode by 0"]


def test_a_page_that_waits_in_line_is_not_taken_for_closed(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_studio, "PATIENCE", 0.15)
    gate.open.clear()
    studio = gate.studio(2)
    pairings = [Pairing(*photos(studio), name) for name in "01"]
    begin, seen = time.monotonic(), set()  # jobs are hashed by identity

    def joined() -> bool:
        states = [studio.joined(pairing) for pairing in pairings]
        seen.update(state for state in states if isinstance(state, Job))
        if time.monotonic() - begin > 0.4:
            gate.open.set()
        return all(isinstance(state, Joined) for state in states)

    until(joined)
    assert len(seen) == 2
    assert gate.done.count("load 0") == gate.done.count("load 1") == 1


def test_two_pages_with_two_recipes_are_both_served(gate: Gate) -> None:
    studio = gate.studio(2)
    pairings = [Pairing(*photos(studio), name) for name in "01"]
    until(lambda: sum(isinstance(studio.joined(one), Joined) for one in pairings) == 2)
    assert sorted(gate.done) == sorted(
        f"{step} {name}" for name in "01" for step in ("load", "encode by", "encode by")
    )


def test_the_page_of_an_old_pair_is_not_stopped_by_a_new_one(gate: Gate) -> None:
    studio = gate.studio(2)
    first, second = photos(studio)
    joined = wait(studio, Pairing(first, second, "0"))
    gate.open.clear()
    studio.joined(Pairing(first, second, "1"))
    until(lambda: "load 1" in gate.done)
    assert studio.joined(Pairing(first, second, "0")) is joined
    assert len(joined.forth.match([[5, 5]])) == 1


# -- memory ------------------------------------------------------------------------------------


def test_at_most_so_many_models_live(gate: Gate) -> None:
    """Whatever is on the shelf: joined pairs hold what a model made, not the model."""
    studio = gate.studio(4)
    first, second = photos(studio)
    for name in "0123":
        for matcher in ("", "nearest"):
            wait(studio, Pairing(first, second, name, matcher))
    wait(studio, Pairing(first, second, "0", "mutual"))  # of the pair that is kept
    wait(studio, Pairing(second, first, "0"))
    assert [one for one in gate.done if one.startswith("load")] == [
        "load 0", "load 1", "load 2", "load 3", "load 0"
    ]  # fmt: skip
    assert max(gate.alive) == _studio.LOADED - 1  # the next one is loaded into room that is free
    assert gate.count() == _studio.LOADED
    for name in "123":  # of models that are gone
        assert isinstance(studio.joined(Pairing(first, second, name)), Joined)


def test_the_model_in_use_is_the_one_that_stays(gate: Gate) -> None:
    studio = gate.studio(3)
    first, second = photos(studio)
    for name, matcher in (("0", ""), ("1", ""), ("0", "nearest"), ("2", ""), ("0", "mutual")):
        wait(studio, Pairing(first, second, name, matcher))
    assert [one for one in gate.done if one.startswith("load")] == ["load 0", "load 1", "load 2"]


def noise(seed: int) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return make_photo(Image(pixels), f"{seed}.jpg")


def test_many_photos_stay_within_the_memory(gate: Gate) -> None:
    memory = 400_000
    studio = gate.studio(1, memory)
    first, second = photos(studio)
    pairing = Pairing(first, second, "0")
    joined = wait(studio, pairing)
    others = []
    for seed in range(60):
        others.append(studio.add(noise(seed)).id)
        assert studio.shelf.nbytes <= memory
        assert studio.joined(pairing) is joined  # in use
    assert studio.photo(first).name == "a.jpg"
    assert studio.photo(others[-1]).name == "59.jpg"
    with pytest.raises(BadImage, match=r"let go to make room, or the demo began anew"):
        studio.photo(others[0])
    with pytest.raises(BadImage, match="choose it again"):
        studio.joined(Pairing(others[0], second, "0"))
    assert gate.done == ["load 0", "encode by 0", "encode by 0"]


def test_many_pairs_stay_within_the_memory(gate: Gate) -> None:
    memory = 600_000
    studio = gate.studio(1, memory)
    for seed in range(0, 40, 2):
        ids = [studio.add(noise(seed + one)).id for one in range(2)]
        wait(studio, Pairing(ids[0], ids[1], "0"))
        assert studio.shelf.nbytes <= memory


def test_bytes_of_photos_by_hand(gate: Gate) -> None:
    """Pixels and the copy that is shown; an encoding shares the pixels."""
    studio = gate.studio(1)
    first, second = photos(studio)
    by_hand = sum(
        studio.photo(key).image.pixels.size + len(studio.photo(key).shown)
        for key in (first, second)
    )
    assert studio.shelf.nbytes == by_hand
    joined = wait(studio, Pairing(first, second, "0"))
    maps = [
        one for pair in (joined.forth.source, joined.forth.target) for one in pair.maps.values()
    ]
    more = studio.shelf.nbytes - by_hand
    assert more >= sum(one.values.numel() * 4 for one in maps)
    assert more == nbytes(joined) - studio.photo(first).image.pixels.size - (
        studio.photo(second).image.pixels.size
    )


def test_a_pair_larger_than_the_memory_is_told_not_tried_for_ever(gate: Gate) -> None:
    """The photos had to go for what was made of them."""
    studio = gate.studio(1, 100_000)
    first, second = photos(studio)  # 49 kB and 41 kB, and what is shown of them
    with pytest.raises(BadImage, match="choose it again"):
        wait(studio, Pairing(first, second, "0"))


# -- many at once ------------------------------------------------------------------------------


def test_many_threads_ask_match_and_upload(gate: Gate) -> None:
    """Where the memory does not suffice for all: they are told so, and nothing worse."""
    memory = 500_000
    studio = gate.studio(3, memory)
    mine = photos(studio)
    wrong: list[BaseException] = []
    done: dict[str, int] = {"joined": 0, "told": 0}
    end = time.monotonic() + 1

    def work(seed: int, act: Callable[[np.random.Generator], None]) -> None:
        random = np.random.default_rng(seed)
        try:
            while time.monotonic() < end:
                act(random)
        except BaseException as error:
            wrong.append(error)

    def click(random: np.random.Generator) -> None:
        ends = mine if random.integers(2) else mine[::-1]
        try:
            state = studio.joined(Pairing(*ends, str(random.integers(3))))
        except BadImage:
            done["told"] += 1
            return
        if isinstance(state, Joined):
            pair = state.forth if random.integers(2) else state.back
            found = pair.match([[5, 5], [50, 60]])
            assert found.target.tolist() == [[5, 5], [50, 60]]
            pair.next_best(found.select(found.matched.nonzero()[:1, 0]))
            done["joined"] += 1

    def send(random: np.random.Generator) -> None:
        key = studio.add(noise(int(random.integers(100)))).id
        assert studio.shelf.nbytes <= memory
        try:
            studio.joined(Pairing(key, mine[0], "0"))
        except BadImage:
            done["told"] += 1
        time.sleep(0.005)

    threads = [
        threading.Thread(target=work, args=(seed, send if seed % 4 == 0 else click), daemon=True)
        for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    until(lambda: not any(thread.is_alive() for thread in threads), 20)
    assert not wrong
    assert done["joined"] > 0
    wait(studio, Pairing(*photos(studio), "1"))  # the worker goes on
