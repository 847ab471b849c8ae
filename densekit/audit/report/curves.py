"""The curves of a run, and the tables of its time and of what its batches were made of."""

import math
from collections.abc import Callable, Iterator, Sequence

from densekit.audit.report.facts import Chart, Fact, Section, Series
from densekit.audit.report.svg import smoothed
from densekit.audit.run_reader import RecordedRun
from densekit.runs.progress import clock
from densekit.runs.records import FEED_FILE, METRICS_FILE, StepRecord

Value = Callable[[StepRecord], float | None]
CURVES: dict[str, tuple[str, Value]] = {
    "Loss": ("", lambda step: step.loss),
    "Learning rate": ("", lambda step: step.lr),
    "Gradient norm": ("before clipping", lambda step: step.grad_norm),
    "Throughput": ("tokens/s of all ranks", lambda step: step.tokens_per_second or None),
    "MFU": ("share of all GPUs' dense peak", lambda step: step.mfu),
    "GPU memory": ("GiB, the most of each step on rank 0", lambda step: step.peak_memory_gib),
}
SMOOTHED = ("Loss", "Throughput", "MFU")
MEASURED = ("Throughput", "MFU", "GPU memory")
WIDE = 100.0
"""Ratio of highest to lowest gradient norm from which its axis is logarithmic."""


def run_charts(run: RecordedRun) -> Iterator[Chart]:
    """The curves of one run."""
    if not run.steps:
        return
    numbers = tuple(step.step for step in run.steps)
    for title, (unit, value) in CURVES.items():
        values = tuple(value(step) for step in run.steps)
        if title in MEASURED and not any(values):
            continue  # not measured: on a CPU, or by an earlier version
        series = [Series(label="each step", steps=numbers, values=values)]
        if title in SMOOTHED:
            mean = Series(label="smoothed", steps=numbers, values=smoothed(values))
            series = [Series(label="each step", steps=numbers, values=values, faint=True), mean]
        log = title == "Gradient norm" and _is_wide(values)
        chart = Chart(title=title, series=tuple(series), file=METRICS_FILE, unit=unit, log=log)
        yield chart
    if any(step.compute_seconds for step in run.steps):
        yield Chart(
            title="Time of a step",
            unit="s",
            file=METRICS_FILE,
            series=(
                _series("computing", numbers, [step.compute_seconds for step in run.steps], 0),
                _series("waiting for data", numbers, [step.data_seconds for step in run.steps], 1),
            ),
        )
    yield Chart(
        title="Tokens of a step",
        file=METRICS_FILE,
        series=(
            _series("all", numbers, [step.tokens for step in run.steps], 0),
            _series("with a label", numbers, [step.supervised_tokens for step in run.steps], 1),
        ),
    )


def compared_charts(runs: Sequence[tuple[str, RecordedRun]]) -> Iterator[Chart]:
    """The curves of several runs in common axes, a colour a run."""
    known = [(number, name, run) for number, (name, run) in enumerate(runs) if run.steps]
    for title, (unit, value) in CURVES.items():
        series = []
        for number, name, run in known:
            values = tuple(value(step) for step in run.steps)
            shown = smoothed(values) if title in SMOOTHED else values
            steps = tuple(step.step for step in run.steps)
            series.append(Series(label=name, steps=steps, values=shown, colour=number))
        note = ", ".join(part for part in (unit, "smoothed" * (title in SMOOTHED)) if part)
        log = title == "Gradient norm" and _is_wide([v for s in series for v in s.values])
        if series and any(any(each.values) for each in series):
            yield Chart(title=title, series=tuple(series), file=METRICS_FILE, unit=note, log=log)


def time_section(run: RecordedRun) -> Section:
    """Where the time went, over the steps on record."""
    steps = run.steps
    total = sum(step.seconds for step in steps)
    compute = sum(step.compute_seconds for step in steps)
    data = sum(step.data_seconds for step in steps)
    facts = [_fact("time of the steps", _time(total))]
    if 0 < total < math.inf:
        tokens, samples = sum(s.tokens for s in steps), sum(s.samples for s in steps)
        facts += [
            _fact("mean step", f"{total / len(steps):.3g} s"),
            _fact("throughput", f"{tokens / total:,.0f} tokens/s, {samples / total:.3g} samples/s"),
        ]
    if 0 < compute <= total < math.inf:
        rest = max(0.0, total - compute - data)
        facts += [
            _fact("computing", f"{_time(compute)} ({compute / total:.0%})"),
            _fact("waiting for data", f"{_time(data)} ({data / total:.0%})"),
            _fact("saving and the rest", f"{_time(rest)} ({rest / total:.0%})"),
        ]
    return Section(title="Time", facts=tuple(facts))


def batch_section(run: RecordedRun) -> Section:
    """What the batches were made of, over the steps on record."""
    steps = run.steps
    tokens, labels = sum(s.tokens for s in steps), sum(s.supervised_tokens for s in steps)
    facts = [
        _fact("steps", f"{len(steps):,}"),
        _fact("samples", f"{sum(step.samples for step in steps):,}"),
        _fact("tokens, image features included", f"{tokens:,}"),
        _fact("label positions", f"{labels:,} ({labels / tokens:.1%})" if tokens else "0"),
        _fact("samples without a label", f"{sum(step.masked_samples for step in steps):,}"),
        _fact("fp16 overflows", f"{sum(step.overflows for step in steps):,}"),
        _fact("steps that changed no weight", f"{sum(not s.updated for s in steps):,}"),
    ]
    if fed := [image for step in run.feed for image in step.images]:
        pictures = [image for image in fed if image is not None]
        share = f"{len(pictures):,} ({len(pictures) / len(fed):.0%})"
        facts += [
            Fact(
                label="samples with an image",
                value=f"{share}, {len(set(pictures)):,} of them different",
                file=FEED_FILE,
            ),
            Fact(label="text only", value=f"{len(fed) - len(pictures):,}", file=FEED_FILE),
        ]
    return Section(title="Batches", facts=tuple(facts))


def loss_facts(run: RecordedRun) -> Iterator[Fact]:
    """The losses at both ends."""
    if run.steps:
        first, last = run.steps[0].loss, run.steps[-1].loss
        yield _fact("loss, first and last step", f"{_number(first)} and {_number(last)}")
        mean = smoothed([step.loss for step in run.steps])[-1]
        yield _fact("loss, smoothed at the end", _number(mean))


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _time(seconds: float) -> str:
    return clock(seconds) if math.isfinite(seconds) else "not on record"


def _fact(label: str, value: str) -> Fact:
    return Fact(label=label, value=value, file=METRICS_FILE)


def _series(label: str, steps: tuple[int, ...], values: Sequence[float], colour: int) -> Series:
    return Series(label=label, steps=steps, values=tuple(values), colour=colour)


def _is_wide(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None and 0 < value < float("inf")]
    return bool(known) and max(known) > WIDE * min(known)
