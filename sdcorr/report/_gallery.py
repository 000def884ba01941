"""Pairs as pictures: photos side by side, keypoints, what was predicted."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import PIL.Image

from sdcorr.errors import BadImage, BadRun
from sdcorr.geometry import Size
from sdcorr.hits import Rule, correct_keypoints
from sdcorr.lines import read_lines
from sdcorr.preprocess import load_image
from sdcorr.records import Records
from sdcorr.report._blocks import Block, Frame, Mark, Picture, Pictures, Point, Text
from sdcorr.report._numbers import PairResult, best_and_worst, most_unlike, pair_results
from sdcorr.report._runs import Options, Run, main_alpha
from sdcorr.runs import file_digest

SIDE = 320  # px, the longer side of a photo
MOST_BYTES = 20_000  # of a photo, before it is written as text, which adds a third
QUALITIES = (80, 65, 50, 35, 20, 5)  # of JPEG, the first that is small enough

SHORT = 3  # letters of an id that stands beside a point

Annotation = dict[str, Any]  # a line of pairs.jsonl


class Gallery:
    """Chooses pairs and makes pictures of them.

    Args:
        options: how many, and where photos are looked for.
        rule: what is right; at ``main_alpha`` of it.
    """

    def __init__(self, options: Options, rule: Rule) -> None:
        self._count = options.pairs
        self._roots = options.roots
        self._rule = rule
        self._alpha = main_alpha(rule)
        self._found: dict[int, dict[str, PairResult]] = {}
        self._photos: dict[tuple[str, str], tuple[str, Size] | None] = {}
        self._gone: set[tuple[str, str]] = set()  # of ``_photos``, those that are not shown

    def best_and_worst(self, run: Run) -> Iterator[Block]:
        """The pairs with the largest and the smallest share of correct keypoints."""
        best, worst = best_and_worst(self._results(run), self._count)
        shown = self._pictures([run], [[one] for one in (*best, *worst)])
        for name, pictures in (("Best", shown[: len(best)]), ("Worst", shown[len(best) :])):
            if pictures:
                yield Pictures(f"{name} pairs of {run.label}, @{self._alpha:g}", tuple(pictures))

    def unlike(self, first: Run, other: Run) -> Iterator[Block]:
        """The pairs whose shares of correct keypoints differ most."""
        found = most_unlike(self._results(first), self._results(other), self._count)
        title = f"Pairs in which {first.label} and {other.label} differ most, @{self._alpha:g}"
        if found:
            yield Pictures(title, tuple(self._pictures([first, other], found)))
        else:
            yield Text(f"In every pair both got the same share right, @{self._alpha:g}.")

    def gone(self) -> Iterator[Block]:
        """Which photos are gone, or are others."""
        if self._gone:
            first = min(name for _, name in self._gone)
            yield Text(
                f"{len(self._gone)} of {len(self._photos)} photos cannot be read, or are others "
                f"than the run had, such as {first}: their frames are empty. --root names the "
                "folder they are in.",
                loud=True,
            )

    def _results(self, run: Run) -> dict[str, PairResult]:
        if run.number not in self._found:
            self._found[run.number] = pair_results(run.records, self._rule, self._alpha)
        return self._found[run.number]

    def _pictures(
        self, runs: Sequence[Run], chosen: Sequence[Sequence[PairResult]]
    ) -> list[Picture]:
        """A picture of each pair, given its result in each run."""
        names = {results[0].pair for results in chosen}
        annotations = _annotations(runs[0], names)
        marks = [self._marks(run, names, annotations) for run in runs]
        return [
            self._picture(runs, results, annotations[results[0].pair], marks) for results in chosen
        ]

    def _marks(
        self, run: Run, names: set[str], annotations: dict[str, Annotation]
    ) -> dict[str, list[Mark]]:
        """What was predicted in some pairs; records of dense flow keep no place."""
        if not isinstance(run.records, Records):
            return {name: [] for name in names}
        return _marks(run, names, annotations, self._right(run.records, names))

    def _right(self, records: Records, names: set[str]) -> dict[tuple[str, str], bool]:
        """Which keypoints of some pairs are right, by pair and keypoint."""
        records = records.only(names)
        rule = Rule((self._alpha,), self._rule.threshold, self._rule.strict)
        pairs = (records.pairs[index] for index in records.pair)
        right = correct_keypoints(records, rule)[:, 0].tolist()
        return dict(zip(zip(pairs, records.keypoint.tolist(), strict=True), right, strict=True))

    def _picture(
        self,
        runs: Sequence[Run],
        results: Sequence[PairResult],
        annotation: Annotation,
        marks: Sequence[dict[str, list[Mark]]],
    ) -> Picture:
        pair = results[0].pair
        source = tuple(
            Mark(label, name, _point(place), "annotated")
            for label, name, place in _joint(annotation, "source")
        )
        frames = [self._frame("source", annotation, source, runs[0])]
        for run, one, found in zip(runs, results, marks, strict=True):
            frame = self._frame("target", annotation, tuple(found[pair]), run)
            right = f"{one.right} of {one.points} {'' if found[pair] else 'pixels '}right"
            note = f"{right}, mean error {one.error:.3f} of the side"
            name = f"target, {run.label}"
            frames.append(replace(frame, caption=name, note=note))
        return Picture(pair, results[0].category, tuple(frames))

    def _frame(
        self, end: str, annotation: Annotation, marks: tuple[Mark, ...],
        run: Run,
    ) -> Frame:  # fmt: skip
        known = annotation.get(f"{end}_size")
        key = (str(run.about.get("root") or ""), str(annotation[end]))
        photo = self._photo(*key)
        if photo is not None and _is_the_same(photo[1], end, annotation, run):
            return Frame(end, "", photo[1], photo[0], marks)
        self._gone.add(key)
        return Frame(end, "", Size(*known) if known else _room_of(marks), "", marks)

    def _photo(self, own: str, name: str) -> tuple[str, Size] | None:
        """A photo, small, with its true size; None where it cannot be read.

        Args:
            own: the run's own root, empty where it has none.
            name: below a root.
        """
        if (own, name) not in self._photos:
            roots = [*self._roots, *([Path(own)] if own else [])]
            self._photos[own, name] = _find(name, roots)
        return self._photos[own, name]


def _annotations(run: Run, names: set[str]) -> dict[str, Annotation]:
    """Lines of a run's ``pairs.jsonl``, by pair."""
    manifest = run.folder.manifest
    if file_digest(manifest) != run.dataset["digest"]:
        raise _changed(manifest)
    return {line["pair"]: line for line in read_lines(manifest) if line["pair"] in names}


