"""Time, memory and encodings of a benchmark of SPair-71k's size, with tiny models.

    python eval/scale.py --out eval/results/scale.json

Writes the test split's numbers of pairs (12,234) over as many photos as they need at least (480),
small and synthetic, and runs recipe sd-dino with tiny random weights on about 1,000 of the pairs
and on all of them, by one process. What grows with pairs shows; what a full-size model costs does
not (eval/footprint.py).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sdcorr.runs import RunFolder

sys.path.insert(0, str(Path(__file__).parents[1]))  # the writers of small data are the tests'
from tests.annotated import write_spair
from tests.tiny import write_dinov2, write_stable_diffusion

ROOT = Path(__file__).parents[1]
# pairs of each category of SPair-71k's test split, alphabetical
PAIRS = (
    690, 650, 702, 702, 870, 644, 564, 600, 646, 640, 600, 600, 702, 650, 862, 664, 756, 692,
)  # fmt: skip


def main() -> None:
    """Write the data, run twice, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = [fewest_photos(pairs) for pairs in PAIRS]
        categories = [f"category{index:02d}" for index in range(len(PAIRS))]
        write_spair(folder / "spair", categories, photos, PAIRS)
        write_dinov2(folder / "dinov2")
        write_stable_diffusion(folder / "sd")
        some = run(folder, "some", "--limit-per-category", "56")
        whole = run(folder, "whole")
    result = {
        "recipe": "sd-dino, tiny random weights",
        "some": some,
        "whole": whole,
        "peak memory, whole / some": round(
            whole["peak_memory_bytes"] / some["peak_memory_bytes"], 4
        ),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


def fewest_photos(pairs: int) -> int:
    """The least number of photos that have so many ordered pairs."""
    return next(count for count in range(2, pairs + 2) if count * (count - 1) >= pairs)


def run(folder: Path, name: str, *more: str) -> dict[str, Any]:
    """One run in a process of its own: what run.json says it took."""
    models = ("--model", f"dinov2={folder}/dinov2", "--model", f"stable_diffusion={folder}/sd")
    command = (
        sys.executable, "-m", "tests.small_cli", "eval", "spair", "--root", str(folder / "spair"),
        "--recipe", "sd-dino", *models, "--out", str(folder / name), *more,
    )  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    about = RunFolder(folder / name).read_about()
    (process,) = about["processes"]
    kept = (
        "pairs", "images", "images_encoded", "seconds", "encoding_seconds", "matching_seconds",
        "peak_memory_bytes", "threads", "device_name",
    )  # fmt: skip
    found = {key: process[key] for key in kept}
    return found | {
        "images/s": round(found["images_encoded"] / found["encoding_seconds"], 2),
        "pairs/s": round(found["pairs"] / found["matching_seconds"], 1),
        "dtype": about["runtime"]["dtype"],
    }


if __name__ == "__main__":
    main()
