"""The demo's page in a real browser, as people use it: by mouse, by touch, by keyboard.

Any complaint of the browser and any request to another server fails a test.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import sdcorr
from sdcorr.demo._photos import make_photo
from sdcorr.demo._studio import Studio
from sdcorr.demo.app import make_app
from sdcorr.pipeline import Pipeline
from sdcorr.preprocess import load_image
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES
from tests.demo.server import running, studio_with
from tests.tiny import shrink

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

READY = "Click in one of the photos."
SIDES = ("first", "second")
BRIGHTEST = [254, 232, 56]
REFUSED = "the server responded with a status of 4"  # what the browser says of any such answer
Point = tuple[float, float]


class Tab:
    """A tab with the demo's page, and what the browser complained of."""

    def __init__(self, context: Any, address: str, sizes: Sequence[tuple[int, int]]) -> None:
        self.page = context.new_page()
        self.address = address
        self.sizes = dict(zip(SIDES, sizes, strict=False))  # (width, height) of the photos
        self.complaints: list[str] = []
        self.expected: list[str] = []
        self.asked: list[dict[str, Any]] = []  # bodies sent to /match
        self.joins: list[dict[str, Any]] = []  # bodies sent to /join
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        self.page.on("request", self._request)
        self.agrees = True  # to what it is asked in a dialog
        self.told: list[str] = []  # in dialogs
        self.page.on("dialog", self._dialog)
        self.page.set_default_timeout(10_000)

    def _dialog(self, dialog: Any) -> None:
        self.told.append(dialog.message)
        if self.agrees:
            dialog.accept()
        else:
            dialog.dismiss()

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((f"{self.address}/", f"blob:{self.address}/")):
            self.complaints.append(f"a request to {request.url[:200]}")
        for path, bodies in (("/match", self.asked), ("/join", self.joins)):
            if request.url.endswith(path):
                bodies.append(request.post_data_json)

    def check(self) -> None:
        unexpected = [
            one for one in self.complaints if not any(part in one for part in self.expected)
        ]
        assert unexpected == []

    def open(self) -> Tab:
        self.page.goto(self.address)
        return self

    def ready(self) -> Tab:
        self.says(READY)
        return self

    def says(self, sentence: str | re.Pattern[str]) -> None:
        if isinstance(sentence, re.Pattern):  # as Playwright treats text, whatever the spaces
            sentence = re.compile(sentence.pattern.replace(" ", r"\s+"))
        sync_api.expect(self.page.get_by_role("status")).to_have_text(sentence)

    def fails(self, sentence: str | re.Pattern[str]) -> None:
        sync_api.expect(self.page.get_by_role("alert")).to_have_text(sentence)

    def get(self, role: str, name: str | re.Pattern[str]) -> Any:
        return self.page.get_by_role(role, name=name)

    def choose(self, side: str, file: Path) -> None:
        self.page.get_by_label(f"Choose {side} photo").set_input_files(file)

    def show(self, side: str, file: Path) -> None:
        """Choose a photo and wait until it is there."""
        self.choose(side, file)
        with PIL.Image.open(file) as photo:
            self.sizes[side] = photo.size
        self.has(side, file.name)

    def has(self, side: str, name: str) -> None:
        """Wait until a photo is there."""
        width, height = self.sizes[side]
        caption = f"{name}, {width} \N{MULTIPLICATION SIGN} {height}"
        sync_api.expect(self.page.locator(f"#{side} .caption")).to_have_text(
            caption, timeout=15_000
        )

    def view(self, side: str) -> Any:
        return self.page.locator(f"#{side} .view")

    def box(self, side: str) -> dict[str, float]:
        """Where the picture itself lies in the window, CSS pixels."""
        box: dict[str, float] = self.page.locator(f"#{side} img").bounding_box()
        return box

    def at(self, side: str, place: Point) -> Point:
        """Where a place of a photo lies in the window; its width is from -0.5 to width - 0.5."""
        (width, height), box = self.sizes[side], self.box(side)
        return (
            box["x"] + (place[0] + 0.5) / width * box["width"],
            box["y"] + (place[1] + 0.5) / height * box["height"],
        )

    def click(self, side: str, place: Point) -> Point:
        """Click there, wait for the answer; the place that was asked for."""
        with self.page.expect_response("**/match"):
            self.page.mouse.click(*self.at(side, place))
        self.until("document.querySelector('#rows tr.selected')?.cells[4].textContent")
        x, y = self.asked[-1]["points"][0]
        return x, y

    def mark(self, side: str, number: int) -> Any:
        return self.page.locator(f"#{side} .mark").filter(has_text=re.compile(f"^{number}$"))

    def centre(self, element: Any) -> Point:
        box = element.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def is_at(self, side: str, number: int, place: Point, within: float = 0.6) -> None:
        """Whether the marker's centre lies on a place of the photo, within CSS pixels."""
        expected = self.at(side, place)
        sync_api.expect(self.mark(side, number)).to_be_visible()
        assert self.centre(self.mark(side, number)) == pytest.approx(expected, abs=within)

    def drag(self, side: str, number: int, to: Point) -> None:
        self.page.mouse.move(*self.centre(self.mark(side, number)))
        self.page.mouse.down()
        self.page.mouse.move(*to, steps=5)
        self.page.mouse.up()

    @property
    def rows(self) -> list[list[str]]:
        """The list: name, first, second, score, confidence of each point."""
        found: list[list[str]] = self.page.locator("#rows tr").evaluate_all(
            "rows => rows.map(row => [row.querySelector('input').value,"
            " ...[2, 3, 4, 5].map(index => row.cells[index].textContent)])"
        )
        return found

    def settled(self) -> None:
        """Wait until the photos are joined anew; only then are there files."""
        sync_api.expect(self.get("button", "Remove all")).to_be_enabled()

    def until(self, script: str) -> None:
        """Wait until it is so; wait_for_function would need eval, which the page forbids."""
        for _ in range(500):
            if self.page.evaluate(script):
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(f"never: {script}")

    @property
    def focused(self) -> str:
        """Name of what has the focus."""
        name: str = self.page.evaluate(
            "() => { const one = document.activeElement; return one.ariaLabel ??"
            " one.labels?.[0]?.textContent.trim() ?? one.textContent.trim() }"
        )
        return name

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def download(self, name: str) -> Path:
        with self.page.expect_download() as file:
            self.get("button", name).click()
        return Path(file.value.path())


def numbers(text: str) -> Point:
    x, y = text.split()
    return float(x), float(y)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray, other_photo: np.ndarray
) -> tuple[Path, Path]:
    """Two photos, 471 x 313 and 199 x 271."""
    folder = tmp_path_factory.mktemp("photos")
    places = folder / "wide.jpg", folder / "upright.jpg"
    for pixels, place in zip((photo, other_photo), places, strict=True):
        PIL.Image.fromarray(pixels).save(place, quality=95)
    return places


@pytest.fixture(scope="module")
def studio() -> Studio:
    """One for most tests: each photo is encoded once."""
    return studio_with()


@pytest.fixture(scope="module")
def address(studio: Studio, files: tuple[Path, Path]) -> Iterator[str]:
    """A server that begins with both photos and sift."""
    shown = [studio.add(make_photo(load_image(one), one.name)) for one in files]
    with running(make_app(studio, "sift", shown)) as address:
        yield address


@pytest.fixture(scope="module")
def empty(studio: Studio) -> Iterator[str]:
    """A server that begins without photos."""
    with running(make_app(studio, "sift")) as address:
        yield address


@pytest.fixture(scope="module")
def sift() -> Pipeline:
    return sdcorr.load("sift")


