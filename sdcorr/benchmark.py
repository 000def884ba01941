"""A benchmark run from pairs to records, by one process or by many."""

from __future__ import annotations

import dataclasses
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdcorr import plugins
from sdcorr.cache import DiskStore
from sdcorr.encodings import Tally
from sdcorr.errors import BadDataset, BadImage, BadOutput
from sdcorr.evaluation import MEMORY, Symmetric, by_affinity, predict, share, wrong_photos
from sdcorr.flow_pairs import FlowPair
from sdcorr.flow_records import BINS, PER_SIDE, flow_pair_to_dict, predict_flow
from sdcorr.lines import to_lines
from sdcorr.pairs import Dataset, Pair, PhotoPair, Selection, select
from sdcorr.pipeline import Pipeline, find_weights
from sdcorr.processes import World, peak_memory
from sdcorr.recipe import Recipe
from sdcorr.records import pair_to_dict, prediction_to_dicts
from sdcorr.runs import SCHEMA, RunFolder, file_digest
from sdcorr.runtime import Runtime
from sdcorr.shards import Shard, written
from sdcorr.symmetry import check_symmetric
from sdcorr.synthetic import read_mark

Lines = list[dict[str, Any]]  # of a pair
ALL = Selection()
_ADVICE = "mend the data set, or add --skip-bad to leave such pairs out, as every table will say"


@dataclass(frozen=True)
class Benchmark:
    """What is evaluated, on what, and where the records go.

    Args:
        dataset: annotated pairs.
        recipe: what predicts.
        runtime: of this process.
        out: folder of the run; one that holds the same run, unfinished, is gone on with.
        selection: which of the pairs.
        told: tell the model the annotated category, where a prompt asks for it.
        skip_bad: go on after photos that cannot be read.
        memory: bytes of encodings kept in each process.
        store: keeps feature maps on disk; None keeps none.
        symmetric: keypoints by category that left and right exchange; see ``predict``.
    """

    dataset: Dataset
    recipe: Recipe
    runtime: Runtime
    out: Path
    selection: Selection = ALL
    told: bool = True
    skip_bad: bool = False
    memory: int = MEMORY
    store: DiskStore | None = None
    symmetric: Symmetric | None = None


def run_benchmark(
    benchmark: Benchmark, world: World, watch: Callable[[Tally], None] = lambda _: None
) -> bool:
    """Predict this process' part of the pairs that are still to do.

    Args:
        benchmark: the same in every process, but for its runtime's device.
        world: the processes that share the work.
        watch: told how far this process has come, after each pair.

    Returns:
        Whether the run is finished and this process is the one to say so.

    Raises:
        BadDataset: the data set is not whole, or nothing is selected.
        BadRun: the folder is busy, or holds a run made in another way.
        SdcorrError: see ``predict`` and ``Pipeline``; what was predicted stays.
    """
    folder = RunFolder(benchmark.out)
    found: list[PhotoPair] = []
    with ExitStack() as stack:

        def begin() -> dict[str, Any]:
            found.extend(_pairs(benchmark))
            _check_symmetric(benchmark, found)
            _check_photos(benchmark, found)
            about = _describe(benchmark, found)  # all that can be wrong, before a folder is made
            stack.enter_context(folder.led())
            folder.begin(about, _lines(benchmark, found))
            return _plan(folder)

        plan = world.lead(begin)
        pairs = found or _pairs(benchmark)
        if world.rank > 0:  # the same recipe, data and precision on every host
            folder.check(_describe(benchmark, pairs), _lines(benchmark, pairs))
        done = written([folder.path / name for name in plan["parts"]], folder.lengths())
        pending = [pair for pair in pairs if pair.id not in done]
        world.wait_for_all()  # also where nothing is left to do: a late one must get the plan
        tally = Tally(before=len(done))
        watch(tally)
        if pending:
            names = [f"{plan['launch']}-{rank:04d}" for rank in range(world.size)]
            shard = Shard(folder.shards, names[world.rank], _describe_process(benchmark, world))
            with shard:  # locked until it is merged: no other launch may begin before
                _fill(shard, benchmark, world, pending, tally, watch)
                return folder.merge(names)
        if world.rank == 0 and plan["parts"] != [folder.records.name]:
            folder.join()  # killed between the last pair and the merge
        return world.rank == 0


def _pairs(benchmark: Benchmark) -> list[PhotoPair]:
    return by_affinity(select(benchmark.dataset.pairs(), benchmark.selection))


def _check_symmetric(benchmark: Benchmark, pairs: Sequence[PhotoPair]) -> None:
    if benchmark.symmetric is not None:
        keypoints = [pair for pair in pairs if isinstance(pair, Pair)]
        if not keypoints:
            raise BadDataset("pairs of dense flow have no keypoints to exchange; leave lists out")
        check_symmetric(benchmark.symmetric, keypoints)


def _check_photos(benchmark: Benchmark, pairs: Sequence[PhotoPair]) -> None:
    """Refuse photos that are not as annotated, as far as headers tell; one process does it."""
    if not benchmark.skip_bad and (wrong := wrong_photos(pairs)):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadDataset(f"{wrong[0]}{more}; {_ADVICE}")


def _lines(benchmark: Benchmark, pairs: Sequence[PhotoPair]) -> Iterator[dict[str, Any]]:
    to_dict = _kind_of(pairs).to_dict
    return (to_dict(pair, benchmark.dataset.root) for pair in pairs)


def _plan(folder: RunFolder) -> dict[str, Any]:
    """What all processes must agree on: which earlier files count as done, and a name."""
    return {
        "launch": f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}",
        "parts": [path.relative_to(folder.path).as_posix() for path in folder.parts()],
    }


