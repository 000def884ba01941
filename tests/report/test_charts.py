"""Charts: names and values within them, colours that readers can tell apart."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from sdcorr.metrics import Floats
from sdcorr.report import gather
from sdcorr.report._blocks import Curve, Line
from sdcorr.report._charts import BOTTOM, GAP, HIGH, NAME, TOP, curve_svg, shorten, spread
from tests.report.runs import EXACT, FAST, pair, write_run


def test_names_beside_a_chart_do_not_overlap(tmp_path: Path):
    paths = [write_run(tmp_path / f"{n}", [pair()], {"a": EXACT}) for n in range(7)]
    (section,) = gather(paths, FAST).sections
    (curve,) = [one for one in section.blocks if isinstance(one, Curve)]
    svg = curve_svg(curve)
    places = [float(y) for y in re.findall(r'<text x="252" y="([\d.]+)">', svg)]
    assert len(places) == 7
    assert all(later - sooner >= 11.9 for sooner, later in itertools.pairwise(places))
    assert min(places) > 10
    assert max(places) < 250


def test_charts_side_by_side_have_one_scale(tmp_path: Path):
    """Two pairs, of one point that is right and of three that are not: 50 and 25 %."""
    one = {"keypoints": ["0"], "source_points": [[1, 1]], "target_points": [[50, 50]]}
    pairs, places = [pair(**one), pair("b")], {"a": [[50, 50]], "b": [[90, 90]] * 3}
    (section,) = gather([write_run(tmp_path / "run", pairs, places)], FAST).sections
    curves = [block for block in section.blocks if isinstance(block, Curve)]
    assert [curve.lines[0].values[0] for curve in curves] == [0.5, 0.25]
    assert [curve.highest for curve in curves] == [0.5, 0.5]
    for curve in curves:
        assert re.findall(r'text-anchor="end">(\d+)</text>', curve_svg(curve)) == [
            "0", "10", "20", "30", "40", "50",
        ]  # fmt: skip


def test_long_names_are_cut():
    assert shorten("1 sift") == "1 sift"
    assert len(shorten("2 " + "x" * 50)) == NAME


@pytest.mark.parametrize(
    "values",
    [
        [1.0] + [0.0] * 6, [1.0] * 6 + [0.0], [0.0] * 7, [1.0] * 7, [0.5] * 7, [1.0], [0.0],
        [1.0, 0.03, 0.02, 0.01, 0.0, 0.0, 0.0], [1.0, 0.9, 0.5, 0.5, 0.4, 0.1, 0.0],
    ],
)  # fmt: skip
def test_all_names_stand_within_a_chart(values: list[float]):
    lines = tuple(Line(n, f"{n} r", (v, v)) for n, v in enumerate(values, start=1))
    svg = curve_svg(Curve("x", (0.01, 0.2), (0.1,), 1.0, lines))
    places = [float(y) for y in re.findall(r'<text x="252" y="([-\d.]+)">', svg)]
    assert len(places) == len(values)
    assert all(later - sooner >= GAP - 0.11 for sooner, later in itertools.pairwise(places))
    assert min(places) >= 11  # the height of letters
    assert max(places) <= HIGH - BOTTOM + 4


def test_names_that_do_not_overlap_stay_where_they_are():
    ends = [10.0, 60.0, 72.0, 218.0]
    assert (TOP, HIGH - BOTTOM, GAP) == (10, 218, 12)
    assert spread(ends) == ends
    assert spread([100.0, 101.0, 218.0, 218.0]) == [100.0, 112.0, 206.0, 218.0]


# light, then dark; the page's ground is the browser's: white, and #121212 of Chromium
GROUNDS = {"light": "#ffffff", "dark": "#121212"}
# what readers without one kind of cone see, in linear RGB: Machado et al., 2009, severity 1
CONES = {
    "all": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)  # of sRGB


def linear(colour: str) -> Floats:
    share = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it: 1 to 21."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, cones: str) -> Floats:
    """CIELAB of what readers see."""
    xyz = TO_XYZ @ np.clip(CONES[cones] @ linear(colour), 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def colours(theme: str) -> list[str]:
    """Of the seven runs; the last one is that of text."""
    css = (files("sdcorr.report") / "page.css").read_text(encoding="utf-8")
    only_dark = "@media screen and (prefers-color-scheme: dark)"
    found = {}
    for line in css.splitlines():
        if theme == "dark" or not line.startswith(only_dark):
            found |= dict(re.findall(r"\.run(\d) { --run: (\S+);", line))
    assert found.pop("7") == "currentColor"
    text = "#000000" if theme == "light" else "#ffffff"
    return [*(found[str(number)] for number in range(1, 7)), text]


@pytest.mark.parametrize("theme", GROUNDS)
def test_lines_stand_out_from_the_page(theme: str):
    assert contrast("#ffffff", "#000000") == pytest.approx(21, abs=0.01)
    assert min(contrast(one, GROUNDS[theme]) for one in colours(theme)) >= 3  # WCAG 1.4.11


@pytest.mark.parametrize("cones", CONES)
@pytest.mark.parametrize("theme", GROUNDS)
def test_lines_are_told_apart_by_colour_blind_readers(theme: str, cones: str):
    seen = [lab(one, cones) for one in colours(theme)]
    gaps = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)]
    # 2 can just be told; 16 is the least of Okabe's and Ito's own colours
    assert min(gaps) > 15
