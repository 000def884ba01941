"""A small copy of TSS in its official layout, with drawn photos and flows that are shifts."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import PIL.Image

from tests.annotated import draw_photo, hash_of

SUBSETS = {"FG3DCar": "001_005", "JODS": "busd_01_02", "PASCAL": "bike_01_03"}
SIZES = ((60, 80), (80, 60))  # (height, width) of photo 1 and photo 2
SHIFT = (3, -2)  # from photo 1 to photo 2
UNKNOWN = 1e10


def write_tss(root: Path, flipped: str = "PASCAL") -> Path:
    """One pair in each subset; JODS has masks with a palette, in which black stands for 1.

    The object of photo 1 is rows 20 to 39, columns 10 to 29, and that of photo 2 the same, shifted
    by ``SHIFT``.
    """
    for subset, name in SUBSETS.items():
        home = root / subset / name
        for number, (height, width) in enumerate(SIZES, start=1):
            draw_photo(home / f"image{number}.png", width, height, hash_of(subset, number))
            sign = 1 if number == 1 else -1
            left, top = (10, 20) if number == 1 else (10 + SHIFT[0], 20 + SHIFT[1])
            on = np.zeros((height, width), bool)
            on[top : top + 20, left : left + 20] = True
            write_flo(
                home / f"flow{number}.flo", np.where(on[..., None], sign * np.array(SHIFT), UNKNOWN)
            )
            write_mask(home / f"mask{number}.png", on, palette=subset == "JODS")
        (home / "flip_gt.txt").write_text("1\n" if subset == flipped else "0\n")
    return root


def write_flo(path: Path, flow: np.ndarray) -> None:
    """The format, written out by hand."""
    height, width, _ = flow.shape
    head = struct.pack("<fii", 202021.25, width, height)
    path.write_bytes(head + flow.astype("<f4").tobytes())


def write_mask(path: Path, on: np.ndarray, palette: bool) -> None:
    """0 and 255, or with a palette the indices 0, which is shown white, and 1, shown black."""
    mask = PIL.Image.fromarray(on.astype(np.uint8) * (1 if palette else 255))
    if palette:
        mask = mask.convert("L")
        mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.save(path)
