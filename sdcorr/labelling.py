"""A folder of photos labelled from reference photos, by one process or by many."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdcorr.annotations import References
from sdcorr.cache import DiskStore
from sdcorr.confidence import check_confidence
from sdcorr.errors import BadImage
from sdcorr.evaluation import share
from sdcorr.labels import LabelFile, file_bytes, to_line
from sdcorr.lines import read_lines, to_lines
from sdcorr.parts import Parts
from sdcorr.photos import Photos
from sdcorr.pipeline import Pipeline, find_weights
from sdcorr.processes import World
from sdcorr.recipe import Recipe
from sdcorr.review import write_review
from sdcorr.runs import read_object
from sdcorr.runtime import Runtime
from sdcorr.shards import Shard, all_ended
from sdcorr.transfer import Annotator

SCHEMA = "sdcorr.labels/1"


@dataclass
class Progress:
    """How far a process has come.

    Args:
        before: photos of all processes that were labelled before.
        photos: of this process.
        done: of these labelled or skipped.
        gone: labels that are dropped, since their photos are.
        skipped: why, by name.
    """

    before: int = 0
    photos: int = 0
    done: int = 0
    gone: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


Watch = Callable[[Progress], None]


@dataclass(frozen=True)
class Labelling:
    """What is labelled by what, and where the labels go.

    Args:
        references: annotated objects.
        photos: to be labelled.
        recipe: what finds the keypoints.
        runtime: of this process.
        out: COCO JSON. One that was written in the same way is gone on with, and so is a run that
            was stopped, whose results wait in a folder beside it, ``OUT.parts``.
        csv: the same as a table; None writes none.
        review: HTML page of the least confident photos; None writes none.
        min_confidence: keypoints below it count as not there.
        store: keeps feature maps on disk; None keeps none.
    """

    references: References
    photos: Photos
    recipe: Recipe
    runtime: Runtime
    out: Path
    csv: Path | None = None
    review: Path | None = None
    min_confidence: float | None = None
    store: DiskStore | None = None

    @property
    def parts(self) -> Parts:
        """What is done, until all is."""
        return Parts(self.out)

    def describe(self) -> dict[str, Any]:
        """All that decides what is found."""
        runtime = self.runtime.describe()
        about = {
            "schema": SCHEMA,
            "references": {
                "category": self.references.scheme.name,
                "objects": len(self.references.objects),
                "digest": self.references.digest,
            },
            "recipe": self.recipe.describe(),
            "weights": find_weights(self.recipe),
            "runtime": {
                "device": self.runtime.device.type,
                **{name: runtime[name] for name in ("dtype", "versions")},
            },
        }
        described: dict[str, Any] = json.loads(json.dumps(about))
        return described


def label(job: Labelling, world: World, watch: Watch = lambda _: None) -> dict[str, str] | None:
    """Label this process' part of the photos that are still to do, then write the files.

    Args:
        job: the same in every process, but for its runtime's device.
        world: the processes that share the work.
        watch: told how far this process has come, at the start and after each photo.

    Returns:
        Why photos were skipped, by name, if this process wrote the files; None if another does.

    Raises:
        BadRun: ``out`` was made in another way, or another process writes to it.
        BadOutput: a file cannot be written; what was done stays.
        BadRecipe: ``min_confidence`` of a recipe that is not calibrated.
        SdcorrError: see ``Annotator`` and ``Pipeline``.
    """
    check_confidence(job.recipe.own_calibration, job.min_confidence)
    about, parts = job.describe(), job.parts
    with ExitStack() as stack:

        def begin() -> dict[str, Any]:
            parts.lead(stack, alone=world.size == 1)
            return {
                "gone": parts.begin(about, job.photos),
                "launch": f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}",
            }

        plan = world.lead(begin)
        names = read_object(parts.plan)  # a host may see a photo that has just come, or not yet
        job = replace(job, photos=Photos(job.photos.root, tuple(names["photos"])))
        if world.rank > 0:  # the same references, recipe and precision on every host
            parts.check(about)
        mine = share(names["pending"], world.rank, world.size)
        before = len(job.photos.names) - len(names["pending"])
        progress = Progress(before, len(mine), gone=plan["gone"])
        watch(progress)
        launch = [f"{plan['launch']}-{rank:04d}" for rank in range(world.size)]
        with Shard(parts.shards, launch[world.rank], {}) as shard:
            world.wait_for_all()
            if mine:
                _fill(shard, job, mine, progress, watch)
            with parts.finishing():
                shard.note({"ended": datetime.now(UTC).isoformat(timespec="seconds")})
                return _finish(job, about) if all_ended(parts.shards, launch) else None


def _fill(
    shard: Shard, job: Labelling, mine: Sequence[str], progress: Progress, watch: Watch
) -> None:
    """Label photos into a shard."""
    annotator = Annotator(Pipeline(job.recipe, job.runtime, job.store), job.references)
    photos = [job.photos.path(name) for name in mine]
    lengths = [file_bytes(photo) for photo in photos]  # before they are read
    for name, length, labels in zip(mine, lengths, annotator.each(photos), strict=True):
        shard.write(to_lines([to_line(name, labels, length)]))
        progress.done += 1
        if isinstance(labels, BadImage):
            progress.skipped[name] = str(labels)
        watch(progress)


def _finish(job: Labelling, about: dict[str, Any]) -> dict[str, str]:
    """Write the files, once each process of the launch has done its part."""
    parts = job.parts
    parts.join(job.photos)
    lines = parts.records
    file = LabelFile(job.references.scheme, about, job.min_confidence)
    file.write_coco(job.out, lines, parts.path)
    if job.csv is not None:
        file.write_csv(job.csv, lines)
    if job.review is not None:
        write_review(job.review, file, lines, job.photos)
    skipped = {line["photo"]: line["skipped"] for line in read_lines(lines) if "skipped" in line}
    parts.delete()
    return skipped