class Visit:
    """Opens tabs; each in a browser profile of its own, unless it is told of one."""

    def __init__(self, browser: Any, stack: ExitStack) -> None:
        self.browser, self.stack = browser, stack
        self.tabs: list[Tab] = []

    def context(self, **options: Any) -> Any:
        return self.stack.enter_context(closing(self.browser.new_context(**options)))

    def serve(
        self, studio: Studio, recipe: str = "sift", photos: Sequence[Path] = (), **options: Any
    ) -> str:
        shown = [studio.add(make_photo(load_image(one), one.name)) for one in photos]
        return self.stack.enter_context(running(make_app(studio, recipe, shown, **options)))

    def tab(
        self, address: str, photos: Sequence[Path] = (), context: Any = None, **options: Any
    ) -> Tab:
        sizes = []
        for place in photos:
            with PIL.Image.open(place) as one:
                sizes.append(one.size)
        self.tabs.append(Tab(context or self.context(**options), address, sizes))
        return self.tabs[-1]

    def __call__(
        self, studio: Studio, photos: Sequence[Path] = (), recipe: str = "sift", **options: Any
    ) -> Tab:
        return self.tab(self.serve(studio, recipe, photos), photos, **options).open()


@contextmanager
def closing(context: Any) -> Iterator[Any]:
    yield context
    context.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    with ExitStack() as stack:
        visit = Visit(browser, stack)
        yield visit
        for tab in visit.tabs:
            tab.check()


@pytest.fixture
def tab(visit: Visit, address: str, files: tuple[Path, Path]) -> Tab:
    """The page with both photos, joined by sift."""
    return visit.tab(address, files).open().ready()


class Gate:
    """Holds up what passes until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.open = self._open.set

    def load(self, recipe: Recipe) -> Pipeline:
        """A pipeline that encodes only once the gate is open."""
        model = sdcorr.load(recipe)
        encode = model.encode

        def held_up(*arguments: Any, **options: Any) -> Any:
            assert self._open.wait(30)
            return encode(*arguments, **options)

        model.encode = held_up  # type: ignore[method-assign]
        return model


# ---- photos


def test_photos_are_chosen_and_progress_is_shown(visit: Visit, files: tuple[Path, Path]) -> None:
    gate = Gate()
    tab = visit(studio_with(load=gate.load))
    tab.says("Choose two photos.")
    assert tab.get("button", "Download JSON").is_disabled()
    tab.show("first", files[0])
    tab.says("Now choose the other photo.")
    tab.show("second", files[1])
    tab.says("Encoding wide.jpg.")
    sync_api.expect(tab.get("progressbar", "Encoding the photos")).to_be_visible()
    tab.until("parseInt(document.getElementById('seconds').textContent) >= 1")
    tab.page.mouse.click(*tab.at("first", (100, 100)))  # early: looked for as soon as it can be
    assert [row[2:] for row in tab.rows] == [["", "", ""]]
    gate.open()
    sync_api.expect(tab.mark("second", 1)).to_be_visible()
    tab.says(re.compile("^Point 1:"))
    sync_api.expect(tab.get("progressbar", "Encoding the photos")).to_be_hidden()


DROP = """([side, name, bytes]) => {
  const data = new DataTransfer();
  const content = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
  if (name) data.items.add(new File([content], name));
  else data.setData("text/plain", "no file");
  const target = document.querySelector(side);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const how = { bubbles: true, cancelable: true, dataTransfer: data };
    target.dispatchEvent(new DragEvent(kind, how));
  }
  return location.pathname;
}"""


DROP_TWO = """([where, files]) => {
  const data = new DataTransfer();
  for (const [name, bytes] of files) {
    data.items.add(new File([Uint8Array.from(atob(bytes), (one) => one.charCodeAt(0))], name));
  }
  const how = { bubbles: true, cancelable: true, dataTransfer: data };
  document.querySelector(where).dispatchEvent(new DragEvent("drop", how));
}"""


@pytest.mark.parametrize("where", ["h1", "#first", "#second"])
def test_two_photos_are_dropped_at_once(
    visit: Visit, empty: str, files: tuple[Path, Path], where: str
) -> None:
    """The first onto the place it falls on, or the first place; the second onto the other."""
    tab = visit.tab(empty, files if where != "#second" else files[::-1]).open()
    tab.says("Choose two photos.")  # the page is set up, and takes photos
    sent = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    tab.page.evaluate(DROP_TWO, [where, sent])
    for side, file in zip(SIDES if where != "#second" else SIDES[::-1], files, strict=True):
        tab.has(side, file.name)
    tab.ready()


def test_of_two_dropped_photos_what_is_wrong_with_one_stays_said(
    visit: Visit, studio: Studio, files: tuple[Path, Path]
) -> None:
    tab = visit(studio, files).ready()
    tab.expected = ["422"]
    good = base64.b64encode(files[1].read_bytes()).decode()
    broken = base64.b64encode(b"This is no photo.").decode()
    tab.page.evaluate(DROP_TWO, ["#first", [["broken.jpg", broken], ["good.jpg", good]]])
    tab.has("second", "good.jpg")
    tab.ready()
    tab.fails(re.compile("^broken.jpg is no photo that can be read"))
    tab.has("first", files[0].name)


def test_a_page_that_may_keep_nothing_works(
    visit: Visit, studio: Studio, files: tuple[Path, Path]
) -> None:
    tab = visit.tab(visit.serve(studio, "sift", files), files)
    tab.page.add_init_script(
        "Object.defineProperty(window, 'sessionStorage', { get() { throw new Error('no'); } })"
    )
    tab.open().ready()
    tab.click("first", (100, 100))
    assert len(tab.rows) == 1


def test_a_download_of_a_pair_that_was_let_go_joins_it_again(
    visit: Visit, files: tuple[Path, Path]
) -> None:
    studio = studio_with()
    tab = visit(studio, files).ready()
    tab.expected = ["409"]
    tab.click("first", (205, 104))
    for key in [key for key in studio.shelf._kept if not isinstance(key, str)]:
        del studio.shelf._kept[key]
    tab.get("button", "Download CSV").click()
    tab.until("document.querySelectorAll('#error:not([hidden])').length === 0")
    sync_api.expect(tab.get("button", "Download CSV")).to_be_enabled()
    with tab.page.expect_download() as found:
        tab.get("button", "Download CSV").click()
    assert len(Path(found.value.path()).read_text().splitlines()) == 2


def test_photos_are_dropped(visit: Visit, empty: str, files: tuple[Path, Path]) -> None:
    tab = visit.tab(empty).open()
    tab.says("Choose two photos.")
    for side, file in zip(SIDES, files, strict=True):
        assert tab.page.evaluate(DROP, [f"#{side}", None, ""]) == "/"  # dragged text is no photo
        data = base64.b64encode(file.read_bytes()).decode()
        assert tab.page.evaluate(DROP, [f"#{side} .drop", file.name, data]) == "/"
        sync_api.expect(tab.page.locator(f"#{side} .caption")).to_contain_text(file.name)
    tab.ready()
    assert tab.page.locator(".over").count() == 0


def test_a_dropped_folder_is_said_to_be_none(visit: Visit, empty: str, tmp_path: Path) -> None:
    tab = visit.tab(empty).open()
    session = tab.page.context.new_cdp_session(tab.page)
    x, y = tab.centre(tab.page.locator("#first .drop"))
    data = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})
    tab.fails(f"{tmp_path.name} cannot be read; expected a photo, no folder")
    tab.says("Choose two photos.")


def test_another_photo_keeps_what_was_clicked_in_the_one_that_stays(
    tab: Tab, sift: Pipeline, files: tuple[Path, Path]
) -> None:
    """The way to annotate many photos: click once, and change the other photo."""
    first = tab.click("first", (100, 100))
    tab.click("first", (60, 200))
    tab.drag("second", 2, tab.at("second", (150, 40)))
    tab.click("second", (60, 80))
    tab.get("textbox", "name of point 1").fill("ear")
    tab.agrees = False
    before = tab.rows
    tab.choose("second", files[0])
    tab.says("The photos are as they were.")
    assert tab.told == [
        "Another second photo removes 1 of 3 points, clicked in the old one, and corrections by "
        "hand (1). Go on?"
    ]
    assert tab.rows == before
    tab.agrees = True
    tab.show("second", files[0])
    tab.settled()
    x, y = sift.match(files[0], files[0], [first]).target[0].tolist()
    sync_api.expect(tab.page.locator("#rows tr").first).to_contain_text(f"{x:.1f}  {y:.1f}")
    assert [row[0] for row in tab.rows] == ["ear", "2"]
    assert tab.rows[1][3] != "by hand"
    tab.ready()  # nothing is selected
    tab.show("first", files[1])
    tab.ready()
    assert tab.rows == []
    assert tab.page.locator(".mark, .next, canvas:visible").count() == 0


def test_the_photo_that_was_chosen_last_is_shown(
    visit: Visit, empty: str, files: tuple[Path, Path]
) -> None:
    tab = visit.tab(empty).open()
    held: list[Any] = []
    tab.page.route("**/photos", lambda route: held.append(route), times=1)
    tab.choose("first", files[0])  # on its way for long
    tab.show("first", files[1])
    with tab.page.expect_response("**/photos"):
        held[0].continue_()
    tab.says("Now choose the other photo.")
    tab.has("first", "upright.jpg")


def test_names_are_text(visit: Visit, studio: Studio, tmp_path: Path, photo: np.ndarray) -> None:
    place = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    PIL.Image.fromarray(photo).save(place)
    tab = visit(studio, [place, place], "same-position").ready()
    tab.click("first", (9, 9))
    tab.get("textbox", "name of point 1").fill(place.name)
    tab.press("Tab")
    assert tab.rows[0][0] == place.name
    assert tab.page.locator("img").count() == 2
    sync_api.expect(tab.page.locator("#first .caption")).to_contain_text(place.name)


# ---- clicks


def test_a_click_finds_what_the_model_finds(
    tab: Tab, sift: Pipeline, files: tuple[Path, Path]
) -> None:
    for number, (side, place) in enumerate([("first", (205, 104)), ("second", (60, 80))], start=1):
        asked = tab.click(side, place)
        one, other = files if side == "first" else files[::-1]
        match = sift.match(one, other, [asked])
        (there,), (score,) = match.target.tolist(), match.score.tolist()
        assert match.confidence is not None
        sure = match.confidence.item()
        there_side = SIDES[1 - SIDES.index(side)]
        tab.says(
            f"Point {number}: {there[0]:.1f} {there[1]:.1f} in the {there_side} photo, score "
            f"{score:.3f}, confidence {sure:.2f}."
        )
        name, *places, shown_score, shown_sure = tab.rows[-1]
        assert name == str(number)
        assert numbers(places[SIDES.index(side)]) == pytest.approx(asked, abs=0.051)
        assert numbers(places[SIDES.index(there_side)]) == pytest.approx(there, abs=0.051)
        assert (shown_score, shown_sure) == (f"{score:.3f}", f"{sure:.2f}")
        tab.is_at(side, number, asked)
        tab.is_at(there_side, number, there)


SHAPES = [((4000, 3000), (90, 900)), ((1600, 120), (20, 16))]
WINDOWS = [((1280, 800), 1), ((390, 844), 3), ((1700, 1000), 1.5)]


def red_square(width: int, height: int, place: Path, **how: Any) -> Point:
    """A grey photo with a red square on it; the square's centre."""
    side = max(6, min(width, height) // 5)
    left, top = width * 3 // 10, height * 5 // 10  # even: JPEG halves the colours
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[top : top + side, left : left + side] = (255, 0, 0)
    PIL.Image.fromarray(pixels).save(place, quality=95, subsampling=0, **how)
    return left + (side - 1) / 2, top + (side - 1) / 2


def red_on_screen(tab: Tab, side: str, scale: float) -> Point:
    """The red square's centre in the window, CSS pixels, from a picture of the window."""
    tab.view(side).scroll_into_view_if_needed()
    tab.until(f"document.querySelector('#{side} img').complete")
    picture = PIL.Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(picture).astype(int), -1, 0)
    is_red = red - np.maximum(green, blue) > 120
    for axis, start, length in ((0, "y", "height"), (1, "x", "width")):
        low = (tab.box(side)[start] - 4) * scale
        high = low + (tab.box(side)[length] + 8) * scale
        place = np.arange(is_red.shape[axis])
        within = (place > low) & (place < high)
        is_red &= within[:, None] if axis == 0 else within
    ys, xs = np.nonzero(is_red)
    assert len(xs) > 0
    return (xs.mean() + 0.5) / scale, (ys.mean() + 0.5) / scale


