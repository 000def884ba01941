"""A report as a page: one file, no script, nothing from the network."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from importlib.resources import files
from string import Template

from sdcorr.report._blocks import (
    Bars,
    Block,
    Curve,
    Frame,
    Heading,
    Mark,
    Picture,
    Pictures,
    Report,
    Table,
    Text,
    visible,
)
from sdcorr.report._charts import bars_svg, curve_svg
from sdcorr.report._gallery import SIDE

REACH = 5  # half the width of a mark, px of the page
LEAST_REACH = 0.4  # of that, on flat photos, which discs would hide
FLATTEST = 4  # sides to each other, beyond which a photo is flat and gets room around it
INTERVAL = re.compile(r"(\S+) (\[\S+ \S+\])")
LEGEND = """<p class="legend"><span class="right">&#9679; right</span>, <span class="wrong">&#10005;
wrong</span>, &#9675; where it was annotated; a line joins the two. Beside a point stands its
keypoint's id, or its place in the list where ids are long.</p>"""
NO_MARKS = "<p>Photos alone: a run on dense flow keeps the errors, not the places.</p>"


def page_of(report: Report) -> str:
    """The whole page."""
    texts = {name: _resource(name) for name in ("page.html", "page.css")}
    body = [
        part
        for number, section in enumerate(report.sections, start=1)
        for part in (
            f'<section id="s{number}"><h2>{html.escape(section.title)}</h2>',
            *map(_block, section.blocks),
            "</section>",
        )
    ]
    if len(report.sections) > 1:
        links = (
            f'<li><a href="#s{number}">{html.escape(section.title)}</a></li>'
            for number, section in enumerate(report.sections, start=1)
        )
        body.insert(0, f'<nav aria-label="Data sets"><ul>{"".join(links)}</ul></nav>')
    return Template(texts["page.html"]).substitute(
        title=visible(html.escape(report.title)),
        style=texts["page.css"],
        body=visible("\n".join(body)),
    )


def _resource(name: str) -> str:
    return files("sdcorr.report").joinpath(name).read_text(encoding="utf-8")


def _block(block: Block) -> str:
    match block:
        case Heading(words):
            return f"<h3>{html.escape(words)}</h3>"
        case Text(words, loud):
            return f"<p{' class=loud' if loud else ''}>{html.escape(words)}</p>"
        case Table():
            return _table(block)
        case Curve(title):
            return _chart(title, curve_svg(block))
        case Bars(title):
            return _chart(title, bars_svg(block))
        case Pictures():
            return _pictures(block)


def _chart(title: str, svg: str) -> str:
    return f'<figure class="plot"><figcaption>{html.escape(title)}</figcaption>\n{svg}</figure>'


def _table(table: Table) -> str:
    title = html.escape(table.title)
    heads = "".join(
        f'<th scope="col"{_kind(place, table)}>{html.escape(name)}</th>'
        for place, name in enumerate(table.head)
    )
    rows = "\n".join(f"<tr>{_row(row, table)}</tr>" for row in table.rows)
    kind = "words" if table.texts == len(table.head) else "numbers"
    # tabindex: a box that scrolls must be reached by the keyboard
    box = (
        f'<div class="box" tabindex="0" role="region" aria-label="{title}"><table class="{kind}">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )
    if table.folded:
        return f"<details><summary>{title}</summary>\n{box}</details>"
    return f"<h4>{title}</h4>\n{box}"


def _row(row: tuple[str, ...], table: Table) -> str:
    first, *rest = row
    cells = "".join(
        f"<td{_kind(place, table)}>{_cell(one)}</td>" for place, one in enumerate(rest, start=1)
    )
    return f'<th scope="row">{html.escape(first)}</th>{cells}'


def _kind(place: int, table: Table) -> str:
    return "" if place < table.texts else " class=n"


def _cell(text: str) -> str:
    """Text, the interval of a number in a line of its own."""
    found = INTERVAL.fullmatch(text)
    if found is None:
        return html.escape(text)
    value, interval = map(html.escape, found.groups())
    return f"{value} <small>{interval}</small>"


def _pictures(block: Pictures) -> str:
    pictures = "\n".join(map(_picture, block.pictures))
    wide = " wide" if len(block.pictures[0].frames) > 2 else ""
    title = html.escape(block.title)
    marked = any(frame.marks for one in block.pictures for frame in one.frames)
    legend = LEGEND if marked else NO_MARKS
    return f'<h4>{title}</h4>\n{legend}\n<div class="gallery{wide}">{pictures}</div>'


def _picture(picture: Picture) -> str:
    frames = "\n".join(_frame(frame, picture.pair) for frame in picture.frames)
    return (
        f'<figure class="pair"><figcaption><b><bdi>{html.escape(picture.category)}</bdi></b> '
        f"<small><bdi>{html.escape(picture.pair)}</bdi></small></figcaption>\n"
        f'<div class="frames">{frames}</div></figure>'
    )


def _frame(frame: Frame, pair: str) -> str:
    left, right, bottom, top = frame.size.extent
    longer = max(frame.size)
    unit = longer / SIDE  # of the page's pixels, in those of the photo
    # room beside a photo that is very flat or very narrow, for its numbers
    across, down = (max(0.0, longer / FLATTEST - side) / 2 for side in (right - left, bottom - top))
    box = (left - across, top - down, right - left + 2 * across, bottom - top + 2 * down)
    called = html.escape(f"pair {pair}, {frame.caption}")
    image = (
        f'<image href="{frame.photo}" x="{left}" y="{top}" width="{frame.size.width}" '
        f'height="{frame.size.height}" preserveAspectRatio="none"/>'
    )
    reach = REACH * min(1.0, max(LEAST_REACH, FLATTEST * min(frame.size) / longer)) * unit
    marks = "\n".join(part for mark in frame.marks for part in _mark(mark, unit, reach))
    gone = "" if frame.photo else ' class="gone"'
    words = "".join(f"; {one}" for one in (frame.note, "" if frame.photo else "no photo") if one)
    return (
        f'<div><svg{gone} viewBox="{" ".join(f"{one:g}" for one in box)}" role="img" '
        f'aria-label="{called}" style="--unit:{unit:.3g}px"><title>{called}</title>'
        f"{image if frame.photo else ''}\n"
        f"{marks}</svg><small><bdi>{html.escape(frame.caption)}</bdi>{html.escape(words)}</small></div>"
    )


def _mark(mark: Mark, unit: float, reach: float) -> Iterator[str]:
    x, y = mark.place
    yield f'<g class="{mark.kind}" stroke-width="{2 * unit:.3g}"><title>{html.escape(mark.name)}: '
    yield f"{mark.kind}</title>"
    if mark.truth is not None:
        across, down = mark.truth
        yield f'<path class="way" d="M{x} {y}L{across} {down}"/>'
        yield f'<circle class="truth" cx="{across}" cy="{down}" r="{reach:.3g}"/>'
    if mark.kind == "wrong":
        yield (
            f'<path class="cross" d="M{x - reach} {y - reach}L{x + reach} {y + reach}'
            f'M{x + reach} {y - reach}L{x - reach} {y + reach}"/>'
        )
    else:
        yield f'<circle class="disc" cx="{x}" cy="{y}" r="{reach:.3g}"/>'
    yield (
        f'<text x="{x + 1.4 * reach:g}" y="{y - 0.8 * reach:g}" '
        f'stroke-width="{3 * unit:.3g}">{html.escape(mark.label)}</text></g>'
    )
