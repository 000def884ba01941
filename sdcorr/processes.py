"""Which of how many processes this is, and the little that they tell each other.

Processes come from torch's elastic launcher, accelerate, or anything that sets its variables
(``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``). They share one message at the start,
through the launcher's key-value store, and nothing afterwards: no collectives, so that no process
ever waits for one that is slow or dead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch

from sdcorr.errors import BadLaunch, SdcorrError

PATIENCE = timedelta(hours=12)  # for the leader's downloads; a dead one breaks the connection
CALLED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True, eq=False)
class World:
    """The processes of one launch.

    Args:
        rank: of this process, 0 for the leader.
        size: number of processes.
        local_rank: of this process on its host.
        store: the launcher's key-value store, None for a single process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any = field(default=None, repr=False)

    def lead(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the leader's ``work`` returns, made for JSON, in every process.

        Raises:
            BadLaunch: in the others, where the leader failed.
        """
        if self.store is None:
            return work()
        if self.rank == 0:
            try:
                value = work()
            except BaseException:
                self.store.set("plan", json.dumps(None))
                raise
            self.store.set("plan", json.dumps(value))
        told: dict[str, Any] | None = json.loads(self.store.get("plan"))
        if told is None:
            raise BadLaunch("process 0 could not start; it says why")
        return told

    def wait_for_all(self) -> None:
        """Return once every process has come this far."""
        if self.store is None:
            return
        self._arrive("ready")
        self.store.get("all ready")
        self._arrive("gone")
        if self.rank == 0:  # it may hold the store: it leaves last
            self.store.get("all gone")

    def _arrive(self, place: str) -> None:
        if self.store.add(place, 1) == self.size:
            self.store.set(f"all {place}", "yes")

    def device(self, asked: str) -> str:
        """The device of this process: each of a host's processes takes the GPU of its number.

        Raises:
            BadLaunch: the host has fewer GPUs than processes.
        """
        gpus = torch.cuda.device_count()
        if self.size == 1 or asked not in ("auto", "cuda") or not gpus:
            return asked
        if gpus == 1 and "," not in os.environ.get("CUDA_VISIBLE_DEVICES", ","):
            return "cuda:0"  # the launcher shows each process a GPU of its own
        if self.local_rank >= gpus:
            raise BadLaunch(
                f"{self.local_rank + 1} or more processes on this host, and GPUs: {gpus}; start as "
                "many as there are GPUs (--nproc_per_node), or name a --device"
            )
        return f"cuda:{self.local_rank}"

    @contextmanager
    def named(self) -> Iterator[None]:
        """Say in errors which process they are of, where there are several."""
        try:
            yield
        except SdcorrError as error:
            if self.size > 1:
                error.args = (f"process {self.rank} of {self.size}: {error}",)
            raise


def find_world(expected: int | None = None) -> World:
    """The processes of this launch, as many as were asked for.

    Args:
        expected: their number; None takes what there is.

    Raises:
        BadLaunch: another number, or a launcher that started one process whatever it was asked.
    """
    values = {name: os.environ[name] for name in CALLED if name in os.environ}
    size, rank = int(values.get("WORLD_SIZE", 1)), int(values.get("RANK", 0))
    if expected is not None and size != expected:
        raise BadLaunch(f"expected {expected} processes, got {size}; {_ADVICE}")
    if "RANK" not in values and "ACCELERATE_MIXED_PRECISION" in os.environ and expected is None:
        raise BadLaunch(
            "accelerate launch started a single process, as it does with --cpu whatever "
            f"--num_processes says; {_ADVICE}; if one is what you want, add --processes 1"
        )
    if size == 1:
        return World()
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=PATIENCE))
    except (ValueError, RuntimeError) as error:  # a variable is missing, or nobody answers
        raise BadLaunch(f"cannot reach the other processes: {error}") from error
    return World(rank, size, int(values.get("LOCAL_RANK", 0)), store)


_ADVICE = "start them with torchrun --nproc_per_node N -m sdcorr ..."