def _changed(file: Path) -> BadRun:
    return BadRun(f"{file} has changed while the report was made; make it again")


def _is_the_same(size: Size, end: str, annotation: Annotation, run: Run) -> bool:
    """Whether a photo has the size annotated or, of a target without, the side that the run saw."""
    known = annotation.get(f"{end}_size")
    if known or end == "source" or not isinstance(run.records, Records):
        return not known or size == Size(*known)
    place = run.records.pairs.index(annotation["pair"])
    return bool(max(size) == run.records.sides["image"][place])


def _find(name: str, roots: Sequence[Path]) -> tuple[str, Size] | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:  # a run's file must not lead elsewhere
        return None
    for root in roots:
        if (root / path).is_file():
            try:
                pixels = load_image(root / path).pixels
            except BadImage:
                return None
            return thumbnail(PIL.Image.fromarray(pixels)), Size(*pixels.shape[:2])
    return None


def thumbnail(photo: PIL.Image.Image) -> str:
    """A small copy as a data URL, of at most ``MOST_BYTES`` before base64."""
    photo.thumbnail((SIDE, SIDE))
    for quality in QUALITIES:
        buffer = io.BytesIO()
        photo.save(buffer, "jpeg", quality=quality)
        if buffer.tell() <= MOST_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _joint(annotation: Annotation, end: str) -> Iterator[tuple[str, str, Any]]:
    """What stands beside each keypoint of a pair, its id and place; none of dense flow."""
    names = list(map(str, annotation.get("keypoints", ())))
    short = all(len(name) <= SHORT for name in names)
    labels = names if short else map(str, range(1, len(names) + 1))
    return zip(labels, names, annotation.get(f"{end}_points", ()), strict=True)


def _marks(
    run: Run,
    names: set[str],
    annotations: dict[str, Annotation],
    right: dict[tuple[str, str], bool],
) -> dict[str, list[Mark]]:
    """Predictions of some pairs, in the order of their keypoints."""
    found: dict[str, dict[str, Point]] = {name: {} for name in names}
    for line in read_lines(run.folder.records):
        if line.get("pair") in names and "keypoint" in line:
            try:
                found[line["pair"]][str(line["keypoint"])] = _point(line["prediction"])
            except (KeyError, TypeError, ValueError) as error:
                raise BadRun(
                    f"{run.folder.records} is damaged: pair {line['pair']} has no prediction of "
                    f"keypoint {line['keypoint']}"
                ) from error
    joint = {pair: list(_joint(annotations[pair], "target")) for pair in names}
    if any(name not in found[pair] for pair, points in joint.items() for _, name, _ in points):
        raise _changed(run.folder.records)
    return {
        pair: [
            Mark(
                label, name, found[pair][name],
                "right" if right[pair, name] else "wrong", _point(place),
            )
            for label, name, place in points
        ]
        for pair, points in joint.items()
    }  # fmt: skip


def _point(value: Any) -> Point:
    x, y = map(float, value)
    if not math.isfinite(x + y):
        raise ValueError("expected finite coordinates")
    return x, y


def _room_of(marks: Sequence[Mark]) -> Size:
    """A size that holds all points, where neither photo nor annotation tell one."""
    places = [mark.truth or mark.place for mark in marks]
    width, height = (math.ceil(max(1.0, *values)) + 1 for values in zip(*places, strict=True))
    return Size(height, width)
