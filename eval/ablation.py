"""Matcher x flip x fusion x resolution: PCK with intervals, and seconds, in one table.

    python eval/ablation.py pf-willow --root data/PF-WILLOW --recipe sift \\
        --matcher recipe soft_argmax hough --flip off on --scale 1 0.667

The rows are all combinations of what is named, on the same pairs. The first value of each option
makes the first row, with which every other row is compared. A photo is encoded once for each
resolution and flip; matchers and fusions take turns on each pair, so that their seconds compare.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sdcorr import plugins, records
from sdcorr.errors import BadDataset, BadRecipe, SdcorrError
from sdcorr.evaluation import Prediction, by_affinity, wrong_photos
from sdcorr.files import check_output, write_json
from sdcorr.hits import Rule
from sdcorr.lines import read_lines, to_lines
from sdcorr.matchers.mutual import Mutual
from sdcorr.metrics import Bools
from sdcorr.pairs import Dataset, Pair, Selection, select
from sdcorr.pipeline import Pipeline, find_weights
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe, runtime_for
from sdcorr.runtime import Runtime
from sdcorr.scores import REPLICATES, compare, score
from sdcorr.types import Encoding, Matcher

ALPHA = 0.1  # of columns that show one alpha; every data set reports it
KEPT = 40  # encodings held at once; no category of SPair-71k's test split has more photos
# pixels of which a size must be a multiple; of backbones that are not named, any will do
STEPS = {"dinov2": 14, "dinov3": 16, "vit": 16, "cleandift": 64, "stable_diffusion": 64}
STEPS["stable_diffusion_xl"] = 64


@dataclass
class Variant:
    """One row: what to call its matcher, the recipe, and mean seconds of a photo and of a pair."""

    matcher: str
    recipe: Recipe
    encoding: float = 0.0
    matching: float = 0.0

    def words(self) -> list[str]:
        """Size, flip, fusion and matcher."""
        configs = self.recipe.backbones.values()
        return [
            "+".join(str(one.size) for one in configs if hasattr(one, "size")) or "no size",
            "on" if self.recipe.flip else "off",
            "confidence" if self.recipe.by_confidence else "stacked",
            self.matcher,
        ]


def main() -> None:
    """Measure, print and save."""
    try:
        run(parser().parse_args())
    except SdcorrError as error:
        print(f"ablation.py: {error}", file=sys.stderr)
        sys.exit(error.exit_status)


def parser() -> argparse.ArgumentParser:
    """The options."""
    datasets = [name.replace("_", "-") for name in plugins.names("datasets")]
    matchers = ["recipe", *plugins.names("matchers")]
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("dataset", choices=datasets)
    options.add_argument("--root", type=Path, required=True, help="folder of the data set")
    options.add_argument("--recipe", required=True, help="name, or path of a recipe's JSON")
    options.add_argument("--per-category", type=int, help="at most so many pairs of each; all else")
    options.add_argument("--seed", type=int, help="of that draw; 0 if not given")
    options.add_argument(
        "--matcher", nargs="+", choices=matchers, default=["recipe"],
        help="recipe is the recipe's own, mutual is around that, the others are as they come",
    )  # fmt: skip
    options.add_argument("--flip", nargs="+", choices=("off", "on"), help="else the recipe's")
    options.add_argument("--fusion", nargs="+", choices=("stacked", "confidence"), help="likewise")
    options.add_argument("--scale", nargs="+", type=float, default=[1.0], help="of sizes")
    options.add_argument("--device", default="auto")
    options.add_argument("--json", type=Path, metavar="FILE")
    return options


def run(options: argparse.Namespace) -> None:
    """See ``main``; raises SdcorrError."""
    recipe = find_recipe(options.recipe)
    variants = grid(recipe, options)
    runtime = runtime_for(recipe, options.device)
    if options.json is not None:
        check_output(options.json)
    dataset: Dataset = plugins.find("datasets", options.dataset.replace("-", "_"))(options.root)
    selection, pairs = pairs_of(dataset, options)
    rule = Rule(dataset.alphas, dataset.threshold)
    about = {
        "dataset": {"name": options.dataset, **asdict(selection), "pairs": len(pairs)},
        "rule": asdict(rule),
        "unit": "share, 0 to 1",
        "intervals": {"level": 0.95, "draws": REPLICATES, "resampled": "images within category"},
        "recipe": recipe.describe(),
        "weights": find_weights(recipe),
        "told_category": True if recipe.uses_category else None,
        "runtime": runtime.describe(),
    }
    print(head(about))
    first, rows = None, []
    same = itertools.groupby(variants, key=lambda one: (one.recipe.backbones, one.recipe.flip))
    for _, sharing in same:
        for variant, found, kept in measure(list(sharing), runtime, dataset, pairs):
            first = first or found
            rows.append(row_of(variant, found, kept, first, rule))
            print(line(rows[-1], rule.alphas), flush=True)
    if options.json is not None:
        write_json(options.json, about | {"rows": rows})


def grid(recipe: Recipe, options: argparse.Namespace) -> list[Variant]:
    """The recipe in every combination that can be; those of one encoding stand together.

    Raises:
        BadRecipe: a combination is there twice, or none can be.
    """
    flips = options.flip or ["on" if recipe.flip else "off"]
    fusions = options.fusion or ["confidence" if recipe.by_confidence else "stacked"]
    every = itertools.product(options.scale, flips, fusions, options.matcher)
    made, left_out = [], []
    for scale, flip, fusion, name in every:
        words = f"scale {scale:g}, flip {flip}, {fusion}, {name}"
        label, matcher = matcher_called(name, recipe)
        try:
            one = replace(
                scaled(recipe, scale), flip=flip == "on", by_confidence=fusion == "confidence",
                matcher=matcher, calibration=None,  # which would be another in each row
            )  # fmt: skip
        except BadRecipe as error:  # of this combination; others can be
            left_out.append(f"{words}: {error}")
            continue
        if one in [other.recipe for other in made]:
            raise BadRecipe(f"{words}: the same stands in the table already; name it once")
        made.append(Variant(label, one))
    if not made:
        raise BadRecipe(left_out[0])
    for sentence in left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    return made


def matcher_called(name: str, recipe: Recipe) -> tuple[str, Matcher]:
    """A label and the matcher: the recipe's, ``mutual`` around that, or one as it comes."""
    own = plugins.name_of(recipe.matcher)
    if name == "recipe":
        return f"recipe: {own}", recipe.matcher
    kind: Any = plugins.find("matchers", name)
    return (f"mutual: {own}", kind(recipe.matcher)) if kind is Mutual else (name, kind())


