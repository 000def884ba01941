"""A report as Markdown of GitHub's flavour: the same tables and words, without pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sdcorr.report._blocks import (
    Bars,
    Block,
    Curve,
    Heading,
    Picture,
    Pictures,
    Report,
    Table,
    Text,
    visible,
)

FIRST = "<!-- Written by `sdcorr report`. -->"
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def markdown_of(report: Report) -> str:
    """The whole file; it begins with ``FIRST``."""
    parts = [FIRST, f"# {_escape(report.title)}"]
    for section in report.sections:
        parts.append(f"## {_escape(section.title)}")
        parts += [part for block in section.blocks for part in _block(block)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading(words):
            yield f"### {_escape(words)}"
        case Text(words, loud):
            yield f"**{_escape(words)}**" if loud else _escape(words)
        case Table():
            yield from _table(block)
        case Curve() | Bars():  # the table that follows has their numbers
            pass
        case Pictures(title, pictures):
            yield from _table(_listed(title, pictures))


def _table(table: Table) -> Iterator[str]:
    yield f"#### {_escape(table.title)}"
    yield "\n".join(
        _line(cells)
        for cells in (
            [_escape(name) for name in table.head],
            ["---" if place < table.texts else "---:" for place in range(len(table.head))],
            *([_escape(one) for one in row] for row in table.rows),
        )
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _listed(title: str, pictures: tuple[Picture, ...]) -> Table:
    heads = ("pair", "category", *(frame.caption for frame in pictures[0].frames[1:]))
    rows = tuple(
        (one.pair, one.category, *(frame.note for frame in one.frames[1:])) for one in pictures
    )
    return Table(title, heads, rows, texts=len(heads))


def _escape(text: str) -> str:
    """Text as it is: no markup, no line of its own."""
    return SPECIAL.sub(r"\\\1", visible(" ".join(text.split())))
