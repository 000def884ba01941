"""Whole runs: what one process, several, or one that is killed again and again write down."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sdcorr.backbones.sift import Sift
from sdcorr.benchmark import Benchmark, run_benchmark
from sdcorr.cache import DiskStore
from sdcorr.datasets.pf_willow import PfWillow
from sdcorr.datasets.spair import Spair
from sdcorr.encodings import Tally
from sdcorr.errors import BadDataset, BadImage, BadRun, UnknownName
from sdcorr.hits import Rule
from sdcorr.lines import read_lines
from sdcorr.metrics import keypoint_errors
from sdcorr.pairs import Selection
from sdcorr.processes import World
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from sdcorr.runs import RunFolder
from sdcorr.runtime import Runtime
from sdcorr.scores import score
from tests.annotated import write_spair
from tests.conftest import ROOT
from tests.tiny import shrink

ALONE = World()
SAME = find_recipe("same-position")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spair(tmp_path_factory.mktemp("spair"), images=4)  # 24 pairs


@pytest.fixture(scope="module")
def sift() -> Recipe:
    (group,) = find_recipe("sift").groups
    small = dataclasses.replace(group, backbone=Sift(size=64, diameters=(16.0,)))
    return dataclasses.replace(find_recipe("sift"), groups=(small,))


def benchmark(root: Path, out: Path, recipe: Recipe = SAME, **changes: Any) -> Benchmark:
    return Benchmark(Spair(root), recipe, Runtime(), out, **changes)


def processes_of(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = RunFolder(out).read_about()["processes"]
    return found


def stop_after(pairs: int) -> Any:
    def watch(tally: Tally) -> None:
        if tally.done == pairs:
            raise KeyboardInterrupt

    return watch


# One process


def test_a_run_holds_each_keypoint_once_with_its_error(root: Path, tmp_path: Path) -> None:
    assert run_benchmark(benchmark(root, tmp_path / "out"), ALONE)
    folder = RunFolder(tmp_path / "out")
    annotated = {pair.id: pair for pair in Spair(root).pairs()}
    seen = []
    for line in read_lines(folder.records):
        pair = annotated[line["pair"]]
        seen.append((pair.id, line["keypoint"]))
        if line["keypoint"] in pair.keypoint_ids:
            place = pair.keypoint_ids.index(line["keypoint"])
            assert line["prediction"] == pair.source_keypoints[place].tolist()
            (error,) = keypoint_errors(
                [pair.source_keypoints[place]], [pair.target_keypoints[place]]
            )
            assert line["error"] == error
        else:
            assert line["keypoint"] in pair.source_only_ids
            assert line["error"] is None
        x0, y0, x1, y1 = pair.target_box
        assert line["box"] == max(x1 - x0, y1 - y0)
        assert line["image"] == max(pair.target_size)
    expected = [
        (pair.id, name)
        for pair in annotated.values()
        for name in (*pair.keypoint_ids, *pair.source_only_ids)
    ]
    assert sorted(seen) == sorted(expected)
    assert sorted(path.name for path in folder.path.iterdir() if path.name[0] != ".") == [
        "pairs.jsonl", "records.jsonl", "run.json",
    ]  # fmt: skip


def test_a_run_says_how_it_was_made(root: Path, tmp_path: Path, sift: Recipe) -> None:
    selection = Selection(only=("cat",), limit=5, seed=3)
    run_benchmark(benchmark(root, tmp_path / "out", sift, selection=selection), ALONE)
    about = RunFolder(tmp_path / "out").read_about()
    data = about["dataset"]
    assert (data["name"], data["split"], data["layout"]) == ("spair", "test", "large")
    assert (data["only"], data["limit"], data["seed"]) == (["cat"], 5, 3)
    assert (data["pairs"], data["threshold"]) == (5, "box")
    assert about["recipe"] == json.loads(json.dumps(sift.describe()))
    assert about["told_category"] is None
    assert about["runtime"]["device"] == "cpu"
    assert about["runtime"]["versions"]["torch"]
    (process,) = about["processes"]
    assert (process["rank"], process["of"], process["pairs"]) == (0, 1, 5)
    assert process["images_encoded"] == process["images"] == data["images"]
    assert process["threads"] >= 1
    assert process["peak_memory_bytes"] > 10**7


def test_the_same_command_again_changes_nothing(root: Path, tmp_path: Path) -> None:
    run_benchmark(benchmark(root, tmp_path / "out"), ALONE)
    files = [path for path in (tmp_path / "out").iterdir() if path.name[0] != "."]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    assert run_benchmark(benchmark(root, tmp_path / "out"), ALONE)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    after.pop(tmp_path / "out" / "pairs.jsonl")
    before.pop(tmp_path / "out" / "pairs.jsonl")
    assert after == before


def test_a_run_goes_on_where_it_was_stopped(root: Path, tmp_path: Path, sift: Recipe) -> None:
    run_benchmark(benchmark(root, tmp_path / "whole", sift), ALONE)
    for pairs in (5, 1, 9):
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(benchmark(root, tmp_path / "out", sift), ALONE, stop_after(pairs))
        with pytest.raises(BadRun, match="is not finished"):
            RunFolder(tmp_path / "out").read()
    assert run_benchmark(benchmark(root, tmp_path / "out", sift), ALONE)
    whole, out = (RunFolder(tmp_path / name).records.read_bytes() for name in ("whole", "out"))
    assert out == whole
    assert [one["ended"] is None for one in processes_of(tmp_path / "out")] == [True] * 3 + [False]
    assert processes_of(tmp_path / "out")[-1]["pairs"] == 24 - 15


def test_a_run_cut_at_any_byte_ends_like_one_that_was_not(root: Path, tmp_path: Path) -> None:
    run_benchmark(benchmark(root, tmp_path / "whole"), ALONE)
    whole = RunFolder(tmp_path / "whole").records.read_bytes()
    out = RunFolder(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark(root, out.path), ALONE, stop_after(24))
    (shard,) = out.shards.glob("*.jsonl")
    for cut in random.Random(0).sample(range(len(whole)), 40):
        shard.parent.mkdir(exist_ok=True)
        shard.write_bytes(whole[:cut])
        out.records.unlink(missing_ok=True)
        assert run_benchmark(benchmark(root, out.path), ALONE)
        assert out.records.read_bytes() == whole


def test_another_recipe_selection_or_runtime_is_refused(
    root: Path, tmp_path: Path, sift: Recipe
) -> None:
    first = benchmark(root, tmp_path / "out")
    run_benchmark(first, ALONE)
    changed = {
        "recipe.name": {"recipe": sift},
        "dataset.only": {"selection": Selection(only=("cat",))},
        "runtime.batch": {"runtime": Runtime(batch=2)},
    }
    for field, change in changed.items():
        with pytest.raises(BadRun, match=f"{field} was"):
            run_benchmark(dataclasses.replace(first, **change), ALONE)


def test_two_runs_in_one_folder_are_refused(root: Path, tmp_path: Path) -> None:
    one = benchmark(root, tmp_path / "out")

    def watch(tally: Tally) -> None:
        if tally.done == 3:
            with pytest.raises(BadRun, match="another process is writing to"):
                run_benchmark(one, ALONE)

    assert run_benchmark(one, ALONE, watch)


def test_nothing_is_made_where_nothing_is_selected(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no category called 'cta'; did you mean 'cat'"):
        run_benchmark(benchmark(root, tmp_path / "out", selection=Selection(only=("cta",))), ALONE)
    assert not RunFolder(tmp_path / "out").about.exists()
    assert run_benchmark(benchmark(root, tmp_path / "out"), ALONE)


def test_maps_kept_on_disk_give_the_same_records(root: Path, tmp_path: Path, sift: Recipe) -> None:
    store = DiskStore(tmp_path / "cache")
    for name, kept in (("bare", None), ("first", store), ("second", store)):
        run_benchmark(benchmark(root, tmp_path / name, sift, store=kept), ALONE)
    bare, first, second = (
        RunFolder(tmp_path / name).records.read_bytes() for name in ("bare", "first", "second")
    )
    assert bare == first == second
    assert len(list((tmp_path / "cache").iterdir())) == 8


def test_a_full_disk_is_told_and_costs_no_record(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "sdcorr", "eval", "spair", "--root", str(root), "--recipe",
        "same-position", "--out", str(out),
    ]  # fmt: skip
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (17000, 17000)); "
        "sys.argv = sys.argv[1:]; runpy.run_module('sdcorr', run_name='__main__')"
    )
    full = subprocess.run(
        [sys.executable, "-c", code, *command[2:]], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert full.returncode == 2
    (line,) = [line for line in full.stderr.splitlines() if line.startswith("sdcorr: ")]
    assert "File too large; what was done before is kept: give the same command again" in line
    kept = lines_written(out)
    assert kept > 20
    assert run_benchmark(benchmark(root, out), ALONE)
    assert run_benchmark(benchmark(root, tmp_path / "whole"), ALONE)
    assert RunFolder(out).records.read_bytes() == RunFolder(tmp_path / "whole").records.read_bytes()
    assert 0 < processes_of(out)[-1]["pairs"] < 24


# Bad photos


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A data set one of whose photos breaks off: its header is whole."""
    root = write_spair(tmp_path / "spair", images=3)
    photo = root / "JPEGImages" / "dog" / "2008_000001.jpg"
    photo.write_bytes(photo.read_bytes()[:-200])
    return root


