"""Bring the options in docs/commands/*.md up to date: python docs/write_commands.py.

Between two comments, each page holds what click knows of the command; the rest is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from sdcorr.cli import cli

FOLDER = Path(__file__).parent / "commands"
START = "<!-- Written by `python docs/write_commands.py`; edit the command's help, not this. -->"
END = "<!-- End of what is written. -->"
PART = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.S)


def pages() -> dict[Path, str]:
    """The page of each command of sdcorr, as it should be; "" where there is none.

    Raises:
        ValueError: a page lacks the two comments.
    """
    root = click.Context(cli, info_name="sdcorr", **cli.context_settings)
    made = {}
    for name, command in cli.commands.items():
        path = FOLDER / f"{name}.md"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text and not PART.search(text):
            raise ValueError(f"{path} lacks the comments that mark the options: {START} {END}")
        lines = _of_command(click.Context(command, info_name=name, parent=root))
        told = "\n".join(["## Usage\n", *lines]).rstrip()
        before, *after = PART.split(text)
        made[path] = f"{START}\n\n{told}\n\n{END}".join([before, *after])
    return made


def _of_command(context: click.Context) -> Iterator[str]:
    """Usage and options; of a group, those of each of its commands under a heading."""
    command = context.command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield f"### sdcorr {context.info_name} {name}\n"
            yield f"{_first_lines(inner)}\n"
            yield from _of_command(click.Context(inner, info_name=name, parent=context))
            yield ""
        return
    usage = " ".join(context.get_usage().split()).removeprefix("Usage: ")
    yield f"```\n{usage}\n```\n"
    for parameter in command.get_params(context):
        if record := parameter.get_help_record(context):
            words, told = record
            if isinstance(parameter, click.Option):
                yield f"* `{words}`: {' '.join(told.split())}"


def _first_lines(command: click.Command) -> str:
    """What stands above the examples of a command's help."""
    return " ".join((command.help or "").partition("\b")[0].split())


def main() -> None:
    """Rewrite the pages that are out of date; name those that are missing."""
    for path, text in pages().items():
        if not text:
            print(f"{path} is missing: write it, with these two lines: {START} {END}")
        elif text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