@pytest.mark.parametrize(("window", "scale"), WINDOWS, ids=str)
def test_a_click_on_what_one_sees_asks_for_its_pixel(
    visit: Visit, studio: Studio, tmp_path: Path, window: tuple[int, int], scale: float
) -> None:
    address = visit.serve(studio, "same-position")
    width, height = window
    screen = {"width": width, "height": height}
    tab = visit.tab(address, viewport=screen, device_scale_factor=scale).open()
    tab.get("checkbox", "Heat map").uncheck()
    for first, second in SHAPES if scale > 1 else [pair[::-1] for pair in SHAPES]:
        centres = {}
        for side, shape in zip(SIDES, (first, second), strict=True):
            centres[side] = red_square(*shape, tmp_path / f"{side}.jpg")
            tab.show(side, tmp_path / f"{side}.jpg")
        tab.ready()
        for side in SIDES:
            seen = red_on_screen(tab, side, scale)
            with tab.page.expect_response("**/match"):
                tab.page.mouse.click(*seen)
            box, shape = tab.box(side), tab.sizes[side]
            asked = tab.asked[-1]["points"][0]
            for axis, length in enumerate(("width", "height")):
                # browsers round clicks to whole CSS pixels; the square's edge is blurred
                most = max(1.1 * shape[axis] / box[length], 0.1)
                assert asked[axis] == pytest.approx(centres[side][axis], abs=most), (side, shape)
            tab.is_at(side, 1, asked)
            tab.get("button", "Remove all").click()  # the match lies on the other square
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_photo_that_lies_on_its_side_is_shown_upright(
    visit: Visit, studio: Studio, tmp_path: Path
) -> None:
    rotated = PIL.Image.Exif()
    rotated[0x0112] = 6  # to be turned clockwise by a quarter
    x, y = red_square(400, 300, tmp_path / "a.jpg", exif=rotated)
    tab = visit(studio, [tmp_path / "a.jpg"] * 2, "same-position").ready()
    tab.sizes = dict.fromkeys(SIDES, (300, 400))
    tab.has("first", "a.jpg")
    with tab.page.expect_response("**/match"):
        tab.page.mouse.click(*red_on_screen(tab, "second", 1))
    assert tab.asked[-1]["points"][0] == pytest.approx([299 - y, x], abs=1.2)


def test_clicks_reach_the_edges(tab: Tab) -> None:
    box = tab.box("first")
    for x, y in ((0.2, 0.2), (box["width"] - 0.5, box["height"] - 0.5)):
        with tab.page.expect_response("**/match") as answer:
            tab.page.mouse.click(box["x"] + x, box["y"] + y)
        assert answer.value.ok
    assert len(tab.rows) == 2
    (left, top), (right, bottom) = (numbers(row[1]) for row in tab.rows)
    assert -0.5 <= left <= 1
    assert -0.5 <= top <= 1
    assert 469 <= right <= 470.5
    assert 311 <= bottom <= 312.5


# ---- heat map and next best places


@pytest.fixture(scope="module")
def letterbox(dinov2_folder: Path) -> Recipe:
    """A tiny DINOv2: its cells reach beyond an oblong photo."""
    return shrink(RECIPES["dinov2-b"]).with_models({"dinov2": str(dinov2_folder)})


