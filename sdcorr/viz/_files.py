"""Figures as files, the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

PRINTED = 300  # dpi of photos in files for print


def save_figure(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure without a date.

    Args:
        figure: to write; its own resolution is that of files of pixels.
        path: of the file, of any name.
        kind: png, jpg, jpeg, webp, pdf or svg. In the last two photos have 300 dpi.
    """
    how: dict[str, Any] = {}
    if kind == "png":
        # Pillow's default, 6, compresses four times as long, for a file a tenth smaller
        how = {"pil_kwargs": {"compress_level": 1}}
    elif kind in ("pdf", "svg"):
        date = "CreationDate" if kind == "pdf" else "Date"
        how = {"dpi": PRINTED, "metadata": {date: None}}
    # Type 42 is TrueType: some journals refuse matplotlib's default, Type 3; without a salt of its
    # own an SVG has other names within each time
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "sdcorr"}):
        figure.savefig(path, format=kind, **how)
