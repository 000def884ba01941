"""How hard the drawn set is: PCK of the oracle, of same-position, and of what needs no weights.

    python eval/synthetic.py --out eval/results/synthetic.json

Draws `sdcorr data synth` with 200 pairs into a temporary folder, or takes that of --root, and
evaluates the test split. The oracle (eval/oracle.py) reads the part maps that the set comes with:
what it lacks of 100 is rounding, cells of 2 px, and places where parts meet.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from sdcorr.benchmark import Benchmark, run_benchmark
from sdcorr.datasets.spair import Spair
from sdcorr.hits import Rule
from sdcorr.processes import World
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe, runtime_for
from sdcorr.runs import RunFolder
from sdcorr.scores import Row, score
from sdcorr.synthetic import write_synthetic

sys.path.insert(0, str(Path(__file__).parent))
import oracle

RULE = Rule((0.05, 0.1), "box")
RECIPES = (*map(find_recipe, ("same-position", "sift", "sift-hough")), oracle.RECIPE)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Draw, evaluate, print, save; returns what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="of a drawn set, instead of drawing one")
    parser.add_argument("--seed", type=int, default=0, help="of the set that is drawn")
    parser.add_argument("--pairs", type=int, default=200, help="of the set that is drawn")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder, "synthetic")
        if options.root is None:
            write_synthetic(root, options.seed, options.pairs)
        found = {one.name: measure(one, root, Path(folder, one.name)) for one in RECIPES}
    result = {
        "set": {"root": str(root)}
        if options.root
        else {"seed": options.seed, "pairs": options.pairs},
        "threshold": "longer side of the object box, <=",
        "recipes": found,
    }
    print(f"{'PCK@0.1':16}{'per image':>24}{'per point':>24}")
    for name, one in found.items():
        print(
            f"{name:16}" + "".join(f"{words(one[kind]['0.1']):>24}" for kind in ("image", "point"))
        )
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    return result


def measure(recipe: Recipe, root: Path, out: Path) -> dict[str, Any]:
    """PCK of a recipe on the test split, with intervals, in shares."""
    runtime = runtime_for(recipe, "cpu")
    run_benchmark(Benchmark(Spair(root / "spair"), recipe, runtime, out), World())
    about, records = RunFolder(out).read_keypoints()
    found = score(records, RULE)
    return {
        "pairs": found.overall.pairs,
        "keypoints": found.overall.keypoints,
        "photos": found.images,
        **by_alpha(found.overall),
        "categories": {row.name: by_alpha(row) for row in found.categories},
        "runtime": about["runtime"],
    }


def by_alpha(row: Row) -> dict[str, dict[str, tuple[float | None, ...]]]:
    """Value, low and high end by tolerance, per image and per point."""
    return {
        kind: {
            f"{alpha:g}": (value.value, value.low, value.high)
            for alpha, value in zip(RULE.alphas, getattr(row, kind), strict=True)
        }
        for kind in ("image", "point")
    }


def words(value: tuple[float | None, ...]) -> str:
    """Percent, with the interval where there is one."""
    middle, low, high = (None if one is None else 100 * one for one in value)
    return f"{middle:.1f}" + ("" if low is None else f" [{low:.1f}, {high:.1f}]")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
