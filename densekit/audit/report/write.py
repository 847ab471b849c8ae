"""Writes pages: one run's into its directory, those of several runs or of a folder beside them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from densekit.audit.diff.compare import compare_runs
from densekit.audit.report.curves import compared_charts
from densekit.audit.report.gather import gather, scrubber_of
from densekit.audit.report.index import folder_rows
from densekit.audit.report.page import render, told_apart, write_page
from densekit.audit.report.privacy import Scrubber
from densekit.audit.run_reader import RecordedRun
from densekit.audit.wording import count_of
from densekit.errors import DensekitError, UsageError

REPORT_FILE = "report.html"
COMPARISON_FILE = "comparison.html"
MOST_COMPARED = 8
"""Runs on one page: it has so many colours."""


def write_report(run: Path, to: Path | None = None) -> Path:
    """The page of one run, in its directory unless `to` is another file; returns where it is.

    A damaged or unfinished run gives a page that says so. Raises DataError where `run` is no run
    directory, OSError where the page cannot be written.
    """
    report, recorded = gather(run)
    target = to or run / REPORT_FILE
    linked = "./" if target.parent.resolve() == run.resolve() else ""
    values = {"report": report, "linked": linked}
    return write_page(target, render("run.html", scrubber_of(recorded), values))


def keep_report(run: Path) -> None:
    """Write the page of a run at its end. Whatever keeps it from being written goes to stderr: the
    run itself is whole.
    """
    try:
        write_report(run)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        print(f"{run / REPORT_FILE} was not written ({why})", file=sys.stderr)


def write_comparison(runs: Sequence[Path], to: Path) -> Path:
    """One page of several runs: where they diverge from the first, their curves in common axes, and
    each one's page below. Raises UsageError for too many, DataError for what is no run directory.
    """
    if len(runs) > MOST_COMPARED:
        raise UsageError(
            f"{len(runs)} runs are too many for one page: give at most {MOST_COMPARED}, or --all "
            "for an index"
        )
    found = [gather(run) for run in runs]
    reports = [report for report, _ in found]
    recorded = [run for _, run in found]
    names = told_apart([report.name for report in reports])
    values = {
        "reports": reports,
        "steps": [len(run.steps) for run in recorded],
        "losses": [_last_loss(run) for run in recorded],
        "divergences": [
            (f"{names[0]} and {names[number]}", _divergence(runs[0], run))
            for number, run in enumerate(runs[1:], start=1)
        ],
        "charts": list(compared_charts(list(zip(names, recorded, strict=True)))),
        "linked": [_link(run, to) for run in runs],
    }
    return write_page(to, render("compared.html", scrubber_of(*recorded), values))


def write_index(runs_dir: Path, to: Path | None = None) -> Path:
    """The index of the runs of a folder, in it unless `to` is another file; returns where it is."""
    rows = folder_rows(runs_dir)
    folders = dict.fromkeys((runs_dir.absolute(), runs_dir.resolve()), "runs")
    scrub = Scrubber({Path.home(): "~", **folders})
    values = {"rows": rows, "counted": count_of(len(rows), "run")}
    return write_page(to or runs_dir / REPORT_FILE, render("index.html", scrub, values))


def _divergence(first: Path, other: Path) -> list[str]:
    try:
        return compare_runs(first, other).report()
    except DensekitError as error:
        return [f"not compared: {error}"]


def _last_loss(run: RecordedRun) -> str:
    loss = run.steps[-1].loss if run.steps else None
    return "" if loss is None else f"{loss:.4f}"


def _link(run: Path, to: Path) -> str:
    """The beginning of links to a run's files from a page beside the run; empty elsewhere."""
    return f"{run.resolve().name}/" if run.resolve().parent == to.parent.resolve() else ""
