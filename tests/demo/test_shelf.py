from __future__ import annotations

import gc
import threading
import types
import weakref
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

import sdcorr
from sdcorr.demo._photos import make_photo
from sdcorr.demo._shelf import Shelf, nbytes
from sdcorr.demo._studio import matcher_names, with_matcher
from sdcorr.types import Image
from tests.demo.server import OFFERED, astronaut, hopper, small, until


@dataclass(frozen=True, eq=False)
class Held:
    """As what the shelf keeps: frozen, with a value that is computed once."""

    rows: Any = None
    parts: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def squares(self) -> torch.Tensor:
        return self.rows**2


# -- what a value weighs -----------------------------------------------------------------------


def test_bytes_by_hand() -> None:
    assert nbytes(torch.zeros(3, 4)) == 48
    assert nbytes(torch.zeros(3, dtype=torch.float64)) == 24
    assert nbytes(np.zeros((5, 2), np.uint8)) == 10
    assert nbytes(b"seven..") == 7
    assert nbytes((torch.zeros(2), [np.zeros(3)], {"a": b"x"})) == 8 + 24 + 1
    assert nbytes(Held(torch.zeros(2), (np.zeros(1),), {"a": torch.zeros(1)})) == 8 + 8 + 4
    for nothing in (None, 5, "text", (), [], {}, Held(), object(), torch.zeros(0), Held):
        assert nbytes(nothing) == 0


def test_what_is_shared_counts_once() -> None:
    rows, pixels = torch.zeros(100), np.zeros(50, np.uint8)
    assert nbytes((rows, rows, [rows], pixels, {"a": pixels})) == 450
    assert nbytes((Held(rows), Held(rows))) == 400
    assert nbytes((rows[:10], rows[50:], rows.view(10, 10))) == 400  # all of it stays in memory
    assert nbytes((torch.zeros(0), torch.zeros(0), rows)) == 400


def test_views_of_an_array_count_as_the_array() -> None:
    pixels = np.zeros(1000, np.uint8)
    assert nbytes((pixels[:10], pixels[10:20])) == 1000
    assert nbytes((pixels, pixels[:500])) == 1000


def test_what_is_computed_once_and_kept_counts() -> None:
    held = Held(torch.zeros(10))
    assert nbytes(held) == 40
    assert held.squares.shape == (10,)
    assert nbytes(held) == 80


def test_a_value_that_holds_itself_ends() -> None:
    ring: list[Any] = [b"abc"]
    ring.append(ring)
    assert nbytes(ring) == 3


def reachable(value: object) -> int:
    """Bytes of all tensors, arrays and byte strings that the garbage collector finds from here.

    Looks into objects of any kind, where ``nbytes`` looks into those it knows.
    """
    skipped = (type, types.ModuleType, types.FunctionType, types.MethodType, torch.dtype)
    seen: dict[int, object] = {}
    todo = [value]
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, skipped):
            continue
        seen[id(one)] = one
        if not isinstance(one, torch.Tensor | np.ndarray):
            todo += gc.get_referents(one)
    tensors = [one.untyped_storage() for one in seen.values() if isinstance(one, torch.Tensor)]
    arrays = [one for one in seen.values() if isinstance(one, np.ndarray)]
    texts = [one for one in seen.values() if isinstance(one, bytes)]
    storages = {one.data_ptr(): one.nbytes() for one in tensors}
    return sum(storages.values()) + sum(one.nbytes for one in arrays) + sum(map(len, texts))


def pairings() -> list[tuple[str, str]]:
    every = [(recipe, "") for recipe in OFFERED]
    return every + [("sift-hough", name) for name in matcher_names()]


def test_nothing_that_joined_photos_hold_goes_uncounted() -> None:
    """Of every recipe without weights and of every matcher; also after clicks."""
    first, second = make_photo(Image(astronaut()), "a"), make_photo(Image(hopper()), "b")
    kept = [first, second]
    models = {name: sdcorr.load(small(name)) for name in OFFERED}
    encodings = {name: [model.encode(one.image) for one in kept] for name, model in models.items()}
    for recipe, name in pairings():
        model = sdcorr.load(with_matcher(models[recipe].recipe, name))
        pair = model.fuse(*encodings[recipe])
        pair.match([[0, 0]])
        held = nbytes((kept, pair))
        assert held == reachable((kept, pair)), (recipe, name)
        assert held > sum(one.image.pixels.nbytes + len(one.shown) for one in kept)
        pair.next_best(pair.match([[20, 30]]))
        assert nbytes((kept, pair)) <= held * 1.01, (recipe, name)  # what is kept does not grow


# -- what is let go ----------------------------------------------------------------------------


def block(size: int) -> np.ndarray:
    return np.zeros(size, np.uint8)


def test_the_least_recently_used_goes_first() -> None:
    shelf = Shelf(300)
    for key in "abc":
        shelf.put(key, block(100))
    assert shelf.nbytes == 300
    shelf.get("a")
    shelf.put("d", block(100))
    assert [key for key in "abcd" if shelf.get(key) is not None] == ["a", "c", "d"]
    assert shelf.nbytes == 300


def test_putting_again_replaces_and_renews() -> None:
    shelf = Shelf(300)
    for key in "ab":
        shelf.put(key, block(100))
    shelf.put("a", block(150))
    assert shelf.nbytes == 250
    shelf.put("c", block(100))
    assert shelf.get("b") is None
    assert shelf.get("a").nbytes == 150


def test_the_newest_stays_whatever_its_size() -> None:
    shelf = Shelf(10)
    shelf.put("a", block(5))
    shelf.put("b", block(500))
    assert (shelf.get("a"), shelf.get("b").nbytes, shelf.nbytes) == (None, 500, 500)


def test_nothing_there_is_none() -> None:
    shelf = Shelf(10)
    assert (shelf.get("a"), shelf.nbytes) == (None, 0)
    shelf.put("a", None)
    assert shelf.get("a") is None


def test_letting_go_of_what_is_shared_frees_nothing() -> None:
    """So more goes, until it fits: here ``b``, which weighs something of its own."""
    shared = block(100)
    shelf = Shelf(250)
    shelf.put("a", shared)
    shelf.put("b", block(100))
    shelf.put("c", (shared, block(60)))
    assert [key for key in "abc" if shelf.get(key) is not None] == ["c"]
    assert shelf.nbytes == 160


def test_what_is_let_go_leaves_the_memory() -> None:
    shelf = Shelf(100)
    value = Held(torch.zeros(20))
    watched = weakref.ref(value)
    shelf.put("a", value)
    del value
    shelf.put("b", block(90))
    assert watched() is None


def test_many_threads_use_one_shelf() -> None:
    shelf, wrong = Shelf(5000), []

    def work(seed: int) -> None:
        try:
            random = np.random.default_rng(seed)
            for _ in range(100):
                key = int(random.integers(20))
                value = shelf.get(key)
                assert value is None or value[0] == key
                shelf.put(key, (key, Held(torch.zeros(100), (block(50),))))
                assert shelf.nbytes <= 5000
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: not any(thread.is_alive() for thread in threads), 20)
    assert not wrong