def test_a_bad_photo_stops_the_run_which_keeps_what_it_has(
    damaged: Path, tmp_path: Path, sift: Recipe
) -> None:
    one = benchmark(damaged, tmp_path / "out", sift)
    with pytest.raises(BadImage, match=r"dog/2008_000001\.jpg is damaged .* add --skip-bad"):
        run_benchmark(one, ALONE)
    write_spair(damaged, images=3)  # mended
    assert run_benchmark(one, ALONE)
    assert processes_of(tmp_path / "out")[-1]["pairs"] < 12


def test_bad_photos_may_be_skipped_and_every_table_can_say_so(
    damaged: Path, tmp_path: Path, sift: Recipe
) -> None:
    one = benchmark(damaged, tmp_path / "out", sift, skip_bad=True)
    assert run_benchmark(one, ALONE)
    _, records = RunFolder(tmp_path / "out").read()
    assert len(records.skipped) == 4  # of the six pairs of three dogs
    assert len(records.pairs) == 8
    assert all("2008_000001.jpg is damaged" in reason for reason in records.skipped.values())
    assert score(records, Rule((0.1,), "box")).skipped == 4
    write_spair(damaged, images=3)  # mended: skipped pairs are tried again
    assert run_benchmark(one, ALONE)
    _, records = RunFolder(tmp_path / "out").read()
    assert (len(records.skipped), len(records.pairs)) == (0, 12)
    clean = benchmark(damaged, tmp_path / "clean", sift)
    run_benchmark(clean, ALONE)
    first, second = (RunFolder(tmp_path / name).records.read_bytes() for name in ("out", "clean"))
    assert first == second


