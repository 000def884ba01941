"""Time and memory of recipe sd-dino at full size, against the plain way and against the hardware.

    python eval/speed.py --out eval/results/speed-cpu.json
    python eval/speed.py --device cuda --batches 1 4 16 --out eval/results/speed-NAME-OF-CARD.json
    python eval/speed.py --smoke      (tiny models: that it runs and that both find the same)

Random weights of the real architectures: they cost what trained ones cost, and find nothing.
*Plain* is eval/plain.py: research code's float32 pipeline. *Ours* is ``sdcorr.load`` as users call
it, in the precision that ``--dtype`` gives. Both run in one process, in turns; a figure is the
median of ``--repeats``. The floor of a photo is the floating-point operations of the layers that
are needed, divided by the machine's best speed at a 4096-cubed matrix product in that precision,
measured in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import sdcorr
from sdcorr.evaluation import predict
from sdcorr.pairs import Pair
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES
from sdcorr.runtime import Runtime, resolve_runtime

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkpoint writers are the tests'
from eval import footprint
from eval.hardware import Clock, floor_of, synchronize
from eval.plain import Plain, similarities, untimed
from tests import tiny

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "assets"
PHOTOS = (ASSETS / "astronaut.png", ASSETS / "hopper.jpg")
PAIRS, IMAGES = 100, 15  # of the benchmark whose cost is computed
POINTS = 10
TIE = 1e-5  # similarities closer than this are one


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print a table, save; returns what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    several = "also photos per second with N photos at once, for each N"
    parser.add_argument("--batches", type=int, nargs="*", default=[], metavar="N", help=several)
    parser.add_argument("--smoke", action="store_true", help="tiny models, for tests")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--weights", type=Path, help="folder with checkpoints of an earlier run")
    parser.add_argument("--memory", choices=("plain", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.weights or Path(temporary)
        recipe, places = prepare(folder, options.smoke)
        runtime = resolve_runtime(options.device, options.dtype)
        if options.memory:
            print(json.dumps(memory(options.memory, recipe, places, runtime)))
            return {}
        result = measure(recipe, places, runtime, options)
        result["memory, GB"] = {
            f"{side}, {name}": value
            for side in ("plain", "ours")
            for name, value in measure_memory(side, folder, options).items()
        }
    print_table(result)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    return result


def prepare(folder: Path, smoke: bool) -> tuple[Recipe, dict[str, str]]:
    """The recipe and its checkpoints, written by another process where they are not there yet."""
    recipe = RECIPES["sd-dino"]
    if smoke:
        recipe = tiny.shrink(recipe)
        places = {"stable_diffusion": str(folder / "sd"), "dinov2": str(folder / "dinov2")}
        if not (folder / "dinov2").exists():
            tiny.write_stable_diffusion(folder / "sd")
            tiny.write_dinov2(folder / "dinov2")
    else:
        places = footprint.checkpoints(recipe.name, folder)
    # plain reads the position table as transformers does; so must ours, to compare the two
    sd, dino = recipe.groups
    dino = replace(dino, backbone=replace(dino.backbone, positions="transformers"))
    return replace(recipe, groups=(sd, dino)), places


def measure(
    recipe: Recipe, places: dict[str, str], runtime: Runtime, options: argparse.Namespace
) -> dict[str, Any]:
    """All figures but the peaks of memory."""
    device = runtime.device
    photos = [sdcorr.load_image(photo) for photo in PHOTOS]
    plain = Plain(recipe, places, device)
    ours = load(recipe, places, runtime)
    clock = Clock(device)
    encoded: dict[str, list[Any]] = {}
    for turn in range(options.repeats + 1):  # the first turn warms up
        clock.on = turn > 0
        photo = photos[turn % 2]
        encoded.setdefault("plain", []).append(plain_photo(plain, photo, clock))
        encoded.setdefault("ours", []).append(our_photo(ours, photo, clock))
    maps, encodings = encoded["plain"][:2], encoded["ours"][:2]
    cells, points = choose(encodings[0], POINTS)
    for turn in range(4 * options.repeats + 1):
        clock.on = turn > 0
        with clock("plain, pair"):
            plain.pair(*maps, cells)
        with clock("ours, pair"):
            fused = ours.fuse(*encodings)
            fused.match(points)
        for _ in range(5):
            with clock("ours, click"):
                fused.match(points[:1])
        with clock("ours, confident matches"):
            fused.match()
    seconds = clock.medians()
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "weights": "random, tiny" if options.smoke else "random, full size",
        "plain": "float32, whole UNet, window by window, randomised PCA, full matrix; in a "
        "benchmark, both photos of each pair are encoded",
        "ours": runtime.describe(),
        "repeats": options.repeats,
        "seconds": {stage: round(value, 5) for stage, value in seconds.items()},
        "hardware, one photo": floor_of(
            lambda: ours.encode(photos[0]), device, runtime.dtype, 256 if options.smoke else 4096
        ),
        "found": agreement(recipe, places, clock, maps),
        "benchmark": benchmark(ours, plain, seconds),
    }
    result["seconds"]["ours in float32, photo"] = clock.medians()["ours in float32, photo"]
    result["ratios"] = ratios(result)
    if options.batches:
        del plain, ours  # their memory is not that of several photos
        gc.collect()  # the hooks of plain refer to each other
        result["photos together"] = throughput(recipe, places, runtime, photos[0], options.batches)
    return result


def load(recipe: Recipe, places: dict[str, str], runtime: Runtime) -> sdcorr.Pipeline:
    """Ours, as a user loads it."""
    words = {"device": str(runtime.device), "dtype": runtime.dtype_name, "batch": runtime.batch}
    return sdcorr.load(recipe, models=places, **words)


def plain_photo(plain: Plain, photo: sdcorr.Image, clock: Clock) -> dict[str, torch.Tensor]:
    """One photo, its stages summed over its windows."""
    shares: dict[str, float] = {}
    with clock("plain, photo"):
        maps = plain.encode(photo, lambda stage: clock(f"plain, {stage}", shares))
    clock.add(shares)
    return maps


def our_photo(ours: sdcorr.Pipeline, photo: sdcorr.Image, clock: Clock) -> sdcorr.Encoding:
    """One photo; its stages are those passes of the models that can be told apart."""
    shares: dict[str, float] = {}
    diffusion, dino = ours.backbones["stable_diffusion"], ours.backbones["dinov2"]
    stages = {"VAE": diffusion.vae, "UNet": diffusion, "DINOv2": dino}
    names = {"VAE": "encode", "UNet": "_pass", "DINOv2": "extract"}

    def timed(stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*words: Any, **more: Any) -> Any:
            with clock(f"ours, {stage}", shares):
                return work(*words, **more)

        return run

    for stage, owner in stages.items():
        object.__setattr__(owner, names[stage], timed(stage, getattr(owner, names[stage])))
    try:
        with clock("ours, photo"):
            encoding = ours.encode(photo)
    finally:
        for stage, owner in stages.items():
            object.__delattr__(owner, names[stage])
    clock.add(shares)
    with clock("ours, moments"):  # what joint PCA keeps of a photo
        for group in ours.recipe.groups:
            for use in group.maps:
                one = encoding.maps[f"{group.name}/{use.name}"]
                if use.pca is not None and 2 * one.values[0].numel() > len(one.values):
                    _ = one.moments
    return encoding


def choose(encoding: sdcorr.Encoding, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells of the finest grid that lie on the photo ``(N,)``, and their centres ``(N, 2)``."""
    grid = max((one.grid for one in encoding.maps.values()), key=lambda grid: grid.shape)
    inside = grid.inside().nonzero()[:, 0]
    picked = inside[torch.linspace(0, len(inside) - 1, min(count, len(inside))).long()]
    return picked, grid.centers()[picked]


