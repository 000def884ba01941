from __future__ import annotations

import threading
import time

import pytest

from sdcorr.ahead import ahead, background


@pytest.mark.parametrize("depth", [1, 2, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_results_come_in_order(depth, count):
    assert list(ahead(lambda x: x * x, range(count), depth)) == [x * x for x in range(count)]


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_items_are_taken_than_asked_for(depth):
    """By the time of the n-th result, n + depth items at most have been taken."""
    taken: list[int] = []

    def items():
        for index in range(20):
            taken.append(index)
            yield index

    for count, _ in enumerate(ahead(str, items(), depth), start=1):
        assert len(taken) == min(20, count + depth)


def test_the_next_is_made_while_this_one_is_used():
    begun = {index: threading.Event() for index in range(3)}
    results = ahead(lambda index: begun[index].set() or index, range(3))
    assert next(results) == 0
    assert begun[1].wait(5)  # without another next()
    assert list(results) == [1, 2]


def test_an_error_comes_in_place_of_its_result():
    results = ahead(lambda x: 1 // x, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_thread_is_left_of_results_that_nobody_takes():
    before = threading.active_count()
    results = ahead(str, range(100), depth=5)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_what_has_not_begun_is_never_done():
    done: list[int] = []
    with background() as thread:
        for index in range(50):
            thread.submit(lambda index=index: (time.sleep(0.01), done.append(index)))
    assert len(done) < 10
