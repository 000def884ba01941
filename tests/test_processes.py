from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sdcorr.errors import BadLaunch, BadRun
from sdcorr.processes import World, find_world
from tests.conftest import ROOT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
PROGRAM = """
import sys
from sdcorr.errors import BadDataset, SdcorrError
from sdcorr.processes import find_world

def work():
    if sys.argv[1] == "fail":
        raise BadDataset("no such folder")
    return {"plan": [1, 2.5, "x"]}

world = find_world(2)
try:
    with world.named():
        plan = world.lead(work)
        world.wait_for_all()
    # one write: lines of two processes must not mix
    sys.stdout.write(f"{world.rank} {world.local_rank} {plan}\\n")
except SdcorrError as error:
    sys.stdout.write(f"{type(error).__name__}: {error}\\n")
"""


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)


def launch(tmp_path: Path, number: int, *arguments: str) -> list[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [*TORCHRUN, str(number), str(program), *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=120,
    )  # fmt: skip
    return sorted(done.stdout.splitlines())


def test_alone_there_is_one_process_that_leads() -> None:
    world = find_world()
    assert (world.rank, world.size) == (0, 1)
    assert world.lead(lambda: {"a": 1}) == {"a": 1}
    assert world.wait_for_all() is None
    assert world.device("auto") == "auto"


def test_every_process_learns_what_the_leader_found(tmp_path: Path) -> None:
    plan = "{'plan': [1, 2.5, 'x']}"
    assert launch(tmp_path, 2, "work") == [f"0 0 {plan}", f"1 1 {plan}"]


def test_the_others_end_where_the_leader_cannot_start(tmp_path: Path) -> None:
    assert launch(tmp_path, 2, "fail") == [
        "BadDataset: process 0 of 2: no such folder",
        "BadLaunch: process 1 of 2: process 0 could not start; it says why",
    ]


def test_another_number_of_processes_than_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadLaunch, match="expected 4 processes, got 1; start them with torchrun"):
        find_world(4)


def test_a_launcher_that_starts_one_process_without_a_word_is_told_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # as accelerate launch --cpu does
    with pytest.raises(BadLaunch, match="a single process, as it does with --cpu"):
        find_world()
    assert find_world(1).size == 1


def test_no_way_to_the_other_processes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(BadLaunch, match=r"cannot reach the other processes: .*MASTER_ADDR"):
        find_world()


@pytest.mark.parametrize(
    ("rank", "size", "message"),
    [
        ("5", "2", "expected RANK in 0..WORLD_SIZE - 1, got RANK=5 and WORLD_SIZE=2"),
        ("-1", "2", "got RANK=-1"),
        ("0", "0", "WORLD_SIZE=0"),
        ("1", "1", "RANK=1 and WORLD_SIZE=1"),
        ("0", None, "WORLD_SIZE=None"),
        (None, "2", "RANK=None"),
        ("x", "2", "expected a number in RANK, got 'x'"),
        ("0", "abc", "expected a number in WORLD_SIZE, got 'abc'"),
        ("", "2", "expected a number in RANK, got ''"),
    ],
)
def test_an_impossible_launch_is_told(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, size: str | None, message: str
) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", size)):
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(BadLaunch, match=re.escape(message)):
        find_world()


@pytest.mark.parametrize(
    ("asked", "gpus", "got"),
    [("auto", 4, "cuda:2"), ("cuda", 4, "cuda:2"), ("cuda:0", 4, "cuda:0"), ("auto", 0, "auto")],
)
def test_each_process_takes_the_gpu_of_its_number(
    monkeypatch: pytest.MonkeyPatch, asked: str, gpus: int, got: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert World(rank=6, size=8, local_rank=2, store=None).device(asked) == got


def test_a_gpu_that_only_this_process_sees_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert World(rank=5, size=8, local_rank=5).device("auto") == "cuda:0"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(BadLaunch, match="6 or more processes on this host, and GPUs: 1"):
        World(rank=5, size=8, local_rank=5).device("auto")


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BadLaunch, match="3 or more processes on this host, and GPUs: 2"):
        World(rank=2, size=8, local_rank=2).device("auto")


def test_errors_name_their_process_where_there_are_several() -> None:
    def fail(world: World) -> Any:
        with world.named():
            raise BadRun("busy")

    with pytest.raises(BadRun, match=r"^busy$"):
        fail(World())
    with pytest.raises(BadRun, match=r"^process 3 of 8: busy$"):
        fail(World(rank=3, size=8))