@pytest.mark.parametrize("source", SIDES)
@pytest.mark.parametrize("kind", ["sift", "letterbox"])
def test_the_heat_map_lies_where_its_cells_are(
    visit: Visit, files: tuple[Path, Path], letterbox: Recipe, kind: str, source: str
) -> None:
    recipe = letterbox if kind == "letterbox" else RECIPES["sift"]
    tab = visit(Studio({recipe.name: recipe}, sdcorr.load, 10**9), files, recipe.name).ready()
    target = SIDES[1 - SIDES.index(source)]
    place = tab.click(source, (60, 80))
    pair = sdcorr.load(recipe).fuse(*(files if source == "first" else files[::-1]))
    canvas = tab.page.locator(f"#{target} canvas")
    sync_api.expect(canvas).to_be_visible()
    sync_api.expect(tab.page.locator(f"#{source} canvas")).to_be_hidden()
    grid = pair.similarity.target
    left, right, bottom, top = grid.extent
    box = canvas.bounding_box()
    found = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
    corners = [*tab.at(target, (left, top)), *tab.at(target, (right, bottom))]
    assert found == pytest.approx(corners, abs=0.2)
    if kind == "letterbox":
        assert box["width"] == pytest.approx(box["height"], rel=0.01)
    row = pair.similarity.rows(torch.tensor([place], dtype=torch.float64))[0]
    best = int(row.masked_fill(~grid.inside(), -torch.inf).argmax())
    dull = int(row.masked_fill(~grid.inside(), torch.inf).argmin())
    cells = np.array(canvas.evaluate(CELLS)).reshape(*grid.shape, 4)
    assert cells.reshape(-1, 4)[best, :3] == pytest.approx(BRIGHTEST, abs=3)  # alpha rounds
    red, _, blue, _ = cells.reshape(-1, 4)[dull]
    assert blue > red


CELLS = "one => Array.from(one.getContext('2d').getImageData(0, 0, one.width, one.height).data)"


def test_heat_map_and_next_best_places_can_be_turned_off(tab: Tab) -> None:
    tab.click("first", (205, 104))
    sync_api.expect(tab.page.locator("#second canvas")).to_be_visible()
    assert 1 <= tab.page.locator("#second .next").count() <= 4
    tab.get("checkbox", "Heat map").uncheck()
    sync_api.expect(tab.page.locator("#second canvas")).to_be_hidden()
    tab.get("checkbox", "Next best places").uncheck()
    assert tab.page.locator(".next").count() == 0
    tab.get("checkbox", "Next best places").check()
    assert 1 <= tab.page.locator("#second .next").count() <= 4


def test_a_next_best_place_is_taken_and_given_back(
    tab: Tab, sift: Pipeline, files: tuple[Path, Path]
) -> None:
    asked = tab.click("first", (205, 104))
    pair = sift.fuse(*files)
    match = pair.match([asked])
    places, scores = pair.next_best(match)
    for rank, (place, score) in enumerate(
        zip(places.tolist(), scores.tolist(), strict=True), start=1
    ):
        diamond = tab.get("button", f"next best place {rank}, score {score:.3f}: take it")
        assert tab.centre(diamond) == pytest.approx(tab.at("second", place), abs=0.6)
    tab.get("button", re.compile("^next best place 2")).click()
    x, y = places[1].tolist()
    tab.says(f"Point 1: {x:.1f} {y:.1f} in the second photo, corrected by hand.")
    tab.is_at("second", 1, (x, y))
    assert tab.rows[0][3:] == ["by hand", ""]
    with tab.page.expect_response("**/match"):
        tab.get("button", "undo the correction of point 1").click()
    x, y = match.target[0].tolist()
    tab.says(re.compile(rf"^Point 1: {x:.1f} {y:.1f} in the second photo, score"))
    tab.is_at("second", 1, (x, y))
    assert tab.focused == "select point 1"  # what was clicked is gone


def test_a_thin_photo_can_be_clicked_in(visit: Visit, studio: Studio, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 1500, 3), np.uint8)
    places = tmp_path / "line.jpg", tmp_path / "pole.jpg"
    for place, pixels in zip(places, (noise, noise.swapaxes(0, 1)), strict=True):
        PIL.Image.fromarray(pixels).save(place)
    tab = visit(studio, places).ready()
    assert tab.box("first")["height"] > 20
    assert tab.box("second")["width"] > 20
    tab.click("second", (6, 700))
    box = tab.box("first")
    diamonds = tab.page.locator("#first .next").all()
    assert diamonds
    for diamond in diamonds:
        x, y = tab.centre(diamond)
        assert box["x"] - 1 <= x <= box["x"] + box["width"] + 1
        assert box["y"] - 1 <= y <= box["y"] + box["height"] + 1
    diamonds[0].click()
    tab.says(re.compile("corrected by hand"))
    assert "corrected" in tab.download("Download CSV").read_text()


# ---- dragging


def test_the_match_follows_a_dragged_point(
    tab: Tab, sift: Pipeline, files: tuple[Path, Path]
) -> None:
    tab.click("first", (205, 104))
    tab.page.mouse.move(*tab.centre(tab.mark("first", 1)))
    tab.page.mouse.down()
    x, y = tab.at("first", (60, 200))
    tab.page.mouse.move(x, y, steps=6)
    tab.until("document.querySelectorAll('.mark.selected').length === 2")
    last = sift.match(*files, [tab.page.evaluate(KEPT)["first"]]).target[0].tolist()
    tab.says(re.compile(rf"^Point 1: {last[0]:.1f} {last[1]:.1f} in"))  # before it is let go
    tab.is_at("second", 1, (last[0], last[1]))
    tab.page.mouse.up()
    assert numbers(tab.rows[0][1]) == pytest.approx((60, 200), abs=1)
    assert len(tab.rows) == 1
    assert tab.rows[0][3] != "by hand"
    tab.page.mouse.click(*tab.at("first", (300, 50)))  # right after
    tab.until("document.querySelectorAll('#second .mark').length === 2")


KEPT = "JSON.parse(sessionStorage.getItem('sdcorr')).points[0].place"


def test_a_dragged_match_is_by_hand(tab: Tab) -> None:
    asked = tab.click("first", (205, 104))
    count = len(tab.asked)
    tab.drag("second", 1, tab.at("second", (150, 40)))
    tab.says(re.compile("corrected by hand"))
    assert numbers(tab.rows[0][2]) == pytest.approx((150, 40), abs=1)
    assert numbers(tab.rows[0][1]) == pytest.approx(asked, abs=0.051)
    assert len(tab.rows) == 1
    assert len(tab.asked) == count  # nobody asks where it is
    sync_api.expect(tab.page.locator("#second canvas")).to_be_visible()


def test_a_drag_beyond_the_photo_ends_on_it(tab: Tab) -> None:
    tab.click("first", (205, 104))
    tab.drag("first", 1, (2, 2))
    tab.until("document.querySelectorAll('#rows tr').length === 1")
    assert numbers(tab.rows[0][1]) == (-0.5, -0.5)
    box = tab.box("second")
    tab.drag("second", 1, (box["x"] + box["width"] + 300, box["y"] + box["height"] + 90))
    assert numbers(tab.rows[0][2]) == (198.5, 270.5)
    assert len(tab.rows) == 1
    tab.drag("second", 1, tab.at("second", (100, 100)))  # it can be had again
    assert numbers(tab.rows[0][2]) == pytest.approx((100, 100), abs=1)


def test_a_press_without_a_move_selects(tab: Tab) -> None:
    tab.click("first", (205, 104))
    tab.click("first", (60, 80))
    tab.mark("second", 1).click()
    sync_api.expect(tab.mark("first", 1)).to_have_class(re.compile("selected"))
    sync_api.expect(tab.mark("first", 2)).to_have_class("mark")
    assert [row[3] == "by hand" for row in tab.rows] == [False, False]
    assert len(tab.rows) == 2


def test_a_dragged_match_shows_its_own_neighbours(tab: Tab) -> None:
    tab.click("first", (205, 104))
    first = [one.get_attribute("style") for one in tab.page.locator(".next").all()]
    tab.click("first", (60, 250))
    second = [one.get_attribute("style") for one in tab.page.locator(".next").all()]
    assert first != second
    with tab.page.expect_response("**/match"):
        tab.drag("second", 1, tab.at("second", (20, 20)))  # of the point that is not selected
    sync_api.expect(tab.page.locator("#second .next").first).to_have_attribute("style", first[0])
    assert [one.get_attribute("style") for one in tab.page.locator(".next").all()] == first
    tab.says(re.compile("^Point 1: .* corrected by hand"))


