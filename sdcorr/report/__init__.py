"""A report of benchmark runs: one page with charts and pictures, and the same tables as Markdown.

report = gather([Path("runs/sift"), Path("runs/same")], Options())
write_report(Path("report.html"), report)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sdcorr.errors import BadDataset, BadOutput
from sdcorr.files import check_output, replacing
from sdcorr.report._blocks import Report
from sdcorr.report._markdown import FIRST, markdown_of
from sdcorr.report._page import page_of
from sdcorr.report._runs import Options, read_runs
from sdcorr.report._sections import sections
from sdcorr.runs import RunFolder

__all__ = ["Options", "Report", "check_report", "gather", "to_html", "to_markdown", "write_report"]

ENDINGS = (".html", ".htm")


def gather(paths: Sequence[Path], options: Options) -> Report:
    """All that a report says; the same runs give the same report.

    Runs that share annotated pairs stand in one section, each compared with the first of them.

    Args:
        paths: folders that ``sdcorr eval`` wrote.
        options: how the report is made.

    Raises:
        BadRun: a folder holds no finished run, is damaged, or is given twice.
        BadScore: a run cannot be scored by the rule.
        BadDataset: a folder for photos is not there.
    """
    for root in options.roots:
        if not root.is_dir():
            raise BadDataset(f"there is no folder {root} to look for photos in; mend --root")
    runs = read_runs(paths)
    title = f"PCK on {', '.join(dict.fromkeys(run.dataset['name'] for run in runs))}"
    return Report(title, tuple(sections(runs, options)))


def to_html(report: Report) -> str:
    """A self-contained page."""
    return page_of(report)


def to_markdown(report: Report) -> str:
    """The same tables as text, without pictures."""
    return markdown_of(report)


def markdown_beside(page: Path) -> Path:
    """Where the Markdown of a page is written."""
    return page.with_suffix(".md")


def check_report(page: Path, runs: Sequence[Path]) -> None:
    """Refuse a page that could not be written, before any work is done for it.

    Raises:
        BadOutput: see ``check_output``; or a text stands beside it that no report wrote.
    """
    folders = [RunFolder(run) for run in runs]
    inputs = tuple(
        path for one in folders for path in (one.about, one.manifest, one.records)
    )  # fmt: skip
    check_output(page, inputs, ENDINGS)
    text = markdown_beside(page)
    check_output(text, inputs)
    if text.exists() and not text.read_bytes().startswith(FIRST.encode()):
        raise BadOutput(
            f"cannot write {text}, the Markdown of the report: a file that is no report of sdcorr "
            "has that name; choose another --out"
        )


def write_report(page: Path, report: Report) -> Path:
    """Write the page and, beside it, the Markdown; both or none. Where the Markdown is."""
    text = markdown_beside(page)
    with replacing(page) as one, replacing(text) as other:
        # names of files may hold what is no Unicode
        one.write_bytes(to_html(report).encode("utf-8", "replace"))
        other.write_bytes(to_markdown(report).encode("utf-8", "replace"))
    return text
