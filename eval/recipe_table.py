"""Write docs/recipes.md: every recipe with paper, deviations, weights, memory and scores.

    python eval/recipe_table.py

Nothing in it is typed by hand: recipes come from the package, published numbers from
sdcorr/published.json, ours from runs that were scored into eval/results/spair-RECIPE.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from sdcorr.models import licence_of, size_of
from sdcorr.published import pairs_of, published_of
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "recipes.md"
KINDS = {"image": "per image", "point": "per point", "unstated": "aggregation not stated"}
ALPHA = 0.1

HEAD = """# Recipes

<!-- Written by `python eval/recipe_table.py`; edit the recipes, not this page. -->

A recipe is all that defines a correspondence: backbones with every setting, fusion, matcher.
`sdcorr recipes show NAME` prints one in full. Each computes what its paper computed, except for
the deviations listed here; the proof is numerical, stage by stage, against separately written
references on random weights (`tests/papers/`). Scores on real weights were not measured where
this was developed.

PCK@0.1 on SPair-71k, test split, object box, in percent. *Published* says which mean it is: the
same predictions give 59.9 per image and 64.0 per point, so compare like with like. *Ours* is
measured by

    sdcorr eval spair --root data/SPair-71k --recipe NAME --out runs/NAME
    sdcorr score runs/NAME --json eval/results/spair-NAME.json

"""


def main() -> None:
    """Write the page and say where."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}")


def page() -> str:
    """The whole page in Markdown."""
    rows = [
        "| recipe | what it is | published | ours | licence of the weights | download | memory |",
        "|---|---|---|---|---|---|---|",
        *map(_row, RECIPES.values()),
    ]
    details = [line for recipe in RECIPES.values() for line in _details(recipe)]
    return HEAD + "\n".join([*rows, "", *_notes(), *details]) + "\n"


def _row(recipe: Recipe) -> str:
    licences = dict.fromkeys(map(licence_of, recipe.weights.values()))
    cells = (
        f"[`{recipe.name}`](#{recipe.name})",
        recipe.about,
        _published(recipe.name),
        _ours(recipe.name),
        ", ".join(licences) or "-",
        " + ".join(size_of(one).removeprefix("about ") for one in recipe.weights.values()) or "-",
        recipe.memory.partition(",")[0],
    )
    return f"| {' | '.join(cells)} |"


def _published(name: str) -> str:
    row = published_of(name)
    if row is None:
        return "none"
    shown = [f"{row.numbers[kind][ALPHA]} {KINDS[kind]}" for kind in row.numbers]
    return ", ".join(shown) + ("*" if row.note else "")


def _ours(name: str) -> str:
    result = ROOT / "eval" / "results" / f"spair-{name}.json"
    if not result.exists():
        return "not measured here"
    found = json.loads(result.read_text())
    run, scores = found["run"], found["scores"]
    data = run["dataset"]
    made = (run["recipe"]["name"], data["name"], data["split"], data["pairs"], data.get("drawn"))
    if made != (name, "spair", "test", pairs_of("spair"), None) or (
        scores["rule"]["threshold"] != "box"
    ):
        raise SystemExit(f"{result} is not of {name} on the whole test split by the box")
    place = [float(alpha) for alpha in scores["rule"]["alphas"]].index(ALPHA)
    shown = (f"{100 * scores['overall'][kind][place]['value']:.1f} {KINDS[kind]}"
             for kind in ("image", "point"))  # fmt: skip
    return ", ".join(shown)


def _notes() -> Iterator[str]:
    yield "Memory is the peak of the whole process on a CPU in float32, with full-size random"
    yield "weights (`python eval/footprint.py NAME`); downloads are computed from the number of"
    yield "parameters. *) With a note:"
    yield ""
    for name in RECIPES:
        row = published_of(name)
        if row is not None and row.note:
            yield f"* `{name}`: {row.note}"


def _details(recipe: Recipe) -> Iterator[str]:
    yield from ("", f"## {recipe.name}", "", f"{recipe.about}.", "", f"* Source: {recipe.paper}")
    if (row := published_of(recipe.name)) is not None:
        numbers = "; ".join(
            f"{KINDS[kind]} " + ", ".join(f"{value} @{alpha:g}" for alpha, value in values.items())
            for kind, values in row.numbers.items()
        )
        yield f"* Published: {numbers} ({row.source})"
    for key, weights in recipe.weights.items():
        yield f"* Weights, `--model {key}=`: `{weights.model}`, {licence_of(weights)}"
    yield from (f"* Differs: {deviation}" for deviation in recipe.deviations)


if __name__ == "__main__":
    main()