def test_fingers_drag_too(visit: Visit, address: str, files: tuple[Path, Path]) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    tab = visit.tab(address, files, **phone, device_scale_factor=2).open().ready()
    with tab.page.expect_response("**/match"):
        tab.page.touchscreen.tap(*tab.at("first", (205, 104)))
    session = tab.page.context.new_cdp_session(tab.page)
    x, y = tab.centre(tab.mark("second", 1))
    right, down = tab.at("second", (150, 200))

    def touch(kind: str, *places: Point) -> None:
        points = [{"x": one, "y": other} for one, other in places]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x, y))
    for part in (0.1, 0.4, 0.7, 1.0):
        touch("touchMove", (x + (right - x) * part, y + (down - y) * part))
    touch("touchEnd")
    tab.says(re.compile("corrected by hand"))
    assert numbers(tab.rows[0][2]) == pytest.approx((150, 200), abs=2)
    assert len(tab.rows) == 1


# ---- looking closely


def test_the_wheel_zooms_around_the_pointer_and_clicks_ask_for_what_is_seen(tab: Tab) -> None:
    eye = (205.0, 104.0)
    before, width = tab.at("first", eye), tab.box("first")["width"]
    tab.page.mouse.move(*before)
    tab.page.keyboard.down("Control")
    for _ in range(4):
        tab.page.mouse.wheel(0, -100)
    tab.page.keyboard.up("Control")
    tab.until(f"document.querySelector('#first img').getBoundingClientRect().width > {5 * width}")
    assert tab.box("first")["width"] == pytest.approx(1.5**4 * width)
    assert tab.at("first", eye) == pytest.approx(before, abs=1.5)  # browsers scroll by whole pixels
    asked = tab.click("first", eye)
    assert asked == pytest.approx(eye, abs=0.3)
    tab.is_at("first", 1, asked)
    with tab.page.expect_response("**/match"):
        tab.drag("first", 1, (before[0] + 40, before[1] + 20))
    per_pixel = tab.box("first")["width"] / 471
    moved = asked[0] + 40 / per_pixel, asked[1] + 20 / per_pixel
    assert numbers(tab.rows[0][1]) == pytest.approx(moved, abs=0.5)


def test_a_zoomed_photo_is_dragged_and_shows_what_is_selected(tab: Tab) -> None:
    tab.click("first", (205, 104))
    tab.click("first", (440, 300))
    whole = tab.box("first")
    for _ in range(4):
        tab.get("button", "zoom first photo in").click()
    x, y = whole["x"] + whole["width"] / 2, whole["y"] + whole["height"] / 2
    begin = tab.box("first")
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x + 60, y + 30, steps=4)
    tab.page.mouse.up()
    after = tab.box("first")
    assert (after["x"] - begin["x"], after["y"] - begin["y"]) == pytest.approx((60, 30), abs=1)
    assert len(tab.rows) == 2  # the drag set no point
    for number in (1, 2):
        tab.get("button", f"select point {number}").click()
        there, view = tab.centre(tab.mark("first", number)), tab.view("first").bounding_box()
        assert view["x"] < there[0] < view["x"] + view["width"]
        assert view["y"] < there[1] < view["y"] + view["height"]
    tab.page.mouse.click(*tab.centre(tab.view("first")))  # has the focus, and shows no cross
    tab.until("document.querySelectorAll('#rows tr').length === 3")
    scrolled = "one => [one.scrollLeft, one.scrollTop]"
    place = tab.view("first").evaluate(scrolled)
    tab.press("x", "Control", "1")  # no keys of the zoom
    assert tab.view("first").evaluate(scrolled) == place
    tab.view("first").focus()
    tab.press("0")
    assert tab.box("first") == pytest.approx(tab.view("first").bounding_box(), abs=1)
    assert tab.get("button", "zoom first photo out").is_disabled()
    tab.press("+")
    assert tab.box("first")["width"] == pytest.approx(1.5 * whole["width"])
    tab.press("-")
    assert tab.box("first")["width"] == pytest.approx(whole["width"])


def test_a_marker_at_the_edge_of_a_zoomed_view_follows_the_pointer(tab: Tab) -> None:
    """It must not be scrolled to where it can be seen while it is held."""
    tab.click("first", (235, 156))
    for _ in range(3):
        tab.get("button", "zoom first photo in").click()
    view = tab.view("first").bounding_box()
    x, y = tab.centre(tab.mark("first", 1))
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(view["x"] + view["width"] - 8, y, steps=8)
    for step in range(8):
        tab.page.mouse.move(view["x"] + view["width"] - 8 - step % 2, y)
    box = tab.box("first")
    seen = view["x"] + view["width"] - 9 - box["x"]
    tab.until("document.querySelector('#first .mark').getBoundingClientRect().x > 0")
    assert numbers(tab.rows[0][1])[0] == pytest.approx(seen / box["width"] * 471, abs=1)
    tab.page.mouse.up()


def test_of_a_large_photo_all_pixels_can_be_seen(visit: Visit, empty: str, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (5000, 100)).save(tmp_path / "long.png")
    tab = visit.tab(empty).open()
    tab.show("first", tmp_path / "long.png")
    natural = "document.querySelector('#first img').naturalWidth"
    tab.until(f"{natural} === 2048")
    tab.get("button", "zoom first photo in").click()
    tab.until(f"{natural} === 5000")


# ---- keyboard


def test_everything_is_reached_by_tab_in_order(tab: Tab) -> None:
    tab.click("first", (205, 104))
    count = tab.page.locator("#second .next").count()
    tab.page.evaluate("document.activeElement.blur()")
    tab.page.evaluate("document.querySelector('h1').tabIndex = -1")
    tab.page.evaluate("document.querySelector('h1').focus()")
    seen = []
    for _ in range(26 + count):
        tab.press("Tab")
        seen.append(tab.focused)
        ring = tab.page.evaluate(
            "(document.activeElement.closest('.button') ?? document.activeElement)"
            ".computedStyleMap().get('outline-style').toString()"
        )
        assert ring != "none", seen[-1]
        if tab.page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    kinds = [re.sub(r"[\d.]+ +[\d.]+$", "x y", re.sub(r", score.*", "", one)) for one in seen]
    kinds = [re.sub(r"^(Recipe|Matcher).*", r"\1", one.strip(), flags=re.DOTALL) for one in kinds]
    assert kinds == [
        "Recipe", "Matcher", "Least confidence", "Heat map", "Next best places",
        "Choose first photo", "zoom first photo in",
        "wide.jpg: arrow keys move the cross, Enter sets a point, + and - zoom",
        "point 1, first photo, x y",
        "Choose second photo", "zoom second photo in",
        "upright.jpg: arrow keys move the cross, Enter sets a point, + and - zoom",
        *[f"next best place {rank}" for rank in range(1, count + 1)],
        "point 1, second photo, x y",
        "Download JSON", "Download CSV", "Download picture", "Remove all", "Load points",
        "select point 1", "name of point 1", "remove point 1", "How to use this page",
    ]  # fmt: skip


def test_a_point_is_set_moved_and_removed_by_keyboard(tab: Tab) -> None:
    tab.page.get_by_label("Choose first photo").focus()
    tab.press("Tab", "Tab")
    cross = tab.page.locator("#first .cross")
    sync_api.expect(cross).to_be_visible()  # one sees where Enter would set a point
    assert tab.centre(cross) == pytest.approx(tab.at("first", (235, 156)), abs=0.6)
    tab.press("ArrowLeft", "ArrowLeft", "ArrowUp", "Shift+ArrowRight", "Shift+ArrowDown")
    step = 471 / 50
    x, y = 235 - 2 * step + 1, 156 - step + 1
    assert tab.centre(cross) == pytest.approx(tab.at("first", (x, y)), abs=0.6)
    with tab.page.expect_response("**/match"):
        tab.press("Enter")
    assert tab.asked[-1]["points"] == [pytest.approx([x, y])]
    sync_api.expect(tab.mark("second", 1)).to_be_visible()
    tab.press("Tab")
    assert tab.focused == f"point 1, first photo, {x:.1f}  {y:.1f}"
    for key, (dx, dy) in {
        "ArrowRight": (1, 0), "ArrowUp": (0, -1), "Shift+ArrowLeft": (-10, 0),
        "Shift+ArrowDown": (0, 10),
    }.items():  # fmt: skip
        with tab.page.expect_response("**/match"):
            tab.press(key)
        x, y = x + dx, y + dy
        assert tab.asked[-1]["points"] == [pytest.approx([x, y])]
        tab.until(f"document.activeElement.ariaLabel.includes('{x:.1f}  {y:.1f}')")
    tab.press("Alt+ArrowUp", "Control+ArrowUp")  # not the page's
    tab.until(f"document.activeElement.ariaLabel.includes('{x:.1f}  {y:.1f}')")
    place = numbers(tab.rows[0][2])
    tab.mark("second", 1).focus()
    tab.press("ArrowDown")
    assert numbers(tab.rows[0][2]) == pytest.approx((place[0], place[1] + 1), abs=0.11)
    assert tab.rows[0][3] == "by hand"
    tab.press("Delete")
    assert tab.rows == []
    assert tab.focused.startswith("upright.jpg")  # not lost


