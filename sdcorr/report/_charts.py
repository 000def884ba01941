"""Charts as SVG: scalable, without scripts; most colours after Okabe and Ito, for all readers.

Colours come from the page's CSS: class ``runN`` sets ``--run``, for the text of both light and dark
pages keeps its own colour. Dashes and markers tell runs apart without colour.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from sdcorr.report._blocks import Bars, Curve, Line

WIDE, HIGH = 360, 250  # of a chart, in its own units: px on a narrow phone
LEFT, RIGHT, TOP, BOTTOM = 30, 124, 10, 32  # margins; names of lines stand in the right one
NAME = 16  # letters of a name that fit there
GAP = 12  # of names, one above the other
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 3", "4 2 1 2", "1 2")
MARKERS = (  # around (0, 0)
    "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "M-3-3h6v6h-6z",
    "M0-4l3.8 6.6h-7.6z",
    "M0-4l4 4-4 4-4-4z",
    "M-3.8-3.2h7.6l-3.8 6.6z",
    "M-3.4-3.4l6.8 6.8M3.4-3.4l-6.8 6.8",
    "M0-4v8M-4 0h8",
)
EVERY = 4  # values to a marker


def curve_svg(curve: Curve) -> str:
    """PCK over alpha, a line for each run with its name at the end."""
    top = _round_up(curve.highest)
    title = html.escape(curve.title)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{title}">',
        f"<title>{title}</title>",
        *_axes(curve, top),
        *(part for line in curve.lines for part in _line(curve, line, top)),
        *_names(curve.lines, top),
        "</svg>",
    ]
    return "\n".join(parts)


def _round_up(share: float) -> float:
    """The end of an axis that begins at 0: a whole number of tenths."""
    return min(1.0, max(1, -int(-share * 10 // 1)) / 10)


def _across(curve: Curve, alpha: float) -> float:
    return LEFT + (WIDE - LEFT - RIGHT) * alpha / curve.alphas[-1]


def _down(share: float, top: float) -> float:
    return TOP + (HIGH - TOP - BOTTOM) * (1 - share / top)


def _axes(curve: Curve, top: float) -> Iterator[str]:
    right = WIDE - RIGHT
    steps = round(top * 10)
    each = 1 if steps <= 5 else 2
    for step in range(0, steps + 1, each):
        y = _down(step / 10, top)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>'
        yield f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{10 * step}</text>'
    for alpha in curve.marks:
        if curve.alphas[0] <= alpha <= curve.alphas[-1]:
            yield f'<path class="mark" d="M{_across(curve, alpha):.1f} {TOP}V{HIGH - BOTTOM}"/>'
    for alpha in (0, 0.05, 0.1, 0.15, 0.2):
        x = _across(curve, alpha)
        yield f'<text x="{x:.1f}" y="{HIGH - BOTTOM + 14}" text-anchor="middle">{alpha:g}</text>'
    middle = (LEFT + right) / 2
    yield f'<text x="{middle}" y="{HIGH - 3}" text-anchor="middle">alpha; PCK in percent</text>'


def _line(curve: Curve, line: Line, top: float) -> Iterator[str]:
    points = [
        (_across(curve, alpha), _down(value, top))
        for alpha, value in zip(curve.alphas, line.values, strict=True)
    ]
    which = line.number - 1
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    yield f'<g class="run{line.number}"><title>{html.escape(line.label)}</title>'
    yield f'<path class="line" stroke-dasharray="{DASHES[which]}" d="M{path}"/>'
    # markers of several runs stand at different places, so that none hides another
    for x, y in points[which % EVERY :: EVERY]:
        yield _marker(line.number, x, y)
    yield "</g>"


def _marker(number: int, x: float, y: float) -> str:
    return (
        f'<path class="marker" transform="translate({x:.1f} {y:.1f})" d="{MARKERS[number - 1]}"/>'
    )


def _names(lines: Sequence[Line], top: float) -> Iterator[str]:
    """Names at the ends of lines, moved apart where they would overlap."""
    order = sorted(lines, key=lambda line: (-line.values[-1], line.number))
    ends = [_down(line.values[-1], top) for line in order]
    x = WIDE - RIGHT
    for line, end, y in zip(order, ends, spread(ends), strict=True):
        yield f'<g class="run{line.number}"><path class="lead" d="M{x} {end:.1f}L{x + 5} {y:.1f}"/>'
        yield f"{_marker(line.number, x + 9, y)}</g>"
        yield f'<text x="{x + 16}" y="{y + 4:.1f}">{html.escape(shorten(line.label))}</text>'


def spread(ends: Sequence[float]) -> list[float]:
    """Places ``GAP`` apart at least, near those given from top to bottom, all beside the axis."""
    places: list[float] = []
    for end in ends:  # down from the top, then up from the bottom
        places.append(max(end, places[-1] + GAP if places else TOP))
    below: float = HIGH - BOTTOM
    for index in reversed(range(len(places))):
        places[index] = min(places[index], below)
        below = places[index] - GAP
    return places


def shorten(name: str) -> str:
    """A name that fits beside a chart; runs are told apart by the number it begins with."""
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


BAR, SPACE, HEAD = 15, 10, 16  # heights of a bar, between groups, of a group's name
START, END = 116, 236  # of the bars, across: names stand before, values behind


def bars_svg(bars: Bars) -> str:
    """Horizontal bars from 0 to 100 %, in groups."""
    title = html.escape(bars.title)
    parts = []
    y = 0
    for name, group in bars.groups:
        y += HEAD
        parts.append(f'<text class="head" x="0" y="{y - 4}">{html.escape(name)}</text>')
        for bar in group:
            wide = (END - START) * bar.value
            label = html.escape(shorten(bar.label))
            value = f"{100 * bar.value:.1f}; {bar.note}"
            parts += [
                f'<g class="run{bar.number}"><title>{html.escape(bar.label)}, '
                f"{html.escape(name)}: {value}</title>",
                f'<rect class="ground" x="{START}" y="{y + 2}" width="{END - START}" height="11"/>',
                f'<rect class="bar" x="{START}" y="{y + 2}" width="{wide:.1f}" height="11"/>',
                f"{_marker(bar.number, 6, y + 8)}</g>",
                f'<text x="14" y="{y + 12}">{label}</text>',
                f'<text x="{END + 5}" y="{y + 12}">{value}</text>',
            ]
            y += BAR
        y += SPACE
    head = f'<svg class="chart" viewBox="0 0 {WIDE} {y}" role="img" aria-label="{title}">'
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>"])
