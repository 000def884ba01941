"""Cost of each matcher on two random feature maps of 60 x 60 cells and 1536 channels.

    python eval/matcher_cost.py --out eval/results/matcher-cost.json

Milliseconds for ten points, the median of several calls, for a photo of 960 px; and, for a machine
that is busy or slow, the ratio to ``nearest`` in the same run. Random maps cost what real ones do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import sdcorr
from sdcorr.fusion import FusedSimilarity
from sdcorr.geometry import Grid, Size
from sdcorr.matchers.hough import Hough
from sdcorr.matchers.mutual import Mutual
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.matchers.same_position import SamePosition
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.runtime import resolve_runtime
from sdcorr.similarities import ConfidenceWeighted, MeanSimilarity
from sdcorr.types import FeatureMap, Matcher, Similarity

CELLS, CHANNELS, POINTS = 60, 1536, 10
GRID = Grid((CELLS, CELLS), (16.0, 16.0), (0.0, 0.0), Size(16 * CELLS, 16 * CELLS))


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runtime = resolve_runtime(options.device, "float32")
    generator = torch.Generator().manual_seed(0)
    maps = [
        FeatureMap("random", torch.randn(CHANNELS, CELLS, CELLS, generator=generator), GRID)
        for _ in range(4)
    ]
    maps = [FeatureMap(one.name, one.values.to(runtime.device), GRID) for one in maps]
    plain, other = FusedSimilarity(*maps[:2]), FusedSimilarity(*maps[2:])
    points = torch.rand(POINTS, 2, generator=generator, dtype=torch.float64) * 16 * CELLS
    cases: dict[str, tuple[Matcher, Similarity]] = {
        "nearest": (Nearest(), plain),
        "same_position": (SamePosition(), plain),
        "soft_argmax": (SoftArgmax(), plain),
        "mutual(nearest)": (Mutual(Nearest()), plain),
        "hough": (Hough(), plain),
        "pixel": (Pixel(), plain),
        "nearest, flip-averaged": (Nearest(), MeanSimilarity((plain, other))),
        "nearest, two groups by confidence": (
            Nearest(), ConfidenceWeighted((plain, other), (1.0, 1.0)),
        ),
    }  # fmt: skip
    cost = {name: milliseconds(*case, points, options.repeats) for name, case in cases.items()}
    result = {
        "cells": [CELLS, CELLS],
        "channels": CHANNELS,
        "points": POINTS,
        "milliseconds": {name: round(value, 1) for name, value in cost.items()},
        "ratio_to_nearest": {
            name: round(value / cost["nearest"], 2) for name, value in cost.items()
        },
        "runtime": runtime.describe(),
        "sdcorr": sdcorr.__version__,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


@torch.no_grad()
def milliseconds(
    matcher: Matcher, similarity: Similarity, points: torch.Tensor, repeats: int
) -> float:
    """Median time of a call; the matches come back to the CPU, so that the work is done by then."""
    matcher(similarity, points[:1])  # once, for what is made at the first call
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        matcher(similarity, points)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