def test_an_arrow_that_is_held_down_asks_for_the_last_place(
    tab: Tab, sift: Pipeline, files: tuple[Path, Path]
) -> None:
    x, y = tab.click("first", (205, 104))
    tab.mark("first", 1).focus()
    tab.press(*["ArrowRight"] * 40)
    there = sift.match(*files, [(x + 40, y)]).target[0].tolist()
    tab.until(f"document.querySelector('#rows').innerText.includes('{x + 40:.1f} ')")
    tab.says(re.compile(rf"^Point 1: {there[0]:.1f} {there[1]:.1f} in"))
    assert tab.asked[-1]["points"] == [pytest.approx([x + 40, y])]


def test_diamonds_are_taken_by_keyboard(tab: Tab) -> None:
    tab.click("first", (205, 104))
    tab.get("button", re.compile("^next best place 1")).focus()
    tab.press("Enter")
    tab.says(re.compile("corrected by hand"))
    assert tab.focused.startswith("next best place 1")


# ---- the list


def test_points_are_renamed_selected_and_removed(tab: Tab) -> None:
    for place in ((205, 104), (60, 80), (300, 200)):
        tab.click("first", place)
    name = tab.get("textbox", "name of point 2")
    name.fill("  left eye ")
    tab.press("Tab")
    assert tab.focused == "remove point left eye"  # the row was not made anew under the user
    assert [row[0] for row in tab.rows] == ["1", "left eye", "3"]
    assert tab.mark("first", 2).get_attribute("aria-label").startswith("point left eye, first")
    name.fill("")
    tab.press("Enter")
    assert [row[0] for row in tab.rows] == ["1", "2", "3"]
    tab.get("button", "select point 1").click()
    sync_api.expect(tab.page.locator("tr.selected")).to_have_count(1)
    sync_api.expect(tab.mark("second", 1)).to_have_class(re.compile("selected"))
    tab.says(re.compile("^Point 1:"))
    assert tab.focused == "select point 1"
    tab.get("button", "remove point 2").click()
    assert tab.focused == "remove point 3"
    assert [row[0] for row in tab.rows] == ["1", "3"]
    assert tab.mark("first", 2).count() == tab.mark("second", 2).count() == 0
    tab.agrees = False
    tab.get("button", "Remove all").click()
    assert len(tab.rows) == 2
    tab.agrees = True
    tab.get("button", "Remove all").click()
    assert tab.rows == []
    assert tab.page.locator(".mark, .next, canvas:visible").count() == 0
    for button in ("Download JSON", "Download CSV", "Download picture", "Remove all"):
        assert tab.get("button", button).is_disabled()


def test_an_answer_does_not_disturb_who_types(tab: Tab) -> None:
    held: list[Any] = []
    tab.page.route("**/match", lambda route: held.append(route), times=1)
    tab.page.mouse.click(*tab.at("first", (205, 104)))
    tab.get("textbox", "name of point 1").fill("nose")
    held[0].continue_()
    sync_api.expect(tab.mark("second", 1)).to_be_visible()
    tab.page.keyboard.type(" tip")
    tab.press("Enter")
    assert tab.rows[0][0] == "nose tip"


def test_files_hold_what_is_shown(tab: Tab) -> None:
    tab.click("first", (205, 104))
    tab.click("second", (60, 80))
    tab.click("first", (60, 200))
    tab.get("textbox", "name of point 1").fill('nose, "tip"')
    tab.drag("first", 2, tab.at("first", (400, 30)))  # found in the first photo, corrected there
    shown = tab.rows
    assert [row[3] == "by hand" for row in shown] == [False, True, False]
    answer = json.loads(tab.download("Download JSON").read_text())
    table = list(csv.DictReader(io.StringIO(tab.download("Download CSV").read_text())))
    assert answer["source"]["path"] == "wide.jpg"
    assert answer["recipe"]["name"] == "sift"
    for match, line, (name, first, second, score, sure), asked in zip(
        answer["matches"], table, shown, ("source", "target", "source"), strict=True
    ):
        assert match["name"] == line["name"] == name
        assert match["source"] == pytest.approx(numbers(first), abs=0.051)
        assert match["target"] == pytest.approx(numbers(second), abs=0.051)
        assert [float(line[f"source_{axis}"]) for axis in "xy"] == match["source"]
        assert [float(line[f"target_{axis}"]) for axis in "xy"] == match["target"]
        assert match["asked"] == line["asked"] == asked
        assert match["corrected"] is (line["corrected"] == "true") is (score == "by hand")
        if not match["corrected"]:
            assert f"{match['score']:.3f}" == f"{float(line['score']):.3f}" == score
            assert f"{match['confidence']:.2f}" == sure
    with PIL.Image.open(tab.download("Download picture")) as picture:
        assert picture.format == "PNG"
        assert picture.width > 300


def test_downloads_are_named_after_the_photos(tab: Tab) -> None:
    tab.click("first", (205, 104))
    with tab.page.expect_download() as file:
        tab.get("button", "Download CSV").click()
    assert file.value.suggested_filename == "wide-upright.csv"


def test_points_are_loaded_as_they_were_downloaded(tab: Tab, tmp_path: Path) -> None:
    tab.click("first", (205, 104))
    tab.click("second", (60, 80))
    tab.drag("first", 2, tab.at("first", (400, 30)))
    tab.get("textbox", "name of point 1").fill("nose")
    tab.press("Enter")
    before = tab.rows
    file = tmp_path / "points.json"
    file.write_bytes(tab.download("Download JSON").read_bytes())
    tab.get("button", "Remove all").click()

    def load(count: int) -> None:
        tab.page.get_by_label("Load points").set_input_files(file)
        scored = "[...document.querySelectorAll('#rows tr')].filter(row => row.cells[4].innerText)"
        tab.until(f"{scored}.length === {count}")

    load(2)
    assert tab.rows == before
    file.write_text('{"ear": [100, 50], "tail": [20.5, 300]}')
    load(4)
    assert [row[:2] for row in tab.rows[2:]] == [["ear", "100.0  50.0"], ["tail", "20.5  300.0"]]
    file.write_text("[[1, 2]]")
    load(5)
    assert tab.rows[4][:2] == ["5", "1.0  2.0"]
    sizes = {"source": {"size": [313, 471]}, "target": {"size": [271, 199]}}
    match = {"name": "a\n\u202eb" + "c" * 200, "source": [3, 4], "target": "nowhere"}
    file.write_text(json.dumps({"matches": [match], **sizes}))
    load(6)  # of what was not corrected only the clicked place is read
    assert tab.rows[5][:2] == ["ab" + "c" * 98, "3.0  4.0"]
    tab.download("Download JSON")


OTHERS = {"schema": "sdcorr.matches/1", "matches": [], "source": {"size": [5, 4]}}
NO_POINTS = {
    "{": "it is no JSON",
    "5": "it holds no points; expected",
    "[]": "it holds no points; expected",
    "[[1, 2, 3]]": r"expected points \[x, y\], got \[1,2,3\]",
    '{"a": [1, null]}': r"expected points \[x, y\], got \[1,null\]",
    "[[471, 5]]": "the point 471, 5 is not on the first photo",
    '{"matches": [null]}': "it does not say which size its source has",
    json.dumps(OTHERS): "it is of another pair: its source has 4 . 5 pixels, the first photo",
}


