"""What a download tells while it runs."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Is told how far each step is."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """So many bytes of a step are done, of so many; None where nobody knows how many."""
        ...

    def say(self, line: str) -> None:
        """Something that the user may want to read, such as that a connection broke."""
        ...


class Quiet:
    """Tells nobody."""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""
