"""Time per stage and peak memory of a recipe at full size, with random weights.

    python eval/footprint.py sd-dino --out eval/results/footprint-sd-dino.json

Builds the real architectures (Stable Diffusion 1.5: 1.07 billion parameters; DINOv2-B: 87
million) with random values, saves them as checkpoints in a temporary folder (4.6 GB of disk) and
runs the recipe on them through ``sdcorr.load``, as a user would. Random weights cost the same time
and memory as trained ones; the features mean nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sdcorr
from sdcorr.recipes import find_recipe

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkpoint writers are the tests'
from tests import tiny

ASSETS = Path(__file__).parents[1] / "assets"


def main() -> None:
    """Write the checkpoints in a process of its own, measure in another, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=["sd-dino", "dinov2-b", "sd15", "sift", "same-position"])
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
    groups = [
        name for name, config in find_recipe(options.recipe).backbones.items() if config.weights()
    ]
    for name in groups:
        if not (folder / name).is_dir():
            code = (
                "import eval.footprint, pathlib, sys; "
                f"eval.footprint.write_{name}(pathlib.Path(sys.argv[1]))"
            )
            place = str((folder / name).resolve())
            subprocess.run([sys.executable, "-c", code, place], check=True, cwd=ASSETS.parent)
    return measure(options, {name: str(folder / name) for name in groups})


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
    for name, backbone in model.backbones.items():
        timed(f"extract {name}, first photo", lambda: backbone.extract(photos[:1]))  # noqa: B023
        timed(f"extract {name}, second photo", lambda: backbone.extract(photos[1:]))  # noqa: B023
    source, target = (model.encode(photo) for photo in photos)
    fused = timed("fuse", lambda: model.fuse(source, target))
    fused.match([[200, 200]])
    timed("one click", lambda: fused.match([[120, 80]]))
    timed("confident matches", fused.match)
    memory["peak"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
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
    """Memory of this process in GB, from Linux' /proc; 0 where there is none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return round(sum(kilobytes) / 1e6, 2)


def write_dinov2(folder: Path) -> None:
    """DINOv2-B with random weights."""
    tiny.write_dinov2(folder, hidden_size=768, num_attention_heads=12, mlp_ratio=4)


def write_stable_diffusion(folder: Path) -> None:
    """Stable Diffusion 1.5 with random weights, and the tokenizer of the tests."""
    tiny.write_stable_diffusion(
        folder,
        vae={"block_out_channels": (128, 256, 512, 512), "norm_num_groups": 32}
        | {"layers_per_block": 2},
        text={"hidden_size": 768, "intermediate_size": 3072}
        | {"num_hidden_layers": 12, "num_attention_heads": 12},
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention_dim=768,
        norm_num_groups=32,
    )


if __name__ == "__main__":
    main()
