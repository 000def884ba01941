"""A report's page in a real browser, at the width of a desktop and of a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sdcorr.report import Options, Report, gather, to_html, write_report
from sdcorr.report._blocks import Bar, Bars, Section

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def page_file(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "report.html"
    paths = [made[name] for name in ("sift", "same", "willow", "tss")]
    write_report(place, gather(paths, Options(replicates=100)))
    return place


@pytest.fixture(scope="module")
def bars_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of bars whose values are as long as they get."""
    groups = tuple(
        (name, (Bar(n, f"{n} {'m' * 40}", 1.0, "53340 pairs"), Bar(2, "2 b", 0.0, "1 pair")))
        for n, name in ((1, "easy"), (3, "hard"))
    )
    place = tmp_path_factory.mktemp("bars") / "report.html"
    place.write_text(to_html(Report("r", (Section("s", (Bars("x", groups),)),))))
    return place


@pytest.fixture
def opened(browser: Any, page_file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url == page_file.as_uri() or asked.url.startswith("data:")
            else said.append(f"a request to {asked.url[:200]}")
        ),
    )
    page.goto(page_file.as_uri())
    yield page
    assert said == []
    context.close()


SCREENS = [(360, "light"), (360, "dark"), (1280, "light")]
each_screen = pytest.mark.parametrize(
    "opened", SCREENS, indirect=True, ids=lambda one: "-".join(map(str, one))
)


@each_screen
def test_nothing_is_wider_than_the_window(opened: Any):
    opened.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    wide = opened.evaluate(
        """width => [...document.querySelectorAll("main *")].filter(one =>
            !one.closest(".box, svg") && one.getBoundingClientRect().right > width + 1
        ).map(one => one.outerHTML.slice(0, 100))""",
        width,
    )
    assert wide == []


@each_screen
def test_all_photos_and_charts_are_drawn(opened: Any):
    boxes = opened.evaluate(
        """[...document.querySelectorAll("svg")].map(one => {
            const box = one.getBoundingClientRect(); return [box.width, box.height]; })"""
    )
    assert len(boxes) > 40
    assert all(width > 100 and height > 50 for width, height in boxes)
    loaded = opened.evaluate(
        """Promise.all([...document.querySelectorAll("svg image")].map(async one => {
            const photo = new Image(); photo.src = one.getAttribute("href");
            await photo.decode(); return photo.naturalWidth; }))"""
    )
    assert len(loaded) > 30
    assert min(loaded) >= 60


@pytest.mark.parametrize("opened", [(360, "light")], indirect=True)
def test_text_of_charts_can_be_read_on_a_phone(opened: Any):
    size = opened.evaluate(
        """Math.min(...[...document.querySelectorAll(".chart text")].map(
            one => one.getBoundingClientRect().height))"""
    )
    assert size >= 9
    inside = opened.evaluate(
        """[...document.querySelectorAll(".chart text")].filter(one => {
            const chart = one.closest("svg").getBoundingClientRect();
            const box = one.getBoundingClientRect();
            return box.right > chart.right + 1 || box.left < chart.left - 1;
        }).map(one => one.textContent)"""
    )
    assert inside == []


def test_values_of_bars_are_not_cut(browser: Any, bars_file: Path):
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(bars_file.as_uri())
    found = page.evaluate(
        """[...document.querySelectorAll(".chart text")].map(one => {
            const chart = one.closest("svg").getBoundingClientRect();
            return [one.textContent, chart.right - one.getBoundingClientRect().right]; })"""
    )
    page.close()
    rooms = dict(found)
    assert rooms["100.0; 53340 pairs"] > 0
    assert min(rooms.values()) > 0


@pytest.mark.parametrize("opened", [(360, "light"), (1280, "dark")], indirect=True)
def test_numbers_of_keypoints_can_be_read(opened: Any):
    sizes = opened.evaluate(
        """[...document.querySelectorAll(".frames svg")].flatMap(svg => {
            const shown = svg.getScreenCTM().a;
            return [...svg.querySelectorAll("text")].map(
                one => shown * parseFloat(getComputedStyle(one).fontSize)); })"""
    )
    assert len(sizes) > 50
    assert min(sizes) >= 9


@pytest.mark.parametrize("opened", [(1280, "dark")], indirect=True)
def test_a_print_is_black_on_white_and_has_the_folded_tables(opened: Any):
    heights = """[...document.querySelectorAll("details .box")].map(
        one => one.checkVisibility() && one.getBoundingClientRect().height)"""
    assert not any(opened.evaluate(heights))
    opened.emulate_media(media="print", color_scheme="dark")
    shown = opened.evaluate(heights)
    assert len(shown) > 5
    assert min(shown) > 20
    colours = """selector => { const style = getComputedStyle(document.querySelector(selector));
        return [style.color, style.fill, style.backgroundColor]; }"""
    black, white = "rgb(0, 0, 0)", "rgb(255, 255, 255)"
    assert opened.evaluate(colours, "body")[::2] == [black, white]
    assert opened.evaluate(colours, ".chart text")[1] == black
    assert opened.evaluate(colours, "tbody th")[::2] == [black, white]
