"""Backgrounds: a sky above a ground, blobs, stripes or checks, in faint colours, with grain."""

from __future__ import annotations

import colorsys

import numpy as np
import PIL.Image

from sdcorr.synthetic._solids import Floats

KINDS = ("ground", "blobs", "stripes", "checks", "noise")
GRAIN = 0.012  # standard deviation of the noise of the whole photo, 0 to 1


def background(generator: np.random.Generator, height: int, width: int) -> Floats:
    """A background, ``(H, W, 3)``, 0 to 1."""
    first, second = (_colour(generator) for _ in range(2))
    share = _share(KINDS[generator.integers(len(KINDS))], generator, height, width)
    cloud = 0.25 * (noise(generator, height, width, 9) - 1 / 2)
    share = (share + cloud).clip(0, 1)[..., None]
    picture = (1 - share) * first + share * second
    fine = noise(generator, height, width, 60)[..., None]
    return np.asarray(picture * (0.9 + 0.2 * fine))


def _share(kind: str, generator: np.random.Generator, height: int, width: int) -> Floats:
    """How much of the second colour, ``(H, W)``, before noise."""
    x, y = np.meshgrid(np.arange(width) / height, np.arange(height) / height)
    angle, period, phase = generator.uniform([0, 0.12, 0], [np.pi, 0.5, 2 * np.pi])
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    if kind == "ground":
        horizon = generator.uniform(0.3, 0.7)
        return np.asarray(np.where(y > horizon + 0.02 * np.sin(9 * x + phase), 0.9, 0.3 * y))
    if kind == "stripes":
        return np.asarray(0.5 + 0.4 * np.tanh(3 * np.sin(2 * np.pi * along / period + phase)))
    if kind == "checks":
        wave = np.sin(2 * np.pi * along / period + phase) * np.sin(2 * np.pi * across / period)
        return np.asarray(0.5 + 0.35 * np.tanh(6 * wave))
    if kind == "blobs":
        return np.asarray(0.5 + 0.4 * np.tanh(9 * (noise(generator, height, width, 6) - 1 / 2)))
    return noise(generator, height, width, 14)


def noise(generator: np.random.Generator, height: int, width: int, cells: int) -> Floats:
    """Smooth noise, ``(H, W)``, about 0 to 1, with so many cells on the longer side."""
    side = max(height, width)
    shape = (max(2, round(cells * height / side)), max(2, round(cells * width / side)))
    coarse = PIL.Image.fromarray(generator.random(shape, dtype=np.float32))
    return np.asarray(coarse.resize((width, height), PIL.Image.Resampling.BICUBIC), np.float64)


def _colour(generator: np.random.Generator) -> Floats:
    hue, light, strong = generator.uniform([0, 0.35, 0.05], [1, 0.85, 0.45])
    return np.array(colorsys.hls_to_rgb(hue, light, strong))
