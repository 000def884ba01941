"""Progress over many photos, for the commands that take them in any number."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sdcorr.processes import World

LINE_EVERY = 30.0  # seconds between lines of progress where there is no terminal


class PhotoWatch:
    """Says how many photos are done: a bar on a terminal, a line now and then elsewhere.

    Args:
        world: the processes that share the photos; the leader alone shows a bar.
        total: photos that this process is to do.
    """

    def __init__(self, world: World, total: int) -> None:
        from tqdm import tqdm

        self._total = total
        self._name = name_of(world)
        terminal = is_terminal()
        shown = terminal and world.rank == 0 and total > 0
        self._bar = tqdm(total=total, disable=not shown, leave=False, bar_format=_BAR)
        self._lines = not terminal
        self._last = self._start = time.monotonic()
        self._before: int | None = None

    def __call__(self, done: int, skipped: int) -> None:
        """Tell that so many photos are done, and so many were skipped."""
        now, over = time.monotonic(), done + skipped
        if self._before is None:  # loading a model is over when the first photo is
            self._before, self._start = over, now
        words = _speed(over - self._before, now - self._start, self._total - over)
        words = f"{skipped} skipped{words}" if skipped else words.removeprefix(", ")
        self._bar.set_description_str(f"{self._name}{words}", refresh=False)
        self._bar.update(over - self._bar.n)
        if self._lines and now - self._last >= LINE_EVERY:
            self._last = now
            end = f"; {words}" if words else ""
            click.echo(f"{self._name}{over} of {self._total} photos{end}", err=True)

    def say(self, line: str) -> None:
        """A line on standard error, above the bar."""
        from tqdm import tqdm

        tqdm.write(f"{self._name}{in_one_line(line)}", file=sys.stderr)

    def __enter__(self) -> PhotoWatch:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.close()


def name_of(world: World) -> str:
    """What a line begins with where several processes write; else empty."""
    return f"process {world.rank} of {world.size}: " if world.size > 1 else ""


def say_start(world: World, runtime: dict[str, Any]) -> None:
    """Say how many processes run on what; the leader does."""
    if world.rank == 0:
        several = "1 process" if world.size == 1 else f"{world.size} processes"
        click.echo(
            f"{several}, {runtime['device_name']} ({runtime['device']}), {runtime['dtype']}, "
            f"{runtime['threads']} thread{'s' if runtime['threads'] > 1 else ''} each",
            err=True,
        )


def in_one_line(text: str) -> str:
    """With one space for each run of spaces, and what cannot be shown as an escape."""
    plain = " ".join(text.split())
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in plain)


def _speed(photos: int, seconds: float, left: int) -> str:
    """Time left, and photos per second; empty before there is an estimate."""
    if not photos or not seconds:
        return ""
    minutes, rest = divmod(round(left * seconds / photos), 60)
    return f", {minutes // 60}:{minutes % 60:02d}:{rest:02d} left, {photos / seconds:.3g}/s"


def is_terminal() -> bool:
    """Whether there is room for a bar; a terminal of no size shows none."""
    try:
        return sys.stderr.isatty() and min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError):  # not of the system, as in a notebook
        return False


_BAR = "{n_fmt}/{total_fmt} photos {bar:10} {desc}"