def scaled(recipe: Recipe, scale: float) -> Recipe:
    """The recipe with each size times that, rounded; BadRecipe where a backbone refuses."""
    if not 0 < scale < 100:
        raise BadRecipe(f"--scale is a factor of sizes, such as 0.5; got {scale:g}")
    if scale == 1:
        return recipe
    groups = []
    for group in recipe.groups:
        config: Any = group.backbone
        if not hasattr(config, "size"):
            raise BadRecipe(f"{group.name} has no size; leave --scale out")
        step = STEPS.get(plugins.name_of(config), 1)
        size = round(config.size * scale / step) * step
        groups.append(replace(group, backbone=replace(config, size=size)))
    return replace(recipe, groups=tuple(groups))


def pairs_of(dataset: Dataset, options: argparse.Namespace) -> tuple[Selection, list[Pair]]:
    """The selected pairs, in an order in which neighbours share photos; all photos are there."""
    if options.seed is not None and options.per_category is None:
        raise BadDataset("--seed draws pairs for --per-category; give both or none")
    selection = Selection(limit=options.per_category, seed=options.seed or 0)
    pairs = by_affinity(select(dataset.pairs(), selection))
    if not all(isinstance(pair, Pair) for pair in pairs):
        raise BadDataset("expected pairs with keypoints; this data set's annotation is dense flow")
    if wrong := wrong_photos(pairs):
        raise BadDataset(f"{wrong[0]}{f' (and {len(wrong) - 1} more)' if wrong[1:] else ''}")
    return selection, pairs