def test_files_without_points_of_this_pair(tab: Tab, tmp_path: Path) -> None:
    for number, (content, sentence) in enumerate(NO_POINTS.items()):
        file = tmp_path / f"{number}.json"
        file.write_text(content)
        tab.page.get_by_label("Load points").set_input_files(file)
        tab.fails(re.compile(f"^No points were read from {number}.json: {sentence}"))
    assert tab.rows == []


# ---- recipe, matcher, category


def test_matches_of_little_confidence_are_rejected(
    tab: Tab, sift: Pipeline, files: tuple[Path, Path]
) -> None:
    points = [tab.click("first", place) for place in ((205, 104), (60, 80), (300, 200))]
    sure = sift.match(*files, points).confidence.tolist()
    least = sum(sorted(sure)[1:]) / 2  # two of three have less
    rejected = tab.page.locator("#second .mark.rejected")
    sync_api.expect(rejected).to_have_count(0)
    tab.page.get_by_label("Least confidence").fill("2")  # none, and none is asked for
    tab.press("Enter")
    tab.click("first", (100, 100))
    assert tab.asked[-1]["least"] is None
    tab.page.get_by_label("Least confidence").fill(str(least))
    tab.press("Enter")
    sync_api.expect(rejected).not_to_have_count(0)
    tab.get("button", "remove point 4").click()
    sync_api.expect(rejected).to_have_count(2)
    answer = json.loads(tab.download("Download JSON").read_text())
    assert [match["matched"] for match in answer["matches"]] == [one >= least for one in sure]
    tab.get("combobox", "Matcher").select_option("soft_argmax")  # which has no confidence
    sync_api.expect(rejected).to_have_count(0)
    sync_api.expect(tab.page.get_by_label("Least confidence")).to_be_hidden()


def test_points_are_found_anew_by_another_recipe(
    tab: Tab, sift: Pipeline, files: tuple[Path, Path]
) -> None:
    first = tab.click("first", (205, 104))
    second = tab.click("first", (60, 80))
    tab.drag("second", 2, tab.at("second", (150, 40)))
    corrected = tab.rows[1]
    tab.get("combobox", "Recipe").select_option("sift-hough")
    hough = sdcorr.load("sift-hough").match(*files, [first, second])
    x, y = hough.target[0].tolist()
    sync_api.expect(tab.page.locator("#rows tr").first).to_contain_text(f"{x:.1f}  {y:.1f}")
    assert tab.rows[1] == corrected
    assert tab.rows[0][3] == f"{hough.score[0].item():.3f}"
    tab.get("combobox", "Recipe").select_option("sift")
    x, y = sift.match(*files, [first]).target[0].tolist()
    sync_api.expect(tab.page.locator("#rows tr").first).to_contain_text(f"{x:.1f}  {y:.1f}")
    tab.get("combobox", "Matcher").select_option("soft_argmax")
    from sdcorr.matchers.soft_argmax import SoftArgmax

    soft = sdcorr.load(dataclasses.replace(sift.recipe, matcher=SoftArgmax()))
    x, y = soft.match(*files, [first]).target[0].tolist()
    sync_api.expect(tab.page.locator("#rows tr").first).to_contain_text(f"{x:.1f}  {y:.1f}")
    assert tab.rows[0][4] == ""  # no calibration of that matcher
    assert tab.rows[1] == corrected


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("no_weights")
def test_a_recipe_without_weights_cannot_be_chosen(visit: Visit, files: tuple[Path, Path]) -> None:
    tab = visit(studio_with(("sift", "dinov2-s")), files).ready()
    option = tab.page.locator("#recipe option[value='dinov2-s']")
    assert option.is_disabled()
    assert option.inner_text() == "dinov2-s (weights not here)"
    assert option.get_attribute("title") == ("To get its weights: sdcorr models download dinov2-s")


def test_the_category_is_asked_for_where_it_is_read(
    visit: Visit, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Studio, "is_ready", lambda *_: True)
    gate = Gate()
    recipe = dataclasses.replace(RECIPES["same-position"], name="stand-in")
    studio = studio_with(("sift", "sd-dino"), load=lambda _: gate.load(recipe))
    tab = visit(studio, files, "sd-dino")
    tab.says("Encoding wide.jpg.")
    field = tab.page.get_by_label("Photos show")
    field.press_sequentially("dog", delay=300)
    assert len(tab.joins) > 2  # it went on asking
    assert {one["category"] for one in tab.joins} == {""}  # not for every letter
    tab.joins.clear()
    tab.press("Enter")
    gate.open()
    tab.ready()
    tab.click("first", (100, 100))
    assert {one["category"] for one in tab.joins} == {"dog"}
    assert tab.asked[-1]["category"] == "dog"
    tab.get("combobox", "Recipe").select_option("sift")
    sync_api.expect(field).to_be_hidden()
    tab.settled()
    assert tab.joins[-1]["category"] == ""


# ---- what goes wrong is said, and the page goes on


def broken(kind: str, folder: Path, good: Path) -> Path:
    place = folder / {"svg": "a.svg", "zip": "a.zip", "text": "a.jpg"}.get(kind, "a.png")
    if kind == "svg":
        place.write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    elif kind == "zip":
        with zipfile.ZipFile(place, "w") as archive:
            archive.write(good, "photo.png")
    elif kind == "text":
        place.write_text("no photo")
    elif kind == "truncated":
        place.write_bytes(good.read_bytes()[:3000])
    else:
        PIL.Image.new("L", (30_000, 2)).save(place)
    return place


@pytest.mark.parametrize("kind", ["svg", "zip", "text", "truncated", "wide"])
def test_a_file_that_is_no_photo(
    tab: Tab, files: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    tab.expected = [REFUSED]
    tab.click("first", (205, 104))
    file = broken(kind, tmp_path, files[0])
    tab.choose("second", file)
    tab.fails(re.compile(rf"^(\S+ )*{re.escape(file.name)}"))
    tab.says("The photos are as they were.")
    assert len(tab.rows) == 1
    tab.click("first", (60, 80))
    assert len(tab.rows) == 2
    sync_api.expect(tab.page.get_by_role("alert")).to_be_hidden()


def test_a_file_that_is_too_large_is_not_sent(tab: Tab, tmp_path: Path) -> None:
    file = tmp_path / "large.png"
    with file.open("wb") as large:
        large.truncate(60_000_000)
    sent = []
    tab.page.on("request", lambda request: sent.append(request.url))
    tab.choose("first", file)
    tab.fails("large.png has 60 MB; expected at most 50 MB")
    assert sent == []
    tab.click("first", (60, 80))


def test_the_server_is_stopped(
    visit: Visit, studio: Studio, files: tuple[Path, Path], tmp_path: Path
) -> None:
    gone = "The server does not answer. Is `sdcorr demo` still running?"
    with ExitStack() as stack:
        shown = [studio.add(make_photo(load_image(one), one.name)) for one in files]
        address = stack.enter_context(running(make_app(studio, "sift", shown)))
        tab = visit.tab(address, files).open().ready()
        tab.click("first", (205, 104))
        tab.expected = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]
        stack.close()
        tab.page.mouse.click(*tab.at("first", (60, 80)))
        tab.fails(gone)
        tab.get("button", "Download CSV").click()
        tab.fails(gone)
        tab.choose("first", files[1])
        tab.fails(gone)
        tab.get("combobox", "Recipe").select_option("sift-hough")
        tab.says("Choose another photo, recipe or matcher.")
        tab.fails(gone)
        assert len(tab.rows) == 2


