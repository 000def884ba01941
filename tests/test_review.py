"""The page of labelled photos: whole, safe, in order, and with each keypoint in its place."""

from __future__ import annotations

import base64
import html.parser
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import PIL.Image
import pytest

import sdcorr.review
from sdcorr.annotations import Scheme
from sdcorr.errors import BadRun
from sdcorr.labels import LabelFile, Line
from sdcorr.lines import to_lines
from sdcorr.photos import Photos
from sdcorr.review import COLOURS, MOST, SIDE, write_review
from tests.annotated import draw_photo

NAMES = ("left eye", "right eye", "nose")
RED, SKY, BLUE = COLOURS
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Elements(html.parser.HTMLParser):
    """The elements of a page with their attributes; each must be closed in turn."""

    OPTIONAL = ("html", "p")  # whose end may be left out

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert [tag for tag in self._open if tag not in self.OPTIONAL] == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open[-1] in self.OPTIONAL and self._open[-1] != tag:
            self._open.pop()
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@dataclass
class Figure:
    """One photo of the page."""

    name: str
    doubts: str
    svg: ET.Element

    @property
    def circles(self) -> list[dict[str, Any]]:
        """Attributes of the keypoints, and what is shown when the mouse is over one."""
        return [one.attrib | {"title": one.findtext("title")} for one in self.svg.iter("circle")]

    @property
    def thumbnail(self) -> PIL.Image.Image:
        image = self.svg.find("image")
        assert image is not None
        kind, data = image.attrib["href"].split(",")
        assert kind == "data:image/jpeg;base64"
        photo = PIL.Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        photo.load()
        assert photo.format == "JPEG"
        return photo


@dataclass
class Page:
    """A page, read by a parser of HTML, each svg by one of XML."""

    text: str
    figures: list[Figure] = field(init=False)

    def __post_init__(self) -> None:
        self.elements = Elements(self.text)
        self.figures = []
        for part in re.findall(r"<figure>(.*?)</figure>", self.text, re.DOTALL):
            svg, caption = re.fullmatch(
                r"(<svg.*</svg>)<figcaption>(.*)</figcaption>", part, re.DOTALL
            ).groups()
            name, doubts = re.fullmatch(r"<b>(.*)</b><br>(.*)", caption, re.DOTALL).groups()
            self.figures.append(
                Figure(html.unescape(name), html.unescape(doubts), ET.fromstring(svg))
            )

    @property
    def names(self) -> list[str]:
        return [figure.name for figure in self.figures]


def scheme(names: Sequence[str] = NAMES, name: str = "cat", **fields: Any) -> Scheme:
    return Scheme({"id": 1, "name": name, "keypoints": list(names)} | fields, tuple(names))


def line(photo: str, sure: Sequence[float | None] | None = (0.5, 0.5, 0.5), **fields: Any) -> Line:
    """A photo of 80 x 60 px."""
    return {
        "photo": photo, "size": [60, 80],
        "predictions": [[10.0, 20.5], [30.0, 40.25], [-0.5, 59.5]],
        "scores": [0.5, 0.25, 0.75], "confidences": sure and list(sure),
        "matched": [True, True, True],
    } | fields  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, name in enumerate("abcd"):
        draw_photo(tmp_path / f"{name}.png", 80, 60, seed=index)
    return tmp_path


def review(
    folder: Path,
    lines: Sequence[Line],
    about: Scheme | None = None,
    least: float | None = None,
    **fields: Any,
) -> Page:
    (folder / "lines.jsonl").write_bytes(to_lines(lines))
    file = LabelFile(about or scheme(), {}, least)
    photos = Photos(folder, tuple(one["photo"] for one in lines))
    write_review(folder / "review.html", file, folder / "lines.jsonl", photos, **fields)
    return Page((folder / "review.html").read_text(encoding="utf-8"))


# What the page says


