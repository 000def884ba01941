"""Time and memory of ``sdcorr transfer`` over a folder of 10,000 photos.

    OMP_NUM_THREADS=1 python eval/transfer_scale.py --out eval/results/transfer-scale.json

Draws photos of 64 px and labels 500 of them, then all, by one process each, with recipe sift on a
canvas of 64 px and ten keypoints of one reference; writes JSON, CSV and review, then gives the
second command again. What grows with the number of photos shows; what a photo of full size costs
does not (eval/footprint.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# neither torch nor anything large: a process starts with the peak memory of the one that starts it
sys.path.insert(0, str(Path(__file__).parents[1]))  # the writers of small data are the tests'
from tests.annotated import draw_photo

ROOT = Path(__file__).parents[1]
SIDE = 64  # px
KEYPOINTS = 10
PAUSE = 0.02  # seconds between two looks at a run


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Draw, run three times, print and save; returns what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=500)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recipe(folder / "recipe.json")
        write_reference(folder)
        for kind, count in (("few", options.few), ("many", options.photos)):
            for index in range(count):
                draw_photo(folder / kind / f"{index:06d}.jpg", SIDE, SIDE, seed=index)
        few, many, again = (run(folder, kind) for kind in ("few", "many", "many"))
    result = {
        "recipe": f"sift, canvas of {SIDE} px",
        "keypoints": KEYPOINTS,
        "threads": int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count(),
        "few": few,
        "many": many,
        "many again, nothing to do": {key: again[key] for key in again if key != "photos/s"},
        "peak memory, many / few": ratio(many, few),
        "peak memory, again / few": ratio(again, few),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")
    return result


def write_recipe(path: Path) -> None:
    """Recipe sift, but on a canvas of a photo's size."""
    shown = sdcorr("recipes", "show", "sift", "--json")
    recipe = json.loads(subprocess.run(shown, check=True, stdout=subprocess.PIPE).stdout)
    recipe["name"] = "sift-small"
    recipe["groups"][0]["backbone"] |= {"size": SIDE, "diameters": [16.0]}
    recipe["calibration"] |= {"recipe": ""}  # there are confidences; nothing is said of them
    path.write_text(json.dumps(recipe))


def write_reference(folder: Path) -> None:
    """One photo with keypoints on its diagonal."""
    draw_photo(folder / "reference.jpg", SIDE, SIDE, seed=10**6)
    places = [number for index in range(KEYPOINTS) for number in (6 * index + 4, 6 * index + 4, 2)]
    names = [f"part {index}" for index in range(KEYPOINTS)]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": places}
    about = {
        "images": [{"id": 1, "file_name": "reference.jpg", "height": SIDE, "width": SIDE}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "thing", "keypoints": names}],
    }
    (folder / "reference.json").write_text(json.dumps(about))


def run(folder: Path, photos: str) -> dict[str, Any]:
    """One run of the command: what it took, and what it wrote."""
    out = folder / f"{photos}.json"
    command = sdcorr(
        "transfer", str(folder / "reference.json"), str(folder / photos), "--recipe",
        str(folder / "recipe.json"), "--device", "cpu", "--out", str(out), "--csv",
        str(folder / f"{photos}.csv"), "--review", str(folder / f"{photos}.html"),
    )  # fmt: skip
    start, ended = time.perf_counter(), None
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    done = 0
    while not done:
        time.sleep(PAUSE)
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended is None and all_labelled(out):
            ended = time.perf_counter()
    end = time.perf_counter()
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {process.returncode}")
    labels = json.loads(out.read_bytes())
    return {
        "photos": len(labels["images"]),
        "seconds": round(end - start, 2),
        "photos/s": round(len(labels["images"]) / (end - start), 2),
        "finishing_seconds": None if ended is None else round(end - ended, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_memory_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "labels_bytes": out.stat().st_size,
    }


def all_labelled(out: Path) -> bool:
    """Whether the process has noted that its part is done."""
    for note in Path(f"{out}.parts", "shards").glob("*.json"):
        try:
            return bool(json.loads(note.read_text())["ended"])
        except OSError:  # deleted meanwhile
            return True
    return False


def ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Of peak memory."""
    return round(one["peak_memory_bytes"] / other["peak_memory_bytes"], 4)


def sdcorr(*arguments: str) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "sdcorr", *arguments]


if __name__ == "__main__":
    main()
