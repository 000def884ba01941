"""Work done in the background, a little ahead of who asks for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], depth: int = 1
) -> Generator[Result, None, None]:
    """``map(work, items)``, in order, with up to ``depth`` results made before they are asked for.

    By one thread: it pays for work that gives way to other threads, as Pillow's does. An error
    of ``work`` is raised where its result would come, one of ``items`` as soon as it is met.
    """
    waiting: deque[Future[Result]] = deque()
    with background() as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def background() -> Iterator[ThreadPoolExecutor]:
    """One thread; what it has not begun by the end is never done."""
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
