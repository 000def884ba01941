"""What a report is made of; a page and a Markdown file are written from the same blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sdcorr.geometry import Size

Point = tuple[float, float]
TURNS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Heading:
    """Begins a part of a section."""

    words: str


@dataclass(frozen=True)
class Text:
    """A paragraph; ``loud`` for what must not be overlooked."""

    words: str
    loud: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text.

    Args:
        title: above it.
        head: names of the columns.
        rows: cells, as many in each as in ``head``.
        texts: so many columns hold words, the others numbers.
        folded: a page shows it when it is asked for.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    folded: bool = False


@dataclass(frozen=True)
class Line:
    """One run in a chart.

    Args:
        number: of the run, from 1; it chooses colour, dashes and marker.
        label: of the run.
        values: shares, 0 to 1, one for each alpha of the chart.
    """

    number: int
    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """PCK over alpha; a table of the same numbers follows it, for Markdown.

    Args:
        title: which mean.
        alphas: of the values, rising.
        marks: alphas that the tables show.
        highest: share that the axis reaches at least, the same in charts side by side.
        lines: one for each run.
    """

    title: str
    alphas: tuple[float, ...]
    marks: tuple[float, ...]
    highest: float
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Bar:
    """A share, 0 to 1, of one run; ``note`` stands behind its value."""

    number: int
    label: str
    value: float
    note: str


@dataclass(frozen=True)
class Bars:
    """Groups of bars, by name; a table of the same numbers follows it, for Markdown."""

    title: str
    groups: tuple[tuple[str, tuple[Bar, ...]], ...]


@dataclass(frozen=True)
class Mark:
    """A point on a photo, xy pixels of it.

    Args:
        label: shown beside it.
        name: of the keypoint.
        place: where it is.
        kind: annotated, or a prediction that is right or wrong.
        truth: where a prediction should be.
    """

    label: str
    name: str
    place: Point
    kind: Literal["annotated", "right", "wrong"]
    truth: Point | None = None


@dataclass(frozen=True)
class Frame:
    """A photo with points.

    Args:
        caption: below it.
        note: how well a target was matched; empty of a source.
        size: of the photo.
        photo: a data URL, empty where the photo is gone.
        marks: points.
    """

    caption: str
    note: str
    size: Size
    photo: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Picture:
    """A pair and its photos, the source first."""

    pair: str
    category: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Pictures:
    """Pairs worth a look."""

    title: str
    pictures: tuple[Picture, ...]


Block = Heading | Text | Table | Curve | Bars | Pictures


@dataclass(frozen=True)
class Section:
    """All that is said of runs on one data set."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """Runs in numbers and pictures, one section for each data set."""

    title: str
    sections: tuple[Section, ...]


def visible(text: str) -> str:
    """Text whose marks of direction, which turn the words behind them, are written out.

    Example:
        >>> visible("mine" + chr(0x202E) + ", test")
        'mine(U+202E), test'
    """
    return TURNS.sub(lambda found: f"(U+{ord(found[0]):04X})", text)
