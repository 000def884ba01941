"""Time a click of the demo's page: from the request to its answer, once both photos are encoded.

    python eval/clicks.py sift-hough sd-dino --out eval/results/clicks-cpu.json
    python eval/clicks.py sd-dino --matchers hough pixel
    python eval/clicks.py sd-dino --real      (with the weights of the hub)

The server is the real one, on a free port of this machine. The answer holds what the page shows of
a click: the match, its score and confidence, the next best places and the heat map. Without
``--real``, weights are random, of the real architectures: they cost what trained ones cost. What
the browser takes to draw is not in it; see tests/demo/test_page.py for the page itself.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

import sdcorr
from sdcorr.demo._photos import make_photo
from sdcorr.demo._studio import Studio
from sdcorr.demo.app import make_app
from sdcorr.recipes import find_recipe

sys.path.insert(0, str(Path(__file__).parents[1]))  # the server in a thread is the tests'
from eval import footprint
from tests.demo.server import running

ASSETS = Path(__file__).parents[1] / "assets"
PHOTOS = (ASSETS / "astronaut.png", ASSETS / "hopper.jpg")
MEMORY = 4 * 10**9  # bytes


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print a table, save; returns what was saved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--matchers", nargs="*", default=[], help="besides the recipe's own")
    parser.add_argument("--clicks", type=int, default=50)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--real", action="store_true", help="the weights of the hub")
    parser.add_argument("--weights", type=Path, help="folder with checkpoints of an earlier run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if options.clicks < 1:
        parser.error(f"--clicks must be at least 1, got {options.clicks}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.recipes:
            folder = options.weights or Path(temporary)
            places = {} if options.real else footprint.checkpoints(name, folder)
            rows += of_recipe(name, places, options)
    for row in rows:
        print("  ".join(f"{value:>12}" for value in row.values()))
    result = {"columns": list(rows[0]), "rows": rows, "threads": torch.get_num_threads()}
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    return result


def of_recipe(
    name: str, places: dict[str, str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row for each matcher of a recipe."""
    recipe = find_recipe(name).with_models(places)
    studio = Studio(
        {name: recipe},
        lambda one: sdcorr.load(one, device=options.device, dtype=options.dtype),
        MEMORY,
    )
    photos = [studio.add(make_photo(sdcorr.load_image(path), path.name)) for path in PHOTOS]
    with running(make_app(studio, name, photos)) as address:
        pairings = (
            {"first": photos[0].id, "second": photos[1].id, "recipe": name, "matcher": matcher}
            for matcher in ("", *options.matchers)
        )
        return [of_matcher(address, pairing, options.clicks) for pairing in pairings]


def of_matcher(address: str, pairing: dict[str, str], clicks: int) -> dict[str, Any]:
    """Seconds until a pair is ready, and milliseconds of its clicks, in turns in either photo."""
    line = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    begin = time.perf_counter()
    while not ask(line, "/join", pairing)["ready"]:
        time.sleep(0.02)
    ready = time.perf_counter() - begin
    taken = []
    for number in range(clicks):
        point = [100 + 311 * number % 300, 100 + 173 * number % 300]
        body = pairing | {"turned": number % 2 == 1, "points": [point], "around": True}
        begin = time.perf_counter()
        ask(line, "/match", body)
        taken.append(1000 * (time.perf_counter() - begin))
    return {
        "recipe": pairing["recipe"],
        "matcher": pairing["matcher"] or "its own",
        "ready, s": round(ready, 2),
        "first click, ms": round(taken[0], 1),
        "median, ms": round(statistics.median(taken), 1),
        "slowest, ms": round(max(taken), 1),
    }


def ask(line: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of the server, which must be a good one."""
    line.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = line.getresponse()
    found: dict[str, Any] = json.loads(answer.read())
    if answer.status != 200:
        raise RuntimeError(found["error"])
    return found


if __name__ == "__main__":
    main()
