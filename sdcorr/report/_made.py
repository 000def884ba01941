"""How the runs of a report were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sdcorr.report._blocks import Block, Heading, Table, Text
from sdcorr.report._recipes import other_recipe
from sdcorr.report._runs import Run

TOLD = {True: "told", False: "not told", None: "not asked for"}


def how_made(runs: Sequence[Run]) -> Iterator[Block]:
    """A table of how the predictions were made, and loud words of what was left out."""
    yield Heading("Runs")
    facts = [dict(_facts(run)) for run in runs]
    yield Table(
        "How the runs were made",
        ("", *(run.label for run in runs)),
        tuple((name, *(fact[name] for fact in facts)) for name in facts[0]),
        texts=len(runs) + 1,
    )
    for run in runs:
        if skipped := run.records.skipped:
            first, *more = dict.fromkeys(skipped.values())
            yield Text(
                f"LEFT OUT of {run.label}: {len(skipped)} of {run.dataset['pairs']} pairs, whose "
                f"photos could not be read: {first}{f' (and {len(more)} more)' if more else ''}",
                loud=True,
            )
    if len({run.records.pairs for run in runs}) > 1:
        yield Text(
            "The runs did not predict the same pairs: a run's own numbers are of all its pairs, "
            "comparisons of the pairs that both have.",
            loud=True,
        )


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    data, runtime = run.dataset, run.about["runtime"]
    yield "folder", str(run.folder.path)
    yield "recipe", ", ".join((run.recipe, *other_recipe(run)))
    yield "what it is", str(run.about["recipe"].get("about", ""))
    weights = (f"{name} {revision or ''}".strip() for name, revision in _weights(run))
    yield "weights", ", ".join(weights) or "none"
    yield "category in the prompt", TOLD[run.about.get("told_category")]
    yield "lists of left and right", ", ".join(run.about.get("symmetric") or ()) or "none"
    yield "pairs", _selection(data, len(run.records.pairs))
    yield "images", str(run.records.images)
    yield "device, precision", f"{runtime.get('device')}, {runtime.get('dtype')}"
    names = dict.fromkeys(str(one.get("device_name")) for one in run.about["processes"])
    yield "hardware", ", ".join(names)
    versions = runtime.get("versions", {})
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    dates = [str(one.get("started"))[:10] for one in run.about["processes"]]
    yield "dates", " to ".join(dict.fromkeys([min(dates), max(dates)])) if dates else ""


def _weights(run: Run) -> list[tuple[str, str | None]]:
    return sorted(run.about["weights"].items())


def _selection(data: dict[str, Any], pairs: int) -> str:
    words = [str(pairs)]
    if "crowd" in data:
        words.append(
            "no list of crowds" if data["crowd"] is None else "photos on a list of crowds left out"
        )
    if data.get("only"):
        words.append(f"only {', '.join(data['only'])}")
    if data.get("limit"):
        words.append(f"at most {data['limit']} a category (seed {data['seed']})")
    return "; ".join(words)
