"""What a run on dense flow writes down: one line a pair, and no pixel.

A line of ``records.jsonl`` has ``pixels``, how many are annotated; ``epe``, their mean end-point
error in pixels of the target; ``side``, the target photo's longer side in pixels; and
``histogram``, how many errors lie in each of 200 bins of 0.001 of that side. Bin k holds errors
above k and up to k + 1 thousandths, the first also 0; what is beyond 0.2 is in none. So PCK at
every alpha that is a whole number of thousandths up to 0.2 follows exactly, with ``<=``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from sdcorr.columns import PairColumns, Texts, pair_columns
from sdcorr.encodings import Tally
from sdcorr.errors import BadRun, BadScore
from sdcorr.evaluation import MEMORY, find_each
from sdcorr.flow_pairs import FlowPair
from sdcorr.fused import Fused
from sdcorr.lines import read_lines
from sdcorr.metrics import Bools, Floats
from sdcorr.pairs import FARTHEST
from sdcorr.pipeline import Pipeline

BINS = 200
PER_SIDE = 1000  # bins to a side: they reach up to 0.2
Line = dict[str, Any]


@dataclass(frozen=True, eq=False)
class FlowRecords(PairColumns):
    """A run's dense flow as columns, skipped pairs left out; see ``PairColumns``.

    Args:
        pixels: ``(P,)`` annotated pixels.
        epe: ``(P,)`` mean end-point error of each pair, pixels of the target.
        side: ``(P,)`` longer side of the target photo, pixels.
        annotation: ``(P,)`` text, SHA-256 of flow and mask.
        histogram: ``(P, 200)`` pixels by error, see the module.
    """

    pixels: Floats
    epe: Floats
    side: Floats
    annotation: Texts
    histogram: Floats
    unit: ClassVar[str] = "pixels"

    @property
    def counted(self) -> int:
        """Number of annotated pixels."""
        return int(self.pixels.sum())

    def only(self, pairs: Set[str]) -> Self:
        """The records of some of the pairs, sorted by id."""
        order = self.sorted_places(pairs)
        columns = ("pixels", "epe", "side", "annotation", "histogram")
        return self.taken(order, **{name: getattr(self, name)[order] for name in columns})

    def hits(self, alphas: tuple[float, ...]) -> Floats:
        """Pixels of each pair whose error is at most alpha times the side: ``(P, A)``.

        Raises:
            BadScore: the histogram cannot tell.
        """
        bins = [round(alpha * PER_SIDE) for alpha in alphas]
        for alpha, count in zip(alphas, bins, strict=True):
            if not 1 <= count <= BINS or abs(count - alpha * PER_SIDE) > 1e-6:
                raise BadScore(
                    "records of dense flow tell PCK at whole thousandths of the side up to "
                    f"{BINS / PER_SIDE:g}; got alpha {alpha:g}"
                )
        below: Floats = np.cumsum(self.histogram, axis=1)[:, [count - 1 for count in bins]]
        return below


def predict_flow(
    pipeline: Pipeline,
    pairs: Sequence[FlowPair],
    *,
    told: bool = True,
    memory: int = MEMORY,
    skip_bad: bool = False,
    tally: Tally | None = None,
) -> Iterator[Line]:
    """The record of each pair, in order; arguments and errors as of ``evaluation.predict``.

    The recipe matches the centre of every cell of the source; the moves are interpolated between
    cells, as ``Flow.per_pixel`` tells, and compared at every annotated pixel.

    Raises:
        BadAnnotations: an annotation is damaged.
    """
    for pair, found in find_each(
        _flow_record, pipeline, pairs, told=told, memory=memory, skip_bad=skip_bad, tally=tally
    ):
        yield {"pair": pair.id, "skipped": found} if isinstance(found, str) else found


def _flow_record(fused: Fused, pair: FlowPair) -> Line:
    annotated, valid = pair.read()
    predicted, _ = fused.flow().per_pixel()
    return flow_record(pair, predicted, annotated, valid)


def flow_record(
    pair: FlowPair,
    predicted: npt.NDArray[np.float32],
    annotated: npt.NDArray[np.float32],
    valid: Bools,
) -> Line:
    """A pair's line.

    Args:
        pair: which gives the name and the side.
        predicted: ``(H, W, 2)`` pixels.
        annotated: ``(H, W, 2)`` pixels.
        valid: ``(H, W)``, where the annotation counts.
    """
    gap = predicted[valid].astype(np.float64) - annotated[valid].astype(np.float64)
    error = np.hypot(gap[:, 0], gap[:, 1])
    side = max(pair.target_size)
    return {
        "pair": pair.id,
        "pixels": len(error),
        "epe": float(error.mean()),
        "side": side,
        "histogram": error_histogram(error, side).tolist(),
    }


def error_histogram(error: Floats, side: float) -> npt.NDArray[np.int64]:
    """How many errors, ``(N,)`` pixels, lie in each bin of a side: ``(200,)``.

    Example:
        0, exactly 0.001, exactly 0.05 and 0.3 of a side of 100 px:

        >>> counts = error_histogram(np.array([0.0, 0.1, 5.0, 30.0]), 100)
        >>> {int(bin): int(counts[bin]) for bin in counts.nonzero()[0]}
        {0: 2, 49: 1}
    """
    edges = np.arange(1, BINS + 1) / PER_SIDE * side  # as alpha * side of ``metrics.correct``
    bins = np.searchsorted(edges, error, side="left")
    return np.bincount(bins, minlength=BINS + 1)[:BINS]


def flow_pair_to_dict(pair: FlowPair, root: Path) -> Line:
    """A pair and its annotation's digest; files relative to the root, sizes (height, width)."""
    files = {
        name: getattr(pair, name).relative_to(root).as_posix()
        for name in ("source", "target", "flow", "mask")
    }
    return {
        "pair": pair.id,
        "category": pair.category,
        "subject": pair.subject,
        **files,
        "annotation": pair.digest(),
        "source_size": pair.source_size,
        "target_size": pair.target_size,
        "difficulty": dict(pair.difficulty),
    }