def measure(
    variants: Sequence[Variant], runtime: Runtime, dataset: Dataset, pairs: Sequence[Pair]
) -> Iterator[tuple[Variant, records.Records, Bools]]:
    """Variants that share encodings: of each the records, and which its matcher stands by."""
    pipeline, spent = Pipeline(variants[0].recipe, runtime), []

    @lru_cache(KEPT)
    def encode(photo: Path, subject: str | None) -> Encoding:
        start = time.perf_counter()
        found = pipeline.encode(photo, subject)
        spent.append(time.perf_counter() - start)
        return found

    with tempfile.TemporaryDirectory() as name:  # through files, as the records of a run
        manifest = Path(name) / "pairs.jsonl"
        annotations = (records.pair_to_dict(pair, dataset.root) for pair in pairs)
        manifest.write_bytes(to_lines(annotations))
        files = {Path(name) / f"{index}.jsonl": one for index, one in enumerate(variants)}
        for pair in tqdm(pairs, disable=None, leave=False):
            subject = pair.subject if pipeline.recipe.uses_category else None
            ends = encode(pair.source, subject), encode(pair.target, subject)
            points = torch.from_numpy(np.concatenate([pair.source_keypoints, pair.source_only]))
            for file, variant in files.items():
                pipeline.recipe = variant.recipe  # with the same backbones
                start = time.perf_counter()
                matches = pipeline.match(*ends, ends[0].size.clamp(points))
                variant.matching += (time.perf_counter() - start) / len(pairs)
                found = records.prediction_to_dicts(Prediction(pair, matches))
                with file.open("ab") as lines:
                    lines.write(to_lines(found))
        for file, variant in files.items():
            variant.encoding = float(np.mean(spent))
            joint = (one for one in read_lines(file) if one["error"] is not None)
            kept = np.array([one["matched"] for one in joint])
            yield variant, records.read_records(manifest, file), kept


def row_of(
    variant: Variant, found: records.Records, kept: Bools, first: records.Records, rule: Rule
) -> dict[str, Any]:
    """Numbers of a variant, made for JSON; of the first row, no difference."""
    columns = {name: getattr(found, name)[kept] for name in ("pair", "keypoint", "error")}
    some = {found.pairs[index] for index in columns["pair"].tolist()}
    of_kept = score(replace(found, **columns).only(some), rule).overall if some else None
    gap = None if found is first else compare(found, first, rule).overall
    return {
        **dict(zip(("size", "flip", "fusion", "matcher"), variant.words(), strict=True)),
        "matcher_fields": variant.recipe.describe()["matcher"],
        "pck": asdict(score(found, rule).overall),
        "minus_first": gap and asdict(gap),
        "kept": float(kept.mean()),
        "pck_of_kept": of_kept and asdict(of_kept),
        "seconds_a_photo": round(variant.encoding, 4),
        "seconds_a_pair": round(variant.matching, 4),
    }


def head(about: dict[str, Any]) -> str:
    """What a reader must know of the numbers, and the head of the table."""
    data, rule, runtime = about["dataset"], about["rule"], about["runtime"]
    drawn = f" (at most {data['limit']} a category, seed {data['seed']})" if data["limit"] else ""
    names = [
        "size", "flip", "fusion", "matcher",
        *(f"per {kind} @{alpha:g}" for kind in ("image", "point") for alpha in rule["alphas"]),
        f"minus first, per image @{ALPHA:g}", "kept", f"of kept, per point @{ALPHA:g}",
        "s a photo", "s a pair",
    ]  # fmt: skip
    return (
        f"{about['recipe']['name']} on {data['name']}: {data['pairs']} pairs{drawn}; "
        f"{runtime['device_name']} ({runtime['device']}), {runtime['dtype']}, threads: "
        f"{runtime['threads']}\nPCK in percent, threshold {rule['threshold']}, in brackets 95 % "
        "intervals; kept: keypoints whose match the matcher stands by; a photo is encoded, a pair "
        f"fused and matched\n\n| {' | '.join(names)} |\n{'|---' * len(names)}|"
    )


def line(row: dict[str, Any], alphas: Sequence[float]) -> str:
    """A row of the table."""
    at = list(alphas).index(ALPHA)
    gap, standing = row["minus_first"], row["pck_of_kept"]
    cells = [
        *(row[name] for name in ("size", "flip", "fusion", "matcher")),
        *(cell(value) for kind in ("image", "point") for value in row["pck"][kind]),
        cell(gap["image"][at], "+") if gap else "",
        f"{100 * row['kept']:.1f}",
        cell(standing["point"][at]) if standing else "",
        *(f"{row[name]:.3f}" for name in ("seconds_a_photo", "seconds_a_pair")),
    ]
    return f"| {' | '.join(cells)} |"


def cell(value: dict[str, Any], sign: str = "") -> str:
    """A share in percent, with its interval if it has one."""
    shares = [round(share, 9) for share in value.values() if share is not None]  # one way for ties
    numbers = [f"{round(100 * share, 1) + 0.0:{sign}.1f}" for share in shares]
    return "{} [{}, {}]".format(*numbers) if len(numbers) == 3 else numbers[0]


if __name__ == "__main__":
    main()