def test_wrong_headers_are_found_before_the_work(tmp_path: Path, sift: Recipe) -> None:
    root = write_spair(tmp_path / "spair", images=3)
    (root / "JPEGImages" / "dog" / "2008_000001.jpg").write_bytes(b"no photo")
    one = benchmark(root, tmp_path / "out", sift)
    with pytest.raises(BadDataset, match=r"2008_000001\.jpg is no photo .* add --skip-bad"):
        run_benchmark(one, ALONE)
    assert not RunFolder(tmp_path / "out").about.exists()


# Several processes, and processes that die


@dataclasses.dataclass(frozen=True)
class Small:
    """The command line with tiny models, each run a process of its own."""

    root: Path
    recipe: str
    models: dict[str, Path]  # checkpoint by key of the recipe's weights

    def arguments(self, out: Path) -> list[str]:
        models = [word for key, one in self.models.items() for word in ("--model", f"{key}={one}")]
        return [
            "-m", "tests.small_cli", "eval", "spair", "--root", str(self.root), "--recipe",
            self.recipe, *models, "--batch", "1", "--dtype", "float32", "--device", "cpu",
            "--out", str(out),
        ]  # fmt: skip

    def here(self, out: Path) -> bytes:
        """The records of one process that nothing happened to: this one."""
        recipe = shrink(find_recipe(self.recipe))
        recipe = recipe.with_models({key: str(one) for key, one in self.models.items()})
        assert run_benchmark(Benchmark(Spair(self.root), recipe, Runtime(batch=1), out), ALONE)
        return RunFolder(out).records.read_bytes()

    def start(self, out: Path, processes: int = 1, *more: str) -> subprocess.Popen[str]:
        run = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        launcher = [*run, *more]
        command = [sys.executable, *(launcher if processes > 1 else []), *self.arguments(out)]
        return subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, out: Path, processes: int = 1) -> str:
        with self.start(out, processes) as process:
            output, errors = ending(process)
        assert process.returncode == 0, errors
        return output