def test_a_page_by_hand(folder):
    page = review(folder, [line("a.png", [0.9, 0.5, 0.1])], scheme(skeleton=[[1, 3], [2, 3]]))
    assert page.text.startswith("<!DOCTYPE html>\n")
    tags = [tag for tag, _ in page.elements.found]
    assert {tag: tags.count(tag) for tag in ("svg", "figure", "line", "circle", "image")} == {
        "svg": 1, "figure": 1, "line": 2, "circle": 3, "image": 1,
    }  # fmt: skip
    said = " ".join("".join(page.elements.texts).split())
    assert "Review of cat" in said
    assert "1 of 1 photos, by the lowest confidence of their keypoints" in said
    (figure,) = page.figures
    assert figure.name == "a.png"
    assert figure.doubts == "nose 0.10, right eye 0.50, left eye 0.90"
    assert ("meta", {"charset": "utf-8"}) in page.elements.found


def test_the_constants_by_hand():
    assert (MOST, SIDE) == (500, 360)
    assert COLOURS == ("#D55E00", "#56B4E9", "#0072B2")
    assert dict.fromkeys(COLOURS).keys() == set(COLOURS)


def test_colours_of_the_legend_are_those_of_the_discs(folder):
    text = review(folder, [line("a.png")]).text
    for kind, colour in (("doubt", RED), ("fair", SKY), ("disc", BLUE)):
        assert f".{kind} {{ color: {colour} }}" in text


def test_keypoints_lie_where_they_were_found(folder):
    """The frame is the photo's own: half a pixel beyond the centre of the first, 80 x 60."""
    ((figure,),) = [review(folder, [line("a.png")]).figures]
    assert figure.svg.attrib["viewBox"].split() == ["-0.5", "-0.5", "80.0", "60.0"]
    assert (figure.svg.attrib["width"], figure.svg.attrib["height"]) == ("360", "270")
    image = figure.svg.find("image").attrib
    assert [float(image[name]) for name in ("x", "y", "width", "height")] == [-0.5, -0.5, 80, 60]
    assert image["preserveAspectRatio"] == "none"
    places = [(float(one["cx"]), float(one["cy"])) for one in figure.circles]
    assert places == [(10.0, 20.5), (30.0, 40.25), (-0.5, 59.5)]
    assert [one["title"] for one in figure.circles] == [f"{name}: 0.50" for name in NAMES]


def test_a_disc_is_as_large_and_as_coloured_as_it_is_sure(folder):
    """Radii of 5 px of the page, of 7 below a third; a px is 80 / 360 of the photo's."""
    sure = [0.0, 0.33, 0.34, 0.66, 0.67, 1.0, 0.0]
    names = tuple("abcdefg")
    many = line("a.png", sure, scores=sure, matched=[True] * 7, predictions=[[1.0, 2.0]] * 7)
    scores = [*sure[:-1], -0.5]
    for one in (many, many | {"confidences": None, "scores": scores}):
        (figure,) = review(folder, [one], scheme(names)).figures
        assert [circle["fill"] for circle in figure.circles] == [
            RED, RED, SKY, SKY, BLUE, BLUE, RED,
        ]  # fmt: skip
        radii = [float(circle["r"]) * 360 / 80 for circle in figure.circles]
        assert radii == pytest.approx([7, 7, 5, 5, 5, 5, 7])
        assert {circle["stroke"] for circle in figure.circles} == {"white"}
        widths = [float(circle["stroke-width"]) * 360 / 80 for circle in figure.circles]
        assert widths == pytest.approx([1.5] * 7)


def test_what_counts_as_not_there_is_a_ring(folder):
    one = line("a.png", [0.9, 0.5, 0.2], matched=[False, True, True])
    (figure,) = review(folder, [one], least=0.3).figures
    assert [(circle["fill"], circle["stroke"]) for circle in figure.circles] == [
        ("none", BLUE), (SKY, "white"), ("none", RED),
    ]  # fmt: skip
    assert figure.doubts == "nose 0.20 (not there), right eye 0.50, left eye 0.90 (not there)"


