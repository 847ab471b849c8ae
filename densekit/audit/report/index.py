"""The rows of an index: what can be said of each run of a folder in a few milliseconds."""

import json
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from densekit.audit.report.svg import sparkline
from densekit.errors import DensekitError
from densekit.files.regular import open_regular
from densekit.runs.evaluations import newest_results
from densekit.runs.layout import MATH_FILE, RunDir
from densekit.runs.verdicts import word_of

POINTS = 80
"""Of a curve in the index."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of an index."""

    name: str
    state: str
    steps: str
    loss: str
    curve: Markup
    held_out: str
    verdict: str
    message: str
    page: bool
    """Whether it has a page of its own."""


def folder_rows(runs_dir: Path) -> list[Row]:
    """The runs directly in a folder, by name; a damaged one says so."""
    return [_row(path.parent) for path in sorted(runs_dir.glob(f"*/{MATH_FILE}"))]


def _row(path: Path) -> Row:
    losses, count = sampled_losses(RunDir(path).metrics)
    known = [loss for loss in losses if loss is not None]
    state, message, total, scored, verdict = "damaged", "", None, "", ""
    try:
        total = RunDir(path).total_steps
        _, held_out = newest_results(path).get("held_out", (None, None))
        if held_out is not None and held_out.value is not None:
            scored = f"{held_out.value:.1f}"
        verdict = word_of(path)
        status = RunDir(path).status
        state, message = status.state, status.message
    except DensekitError as error:
        message = str(error)
    return Row(
        name=path.name,
        state=state,
        steps=str(count) if total is None else f"{count}/{total}",
        loss=f"{known[-1]:.4f}" if known else "",
        curve=Markup(sparkline(losses)),
        held_out=scored,
        verdict=verdict,
        message=message,
        page=(path / "report.html").is_file(),
    )


def sampled_losses(metrics: Path) -> tuple[list[float | None], int]:
    """At most POINTS losses of a metrics.jsonl, evenly over its steps, the last among them, and how
    many steps it has. A line that cannot be read is a gap: the run's own page says what is wrong.
    """
    try:
        with open_regular(metrics) as file:
            lines = file.read().splitlines()
    except OSError:
        return [], 0
    stride = max(1, -(-len(lines) // POINTS))
    return [_loss(line) for line in lines[::-1][::stride]][::-1], len(lines)


def _loss(line: bytes) -> float | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    loss = value.get("loss") if isinstance(value, dict) else None
    return float(loss) if isinstance(loss, int | float) else None
