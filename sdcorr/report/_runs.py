"""The runs of a report: read, numbered, put together by data set, and how they were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdcorr.columns import on_common_pairs
from sdcorr.errors import BadRun, BadScore
from sdcorr.hits import AnyRecords, Rule, hits_of, same_annotation
from sdcorr.report._blocks import Text
from sdcorr.runs import RunFolder
from sdcorr.scores import REPLICATES

MOST_RUNS = 7  # colours that can be told apart
PARTS = ("split", "layout", "protocol")  # fields of data sets that name a part


@dataclass(frozen=True)
class Options:
    """How a report is made.

    Args:
        alphas: tolerances; empty takes the data set's.
        threshold: see ``Rule``; None takes the data set's.
        strict: see ``Rule``.
        roots: folders in which photos are looked for, before the run's own.
        pairs: best, worst, and most unlike pairs that are shown as pictures, of each.
        replicates: bootstrap draws; 0 gives no intervals.
    """

    alphas: tuple[float, ...] = ()
    threshold: str | None = None
    strict: bool = False
    roots: tuple[Path, ...] = ()
    pairs: int = 6
    replicates: int = REPLICATES


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run; ``number`` is its place in the report, from 1."""

    number: int
    folder: RunFolder
    about: dict[str, Any]
    records: AnyRecords

    @property
    def recipe(self) -> str:
        """Name of its recipe."""
        return str(self.about["recipe"].get("name"))

    @property
    def label(self) -> str:
        """What it is called in tables: no two runs of a report have the same."""
        return f"{self.number} {self.recipe}"

    @property
    def dataset(self) -> dict[str, Any]:
        """Which pairs, see ``run.json``."""
        found: dict[str, Any] = self.about["dataset"]
        return found

    @property
    def drawn(self) -> dict[str, Any] | None:
        """Seed and number of pairs of a data set that ``sdcorr data synth`` drew, else None."""
        return self.dataset.get("drawn")


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Finished runs, in the order given.

    Raises:
        BadRun: one is given twice, is no run, is unfinished or damaged, or there are too many.
    """
    if len(paths) > MOST_RUNS:
        raise BadRun(f"expected at most {MOST_RUNS} runs, got {len(paths)}; make several reports")
    places = [path.resolve() for path in paths]
    for index, place in enumerate(places):
        if place in places[:index]:
            raise BadRun(f"{paths[index]} is given twice; name each run once")
    runs = []
    for number, path in enumerate(paths, start=1):
        folder = RunFolder(path)
        about, records = folder.read()
        runs.append(Run(number, folder, about, records))
    return runs


def rule_of(run: Run, options: Options) -> Rule:
    """The rule that was asked for, else the data set's own."""
    alphas = dict.fromkeys(options.alphas or map(float, run.dataset["alphas"]))
    return Rule(tuple(alphas), options.threshold or run.dataset["threshold"], options.strict)


def main_alpha(rule: Rule) -> float:
    """The alpha of pictures and of tables that show one: 0.1 where it is among them."""
    return 0.1 if 0.1 in rule.alphas else rule.alphas[0]


def grouped(runs: Sequence[Run], options: Options) -> list[list[Run]]:
    """Runs of which each shares pairs, annotated alike, with the first of its group.

    Raises:
        BadScore: a run cannot be scored by the rule.
    """
    groups: list[list[Run]] = []
    for run in runs:
        rule = rule_of(run, options)
        try:
            hits_of(run.records, rule)
        except BadScore as error:
            raise BadScore(f"{run.folder.path}: {error}") from error
        fit = [group for group in groups if _fits(group[0], run, rule)]
        if fit:
            fit[0].append(run)
        else:
            groups.append([run])
    return groups


def _fits(first: Run, run: Run, rule: Rule) -> bool:
    if first.dataset["name"] != run.dataset["name"] or first.drawn != run.drawn:
        return False
    if _strangers(first, run):
        return False
    return same_annotation(*on_common_pairs(first.records, run.records), rule)


def _strangers(first: Run, run: Run) -> bool:
    """Whether no pair is in both."""
    return set(first.records.pairs).isdisjoint(run.records.pairs)


def title_of(run: Run) -> str:
    """The data set and its part."""
    words = [run.dataset[name] for name in ("name", *PARTS) if name in run.dataset]
    if run.drawn:
        words.append(f"drawn (seed {run.drawn.get('seed')})")
    return ", ".join(map(str, words))


def apart(run: Run, others: Sequence[Run]) -> Iterator[Text]:
    """Why a run is not compared with those of one title that begin earlier sections."""
    for other in others:
        if title_of(other) != title_of(run):
            continue
        if other.drawn != run.drawn:
            why = "the sets were drawn with other numbers of pairs"
        elif _strangers(other, run):
            why = "they have no pair in common"
        else:
            why = "they annotate the same pairs in different ways"
        yield Text(f"{run.label} is not compared with {other.label}: {why}.")