def test_what_no_reference_shows_is_not_drawn(folder):
    nothing = {"predictions": [None, [30.0, 40.0], None], "scores": [None, 0.25, None]}
    one = line("a.png", [None, 0.25, None], matched=[False, True, False], **nothing)
    for sure in ([None, 0.25, None], None):
        (figure,) = review(folder, [one | {"confidences": sure}]).figures
        assert [circle["title"] for circle in figure.circles] == ["right eye: 0.25"]
        assert figure.doubts == "right eye 0.25"


def test_the_skeleton_joins_what_is_there(folder):
    """From keypoint 1 to 3 and from 2 to 3 of the file, of which the second is rejected."""
    about = scheme(skeleton=[[1, 3], [2, 3]])
    one = line("a.png", matched=[True, False, True])
    (figure,) = review(folder, [one], about).figures
    (bone,) = figure.svg.iter("line")
    ends = [float(bone.attrib[name]) for name in ("x1", "y1", "x2", "y2")]
    assert ends == [10.0, 20.5, -0.5, 59.5]
    unlikely = line("a.png", [0.9, 0.9, 0.2])
    assert list(review(folder, [unlikely], about, least=0.3).figures[0].svg.iter("line")) == []
    assert len(list(review(folder, [unlikely], about).figures[0].svg.iter("line"))) == 2


def test_only_the_three_least_certain_are_named(folder):
    names = tuple("abcdef")
    sure = [0.6, 0.1, 0.5, 0.2, 0.4, 0.3]
    one = line("a.png", sure, scores=sure, matched=[True] * 6, predictions=[[1.0, 2.0]] * 6)
    (figure,) = review(folder, [one], scheme(names)).figures
    assert figure.doubts == "b 0.10, d 0.20, f 0.30"
    assert len(figure.circles) == 6


# Order


def test_the_photo_of_the_least_certain_keypoint_comes_first(folder):
    """Whatever its others are; photos as uncertain stand by name."""
    lines = [
        line("a.png", [0.9, 0.8, 0.7]),
        line("b.png", [0.2, 1.0, 1.0]),
        line("c.png", [0.5, 0.05, 0.9]),
        line("d.png", [1.0, 1.0, 0.2]),
    ]
    assert review(folder, lines).names == ["c.png", "b.png", "d.png", "a.png"]
    assert review(folder, lines[::-1]).names == ["c.png", "b.png", "d.png", "a.png"]


def test_without_a_calibration_the_score_decides(folder):
    lines = [
        line("a.png", None, scores=[0.9, 0.8, 0.7]),
        line("b.png", None, scores=[0.5, -0.25, 0.5]),
        line("c.png", None, scores=[0.5, 0.1, 0.9]),
    ]
    page = review(folder, lines)
    assert page.names == ["b.png", "c.png", "a.png"]
    assert "by the lowest score (the recipe is uncalibrated) of their" in page.text
    assert page.figures[0].doubts == "right eye -0.25, left eye 0.50, nose 0.50"
    assert page.figures[0].circles[1]["title"] == "right eye: -0.25"


@pytest.mark.parametrize(("most", "shown"), [(0, 0), (1, 1), (2, 2), (3, 3), (9, 3)])
def test_the_page_says_how_many_it_leaves_out(folder, most, shown):
    lines = [line("a.png", [0.7] * 3), line("b.png", [0.1] * 3), line("c.png", [0.4] * 3)]
    page = review(folder, lines, most=most)
    assert page.names == ["b.png", "c.png", "a.png"][:shown]
    assert f"<p>{shown} of 3 photos" in page.text


def test_five_hundred_photos_are_shown_by_default(folder):
    lines = [line(f"{number:03d}.png", [number / 1000] * 3) for number in range(502)]
    page = review(folder, lines[::-1])  # none of the photos is there
    assert page.names == [f"{number:03d}.png" for number in range(500)]
    assert "<p>500 of 502 photos" in page.text