def _fill(
    shard: Shard,
    benchmark: Benchmark,
    world: World,
    pending: Sequence[PhotoPair],
    tally: Tally,
    watch: Callable[[Tally], None],
) -> None:
    """Predict this process' share of the pairs into its shard."""
    start = time.perf_counter()
    try:
        if mine := share(pending, world.rank, world.size):
            pipeline = Pipeline(benchmark.recipe, benchmark.runtime, benchmark.store)
            for lines in _kind_of(mine).predict(benchmark, pipeline, mine, tally):
                shard.write(to_lines(lines))
                watch(tally)
    except BaseException as error:
        with suppress(BadOutput):  # the disk may be full, which the error says already
            shard.note({"ended": None, **_took(benchmark, tally, start)})
        if isinstance(error, BadImage):
            raise BadImage(f"{error}; {_ADVICE}") from error
        raise
    shard.note({"ended": _now(), **_took(benchmark, tally, start)})


def _took(benchmark: Benchmark, tally: Tally, start: float) -> dict[str, Any]:
    """What a process has done since the start, and at what cost."""
    return {
        "seconds": round(time.perf_counter() - start, 3),
        "pairs": tally.done,
        "images": tally.images,
        "images_encoded": tally.encoded,
        "maps_from_cache": benchmark.store.hits if benchmark.store else 0,
        "encoding_seconds": round(tally.encoding, 3),
        "matching_seconds": round(tally.matching, 3),
        "peak_memory_bytes": peak_memory(),
    }


def _predict_keypoints(
    benchmark: Benchmark, pipeline: Pipeline, pairs: Sequence[Any], tally: Tally
) -> Iterator[Lines]:
    for prediction in predict(
        pipeline, pairs, told=benchmark.told, memory=benchmark.memory,
        skip_bad=benchmark.skip_bad, tally=tally, symmetric=benchmark.symmetric,
    ):  # fmt: skip
        yield prediction_to_dicts(prediction)


def _predict_flow(
    benchmark: Benchmark, pipeline: Pipeline, pairs: Sequence[Any], tally: Tally
) -> Iterator[Lines]:
    for line in predict_flow(
        pipeline, pairs, told=benchmark.told, memory=benchmark.memory,
        skip_bad=benchmark.skip_bad, tally=tally,
    ):  # fmt: skip
        yield [line]


def _count_keypoints(pairs: Sequence[Any]) -> dict[str, Any]:
    return {
        "keypoints": sum(len(pair.keypoint_ids) for pair in pairs),
        "source_only": sum(len(pair.source_only_ids) for pair in pairs),
    }


@dataclass(frozen=True)
class _Kind:
    """What is done with pairs by what is annotated of them.

    Args:
        to_dict: a pair's line of ``pairs.jsonl``; takes the data set's root, too.
        predict: the lines of ``records.jsonl`` of each pair.
        describe: what ``run.json`` says of all.
    """

    to_dict: Callable[[Any, Path], dict[str, Any]]
    predict: Callable[[Benchmark, Pipeline, Sequence[Any], Tally], Iterator[Lines]]
    describe: Callable[[Sequence[Any]], dict[str, Any]]


KEYPOINTS = _Kind(pair_to_dict, _predict_keypoints, _count_keypoints)
FLOW = _Kind(flow_pair_to_dict, _predict_flow, lambda _: {"bins": BINS, "bins_a_side": PER_SIDE})


def _kind_of(pairs: Sequence[PhotoPair]) -> _Kind:
    return FLOW if isinstance(pairs[0], FlowPair) else KEYPOINTS


def _describe(benchmark: Benchmark, pairs: Sequence[PhotoPair]) -> dict[str, Any]:
    """``run.json`` of a run that begins."""
    recipe, runtime = benchmark.recipe, benchmark.runtime.describe()
    photos = {photo for pair in pairs for photo in (pair.source, pair.target)}
    fields = dataclasses.asdict(benchmark.dataset)  # type: ignore[call-overload]
    return {
        "schema": SCHEMA,
        "dataset": {
            "name": plugins.name_of(benchmark.dataset).replace("_", "-"),
            # of a file that the user gives, what is in it, wherever it lies
            **{
                name: file_digest(value) if isinstance(value, Path) else value
                for name, value in fields.items()
                if name != "root"
            },
            "threshold": benchmark.dataset.threshold,
            "alphas": benchmark.dataset.alphas,
            **dataclasses.asdict(benchmark.selection),
            "pairs": len(pairs),
            "images": len(photos),
            **_kind_of(pairs).describe(pairs),
            **({"drawn": drawn} if (drawn := read_mark(benchmark.dataset.root)) else {}),
        },
        "recipe": recipe.describe(),
        "weights": find_weights(recipe),
        # None: no prompt of the recipe asks for it
        "symmetric": {
            name: [list(couple) for couple in couples]
            for name, couples in (benchmark.symmetric or {}).items()
        },
        "told_category": benchmark.told if recipe.uses_category else None,
        "runtime": {
            "device": benchmark.runtime.device.type,
            **{name: runtime[name] for name in ("dtype", "batch", "versions")},
        },
        "root": str(benchmark.dataset.root.resolve()),
        "processes": [],
    }


def _describe_process(benchmark: Benchmark, world: World) -> dict[str, Any]:
    runtime = benchmark.runtime.describe()
    return {
        "rank": world.rank,
        "of": world.size,
        "host": platform.node(),
        "pid": os.getpid(),
        **{name: runtime[name] for name in ("device", "device_name", "threads", "python")},
        "started": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
