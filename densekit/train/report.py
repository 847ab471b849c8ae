"""What a run did, in lines for people."""

from collections.abc import Sequence

from densekit.runs.results import Results, Summary

STALLED = 0.1
"""Share of the time without data above which the report says what to do, ..."""
STALLED_SECONDS = 60
"""... and how long that must have been: starting the workers takes seconds, mended or not."""


def report(results: Results, place: str, ledger: Sequence[str] = ()) -> list[str]:
    """Totals, everything masked, skipped or repeated, and which keys of the `ledger` were followed;
    `place` is the run directory.
    """
    summary = results.summary
    lines = [
        f"{summary.steps} steps, {summary.samples} samples, {summary.tokens} tokens "
        f"({summary.supervised_tokens} with a label) in {summary.seconds:.1f} s; "
        f"loss {_number(summary.first_loss)} -> {_number(summary.last_loss)}"
    ]
    if summary.seconds and summary.compute_seconds:
        lines.append(_waited(summary))
    if summary.masked_samples or summary.empty_groups or summary.notes:
        noted = ", ".join(f"{name} {count}" for name, count in sorted(summary.notes.items()))
        lines.append(
            f"samples without a label: {summary.masked_samples}; reference groups without one: "
            f"{summary.empty_groups}" + (f"; notes: {noted}" if noted else "")
        )
    if summary.overflows:
        lines.append(
            f"fp16 overflows: {summary.overflows}; steps whose batch changed no weight: "
            f"{summary.skipped_steps}"
        )
    return [*lines, *(f"ledger {line}" for line in ledger), f"results in {place}"]


def _waited(summary: Summary) -> str:
    """Who waited for whom."""
    data, compute = (
        seconds / summary.seconds for seconds in (summary.data_seconds, summary.compute_seconds)
    )
    line = (
        f"{summary.tokens / summary.seconds:.0f} tokens/s; computing {compute:.0%} of the time, "
        f"waiting for data {data:.0%}"
    )
    if summary.peak_seconds:
        line += f"; MFU {summary.peak_seconds / summary.seconds:.1%}"
    if data > STALLED and summary.data_seconds > STALLED_SECONDS:
        line += ": the data loader is too slow; give more --workers, or a faster disk"
    return line


def _number(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"