def test_skipped_photos_are_left_out(folder):
    page = review(folder, [line("a.png"), {"photo": "b.png", "skipped": "b.png is damaged"}])
    assert page.names == ["a.png"]
    assert "1 of 1 photos" in page.text
    assert review(folder, [{"photo": "b.png", "skipped": "b.png is damaged"}]).names == []


# Photos


def test_thumbnails_are_small_copies(folder):
    """360 px at the longer side, and never more pixels than the photo has."""
    draw_photo(folder / "large.png", 900, 450, seed=5)
    lines = [line("a.png", [0.1] * 3), line("large.png", [0.2] * 3, size=[450, 900])]
    small, large = review(folder, lines).figures
    assert small.thumbnail.size == (80, 60)
    assert large.thumbnail.size == (360, 180)
    assert large.svg.attrib["viewBox"].split() == ["-0.5", "-0.5", "900.0", "450.0"]
    photo = PIL.Image.open(folder / "a.png").convert("RGB")
    error = np.abs(np.asarray(small.thumbnail, float) - np.asarray(photo, float))
    assert error.mean() < 6  # of 255: JPEG


def test_thumbnails_stand_upright(folder):
    """As the keypoints count them, after EXIF rotation."""
    draw_photo(folder / "lying.png", 80, 60, seed=5)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    photo = PIL.Image.open(folder / "lying.png")
    photo.save(folder / "lying.jpg", exif=exif)
    (figure,) = review(folder, [line("lying.jpg", size=[80, 60])]).figures
    assert figure.thumbnail.size == (60, 80)
    turned = np.asarray(photo.transpose(PIL.Image.Transpose.ROTATE_270), float)
    assert np.abs(np.asarray(figure.thumbnail, float) - turned).mean() < 8


@pytest.mark.parametrize(
    ("width", "height", "page"),
    [(1, 1, ("360", "360")), (4000, 3, ("360", "1")), (1, 2000, ("1", "360")),
     (4000, 2000, ("360", "180"))],
)  # fmt: skip
def test_photos_of_any_size_are_shown(folder, width, height, page):
    PIL.Image.new("RGB", (width, height), "teal").save(folder / "odd.png")
    corner = [width - 0.5, height - 0.5]
    one = line("odd.png", size=[height, width], predictions=[[0.0, 0.0], corner, [-0.5, -0.5]])
    (figure,) = review(folder, [one]).figures
    assert (figure.svg.attrib["width"], figure.svg.attrib["height"]) == page
    box = [float(number) for number in figure.svg.attrib["viewBox"].split()]
    assert box == [-0.5, -0.5, width, height]
    assert float(figure.circles[1]["cx"]) == box[0] + box[2]  # the edges meet
    assert float(figure.circles[1]["cy"]) == box[1] + box[3]
    assert max(figure.thumbnail.size) == min(360, max(width, height))
    assert np.abs(np.asarray(figure.thumbnail, int) - [0, 128, 128]).max() < 4
    # 5 px of the page, however large the photo is
    radius = float(figure.circles[0]["r"]) * 360 / max(width, height)
    assert radius == pytest.approx(5)


def test_a_photo_that_was_deleted_has_its_keypoints_all_the_same(folder):
    page = review(folder, [line("a.png", [0.1] * 3), line("gone.png", [0.9] * 3)])
    assert page.names == ["a.png", "gone.png"]
    assert page.figures[1].svg.find("image").attrib["href"] == ""
    assert len(page.figures[1].circles) == 3


@pytest.mark.parametrize("damage", ["text", "folder", "empty"])
def test_a_photo_that_was_damaged_costs_no_other(folder, damage):
    (folder / "b.png").unlink()
    {
        "text": lambda path: path.write_text("no photo"),
        "folder": lambda path: path.mkdir(),
        "empty": lambda path: path.touch(),
    }[damage](folder / "b.png")
    page = review(folder, [line("a.png", [0.1] * 3), line("b.png", [0.9] * 3)])
    assert page.names == ["a.png", "b.png"]


