"""From where figures are seen, how large, and what stands in front of them, at random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sdcorr.synthetic._figures import block
from sdcorr.synthetic._looks import Look, Pattern
from sdcorr.synthetic._render import Cover, View, bounds
from sdcorr.synthetic._solids import Kind, Solid

SIDEWAYS, TRUNCATED = 0.75, 0.2  # shares of photos
PATTERNS: tuple[Pattern, ...] = ("mottled", "stripes", "bands", "spots", "checks", "planks")
KINDS: tuple[Kind, ...] = ("ellipsoid", "box", "cylinder")


def random_view(generator: np.random.Generator) -> View:
    """A view of a figure, of which some is beyond the frame in one of five."""
    cut = [0.0, 0.0]
    truncated, axis = generator.random() < TRUNCATED, generator.integers(2)
    share, sign = generator.uniform(0.1, 0.28), generator.choice([-1, 1])
    if truncated:
        cut[axis] = float(share * sign)
    return whole_view(generator, (cut[0], cut[1]))


def whole_view(
    generator: np.random.Generator, cut: tuple[float, float] = (0.0, 0.0), fill: float = 0.45
) -> View:
    """A view: mostly from a side, a little from above.

    Args:
        generator: draws it.
        cut: see ``View``.
        fill: least share of the frame that the figure takes.
    """
    longer = int(generator.integers(300, 401))
    shorter = round(longer * generator.uniform(0.62, 0.9))
    upright = generator.random() < 0.4
    side = 90 * generator.choice([-1, 1]) + generator.uniform(-55, 55)
    anywhere = generator.uniform(-180, 180)
    x, y = generator.random(2).tolist()
    return View(
        size=(longer, shorter) if upright else (shorter, longer),
        azimuth=float(side if generator.random() < SIDEWAYS else anywhere),
        elevation=float(generator.uniform(2, 26)),
        roll=float(generator.uniform(-9, 9)),
        fill=float(generator.uniform(fill, 0.92)),
        place=(x, y),
        cut=cut,
    )


def random_cover(generator: np.random.Generator, solids: Sequence[Solid]) -> Cover:
    """Something in front of a figure, of whose box it takes up to some two fifths each way."""
    low, high = bounds(solids)
    middle = low + generator.uniform(0.15, 0.85, 2) * (high - low)
    half = generator.uniform(0.1, 0.19, 3) * float((high - low).mean())
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    solid = block(KINDS[generator.integers(3)], np.append(middle, 0), half, turn)
    colours = ["#" + "".join(f"{one:02x}" for one in generator.integers(30, 226, 3)) for _ in "12"]
    pattern = PATTERNS[generator.integers(len(PATTERNS))]
    return Cover(solid, Look(colours[0], colours[1], pattern, float(generator.uniform(1, 3))))
