"""``sdcorr score``: PCK of a run at other thresholds; no model, no data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcorr.cli._alphas import AlphasCommand, bootstrap_option, rule_options
from sdcorr.cli._options import debug
from sdcorr.cli._tables import print_breakdown, print_difference, print_errors, print_scores

if TYPE_CHECKING:
    from sdcorr.hits import AnyRecords, Rule
    from sdcorr.scores import Row, Value

SCHEMA = "sdcorr.scores/1"
KINDS = ("viewpoint", "scale", "truncation", "occlusion", "flip", "keypoint")


@click.command(cls=AlphasCommand)
@click.argument("run", type=click.Path(path_type=Path))
@rule_options
@click.option(
    "--by",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    help="A further table; may be repeated.",
)
@click.option(
    "--compare",
    "other",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Another run: the paired difference to it.",
)
@bootstrap_option
@click.option("--json", "json_out", metavar="PATH", help="JSON to write; - is standard output.")
@debug
def score(
    run: Path, alphas: tuple[float, ...], threshold: str | None, strict: bool,
    kinds: tuple[str, ...], other: Path | None, replicates: int, json_out: str | None,
) -> None:  # fmt: skip
    """PCK of RUN, a folder that `sdcorr eval` wrote.

    \b
    Examples:
      sdcorr score runs/sd-dino --alpha 0.1 0.05 0.01 --threshold box
      sdcorr score runs/sd-dino --by viewpoint --by keypoint
      sdcorr score runs/sd-dino --compare runs/dinov2-b --json difference.json
    """
    from sdcorr.files import check_output
    from sdcorr.hits import Rule
    from sdcorr.runs import RunFolder
    from sdcorr.scores import compare
    from sdcorr.scores import score as score_records

    if other is not None and kinds:
        raise click.UsageError("--by goes with one run; leave --compare or --by out")
    if json_out not in (None, "-"):
        folders = [RunFolder(one) for one in (run, other) if one is not None]
        inputs = [path for one in folders for path in (one.about, one.manifest, one.records)]
        check_output(Path(json_out), tuple(inputs))
    about, records = RunFolder(run).read()
    usual = about["dataset"]
    rule = Rule(
        tuple(dict.fromkeys(alphas or usual["alphas"])), threshold or usual["threshold"], strict
    )
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "unit": "share, 0 to 1",
        "intervals": {"level": 0.95, "draws": replicates, "resampled": "images within category"},
        "run": _shared(about),
    }
    if other is not None:
        about_other, records_other = RunFolder(other).read()
        gap = compare(records, records_other, rule, replicates)
        result |= {"minus": _shared(about_other), "difference": gap.to_dict()}
        if json_out != "-":
            print_difference((run, about, records), (other, about_other, records_other), gap)
        errors = _errors(records, records_other, replicates)
    else:
        scores, further = score_records(records, rule, replicates), {}
        for kind in kinds:
            further[kind] = _breakdown(kind, records, rule)
        result |= {"scores": scores.to_dict()}
        result |= {"by": {kind: [asdict(row) for row in rows] for kind, rows in further.items()}}
        if json_out != "-":
            print_scores(run, about, records, scores)
            for kind, rows in further.items():
                print_breakdown(kind, rows, rule, records.unit)
        errors = _errors(records, None, replicates)
    if errors:
        result |= {"end_point_error": {name: asdict(value) for name, value in errors.items()}}
        if json_out != "-":
            print_errors(errors, signed=other is not None)
    _write(result, json_out)


def _write(result: dict[str, Any], json_out: str | None) -> None:
    from sdcorr.files import to_json, write_json

    if json_out == "-":
        click.echo(to_json(result))
    elif json_out is not None:
        write_json(Path(json_out), result)
        click.echo(f"wrote {json_out}")


def _shared(about: dict[str, Any]) -> dict[str, Any]:
    """What is known of a run, without the names of folders and hosts."""
    kept = {key: value for key, value in about.items() if key != "root"}
    processes = [
        {key: value for key, value in process.items() if key not in ("host", "pid")}
        for process in about["processes"]
    ]
    return kept | {"processes": processes}


def _errors(first: AnyRecords, second: AnyRecords | None, replicates: int) -> dict[str, Value]:
    """End-point errors of dense flow, or the difference; empty for runs on keypoints."""
    from sdcorr.flow_records import FlowRecords
    from sdcorr.scores import compare_errors, mean_errors

    if not isinstance(first, FlowRecords):
        return {}
    if isinstance(second, FlowRecords):
        return compare_errors(first, second, replicates)
    return mean_errors(first, replicates)


def _breakdown(kind: str, records: AnyRecords, rule: Rule) -> tuple[Row, ...]:
    from sdcorr.errors import BadScore
    from sdcorr.records import Records
    from sdcorr.scores import by_difficulty, by_keypoint

    if kind == "keypoint":
        if not isinstance(records, Records):
            raise BadScore("a run on dense flow has no keypoints; leave --by keypoint out")
        return by_keypoint(records, rule)
    levels = by_difficulty(records, rule)
    if kind not in levels:
        raise BadScore(f"this data set has no {kind} flags; leave --by {kind} out")
    return levels[kind]