# Safety


EVIL = (
    "<script>alert(1)</script>", '" onload="alert(1)', "' onload='alert(1)", "a & b &lt; c",
    "</svg></figure>", "<!--", "]]>", "$category $figures ${count} $$", "Ohr größer 耳 👁",
    "a\nb", "{name}", "%s", "<br>",
)  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
def test_names_are_text_and_nothing_else(folder, evil):
    """Of photos, keypoints and the category; the parsers would tell of any other element."""
    name = evil.replace("/", ":") + ".png"
    draw_photo(folder / "plain.png", 80, 60, seed=9)
    (folder / "plain.png").rename(folder / name)
    about = scheme((evil, "right eye", "nose"), evil, skeleton=[[1, 2]])
    page = review(folder, [line(name, [0.1, 0.5, 0.9])], about)
    plain = review(folder, [line("a.png", [0.1, 0.5, 0.9])], scheme(skeleton=[[1, 2]]))
    assert [tag for tag, _ in page.elements.found] == [tag for tag, _ in plain.elements.found]
    assert [set(attributes) for _, attributes in page.elements.found] == [
        set(attributes) for _, attributes in plain.elements.found
    ]
    (figure,) = page.figures
    assert figure.name == name
    assert figure.doubts == f"{evil} 0.10, right eye 0.50, nose 0.90"
    assert figure.circles[0]["title"] == f"{evil}: 0.10"
    assert figure.thumbnail.size == (80, 60)
    said = "".join(page.elements.texts)
    assert f"Review of {evil}\n" in said
    assert said.count(evil) >= 4  # title, heading, circle, caption


def test_a_name_that_is_no_utf8_is_shown_as_far_as_it_goes(folder):
    name = "gr\udcfc\udcdfe.png"  # Latin-1, as Python reads it
    (folder / "d.png").rename(folder / name)
    page = review(folder, [line(name)])
    assert page.names == ["gr??e.png"]
    assert page.figures[0].thumbnail.size == (80, 60)


def test_half_a_character_in_the_name_of_a_keypoint_does_no_harm(folder):
    page = review(folder, [line("a.png")], scheme(("\ud83d", "b", "c")))
    assert page.figures[0].circles[0]["title"] == "?: 0.50"


def test_half_a_character_in_the_name_of_the_category_does_no_harm(folder):
    assert review(folder, [line("a.png")], scheme(name="cat \ud83d")).names == ["a.png"]


def test_nothing_is_loaded_from_elsewhere(folder):
    """One file, that can be sent; it works without a network and tells nobody that it is read."""
    page = review(folder, [line("a.png"), line("gone.png")], scheme(skeleton=[[1, 2]]))
    for tag, attributes in page.elements.found:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form", "base", "a")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "xlink:href", "data", "action"):
                assert tag == "image"
                assert value == "" or value.startswith("data:image/jpeg;base64,")
    plain = re.sub(r"data:[^\"]*", "", page.text)
    assert not re.search(r"https?:|url\(|@import|file:|//", plain)


def test_a_page_that_cannot_be_finished_is_not_touched(folder, monkeypatch):
    (folder / "review.html").write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(sdcorr.review, "PAGE", Template("<!DOCTYPE html> $nothing"))
        with pytest.raises(KeyError, match="nothing"):
            review(folder, [line("a.png")])
    (folder / "lines.jsonl").write_bytes(to_lines([line("a.png")]))
    with (folder / "lines.jsonl").open("a") as lines:
        lines.write("{\n")
    file, photos = LabelFile(scheme(), {}, None), Photos(folder, ("a.png",))
    with pytest.raises(BadRun, match="is damaged in line 2"):
        write_review(folder / "review.html", file, folder / "lines.jsonl", photos)
    assert (folder / "review.html").read_text() == "before"
    assert not list(folder.glob(".sdcorr*"))
