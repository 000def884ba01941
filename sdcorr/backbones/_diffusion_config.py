"""What defines the maps of a latent diffusion model, for Stable Diffusion, XL and CleanDIFT."""

from __future__ import annotations

import string
from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sdcorr.backbones._windows import window_starts
from sdcorr.errors import BadRecipe
from sdcorr.fields import check, reads_category
from sdcorr.plugins import name_of
from sdcorr.preprocess import LARGEST

CELL = 64  # px of the coarsest map: on multiples of it, windows share their cells


@dataclass(frozen=True)
class DiffusionConfig(ABC):
    """Fields of every latent diffusion model.

    Args:
        model: hub id or local folder in diffusers' layout.
        revision: branch, tag or commit; None is what this machine has, else the newest.
        size: side of the square canvas in pixels, a multiple of 64.
        fit: ``"letterbox"`` or ``"stretch"``.
        resample: Pillow's filter for the resize.
        window: side of the windows that cut up the canvas, each its own pass; None is one pass
            over the whole canvas.
        overlap: pixels that neighbouring windows share, where their maps are averaged; of no
            meaning without windows.
        latent: ``"mean"`` of the VAE's posterior, or a seeded ``"sample"``.
        step: diffusion timestep t.
        seed: of all noise, drawn afresh for each photo, on the CPU, at the size of one window's
            latent, and shared by all windows.
        prompt: text prompt; ``{category}`` stands for the photo's category.
        prompt_without_category: prompt for photos without one; None requires a category.
        layers: UNet layers to read, dotted names of diffusers.

    Raises:
        BadRecipe: a field is out of range or contradicts another.
    """

    model: str
    revision: str | None
    size: int
    fit: Literal["letterbox", "stretch"]
    resample: Literal["lanczos", "bicubic"]
    window: int | None
    overlap: int
    latent: Literal["mean", "sample"]
    step: float
    seed: int
    prompt: str
    prompt_without_category: str | None
    layers: tuple[str, ...]

    def __post_init__(self) -> None:
        check(self)
        for problem in self.problems():
            raise BadRecipe(f"{name_of(self)}: {problem}")

    @property
    def maps(self) -> tuple[str, ...]:
        """One map for each layer."""
        return self.layers

    @property
    def starts(self) -> tuple[int, ...]:
        """Left (and top) edges of the windows on the canvas, in pixels."""
        window = self.size if self.window is None else self.window
        return window_starts(self.size, window, self.overlap)

    def prompt_for(self, category: str | None) -> str:
        """The prompt for a photo; raises BadRecipe where a category is required."""
        if category is not None:
            return self.prompt.format(category=category)
        if not reads_category(self):
            return self.prompt.format()  # doubled braces become single ones
        if self.prompt_without_category is None:
            raise BadRecipe(
                f"the prompt {self.prompt!r} needs a category: name it with --category "
                "(in Python: category=...)"
            )
        return self.prompt_without_category

    def problems(self) -> Iterator[str]:
        """What is wrong with the fields, in words."""
        window = self.size if self.window is None else self.window
        for name, value in (("size", self.size), ("window", window)):
            if value < CELL or value % CELL:
                yield f"{name} must be a multiple of {CELL} px, got {value}"
        if self.size > LARGEST:
            yield f"size must be at most {LARGEST} px, got {self.size}"
        if window > self.size:
            yield f"window {window} is larger than size {self.size}"
        if self.window and not (0 <= self.overlap < window and self.overlap % CELL == 0):
            yield f"overlap must be a multiple of {CELL} px below {window}, got {self.overlap}"
        if not self.layers or len(set(self.layers)) < len(self.layers):
            yield f"layers must be at least one, each once, got {self.layers}"
        try:
            named = [field[1:] for field in string.Formatter().parse(self.prompt)]
        except ValueError as error:
            yield f"the prompt {self.prompt!r} is no template: {error}"
            return
        if any(field not in ((None, None, None), ("category", "", None)) for field in named):
            yield f"the prompt may name {{category}} only, got {self.prompt!r}"
        if "{category}" in (self.prompt_without_category or ""):
            yield "prompt_without_category must not name {category}"


@dataclass(frozen=True)
class NoisedConfig(DiffusionConfig):
    """Fields of one whose UNet reads a noised latent.

    Args: those of ``DiffusionConfig``, of which
        step: a whole number; 0 is the cleanest.
        seed: with ``latent="sample"``, each member of the ensemble draws the posterior's noise
            first.
        ensemble: number of noise draws whose maps are averaged.
    """

    step: int
    ensemble: int = 1

    def problems(self) -> Iterator[str]:
        """What is wrong with the fields, in words."""
        yield from super().problems()
        if self.ensemble < 1:
            yield f"ensemble must be at least 1, got {self.ensemble}"