def test_a_demo_that_begins_anew_at_the_same_port(
    visit: Visit, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = studio_with(memory=10**9)
    tab = visit(studio, files).ready()
    tab.click("first", (205, 104))
    tab.expected = [REFUSED]
    studio.shelf._kept.clear()  # as a new process would: no photo of before is known
    tab.page.mouse.click(*tab.at("first", (60, 80)))
    tab.fails(re.compile("the demo began anew; choose it again"))
    for side, file in zip(SIDES, files, strict=True):
        tab.show(side, file)
    tab.ready()
    for number in (1, 2):  # the same photos: their points are found again
        sync_api.expect(tab.mark("second", number)).to_be_visible()
    tab.click("first", (60, 160))
    assert len(tab.rows) == 3


def test_a_demo_that_begins_anew_with_the_same_photos_has_their_points(
    visit: Visit, files: tuple[Path, Path]
) -> None:
    tab = visit(studio_with(), files).ready()
    tab.click("first", (205, 104))
    tab.click("second", (60, 80))
    kept = tab.page.evaluate("sessionStorage.getItem('sdcorr')")
    again = visit.tab(visit.serve(studio_with(), "sift", files), files)
    again.expected = [REFUSED]  # no photo of before is known
    again.page.add_init_script(f"sessionStorage.setItem('sdcorr', {json.dumps(kept)})")
    again.open().settled()
    for number, side in ((1, "second"), (2, "first")):
        sync_api.expect(again.mark(side, number)).to_be_visible()
    assert [row[:3] for row in again.rows] == [row[:3] for row in tab.rows]


def test_pairs_that_were_let_go_are_joined_again(visit: Visit, files: tuple[Path, Path]) -> None:
    studio = studio_with()
    tab = visit(studio, files).ready()
    tab.expected = ["409"]
    tab.click("first", (205, 104))
    before = tab.rows
    for key in [key for key in studio.shelf._kept if not isinstance(key, str)]:
        del studio.shelf._kept[key]
    tab.page.mouse.click(*tab.at("first", (60, 80)))
    sync_api.expect(tab.mark("second", 2)).to_be_visible()
    assert tab.rows[0] == before[0]
    sync_api.expect(tab.page.get_by_role("alert")).to_be_hidden()


def test_one_photo_alone(visit: Visit, empty: str, files: tuple[Path, Path]) -> None:
    tab = visit.tab(empty).open()
    tab.show("second", files[1])
    tab.says("Now choose the other photo.")
    tab.page.mouse.click(*tab.at("second", (60, 80)))
    tab.says("Choose the other photo first.")
    assert tab.rows == []


def test_a_recipe_that_fails_says_so_and_another_works(
    visit: Visit, files: tuple[Path, Path]
) -> None:
    def load(recipe: Recipe) -> Pipeline:
        if recipe.name == "sift":
            raise RuntimeError("the disk is on fire")
        return sdcorr.load(recipe)

    tab = visit(studio_with(load=load), files)
    tab.expected = [REFUSED]
    tab.fails(re.compile("RuntimeError: the disk is on fire"))
    tab.get("combobox", "Recipe").select_option("same-position")
    tab.ready()
    sync_api.expect(tab.page.get_by_role("alert")).to_be_hidden()


# ---- several tabs, and reloading


def test_two_tabs_do_not_disturb_each_other(
    visit: Visit, empty: str, sift: Pipeline, files: tuple[Path, Path]
) -> None:
    context = visit.context()
    one, other = (visit.tab(empty, context=context).open() for _ in range(2))
    for side, file, backwards in zip(SIDES, files, files[::-1], strict=True):
        one.show(side, file)
        other.show(side, backwards)
    other.get("combobox", "Recipe").select_option("same-position")
    one.ready()
    other.ready()
    asked = one.click("first", (205, 104))
    other.click("first", (60, 80))
    there = sift.match(*files, [asked]).target[0].tolist()
    assert numbers(one.rows[0][2]) == pytest.approx(there, abs=0.051)
    one.page.reload()
    one.until("document.querySelectorAll('#second .mark').length === 1")
    assert numbers(one.rows[0][2]) == pytest.approx(there, abs=0.051)
    assert len(other.rows) == 1
    assert one.page.locator("#recipe").input_value() == "sift"


def test_a_tab_that_closes_while_encoding_leaves_the_others_alone(
    visit: Visit, files: tuple[Path, Path]
) -> None:
    gate = Gate()
    address = visit.serve(studio_with(load=gate.load), "sift", files)
    closed, other = visit.tab(address).open(), visit.tab(address, files).open()
    closed.says("Encoding wide.jpg.")
    closed.page.close()
    other.get("combobox", "Recipe").select_option("same-position")
    other.says("Waiting for its turn.")
    gate.open()
    other.ready()
    other.click("first", (60, 80))
    assert len(other.rows) == 1


def test_a_reload_keeps_photos_and_points(tab: Tab) -> None:
    tab.click("first", (205, 104))
    tab.click("second", (60, 80))
    tab.drag("first", 2, tab.at("first", (400, 30)))
    tab.get("textbox", "name of point 2").fill("ear")
    tab.press("Enter")
    tab.get("combobox", "Matcher").select_option("soft_argmax")
    tab.get("checkbox", "Heat map").uncheck()
    tab.settled()
    tab.click("first", (100, 200))
    before = tab.rows
    tab.page.reload()
    scored = "[...document.querySelectorAll('#rows tr')].filter(row => row.cells[4].textContent)"
    tab.until(f"{scored}.length === 3")
    assert tab.rows == before
    assert tab.page.locator("#matcher").input_value() == "soft_argmax"
    assert not tab.get("checkbox", "Heat map").is_checked()
    tab.get("button", "undo the correction of point ear").click()
    tab.says(re.compile("^Point ear: .* in the first photo, score"))


def test_photos_of_the_command_line_come_before_an_empty_page_of_before(
    visit: Visit, address: str, files: tuple[Path, Path]
) -> None:
    chosen = {"recipe": "same-position", "matcher": "", "category": "", "least": ""}
    kept = {"photos": {"first": None, "second": None}, "chosen": chosen, "points": []}
    tab = visit.tab(address, files)
    tab.page.add_init_script(f"sessionStorage.setItem('sdcorr', '{json.dumps(kept)}')")
    tab.open().ready()
    assert tab.page.locator("#recipe").input_value() == "sift"


def test_what_another_version_kept_is_no_trouble(
    visit: Visit, address: str, files: tuple[Path, Path]
) -> None:
    kept = {"photos": {"first": {"id": "a"}, "second": 5}, "chosen": {"recipe": "sift"}}
    tab = visit.tab(address, files)
    tab.expected = [REFUSED]
    tab.page.add_init_script(f"sessionStorage.setItem('sdcorr', '{json.dumps(kept)}')")
    tab.open().ready()
    tab.click("first", (205, 104))


# ---- looks


@pytest.mark.parametrize(
    ("width", "scheme"), [(320, "dark"), (390, "light"), (768, "light"), (1280, "dark")]
)
def test_nothing_is_wider_than_the_window(
    visit: Visit, address: str, files: tuple[Path, Path], width: int, scheme: str
) -> None:
    screen = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    tab = visit.tab(address, files, **screen).open().ready()
    for place in ((-0.4, -0.4), (470, 312), (205, 104)):
        tab.click("first", place)
    tab.drag("second", 3, tab.at("second", (198, 100)))
    tab.get("textbox", "name of point 1").fill("a name that is long " * 5)
    tab.press("Enter")
    tab.page.get_by_text("How to use this page").click()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert contrast(tab, "#status") > 4.5
    assert contrast(tab, "#first .caption") > 4.5
    assert contrast(tab, "#clear") > 4.5


def contrast(tab: Tab, selector: str) -> float:
    """Of a text with its ground, by WCAG 2.1: 1 to 21."""
    style = """one => {
      const pixel = (colour) => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
        const brush = canvas.getContext("2d");
        brush.fillStyle = colour;
        brush.fillRect(0, 0, 1, 1);
        return Array.from(brush.getImageData(0, 0, 1, 1).data);
      };
      const ground = (node) => {
        const colour = node ? getComputedStyle(node).backgroundColor : "Canvas";
        return colour === "rgba(0, 0, 0, 0)" ? ground(node.parentElement) : colour;
      };
      const scheme = matchMedia("(prefers-color-scheme: dark)").matches;
      const under = ground(one);
      return [pixel(getComputedStyle(one).color),
        under === "Canvas" ? (scheme ? [18, 18, 18, 255] : [255, 255, 255, 255]) : pixel(under)];
    }"""
    text, ground = tab.page.locator(selector).evaluate(style)

    def luminance(colour: Sequence[int]) -> float:
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in (value / 255 for value in colour[:3])
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((luminance(text), luminance(ground)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)
