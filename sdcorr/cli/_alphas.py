"""The options of commands that score: several alphas after one ``--alpha``, bootstrap draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

MOST_DRAWS = 100_000
FEWEST_DRAWS = 100  # the ends of a 95 % interval are the 3rd lowest and highest of so many

Command = TypeVar("Command", bound=Callable[..., Any])


class AlphasCommand(click.Command):
    """Takes ``--alpha 0.1 0.05`` as ``--alpha 0.1 --alpha 0.05``."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        return super().parse_args(context, _spread(arguments))


def rule_options(command: Command) -> Command:
    """``--alpha``, ``--threshold`` and ``--strict``; with ``cls=AlphasCommand``."""
    options = (
        click.option(
            "--alpha", "alphas", type=float, multiple=True, metavar="A...",
            help="Tolerances, such as 0.1 0.05 0.01.",
        ),
        click.option(
            "--threshold", type=click.Choice(["box", "keypoints", "image"]),
            help="Side of the target's box, of the box around its keypoints, or of the image; the "
            "data set's own if not given.",
        ),
        click.option("--strict", is_flag=True, help="Error < threshold, in place of <=."),
    )  # fmt: skip
    wrapped: Any = command
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast(Command, wrapped)


def _draws(_context: click.Context, _option: click.Parameter, value: int) -> int:
    if value != 0 and not FEWEST_DRAWS <= value <= MOST_DRAWS:
        raise click.BadParameter(
            f"expected {FEWEST_DRAWS} to {MOST_DRAWS} draws, or 0, got {value}"
        )
    return value


bootstrap_option = click.option(
    "--bootstrap", "replicates", type=int, default=1000, show_default=True, callback=_draws,
    metavar="N", help="Draws for the intervals, at least 100; 0 gives none.",
)  # fmt: skip


def _spread(words: list[str]) -> list[str]:
    """Arguments in which each number after ``--alpha`` has an ``--alpha`` of its own."""
    spread: list[str] = []
    taking = False
    for word in words:
        numbers = word.removeprefix("--alpha=").split(",")
        taking = taking or word.startswith("--alpha=")
        if taking and all(map(_is_number, numbers)):
            spread += [part for number in numbers for part in ("--alpha", number)]
        elif word == "--alpha":
            taking = True
        else:
            if taking and spread[-2:-1] != ["--alpha"]:
                spread.append("--alpha")  # no number came: let click say so
            taking = False
            spread.append(word)
    return [*spread, "--alpha"] if words[-1:] == ["--alpha"] else spread


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