def read_flow_records(manifest: Path, records: Path) -> FlowRecords:
    """The columns of a finished run.

    Raises:
        BadRun: a file is missing or damaged, or the two do not fit each other.
    """
    about = {line["pair"]: line for line in read_lines(manifest)}
    found: dict[str, Line] = {}
    skipped: dict[str, str] = {}
    for number, line in enumerate(read_lines(records), start=1):
        name = str(line.get("pair"))
        if name not in about or name in found or name in skipped:
            raise BadRun(f"{records}, line {number}: pair {name!r} is not listed, or stands twice")
        if "skipped" in line:
            skipped[name] = str(line["skipped"])
        elif _is_record(line):
            found[name] = line
        else:
            raise BadRun(f"{records}, line {number}: pair {name} has no error and histogram")
    if missing := about.keys() - found.keys() - skipped.keys():
        raise BadRun(f"{records} lacks {len(missing)} of {len(about)} pairs, first {min(missing)}")
    if not found:
        raise BadRun(f"{records} holds no flow: all {len(skipped)} pairs were skipped")
    return FlowRecords(
        **pair_columns([about[name] for name in found], skipped),
        pixels=np.array([line["pixels"] for line in found.values()], np.float64),
        epe=np.array([line["epe"] for line in found.values()], np.float64),
        annotation=np.array([str(about[name].get("annotation")) for name in found]),
        side=np.array([line["side"] for line in found.values()], np.float64),
        histogram=np.array([line["histogram"] for line in found.values()], np.float64),
    )


def _is_record(line: Line) -> bool:
    """Whether pixels, error, side and histogram are there and fit each other."""
    names = ("pixels", "epe", "side", "histogram")
    pixels, epe, side, counts = (line.get(name) for name in names)
    return (
        isinstance(pixels, int)
        and isinstance(side, int)
        and 0 < side < FARTHEST
        and isinstance(epe, int | float)
        and isinstance(counts, list)
        and math.isfinite(epe)
        and 0 <= epe < FARTHEST
        and len(counts) == BINS
        and all(isinstance(count, int) and count >= 0 for count in counts)
        and sum(counts) <= pixels > 0
    )
