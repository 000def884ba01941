"""Many photos encoded one after another: in order, a few at a time, the bad ones in words."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sdcorr
from sdcorr import encodings
from sdcorr.backbones.sift import Sift
from sdcorr.encodings import encode_each
from sdcorr.errors import BadImage, NotFinite
from sdcorr.fusion import Group, MapUse
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe
from sdcorr.runtime import Runtime
from sdcorr.types import Encoding, Image
from tests.annotated import draw_photo

SIFT = Recipe("small sift", (Group("sift", Sift(size=64), (MapUse("rootsift"),)),))
ONE_AND_FOUR = pytest.mark.parametrize("together", [1, 4])


def load(together: int = 1, recipe: Recipe | str = "same-position") -> Pipeline:
    """On the CPU; with several photos together, it takes itself for a GPU."""
    model = sdcorr.load(recipe, device="cpu", dtype="float32")
    if together > 1:
        model.runtime = Runtime(torch.device("cuda"), torch.float32, batch=together)
    assert model.runtime.photos == together
    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven, no multiple of four; every third is upright."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{index:02d}.png" for index in range(11)]
    for index, path in enumerate(paths):
        draw_photo(path, *((60, 80) if index % 3 == 1 else (80, 60)), seed=index)
    return paths


class Watched:
    """What a pipeline encodes, and which photos and encodings are still in memory."""

    def __init__(self, model: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        self.together: list[int] = []  # photos of each call
        self.categories: set[str | None] = set()
        self.most = {"images": 0, "encodings": 0}  # alive at once
        self._born: dict[str, list[weakref.ref[Any]]] = {"images": [], "encodings": []}
        self._lock = threading.Lock()  # photos are read by another thread
        self._encode, self._load = model.encode_batch, encodings.load_image
        monkeypatch.setattr(model, "encode_batch", self.encode_batch)
        monkeypatch.setattr(encodings, "load_image", self.load_image)

    def encode_batch(self, images: Sequence[Image], *words: Any, **fields: Any) -> list[Encoding]:
        self.together.append(len(images))
        self.categories |= {image.category for image in images}
        found = self._encode(images, *words, **fields)
        for one in found:
            self.bear("encodings", one)
        return found

    def load_image(self, photo: Path, category: str | None = None) -> Image:
        self.read.append(photo.name)
        image = self._load(photo, category)
        self.bear("images", image)
        return image

    def bear(self, kind: str, one: Any) -> None:
        with self._lock:
            self._born[kind].append(weakref.ref(one))
            alive = sum(ref() is not None for ref in self._born[kind])
            self.most[kind] = max(self.most[kind], alive)


def names(found: Sequence[Encoding | BadImage]) -> list[str]:
    """Of the photos, and for those that cannot be encoded the first word on why."""
    return [
        str(one).split()[0] if isinstance(one, BadImage) else one.image.path.name for one in found
    ]


@ONE_AND_FOUR
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 11])
def test_encodings_come_in_order(photos, together, count):
    found = list(encode_each(load(together), photos[:count]))
    assert names(found) == [photo.name for photo in photos[:count]]
    assert all(isinstance(one, Encoding) for one in found)


@ONE_AND_FOUR
def test_they_are_those_of_encode(photos, together):
    """Photos of one batch must not mix; SIFT computes each photo on its own."""
    model = load(recipe=SIFT)
    expected = [model.encode(photo) for photo in photos]
    for one, alone in zip(encode_each(load(together, SIFT), photos), expected, strict=True):
        assert torch.equal(one.maps["sift/rootsift"].values, alone.maps["sift/rootsift"].values)
        assert one.maps["sift/rootsift"].grid == alone.maps["sift/rootsift"].grid
        assert (one.image.pixels == alone.image.pixels).all()
        assert (one.image.path, one.size) == (alone.image.path, alone.size)


def test_a_photo_may_come_twice(photos):
    twice = [photos[0], photos[1], photos[0]]
    assert names(list(encode_each(load(4), twice))) == [photo.name for photo in twice]


@ONE_AND_FOUR
@pytest.mark.parametrize(
    "bad",
    [{0}, {10}, {5}, {0, 1, 2, 3}, {2, 4, 9}, set(range(11))],
    ids=["first", "last", "middle", "a batch", "some", "all"],
)
def test_bad_photos_stand_where_they_were(photos, tmp_path, together, bad):
    mixed = [tmp_path / "gone.png" if index in bad else one for index, one in enumerate(photos)]
    found = list(encode_each(load(together), mixed))
    assert {index for index, one in enumerate(found) if isinstance(one, BadImage)} == bad
    for index, one in enumerate(found):
        if index in bad:
            assert str(one) == f"no such file: {tmp_path / 'gone.png'}"
        else:
            assert one.image.path == photos[index]


@ONE_AND_FOUR
def test_each_kind_of_damage_has_its_words(photos, tmp_path, together):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no photo")
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:900])
    bad = [tmp_path / name for name in ("empty.png", "text.png", "cut.png", "")]
    words = ["is empty", "is no photo", "is damaged", "is a folder"]
    found = list(encode_each(load(together), [photos[0], *bad, photos[1]]))
    assert [isinstance(one, Encoding) for one in found] == [True, *[False] * 4, True]
    for path, part, one in zip(bad, words, found[1:-1], strict=True):
        assert f"{path} {part}" in str(one)


def test_an_error_does_not_hold_on_to_its_photo(photos, tmp_path):
    """Thousands of bad photos may be met: no traceback with frames that hold pixels."""
    (tmp_path / "cut.png").write_bytes(photos[0].read_bytes()[:900])
    (error,) = encode_each(load(), [tmp_path / "cut.png"])
    assert isinstance(error, BadImage)
    assert error.__traceback__ is None
    assert error.__cause__ is None
    assert error.__context__ is None


@ONE_AND_FOUR
def test_a_photo_that_the_recipe_cannot_take_costs_no_other(photos, monkeypatch, together):
    """The batch is encoded again, photo by photo."""
    model = load(together)
    encode, calls = model.encode_batch, []

    def picky(images: Sequence[Image], *words: Any, **fields: Any) -> list[Encoding]:
        calls.append(len(images))
        if any(image.path == photos[5] for image in images):
            raise BadImage("05.png is too thin")
        return encode(images, *words, **fields)

    monkeypatch.setattr(model, "encode_batch", picky)
    found = list(encode_each(model, photos))
    assert names(found) == [photo.name for photo in photos]
    assert [index for index, one in enumerate(found) if isinstance(one, BadImage)] == [5]
    assert str(found[5]) == "05.png is too thin"
    assert calls == ([1] * 11 if together == 1 else [4, 4, 1, 1, 1, 1, 3])


def test_photos_are_encoded_together_where_it_pays(photos, monkeypatch, tmp_path):
    watched = Watched(model := load(4), monkeypatch)
    list(encode_each(model, photos))
    assert watched.together == [4, 4, 3]
    watched = Watched(model := load(1), monkeypatch)
    list(encode_each(model, photos))
    assert watched.together == [1] * 11
    watched = Watched(model := load(4), monkeypatch)
    gone = [tmp_path / f"{index}.png" for index in range(8)]
    list(encode_each(model, gone))
    assert watched.together == []  # of no photo at all, the model hears nothing


@ONE_AND_FOUR
def test_each_photo_is_read_once(photos, monkeypatch, together):
    watched = Watched(model := load(together), monkeypatch)
    list(encode_each(model, photos))
    assert watched.read == [photo.name for photo in photos]


@ONE_AND_FOUR
def test_the_category_is_told(photos, monkeypatch, together):
    watched = Watched(model := load(together), monkeypatch)
    list(encode_each(model, photos, "house cat"))
    assert watched.categories == {"house cat"}
    watched.categories.clear()
    list(encode_each(model, photos))
    assert watched.categories == {None}


@ONE_AND_FOUR
@pytest.mark.parametrize("mirrored", [True, False])
def test_mirror_images_are_encoded_where_they_are_wanted(photos, monkeypatch, together, mirrored):
    """In recipes with flip; also of photos that are encoded again, on their own."""
    model = load(together, replace(SIFT, flip=True))
    encode = model.encode_batch

    def picky(images: Sequence[Image], *words: Any, **fields: Any) -> list[Encoding]:
        if any(image.path == photos[1] for image in images):
            raise BadImage("01.png is too thin")
        return encode(images, *words, **fields)

    monkeypatch.setattr(model, "encode_batch", picky)
    found = list(encode_each(model, photos[:5], mirrored=mirrored))
    assert isinstance(found.pop(1), BadImage)
    assert [one.mirrored is not None for one in found] == [mirrored] * 4


# How much is done, and held


@ONE_AND_FOUR
@pytest.mark.parametrize("count", [5, 33])
def test_few_photos_are_held_whatever_their_number(photos, monkeypatch, together, count):
    """Of ``together`` at a time: the last ones, those that are encoded, and as many read ahead,
    one of which just goes from hand to hand. Without reading ahead, encodings are two times."""
    watched = Watched(model := load(together), monkeypatch)
    gc.disable()  # what is let go must go at once, not at the next collection
    try:
        for one in encode_each(model, (photos * 3)[:count]):
            del one
    finally:
        gc.enable()
    assert watched.most["images"] <= 3 * together + 1
    assert watched.most["encodings"] <= 2 * together


def test_nothing_is_read_before_it_is_asked_for(photos, monkeypatch):
    watched = Watched(model := load(), monkeypatch)
    found = encode_each(model, photos)
    assert watched.read == []
    assert (names([next(found)]), watched.together) == (["00.png"], [1])
    found.close()


@ONE_AND_FOUR
def test_photos_are_read_a_little_ahead(photos, monkeypatch, together):
    """After the n-th encoding: those of its batch, and ``together`` more at most."""
    watched = Watched(model := load(together), monkeypatch)
    for index, _ in enumerate(encode_each(model, photos)):
        batch = index // together + 1
        assert len(watched.read) <= together * (batch + 1)
        assert sum(watched.together) == min(11, together * batch)


def test_the_next_photo_is_read_while_this_one_is_used(photos, monkeypatch):
    model, begun = load(), {photo.name: threading.Event() for photo in photos}
    read = encodings.load_image

    def told(photo: Path, category: str | None) -> Image:
        begun[photo.name].set()
        return read(photo, category)

    monkeypatch.setattr(encodings, "load_image", told)
    found = encode_each(model, photos)
    next(found)
    assert begun["01.png"].wait(5)  # without another next()
    found.close()


def test_no_thread_is_left_of_encodings_that_nobody_takes(photos):
    before = threading.active_count()
    found = encode_each(load(4), photos)
    next(found)
    found.close()
    gc.collect()
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [NotFinite("map is not finite"), KeyError("a fault of ours")])
def test_other_errors_are_raised(photos, monkeypatch, error):
    model = load()

    def fail(*_: Any, **__: Any) -> list[Encoding]:
        raise error

    monkeypatch.setattr(model, "encode_batch", fail)
    with pytest.raises(type(error)):
        list(encode_each(model, photos))
