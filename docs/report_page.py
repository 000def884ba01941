"""Take the picture of docs/how-to/report.md: python docs/report_page.py [FILE]. Needs a chromium.

Runs two recipes on drawn figures, writes their report, and keeps a few parts of it.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import PIL.Image
from playwright.sync_api import sync_playwright

from sdcorr.cli import _run

HERE = Path(__file__).parent
WIDTH, QUALITY = 1150, 70
SMALLER = 0.75
PAIRS = "120"
# what the picture keeps: curves, two kinds of difficulty, the difference, two pairs
KEEP = """() => {
  document.querySelectorAll("p, details, .box, h2, h4").forEach(one => one.hidden = true);
  const shown = (one) => { one.hidden = false; };
  const titled = (text) => [...document.querySelectorAll("h3, h4")].find(
    one => one.textContent.startsWith(text));
  document.querySelectorAll("h3").forEach(one => one.hidden = true);
  ["PCK over alpha", "By difficulty", "1 sift-hough minus", "Pairs in which"].forEach(
    text => shown(titled(text)));
  shown(titled("Difference").nextElementSibling);
  const plots = [...document.querySelectorAll(".plot")];
  plots.slice(4).forEach(one => one.remove());
  const gallery = document.querySelector(".gallery");
  [...document.querySelectorAll(".gallery")].slice(1).forEach(one => one.remove());
  [...gallery.children].slice(1).forEach(one => one.remove());
}"""


def main(out: Path) -> None:
    """Draw, predict, report, look."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report(folder)
        picture = PIL.Image.open(io.BytesIO(seen(folder / "report.html", name)))
    size = (round(SMALLER * picture.width), round(SMALLER * picture.height))
    small = picture.convert("RGB").resize(size, PIL.Image.Resampling.LANCZOS)
    small.save(out, "JPEG", quality=QUALITY)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def report(folder: Path) -> None:
    """The report of two recipes, as the page's commands make it."""
    data = str(folder / "figures")
    runs = [str(folder / recipe) for recipe in ("sift-hough", "sift")]
    commands = [["data", "synth", "--out", data, "--pairs", PAIRS]]
    for run in runs:
        root = str(folder / "figures" / "spair")
        recipe = Path(run).name
        commands.append(["eval", "spair", "--root", root, "--recipe", recipe, "--out", run])
    commands.append(["report", *runs, "--out", str(folder / "report.html"), "--pairs", "1"])
    for command in commands:
        if status := _run(command):
            sys.exit(status)


def seen(page_file: Path, home: str) -> bytes:
    """Parts of the page, as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"], env={"HOME": home}
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 800})
        page.goto(page_file.as_uri())
        page.evaluate(KEEP)
        return page.screenshot(full_page=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "how-to" / "report.jpg")
