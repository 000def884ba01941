"""The page and the Markdown: nothing of a file is taken for markup, and readers find their way."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest

from sdcorr.report import Options, Report, gather, to_html, to_markdown
from sdcorr.report._blocks import Section, Table
from tests.report.runs import ABOUT, EXACT, FAST, PREDICTED, pair, write_run

HOSTILE = '<b onclick="alert(1)">&amp; | `x` \'"</b><script>alert(2)</script>'
VOID = {"meta", "link", "br", "image", "path", "circle", "rect"}
TURN = chr(0x202E)  # right-to-left override


@pytest.fixture(scope="module")
def report(made: dict[str, Path]) -> Report:
    paths = [made[name] for name in ("sift", "same", "willow", "tss", "tss-sift")]
    return gather(paths, Options(replicates=100, pairs=2))


def test_an_interval_stands_below_its_number():
    table = Table("t", ("a", "b"), (("x [1, 2]", "1.00 [0.50, 2.00]"), ("y", "1 (2 %)")))
    page = to_html(Report("r", (Section("s", (table,)),)))
    assert '<th scope="row">x [1, 2]</th><td class=n>1.00 <small>[0.50, 2.00]</small></td>' in page
    assert "<td class=n>1 (2 %)</td>" in page


@pytest.fixture
def hostile(tmp_path: Path) -> Report:
    one = pair(
        HOSTILE, HOSTILE, source=f"{HOSTILE}.png", keypoints=[HOSTILE, "1", "2"],
        source_only=[], difficulty={HOSTILE: "easy"},
    )  # fmt: skip
    about = {
        "recipe": {"name": HOSTILE, "about": HOSTILE},
        "weights": {HOSTILE: HOSTILE},
        "symmetric": {HOSTILE: []},
        "root": str(tmp_path),
        "dataset": ABOUT["dataset"] | {"split": HOSTILE, "only": [HOSTILE]},
    }
    folders = [tmp_path / name.replace("/", "-") for name in (f"a{HOSTILE}", f"b{HOSTILE}")]
    predicted = {HOSTILE: PREDICTED}
    first = write_run(folders[0], [one, pair()], predicted, {"a": HOSTILE}, **about)
    second = write_run(folders[1], [one, pair()], {HOSTILE: EXACT, "a": EXACT}, **about)
    return gather([first, second], FAST)


class Reader(HTMLParser):
    """Tags of a page, which must nest; its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.values: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values += [value for _, value in attrs if value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_nothing_of_a_file_is_markup_of_the_page(hostile: Report):
    page = Reader(to_html(hostile))
    assert page.open == []
    assert "script" not in page.tags
    assert not {name for name in page.attributes if name.startswith("on")}
    assert any(HOSTILE in text for text in page.texts)
    assert any(HOSTILE in value for value in page.values)


def test_nothing_of_a_file_is_markup_of_the_text(hostile: Report):
    text = to_markdown(hostile)
    assert not re.search(r"(?<!\\)<(?!!--)", text)
    lines = text.splitlines()
    for first, second in itertools.pairwise(lines):
        if re.match(r"\| -", second):  # a table: each row has as many cells as its head
            count = len(re.findall(r"(?<!\\)\|", first))
            for row in lines[lines.index(second) :]:
                if not row.startswith("|"):
                    break
                assert len(re.findall(r"(?<!\\)\|", row)) == count, row


def test_a_page_needs_nothing_else(report: Report):
    page = Reader(to_html(report))
    assert page.tags.isdisjoint({"script", "iframe", "object", "img"})
    links = [one for one in page.values if "://" in one or one.startswith("//")]
    assert links == []
    assert "url(" not in to_html(report)
    assert "@import" not in to_html(report)


def test_no_level_of_headings_is_left_out(report: Report):
    page = re.findall(r"<h([1-6])[ >]", to_html(report))
    text = re.findall(r"^(#+) ", to_markdown(report), flags=re.MULTILINE)
    for levels in ([int(one) for one in page], [len(one) for one in text]):
        assert levels[:4] == [1, 2, 3, 4]
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_photo_and_chart_has_a_name_of_its_own(tmp_path: Path):
    pairs = [pair("a"), pair("b", source="u.png")]
    run = write_run(tmp_path / "run", pairs, {"a": EXACT, "b": PREDICTED})
    page = to_html(gather([run], FAST))
    labels = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert [one for one in labels if one.startswith("pair")] == [
        "pair a, source", "pair a, target, 1 mine", "pair b, source", "pair b, target, 1 mine",
    ]  # fmt: skip
    assert len(set(labels)) == len(labels)
    for one in labels:
        assert page.count(f"<title>{one}</title>") == 1


def test_a_name_does_not_turn_the_words_behind_it(tmp_path: Path):
    dataset = ABOUT["dataset"] | {"name": f"mine{TURN}"}
    one = pair(f"a{TURN}", f"cat{TURN}")
    run = write_run(tmp_path / "run", [one], {one["pair"]: EXACT}, dataset=dataset)
    report = gather([run], FAST)
    for text in (to_html(report), to_markdown(report).replace("\\", "")):
        assert TURN not in text
        assert "mine(U+202E), test, large" in text
    assert "<b><bdi>cat(U+202E)</bdi></b> <small><bdi>a(U+202E)</bdi>" in to_html(report)


@pytest.mark.parametrize(
    ("width", "height", "box", "reach"),
    [
        (160, 80, (-0.5, -0.5, 160, 80), 2.5),  # a mark is 5 px wide of 320 px
        (80, 160, (-0.5, -0.5, 80, 160), 2.5),
        (2000, 20, (-0.5, -240.5, 2000, 500), 12.5),  # a quarter of 2000, and 2 px of 320
        (20, 2000, (-240.5, -0.5, 500, 2000), 12.5),
        (320, 40, (-0.5, -20.5, 320, 80), 2.5),  # half as wide a mark
    ],
)
def test_marks_leave_a_flat_photo_in_sight(
    tmp_path: Path, width: int, height: int, box: tuple[float, ...], reach: float
):
    points = [[1, 1], [6, 9], [12, 15]]
    one = pair(
        target_size=[height, width], target_box=[0, 0, width, height], target_points=points
    )  # fmt: skip
    run = write_run(tmp_path / "run", [one], {"a": points}, root=str(tmp_path))
    PIL.Image.new("RGB", (width, height)).save(tmp_path / "t.png")
    page = to_html(gather([run], FAST))
    page = page[page.index(', target, 1 mine"') - 200 :]
    shown = re.search(r'viewBox="(\S+) (\S+) (\S+) (\S+)" role', page)
    disc = re.search(r'class="disc" cx="1.0" cy="1.0" r="(\S+)"', page)
    assert shown is not None
    assert disc is not None
    assert tuple(map(float, shown.groups())) == box
    assert float(disc[1]) == reach
