"""Seconds of work on a device, and how many its arithmetic needs at least."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


class Clock:
    """Seconds by stage, of a device that has been waited for.

    Args:
        device: on which the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.on = device, True
        self.taken: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, stage: str, share: dict[str, float] | None = None) -> Iterator[None]:
        """Time what is done inside; with ``share``, into a sum of several passes of one photo."""
        synchronize(self.device)
        start = time.perf_counter()
        yield
        synchronize(self.device)
        taken = time.perf_counter() - start
        if share is not None:
            share[stage] = share.get(stage, 0.0) + taken
        elif self.on:
            self.taken[stage].append(taken)

    def add(self, taken: dict[str, float]) -> None:
        """Sums of one photo."""
        for stage, seconds in taken.items() if self.on else ():
            self.taken[stage].append(seconds)

    def medians(self) -> dict[str, float]:
        """Median of each stage."""
        return {stage: statistics.median(taken) for stage, taken in self.taken.items()}


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def floor_of(
    work: Callable[[], object], device: torch.device, dtype: torch.dtype, side: int
) -> dict[str, Any]:
    """Floating-point operations of some work, the machine's speed, and the seconds they make.

    Args:
        work: done once, and counted: matrix products, convolutions and attention.
        device: that it is done on.
        dtype: that it is done in.
        side: of the square matrices whose product gives the speed.
    """
    # the CPU's attention is not among those that torch counts
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def count(query: Any, key: Any, value: Any, *_words: Any, **_more: Any) -> int:
        return sdpa_flop_count(query, key, value)

    with FlopCounterMode(display=False, custom_mapping={attention: count}) as counter:
        work()
    operations = counter.get_total_flops()
    speeds = {
        str(one).removeprefix("torch."): best_product(one, device, side)
        for one in {torch.float32, dtype}
    }
    speed = speeds[str(dtype).removeprefix("torch.")]
    return {
        "operations": operations,
        "operations per second": {name: round(value) for name, value in speeds.items()},
        "floor, s": round(operations / speed, 4),
    }


def best_product(dtype: torch.dtype, device: torch.device, side: int) -> float:
    """Operations per second of the best of three square matrix products."""
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    taken = []
    for _ in range(4):  # the first warms up
        synchronize(device)
        start = time.perf_counter()
        first @ second
        synchronize(device)
        taken.append(time.perf_counter() - start)
    return 2 * side**3 / min(taken[1:])
