"""What the page is told of a pair, and the files that it offers."""

from __future__ import annotations

import base64
import io
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdcorr.demo._studio import Joined
from sdcorr.export import csv_line, matches_alone
from sdcorr.fused import Fused
from sdcorr.similarities import heat_of
from sdcorr.types import Matches

COLUMNS = (
    "name", "source_x", "source_y", "target_x", "target_y", "score", "confidence", "matched",
    "asked", "corrected",
)  # fmt: skip
_DRAWING = threading.Lock()  # matplotlib is made for one thread


@dataclass(frozen=True)
class Wanted:
    """A point of the page's list.

    Args:
        name: what it is called.
        place: (x, y) in pixels of the photo that was clicked in.
        turned: clicked in the second photo, sought in the first.
        corrected: where it lies in the other photo by the user's hand; None as it was found.
    """

    name: str
    place: tuple[float, float]
    turned: bool = False
    corrected: tuple[float, float] | None = None


def answer(
    joined: Joined,
    turned: bool,
    points: Sequence[Sequence[float]],
    around: bool = False,
    least: float | None = None,
) -> dict[str, Any]:
    """What the page shows of points.

    Args:
        joined: the pair.
        turned: the points are of the second photo.
        points: (x, y) in pixels.
        around: also what else of the other photo is like the first point.
        least: reject matches of less confidence, see ``Fused.match``.

    Returns:
        For JSON: ``matches``, where each point lies, in pixels, and how sure that is; with
        ``around`` also ``next``, the next best places, and ``heat``, see ``heat``.
    """
    pair = joined.back if turned else joined.forth
    matches = pair.match(points, least)
    likely = [None] * len(matches) if matches.confidence is None else matches.confidence.tolist()
    rows = zip(
        matches.target.tolist(), matches.score.tolist(), likely, matches.matched.tolist(),
        strict=True,
    )  # fmt: skip
    told: dict[str, Any] = {
        "matches": [
            {"place": place, "score": score, "confidence": sure, "matched": matched}
            for place, score, sure, matched in rows
        ]
    }
    if around:
        one = matches.select(torch.tensor([0]))
        best = zip(*(part.tolist() for part in pair.next_best(one)), strict=True)
        told["next"] = [{"place": place, "score": score} for place, score in best]
        told["heat"] = heat(pair, one.source)
    return told


def heat(pair: Fused, point: Tensor) -> dict[str, Any]:
    """Similarity of a point ``(1, 2)`` to each target cell, in levels, median 0, most 255.

    ``levels`` is base64 of ``(h, w)`` bytes; ``extent`` (left, right, bottom, top) in pixels says
    where the outermost cells end, which may be beyond the photo.
    """
    grid, found = pair.similarity.target, heat_of(pair.similarity, point)
    share = (found.values - found.low) / max(found.high - found.low, 1e-9)
    levels = (share * 255).clamp(0, 255).byte()
    return {
        "shape": list(grid.shape),
        "extent": list(grid.extent),
        "levels": base64.b64encode(levels.numpy().tobytes()).decode(),
    }


def as_json(
    joined: Joined, wanted: Sequence[Wanted], photos: tuple[str, str], least: float | None = None
) -> dict[str, Any]:
    """The points as ``sdcorr match --json`` writes them; besides, ``asked`` and ``corrected``.

    And ``min_confidence``, the least that was asked for, or None.
    A corrected place is the user's: it has no score and no confidence, and is matched.
    """
    told = matches_alone(collect(joined, wanted, least)) | dict(joined.made)
    told["min_confidence"] = least
    for side, name in zip(("source", "target"), photos, strict=True):
        told[side]["path"] = name
    for match, one in zip(told["matches"], wanted, strict=True):
        match["asked"] = "target" if one.turned else "source"
        match["corrected"] = one.corrected is not None
        if one.corrected is not None:
            match["score"] = match["confidence"] = None
    return told


def as_csv(joined: Joined, wanted: Sequence[Wanted], least: float | None = None) -> str:
    """The points as CSV, a header and a row each; empty where a number does not exist."""
    lines = [csv_line(COLUMNS)]
    for match in as_json(joined, wanted, ("", ""), least)["matches"]:
        matched, corrected = (str(match[key]).lower() for key in ("matched", "corrected"))
        lines.append(
            csv_line(
                (match["name"], *match["source"], *match["target"], match["score"],
                 match["confidence"], matched, match["asked"], corrected)
            )
        )  # fmt: skip
    return "".join(lines)


def as_png(joined: Joined, wanted: Sequence[Wanted], least: float | None = None) -> bytes:
    """The picture that ``sdcorr match`` draws of the points."""
    buffer = io.BytesIO()
    with _DRAWING, warnings.catch_warnings(action="ignore"):  # a name in a script the font lacks
        collect(joined, wanted, least).plot().savefig(buffer, format="png")
    return buffer.getvalue()


def collect(joined: Joined, wanted: Sequence[Wanted], least: float | None = None) -> Matches:
    """Matches from the first photo to the second, of points asked for in either, in their order.

    Each cycle error is in pixels of the photo in which its point was asked for.
    """
    forth, back = (
        pair.match([one.place for one in wanted if one.turned == turned] or np.zeros((0, 2)), least)
        for pair, turned in ((joined.forth, False), (joined.back, True))
    )
    back = replace(back, source=back.target, target=back.source)
    order = torch.tensor([one.turned for one in wanted], dtype=torch.bool).argsort(stable=True)
    place_of = order.argsort()  # of each point in those of forth, then those of back

    def both(name: str) -> Any:
        one, other = getattr(forth, name), getattr(back, name)
        return torch.cat([one, other])[place_of] if isinstance(one, Tensor) else one

    ends = {"source": both("source"), "target": both("target")}
    for index, one in enumerate(wanted):
        if one.corrected is not None:
            ends["source" if one.turned else "target"][index] = torch.tensor(
                one.corrected, dtype=torch.float64
            )
    by_hand = torch.tensor([one.corrected is not None for one in wanted], dtype=torch.bool)
    return Matches(
        **ends,
        score=both("score"), margin=both("margin"), cycle_error=both("cycle_error"),
        peak=both("peak"), matched=both("matched") | by_hand, confidence=both("confidence"),
        names=tuple(one.name for one in wanted),
        source_image=forth.source_image, target_image=forth.target_image,
    )  # fmt: skip
