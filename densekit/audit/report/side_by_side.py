"""Curves of runs side by side: one page of nothing else, and a line of signs for a terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.audit.report.curves import compared_charts
from densekit.audit.report.gather import scrubber_of
from densekit.audit.report.page import render, told_apart, write_page
from densekit.audit.report.svg import smoothed
from densekit.audit.run_reader import RecordedRun, read_run
from densekit.errors import DataError, UsageError
from densekit.runs.layout import MATH_FILE
from densekit.runs.recent import Recent
from densekit.runs.records import METRICS_FILE

CURVES_FILE = "curves.html"
MOST = 8
"""Runs in common axes: a page has so many colours."""
HEIGHTS = "▁▂▃▄▅▆▇█"
WIDTH = 24
"""Signs of a curve on a terminal."""


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """One run, as a terminal shows it."""

    name: str
    steps: int
    first_loss: float | None
    last_loss: float | None
    """Smoothed."""
    curve: str
    """The smoothed loss, a sign for each of WIDTH stretches; a blank where none is finite."""
    recent: Recent


def newest_runs(runs_dir: Path) -> list[Path]:
    """The runs of a folder whose steps were written last, at most MOST. Raises DataError where none
    has a step.
    """
    found = [
        path.parent
        for path in runs_dir.glob(f"*/{METRICS_FILE}")
        if (path.parent / MATH_FILE).is_file() and path.stat().st_size
    ]
    if not found:
        raise DataError(f"no run in {runs_dir} has a step on record; `densekit run` trains one")
    return sorted(found, key=lambda run: (run / METRICS_FILE).stat().st_mtime)[-MOST:]


def write_curves(runs: Sequence[Path], to: Path) -> list[RunCurve]:
    """The page `to`: loss, learning rate, gradient norm and speed of runs in common axes, from
    their steps alone. Returns them for a terminal.

    Raises UsageError for too many, DataError for what is no run directory, and for a run whose
    steps cannot be read or are none.
    """
    if len(runs) > MOST:
        raise UsageError(f"{len(runs)} runs are too many for one page: give at most {MOST}")
    found = [_read(run) for run in runs]
    names = told_apart([run.path.resolve().name for run in found])
    rows = [_row(name, run) for name, run in zip(names, found, strict=True)]
    charts = list(compared_charts(list(zip(names, found, strict=True))))
    values = {"rows": rows, "charts": charts}
    write_page(to, render("curves.html", scrubber_of(*found), values))
    return rows


def _read(path: Path) -> RecordedRun:
    run = read_run(path)
    if (error := run.damage.get(METRICS_FILE)) is not None:
        raise error
    if not run.steps:
        raise DataError(f"{path} has no step on record yet")
    return run


def _row(name: str, run: RecordedRun) -> RunCurve:
    mean = smoothed([step.loss for step in run.steps])
    return RunCurve(
        name=name,
        steps=len(run.steps),
        first_loss=run.steps[0].loss,
        last_loss=mean[-1],
        curve=signs(mean),
        recent=Recent.of(run.steps),
    )


def signs(values: Sequence[float | None], width: int = WIDTH) -> str:
    """A curve in block signs, between its own lowest and highest mean of a stretch."""
    size = max(1, math.ceil(len(values) / width))
    means = [_mean(values[start : start + size]) for start in range(0, len(values), size)]
    known = [mean for mean in means if mean is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)

    def sign(mean: float) -> str:
        share = (mean - low) / span if span > 0 else 0.0
        return HEIGHTS[min(len(HEIGHTS) - 1, int(share * len(HEIGHTS)))]

    return "".join(" " if mean is None else sign(mean) for mean in means)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None
