"""``sdcorr score``: PCK of a run at other thresholds; no model, no data set."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdcorr.cli._options import debug
from sdcorr.cli._tables import print_breakdown, print_difference, print_scores

if TYPE_CHECKING:
    from sdcorr.records import Records
    from sdcorr.scores import Row, Rule

SCHEMA = "sdcorr.scores/1"
MOST_DRAWS = 100_000
FEWEST_DRAWS = 100  # the ends of a 95 % interval are the 3rd lowest and highest of so many
KINDS = ("viewpoint", "scale", "truncation", "occlusion", "keypoint")


class _Alphas(click.Command):
    """Takes ``--alpha 0.1 0.05`` as ``--alpha 0.1 --alpha 0.05``."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        return super().parse_args(context, _spread(arguments))


def _spread(words: list[str]) -> list[str]:
    """Arguments in which each number after ``--alpha`` has an ``--alpha`` of its own."""
    spread: list[str] = []
    taking = False
    for word in words:
        numbers = word.removeprefix("--alpha=").split(",")
        taking = taking or word.startswith("--alpha=")
        if taking and all(map(_is_number, numbers)):
            spread += [part for number in numbers for part in ("--alpha", number)]
        elif word == "--alpha":
            taking = True
        else:
            if taking and spread[-2:-1] != ["--alpha"]:
                spread.append("--alpha")  # no number came: let click say so
            taking = False
            spread.append(word)
    return [*spread, "--alpha"] if words[-1:] == ["--alpha"] else spread


def _draws(_context: click.Context, _option: click.Parameter, value: int) -> int:
    if value != 0 and not FEWEST_DRAWS <= value <= MOST_DRAWS:
        raise click.BadParameter(
            f"expected {FEWEST_DRAWS} to {MOST_DRAWS} draws, or 0, got {value}"
        )
    return value


@click.command(cls=_Alphas)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--alpha",
    "alphas",
    type=float,
    multiple=True,
    metavar="A...",
    help="Tolerances, such as 0.1 0.05 0.01.",
)
@click.option(
    "--threshold",
    type=click.Choice(["box", "keypoints", "image"]),
    help="Side of the target's box, of the box around its keypoints, or of the image; the data "
    "set's own if not given.",
)
@click.option("--strict", is_flag=True, help="Error < threshold, in place of <=.")
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
@click.option(
    "--bootstrap",
    "replicates",
    type=int,
    default=1000,
    show_default=True,
    callback=_draws,
    metavar="N",
    help="Draws for the intervals, at least 100; 0 gives none.",
)
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
    from sdcorr.files import check_output, to_json, write_json
    from sdcorr.runs import RunFolder
    from sdcorr.scores import Rule, compare
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
    else:
        scores, further = score_records(records, rule, replicates), {}
        for kind in kinds:
            further[kind] = _breakdown(kind, records, rule)
        result |= {"scores": scores.to_dict()}
        result |= {"by": {kind: [asdict(row) for row in rows] for kind, rows in further.items()}}
        if json_out != "-":
            print_scores(run, about, records, scores)
            for kind, rows in further.items():
                print_breakdown(kind, rows, rule)
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


def _breakdown(kind: str, records: Records, rule: Rule) -> tuple[Row, ...]:
    from sdcorr.errors import BadScore
    from sdcorr.scores import by_difficulty, by_keypoint

    if kind == "keypoint":
        return by_keypoint(records, rule)
    levels = by_difficulty(records, rule)
    if kind not in levels:
        raise BadScore(f"this data set has no {kind} flags; leave --by {kind} out")
    return levels[kind]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