def agreement(
    recipe: Recipe, places: dict[str, str], clock: Clock, maps: list[dict[str, Any]]
) -> dict[str, Any]:
    """Nearest cells of all source cells, ours against plain, float32 and exact PCA in both."""
    device = clock.device
    ours = load(recipe, places, Runtime(device, torch.float32))
    ours.encode(PHOTOS[0])  # warms up
    encodings = []
    for photo in PHOTOS:
        with clock("ours in float32, photo"):
            encodings.append(ours.encode(photo))
    off = {
        name: max(
            float((one[name] - two.maps[name].values).abs().max() / one[name].abs().max())
            for one, two in zip(maps, encodings, strict=True)
        )
        for name in maps[0]
    }
    similarity = ours.fuse(*encodings).similarity
    cells, points = choose(encodings[0], sys.maxsize)
    with torch.no_grad():
        found = similarity.rows(points).argmax(dim=1)
    rows = similarities(recipe, *maps, exact=True)[cells.to(device)]
    best, expected = rows.max(dim=1)
    same = found == expected
    tied = ~same & (best - rows.gather(1, found[:, None])[:, 0] <= TIE)
    return {
        "cells": len(cells),
        "same nearest cell": int(same.sum()),
        "ties within 1e-5": int(tied.sum()),
        "other": int((~same & ~tied).sum()),
        "largest difference of maps, share of their largest value": max(off.values()),
    }


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Ours against plain and against the floor."""
    seconds = result["seconds"]
    plain, ours = (seconds[f"{side}, photo"] for side in ("plain", "ours"))
    pair = seconds["plain, pair"], seconds["ours, pair"]
    once = ours + seconds["ours, moments"]
    many = cost(PAIRS, 2 * PAIRS, plain, pair[0])
    kept = cost(PAIRS, IMAGES, plain, pair[0])
    mine = cost(PAIRS, IMAGES, once, pair[1])
    floor = result["hardware, one photo"]["floor, s"]
    found = {
        "plain / ours, photo": plain / ours,
        "ours / floor, photo": ours / floor,
        "plain / ours in float32, photo": plain / seconds["ours in float32, photo"],
        "plain / ours, pair of photos matched before": pair[0] / pair[1],
        "plain / ours, first pair of both photos": pair[0] / (pair[1] + 2 * once - 2 * ours),
        f"plain / ours, {PAIRS} pairs over {IMAGES} photos, computed": many / mine,
        "the same, plain with each photo encoded once": kept / mine,
    }
    return {name: round(value, 3) for name, value in found.items()}


def cost(pairs: int, encodings: int, photo: float, pair: float) -> float:
    """Seconds of a benchmark, from those of its parts."""
    return encodings * photo + pairs * pair


def benchmark(ours: sdcorr.Pipeline, plain: Plain, seconds: dict[str, float]) -> dict[str, Any]:
    """A small benchmark, measured once, against what its parts say."""
    photos = [sdcorr.load_image(photo) for photo in PHOTOS]
    cells, points = choose(ours.encode(photos[0]), POINTS)
    names = tuple(str(index) for index in range(len(points)))
    pairs = [
        Pair(
            id=f"{first.stem}-{second.stem}", category="", subject="", source=first, target=second,
            source_keypoints=points.numpy() % 200, target_keypoints=points.numpy(),
            keypoint_ids=names,
        )
        for first in PHOTOS for second in PHOTOS
    ]  # fmt: skip
    start = time.perf_counter()
    for _ in predict(ours, pairs):
        pass
    our_run = time.perf_counter() - start
    start = time.perf_counter()
    plain.pair(*(plain.encode(photo, untimed) for photo in photos), cells)
    plain_run = time.perf_counter() - start
    once = seconds["ours, photo"] + seconds["ours, moments"]
    expected = (
        cost(len(pairs), len(PHOTOS), once, seconds["ours, pair"]),
        cost(1, 2, seconds["plain, photo"], seconds["plain, pair"]),
    )
    return {
        f"ours, {len(pairs)} pairs over {len(PHOTOS)} photos, s": round(our_run, 3),
        "computed from the parts, s": round(expected[0], 3),
        "plain, 1 pair over 2 photos, s": round(plain_run, 3),
        "plain, computed from the parts, s": round(expected[1], 3),
    }


def throughput(
    recipe: Recipe, places: dict[str, str], runtime: Runtime, photo: sdcorr.Image, sizes: list[int]
) -> list[dict[str, Any]]:
    """Photos per second, and memory, with several photos at once."""
    found = []
    for count in (1, *sizes):  # one photo with the usual batch of windows, for comparison
        model = load(recipe, places, replace(runtime, batch=max(count, runtime.batch)))
        if runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(runtime.device)
        taken = []
        for _ in range(4):  # the first warms up
            synchronize(runtime.device)
            start = time.perf_counter()
            model.encode_batch([photo] * count)
            synchronize(runtime.device)
            taken.append(time.perf_counter() - start)
        found.append({"photos": count, "photos/s": round(count / statistics.median(taken[1:]), 3)})
        if runtime.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(runtime.device)
            found[-1]["peak GPU GB"] = round(peak / 1e9, 3)
        del model
    return found


def measure_memory(side: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Of a process that loads one side alone and encodes a photo."""
    words = ["--memory", side, "--weights", str(folder)]
    words += ["--device", options.device, "--dtype", options.dtype]
    words += ["--smoke"] if options.smoke else []
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def memory(side: str, recipe: Recipe, places: dict[str, str], runtime: Runtime) -> dict[str, float]:
    """GB of this process, and on a GPU of its memory."""
    photo = sdcorr.load_image(PHOTOS[0])
    if side == "plain":
        model: Any = Plain(recipe, places, runtime.device)
        modules = [model.vae, model.unet, model.vit]
    else:
        model = load(recipe, places, runtime)
        diffusion, dino = (model.backbones[name] for name in ("stable_diffusion", "dinov2"))
        modules = [diffusion.vae, diffusion.unet, dino.transformer.model]
    weights = [one for module in modules for one in module.parameters() if not one.is_meta]
    found = {
        "peak, loading included": footprint.peak_resident(),
        "weights": round(sum(one.nbytes for one in weights) / 1e9, 3),
    }
    footprint.forget_peak()
    before = footprint.resident()
    model.encode(photo)
    peak = footprint.peak_resident()
    found["one photo, beyond what was resident before"] = round(peak - before, 2)
    found["peak, loading included"] = max(found["peak, loading included"], peak)
    if runtime.device.type == "cuda":
        found["peak of the GPU"] = round(torch.cuda.max_memory_allocated(runtime.device) / 1e9, 3)
    return found


def print_table(result: dict[str, Any]) -> None:
    """What a reader asks first."""
    seconds = result["seconds"]
    for stage in dict.fromkeys(name.split(", ")[1] for name in seconds):
        both = [seconds.get(f"{side}, {stage}") for side in ("plain", "ours")]
        words = [f"{'' if one is None else f'{one:.4f} s':>12}" for one in both]
        print(f"{stage:24}{words[0]} plain {words[1]} ours")
    for name in ("ratios", "hardware, one photo", "found", "benchmark", "memory, GB"):
        for key, value in result[name].items():
            print(f"{name}: {key}: {value}")
    for line in result.get("photos together", ()):
        print(line)


if __name__ == "__main__":
    main()
