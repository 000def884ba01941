"""Take the picture of docs/how-to/click.md: python docs/screenshot.py [FILE]. Needs a chromium."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import PIL.Image
from gallery import CAT, copy_of_cat
from playwright.sync_api import Page, sync_playwright

import sdcorr
from sdcorr.demo._photos import make_photo
from sdcorr.demo._studio import Studio
from sdcorr.demo.app import make_app
from sdcorr.recipes import RECIPES

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the server in a thread is the tests'
from tests.demo.server import running  # noqa: E402

CLICKS = {"nose": (266, 240), "right eye": (172, 113)}  # name: xy pixels of the cat
WIDTH, HEIGHT, QUALITY = 1100, 715, 75


def main(out: Path) -> None:
    """Two clicks on the cat, with its changed copy beside it."""
    photos = [CAT, copy_of_cat()]
    studio = Studio({"sift-hough": RECIPES["sift-hough"]}, sdcorr.load, 10**9)
    shown = [
        studio.add(make_photo(sdcorr.load_image(photo), name))
        for photo, name in zip(photos, ("cat.jpg", "copy.png"), strict=True)
    ]
    with running(make_app(studio, "sift-hough", shown)) as address:
        picture = clicked(address)
    PIL.Image.open(io.BytesIO(picture)).convert("RGB").save(out, "JPEG", quality=QUALITY)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def clicked(address: str) -> bytes:
    """The page after the clicks, as PNG."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], env={"HOME": home}
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(address)
        page.get_by_text("Click in one of the photos.").wait_for()
        for number, (name, (x, y)) in enumerate(CLICKS.items(), start=1):
            click(page, x, y)
            page.locator(f"#second .mark:nth-of-type({number})").wait_for()
            field = page.get_by_role("textbox", name=f"name of point {number}")
            field.fill(name)
            field.press("Tab")
        page.get_by_role("button", name="select point right eye").click()
        page.locator("#second .next").first.wait_for()
        page.mouse.move(0, 0)
        return page.screenshot()


def click(page: Page, x: float, y: float) -> None:
    """Click at a pixel of the first photo."""
    size = PIL.Image.open(CAT).size
    box = page.locator("#first .view").bounding_box()
    assert box is not None
    across, down = (x + 0.5) / size[0], (y + 0.5) / size[1]
    page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "how-to" / "click.jpg")
