"""Which of how many processes this is, and the little that they tell each other.

Processes come from torch's elastic launcher, accelerate, or anything that sets its variables
(``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR``, ``MASTER_PORT``). They share one message at the start,
through the launcher's key-value store, and nothing afterwards: no collectives, so that no process
ever waits for one that is slow or dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

from sdcorr.errors import BadLaunch, SdcorrError

PATIENCE = timedelta(hours=12)  # for the leader's downloads; a dead one breaks the connection
GRACE = 10.0  # seconds in which processes of one launch start
PAUSE = 0.05  # seconds between two looks of the leader


class World:
    """The processes of one launch.

    A launcher that restarts processes may keep what earlier ones left in its store. So each
    process has a number of its own, greets the leader with it, and whatever the two tell each
    other later stands under both their numbers.

    Args:
        rank: of this process, 0 for the leader.
        size: number of processes.
        local_rank: of this process on its host.
        store: the launcher's key-value store, None for a single process.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, store: Any = None
    ) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._store = store
        self._number = self._leader = secrets.token_hex(8)
        self._plan: dict[str, Any] | None = None

    def lead(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the leader's ``work`` returns, made for JSON, in every process.

        Raises:
            BadLaunch: in the others, where the leader failed.
        """
        if self._store is None:
            return work()
        with _connection():
            if self.rank > 0:
                self._store.set(f"hello/{self.rank}", self._number)
                told = json.loads(self._store.get(f"plan/{self._number}"))
                self._leader, plan = told["leader"], told["plan"]
                if plan is None:
                    raise BadLaunch("process 0 could not start; it says why")
                return dict(plan)
        try:
            self._plan = work()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # the others are gone, too
                self._dismiss()
            raise
        with _connection():
            self._answer()
        return self._plan

    def wait_for_all(self) -> None:
        """Return once every process has come this far.

        Raises:
            BadLaunch: one failed before.
        """
        if self._store is None:
            return
        with _connection():
            if self.rank > 0:
                self._store.set(self._key("ready"), "")
                self._store.get(self._key("go"))
                self._store.set(self._key("went"), "")
            else:
                for number in self._gather("ready"):
                    self._store.set(self._key("go", number), "")
                self._gather("went")  # the leader may hold the store: it leaves last

    def _key(self, place: str, number: str | None = None) -> str:
        """Where the leader and the process of a number meet."""
        return f"{place}/{self._leader}/{number or self._number}"

    def _gather(self, place: str) -> list[str]:
        """The numbers of the others, once all have come to a place; late ones get the plan."""
        end = time.monotonic() + PATIENCE.total_seconds()
        while time.monotonic() < end:
            numbers = self._answer()
            if any(self._store.check([self._key("gone", number)]) for number in numbers):
                raise BadLaunch("another process could not start; it says why")
            there = [one for one in numbers if self._store.check([self._key(place, one)])]
            if len(there) == self.size - 1:
                return there
            time.sleep(PAUSE)
        raise BadLaunch(f"fewer than {self.size} processes came within {PATIENCE}")

    def _dismiss(self) -> None:
        """Let the others know that there is no plan, those that come a little later, too."""
        end = time.monotonic() + GRACE
        while len(self._answer()) < self.size - 1 and time.monotonic() < end:
            time.sleep(PAUSE)

    def _answer(self) -> list[str]:
        """Tell the plan to all that have greeted; their numbers."""
        greetings = [f"hello/{rank}" for rank in range(1, self.size)]
        numbers = [self._store.get(one).decode() for one in greetings if self._store.check([one])]
        for number in numbers:
            told = {"leader": self._leader, "plan": self._plan}
            self._store.set(f"plan/{number}", json.dumps(told))
        return numbers

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
        """Say in errors which process they are of, where there are several, and tell the leader."""
        try:
            yield
        except BaseException as error:
            if self._store is not None and self.rank > 0:
                with contextlib.suppress(RuntimeError):  # the leader is gone, too
                    self._store.set(self._key("gone"), "")
            if self.size > 1 and isinstance(error, SdcorrError):
                error.args = (f"process {self.rank} of {self.size}: {error}",)
            raise


def find_world(expected: int | None = None) -> World:
    """The processes of this launch, as many as were asked for.

    Args:
        expected: their number; None takes what there is.

    Raises:
        BadLaunch: another number, an impossible one, or a launcher that started one process
            whatever it was asked.
    """
    size, rank, local_rank = (
        _number(name, default)
        for name, default in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
    )
    if expected is not None and size != expected:
        raise BadLaunch(f"expected {expected} processes, got {size}; {_ADVICE}")
    if "RANK" not in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ and not expected:
        raise BadLaunch(
            "accelerate launch started a single process, as it does with --cpu whatever "
            f"--num_processes says; {_ADVICE}; if one is what you want, add --processes 1"
        )
    if not 0 <= rank < size or ("WORLD_SIZE" in os.environ) != ("RANK" in os.environ):
        raise BadLaunch(
            f"expected RANK in 0..WORLD_SIZE - 1, got RANK={os.environ.get('RANK')} and "
            f"WORLD_SIZE={os.environ.get('WORLD_SIZE')}; {_ADVICE}"
        )
    if size == 1:
        return World()
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=PATIENCE))
    except (ValueError, RuntimeError) as error:  # a variable is missing, or nobody answers
        raise BadLaunch(f"cannot reach the other processes: {error}") from error
    store.set_timeout(PATIENCE)
    return World(rank, size, local_rank, store)


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError as error:
        raise BadLaunch(f"expected a number in {name}, got {os.environ[name]!r}") from error


@contextmanager
def _connection() -> Iterator[None]:
    """Turn what torch raises when the store's holder is gone into one sentence."""
    try:
        yield
    except RuntimeError as error:
        raise BadLaunch(f"lost the connection to the other processes: {error}") from error


_ADVICE = "start them with torchrun --nproc_per_node N -m sdcorr ..."


def peak_memory() -> int | None:
    """Bytes this process has held at most; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
