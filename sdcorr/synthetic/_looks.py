"""How the surface of a part looks: two colours, a pattern that moves with the part, and marks."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sdcorr.synthetic._solids import Floats

Pattern = Literal["mottled", "stripes", "bands", "spots", "checks", "panes", "planks"]
SHARP = 6.0  # of the edges of a pattern


@dataclass(frozen=True)
class Mark:
    """A round mark, like an eye; on a part in the middle there are two, left and right.

    Args:
        place: its middle on the part, with y not negative.
        radius: in half axes of the part.
        colour: of the mark, ``#rrggbb``.
    """

    place: tuple[float, float, float]
    radius: float
    colour: str


@dataclass(frozen=True)
class Look:
    """Colours as ``#rrggbb``.

    Args:
        colour: of the ground.
        other: of the pattern.
        pattern: its kind; stripes lie across the first axis of the part, bands across its third.
        frequency: periods over the part.
        phase: of the pattern, in radians.
        marks: laid over it.
    """

    colour: str
    other: str
    pattern: Pattern = "mottled"
    frequency: float = 2.0
    phase: float = 0.0
    marks: tuple[Mark, ...] = ()

    def varied(self, generator: np.random.Generator) -> Look:
        """Another thing of the same kind: other tones, a finer or coarser pattern."""
        hue, light, strong = generator.uniform([-0.06, -0.09, 0.7], [0.06, 0.09, 1.2])
        return replace(
            self,
            colour=_shifted(self.colour, hue, light, strong),
            other=_shifted(self.other, hue, light, strong),
            frequency=self.frequency * generator.uniform(0.88, 1.12),
            phase=self.phase + generator.uniform(-0.5, 0.5),
        )

    def paint(self, places: Floats) -> Floats:
        """Colours of places, ``(N, 3)`` in and out, 0 to 1; left and right are alike."""
        folded = places * [1, 0, 1] + np.abs(places) * [0, 1, 0]
        share = self._share(folded)[:, None]
        colours = (1 - share) * to_rgb(self.colour) + share * to_rgb(self.other)
        for mark in self.marks:
            inside = ((folded - mark.place) ** 2).sum(axis=1) < mark.radius**2
            colours[inside] = to_rgb(mark.colour)
        return colours

    def _share(self, places: Floats) -> Floats:
        """How much of the second colour, ``(N,)``, 0 to 1."""
        x, y, z = (self.frequency * np.pi * places + self.phase).T
        if self.pattern == "stripes":
            wave = np.sin(x + 0.7 * np.sin(0.8 * z))
        elif self.pattern == "bands":
            wave = np.sin(z)
        elif self.pattern == "spots":
            wave = np.sin(x) * np.sin(1.3 * y + 1) + np.sin(1.1 * z) * np.sin(0.7 * x + 2) - 0.35
        elif self.pattern == "checks":
            wave = np.sin(x) * np.sin(y) * np.sin(z) * 3
        elif self.pattern == "planks":
            wave = np.abs(np.sin(x / 2)) * -3 + 0.7
        elif self.pattern == "panes":
            # a face is where one coordinate is +-1; a pane is where the others are small
            wave = (0.74 - np.sort(np.abs(places), axis=1)[:, 1]) * 6
        else:
            wave = (
                np.sin(1.7 * x + 1) + np.sin(2.3 * y + z) + np.sin(1.9 * z - 0.6 * x)
            ) / 6 - 0.25
        return np.asarray(1 / (1 + np.exp(-SHARP * wave.clip(-2, 2))))


def to_rgb(colour: str) -> Floats:
    """``(3,)``, 0 to 1, of ``#rrggbb``."""
    return np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255


def _shifted(colour: str, hue: float, light: float, strong: float) -> str:
    """A colour turned by a share of the circle of hues, lighter, and so much stronger."""
    h, value, s = colorsys.rgb_to_hls(*to_rgb(colour).tolist())
    lightness, saturation = min(max(value + light, 0.0), 1.0), min(s * strong, 1.0)
    rgb = colorsys.hls_to_rgb((h + hue) % 1, lightness, saturation)
    return "#" + "".join(f"{round(255 * one):02x}" for one in rgb)