def ending(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process printed; one that hangs fails its test and no other."""
    try:
        return process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spair(tmp_path_factory.mktemp("several"), images=9, pairs=40)


@pytest.fixture(scope="module")
def small(several: Path, sift: Recipe) -> Small:
    """For processes that die: many are started, and model libraries would be most of their time."""
    recipe = several / "small-sift.json"
    recipe.write_text(json.dumps(sift.describe()))
    return Small(several, str(recipe), {})


@pytest.fixture(scope="module")
def whole(small: Small, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return small.here(tmp_path_factory.mktemp("whole") / "out")


def lines_written(out: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in out.glob("shards/*.jsonl"))


def wait_for_lines(out: Path, lines: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while lines_written(out) < lines:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_two_processes_write_the_records_of_one(
    several: Path, dinov2_folder: Path, sd_folder: Path, tmp_path: Path
) -> None:
    models = {"dinov2": dinov2_folder, "stable_diffusion": sd_folder}
    fused = Small(several, "sd-dino", models)
    output = fused.run(tmp_path / "out", processes=2)
    assert "80 pairs of 18 images" in output
    assert output.count("per image, macro") == 1  # one of them prints the table
    assert RunFolder(tmp_path / "out").records.read_bytes() == fused.here(tmp_path / "one")
    processes = processes_of(tmp_path / "out")
    assert [one["rank"] for one in processes] == [0, 1]
    assert [one["pairs"] for one in processes] == [40, 40]
    assert all(one["images_encoded"] == one["images"] for one in processes)


def test_a_run_that_is_killed_three_times_ends_like_one_that_was_not(
    small: Small, whole: bytes, tmp_path: Path
) -> None:
    out, moments = tmp_path / "out", random.Random(7)
    total = whole.count(b"\n")
    for _ in range(3):
        wanted = lines_written(out) + moments.randint(1, total // 5)
        with small.start(out) as process:
            wait_for_lines(out, wanted, process)
            process.kill()
    assert lines_written(out) < total
    small.run(out)
    assert RunFolder(out).records.read_bytes() == whole
    assert [one["ended"] is None for one in processes_of(out)] == [True] * 3 + [False]


def test_a_dead_process_ends_the_run_which_one_alone_finishes(
    small: Small, whole: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with small.start(out, processes=2) as launcher:
        wait_for_lines(out, 10, launcher)
        (about,) = out.glob("shards/*-0001.json")
        os.kill(json.loads(about.read_text())["pid"], signal.SIGKILL)
        _, errors = ending(launcher)
    assert launcher.returncode != 0
    assert "Signal 9 (SIGKILL)" in errors
    assert "rank      : 1" in errors
    small.run(out)
    assert RunFolder(out).records.read_bytes() == whole


def test_processes_that_a_launcher_restarts_finish_the_run(
    small: Small, whole: bytes, tmp_path: Path
) -> None:
    """What the first attempt left in the launcher's store must not mislead the second."""
    out = tmp_path / "out"
    with small.start(out, 2, "--max-restarts=3") as launcher:
        wait_for_lines(out, 10, launcher)
        (about,) = out.glob("shards/*-0001.json")
        os.kill(json.loads(about.read_text())["pid"], signal.SIGKILL)
        _, errors = ending(launcher)
    assert launcher.returncode == 0, errors
    assert RunFolder(out).records.read_bytes() == whole
    assert len(processes_of(out)) == 4


def test_processes_that_were_told_different_things_refuse(root: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "sdcorr", "eval", "spair", "--root", str(root), "--recipe",
                recipe, "--device", "cpu", "--out", str(tmp_path / "out"),
            ],
            env=ENVIRONMENT | place | {"RANK": str(rank)}, text=True, stderr=subprocess.PIPE,
        )
        for rank, recipe in enumerate(("same-position", "sift"))
    ]  # fmt: skip
    errors = [ending(process)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "process 0 of 2: another process could not start; it says why" in errors[0]
    assert "process 1 of 2: " in errors[1]
    assert 'recipe.name was "same-position", now "sift"' in errors[1]
    assert not RunFolder(tmp_path / "out").records.exists()


# Real pairs


@pytest.mark.parametrize(
    ("name", "alphas", "image", "point"),
    [
        ("mini", (0.05, 0.1, 0.2), (0, 2.3864, 8.5552), (0, 2.9762, 7.7381)),
        ("willow", (0.05, 0.1, 0.15, 0.2), *[(6.0667, 18.8222, 34.6778, 50.3556)] * 2),
    ],
)
def test_the_same_position_on_real_pairs_scores_what_is_known(
    shared_data: Path, tmp_path: Path, name: str, alphas: Any, image: Any, point: Any
) -> None:
    dataset: Any = {
        "mini": Spair(shared_data / "SPair-71k-mini"),
        "willow": PfWillow(shared_data / "PF-WILLOW"),
    }[name]
    run_benchmark(Benchmark(dataset, SAME, Runtime(), tmp_path / "out"), ALONE)
    _, records = RunFolder(tmp_path / "out").read()
    scores = score(records, Rule(alphas, dataset.threshold), replicates=0)
    found = [
        [100 * value.value for value in values]
        for values in (scores.overall.image, scores.overall.point)
    ]
    assert found[0] == pytest.approx(image, abs=5e-5)
    assert found[1] == pytest.approx(point, abs=5e-5)
