"""Time per stage and peak memory of a recipe at full size, with random weights.

    python eval/footprint.py sd-dino --out eval/results/footprint-sd-dino.json

Builds the real architectures with random values, saves them as checkpoints in a temporary folder
(for sd-dino 4.6 GB of disk) and runs the recipe on them through ``sdcorr.load``, as a user would.
Random weights cost the same time and memory as trained ones; the features mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sdcorr
from sdcorr.models import missing_files
from sdcorr.recipes import RECIPES, find_recipe

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkpoint writers are the tests'
from tests import tiny
from tests.full_size import FULL_SIZE, SD_1, SD_2

ASSETS = Path(__file__).parents[1] / "assets"


def main() -> None:
    """Write the checkpoints in a process of its own, measure in another, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=list(RECIPES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--weights", type=Path, help="folder with checkpoints of an earlier run")
    options = parser.parse_args()
    if options.weights is not None:
        options.weights.mkdir(parents=True, exist_ok=True)
        result = in_folder(options, options.weights)
    else:
        with tempfile.TemporaryDirectory() as folder:
            result = in_folder(options, Path(folder))
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


def in_folder(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Peak memory is a process' own: the writing of checkpoints must not count."""
    return measure(options, checkpoints(options.recipe, folder))


def checkpoints(recipe: str, folder: Path) -> dict[str, str]:
    """Folder of each group's checkpoint; those that are missing are written, by other processes."""
    needed = find_recipe(recipe).weights
    places = {key: str((folder / one.model).resolve()) for key, one in needed.items()}
    for key, weights in needed.items():
        if missing_files(weights, Path(places[key])):
            code = "import eval.footprint, sys; eval.footprint.write(*sys.argv[1:])"
            words = (weights.model, weights.required[0], places[key])
            subprocess.run([sys.executable, "-c", code, *words], check=True, cwd=ASSETS.parent)
    return places


def measure(options: argparse.Namespace, places: dict[str, str]) -> dict[str, object]:
    """Seconds of each stage, once, and the peak of resident memory."""
    import torch

    seconds: dict[str, float] = {}

    def timed(stage: str, work):
        start = time.perf_counter()
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[stage] = round(time.perf_counter() - start, 3)
        return result

    model = timed(
        "load",
        lambda: sdcorr.load(
            options.recipe,
            device=options.device,
            dtype=options.dtype,
            batch=options.batch,
            models=places,
        ),
    )
    memory = {"after load": resident()}
    photos = [sdcorr.load_image(ASSETS / name) for name in ("astronaut.png", "hopper.jpg")]
    encodings = []
    for number, photo in zip(("first", "second"), photos, strict=True):
        maps = {}
        for name, backbone in model.backbones.items():
            stage = f"extract {name}, {number} photo"
            (found,) = timed(stage, lambda: backbone.extract([photo]))  # noqa: B023
            maps |= {f"{name}/{layer}": one for layer, one in found.items()}
        encodings.append(sdcorr.Encoding(photo, maps, model.recipe.backbones, model.revisions))
    fused = timed("fuse", lambda: model.fuse(*encodings))
    fused.match([[200, 200]])
    timed("one click", lambda: fused.match([[120, 80]]))
    timed("confident matches", fused.match)
    memory["peak"] = peak_resident()
    result: dict[str, object] = {
        "recipe": options.recipe,
        "weights": "random, full size",
        "seconds": seconds,
        "resident GB": memory,
        "runtime": model.runtime.describe(),
    }
    if torch.cuda.is_available():
        result["peak GPU GB"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return result


def resident() -> float:
    """Memory of this process in GB."""
    return _status("VmRSS")


def _status(name: str) -> float:
    """A number of Linux' /proc in GB; 0 where there is none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith(name)]
    return round(sum(kilobytes) / 1e6, 2)


def peak_resident() -> float:
    """Most memory that this process has held, in GB."""
    return _status("VmHWM")  # ru_maxrss begins with what the parent held


def forget_peak() -> None:
    """Let ``peak_resident`` begin here; of no effect where there is no /proc."""
    if (place := Path("/proc/self/clear_refs")).exists():
        place.write_text("5")


def write(model: str, file: str, place: str) -> None:
    """Random weights for a hub id, at full size; of CleanDIFT the file that is asked for."""
    if model == "CompVis/cleandift":
        name = file.removeprefix("cleandift_").removesuffix("_unet.safetensors")
        stock = {"sd15": SD_1, "sd21": SD_2}[name]()
        tiny.write_cleandift(Path(place), **{name: stock})
    else:
        tiny.write(Path(place), FULL_SIZE[model]())


if __name__ == "__main__":
    main()
