"""Ours against the published numbers on a few pairs of each category: a cheap first look.

    python eval/check.py sd-dino --root data/SPair-71k --out runs/check-sd-dino

Runs ``sdcorr eval spair --limit-per-category 20`` and prints PCK@0.1 per point beside the
published row. Twenty pairs a category tell a broken set-up from a working one, not 63 from 64:
the interval says how far chance alone may move the mean. The pooled numbers differ besides, for
in the whole split categories have unlike numbers of keypoints: compare the means. Options that
this script does not know go to ``sdcorr eval``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import mean

from sdcorr.hits import Rule
from sdcorr.published import PublishedRow, categories_of, published_rows
from sdcorr.runs import RunFolder
from sdcorr.scores import Scores, score

PUBLISHED: dict[str, PublishedRow] = {
    row.recipe: row
    for row in published_rows()
    if row.dataset == "spair" and row.recipe is not None and "point" in row.numbers
}
ALPHA = 0.1


def main() -> None:
    """Run, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=sorted(PUBLISHED))
    parser.add_argument("--root", type=Path, required=True, help="folder of SPair-71k")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--pairs", type=int, default=20, help="of each category; 20 if not given")
    options, more = parser.parse_known_args()
    command = (
        sys.executable, "-m", "sdcorr", "eval", "spair", "--root", str(options.root), "--recipe",
        options.recipe, "--out", str(options.out), "--limit-per-category", str(options.pairs),
        *more,
    )  # fmt: skip
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)
    _, records = RunFolder(options.out).read()
    # <=, as SPair-71k's authors, where the row does not state its sign
    rule = Rule((ALPHA,), "box", strict=PUBLISHED[options.recipe].strict or False)
    print(table(options.recipe, score(records, rule)))


def table(recipe: str, scores: Scores) -> str:
    """Ours, theirs and the gap for each category, their plain mean, and all pairs pooled."""
    row = PUBLISHED[recipe]
    theirs = row.categories.values if row.categories else {}
    lines = [
        f"PCK@{ALPHA} per point, error {'<' if scores.rule.strict else '<='} threshold, target "
        f"box; ours on {scores.overall.pairs} pairs",
        f"theirs: {row.source}",
        *([f"note: {row.note}"] if row.note else []),
        *(["note: not stated whether theirs is < or <="] if row.strict is None else []),
        f"{'':12} {'ours':>6} {'theirs':>7} {'gap':>6}",
    ]
    for category in scores.categories:
        lines.append(_line(category.name, category.point[0].value, theirs.get(category.name)))
    ours = {one.name: one.point[0].value for one in scores.categories}
    both = [(ours[name], theirs[name]) for name in ours if name in theirs]
    if both:  # of the same categories, or the gap says nothing
        lines.append(_line("mean", *map(mean, zip(*both, strict=True))))
    else:
        lines.append(_line("mean", scores.macro.point[0].value, None))
    lines.append(_line("all pooled", scores.overall.point[0].value, row.numbers["point"][ALPHA]))
    if ours.keys() != (every := categories_of("spair")):
        lines.append(f"ours pooled is of {len(ours)} categories, theirs of all {len(every)}")
    macro = scores.macro.point[0]
    if macro.low is not None and macro.high is not None:
        lines.append(
            f"95 % interval of our mean of all: {100 * macro.low:.1f} to {100 * macro.high:.1f}"
        )
    return "\n".join(lines)


def _line(name: str, ours: float, theirs: float | None) -> str:
    if theirs is None:
        return f"{name:12} {100 * ours:6.1f} {'-':>7}"
    return f"{name:12} {100 * ours:6.1f} {theirs:7.1f} {100 * ours - theirs:+6.1f}"


if __name__ == "__main__":
    main()
