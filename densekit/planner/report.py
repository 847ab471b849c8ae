"""A plan as people read it: one screen, the arithmetic with --why, and what else would fit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from densekit.planner.alternatives import Alternative
from densekit.planner.estimate import OfficialBatch
from densekit.planner.plan import MemoryGib, Plan
from densekit.planner.time import Interval
from densekit.spec.hardware import GIB


def as_json(
    plan: Plan, others: Sequence[Alternative] | None, scores: Mapping[str, float], *, why: bool
) -> dict[str, Any]:
    """A plan for programs, with `alternatives` where they were looked for, and with `why` the
    arithmetic.
    """
    values = plan.as_json() | {"reported": dict(scores)}
    if others is not None:
        values["alternatives"] = [alternative.as_json() for alternative in others]
    return values | ({"why": plan.why_as_json()} if why else {})


def lines(
    plan: Plan, others: Sequence[Alternative] | None, scores: Mapping[str, float], *, why: bool
) -> Iterator[str]:
    """A plan for people; `scores` are the reported ones, `why` adds the arithmetic, `others` what
    else it fits on.
    """
    nodes = plan.execution.nodes
    where = f"{plan.execution.world_size} x {plan.gpu}" + (
        f" on {nodes} nodes" if nodes > 1 else ""
    )
    fits = {True: "fits", False: "does NOT fit", None: "whether it fits is unknown"}[plan.fits]
    yield f"{plan.recipe} on {where}: {fits}"
    for name, text in _facts(plan):
        yield f"  {name:12} {text}"
    if scores:
        words = ", ".join(f"{title} {value:g}" for title, value in scores.items())
        yield f"  {'reported':12} {words}"
    for line in plan.ledger:
        yield f"  {'ledger':12} {line}"
    for note in plan.notes:
        yield f"note: {note}"
    if why:
        for subject, arithmetic in plan.why.items():
            if arithmetic:
                yield f"why, {subject}:"
                yield from (f"  {line}" for line in arithmetic)
    if others and plan.gpu_hours:
        yield from _table(others, plan.gpu_hours.geometric_mean)


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    execution = plan.execution
    if plan.memory_gib:
        yield "memory", _memory(plan.memory_gib)
    container = f"container image {plan.container_image or 'unknown'}"
    yield "execution", f"{', '.join(execution.settings())}; {container}"
    count, size = plan.micro_batches_per_step, execution.micro_batch_size
    micro_batches = f"{count} micro-batch{'es' if count > 1 else ''} of up to {size}"
    if execution.tokens_per_micro_batch is not None:
        micro_batches += f" and {execution.tokens_per_micro_batch} tokens"
    yield "step", f"{plan.global_batch_size} samples: on every process {micro_batches}"
    if plan.steps is None:
        yield "steps", "unknown"
    else:
        tail = f"{plan.samples_repeated} samples repeated, {plan.samples_dropped} dropped"
        yield "steps", f"{plan.steps} over {plan.num_samples} samples; {tail}"
    if plan.hours and plan.gpu_hours:
        yield "hours", f"{_range(plan.hours)} ({_range(plan.gpu_hours)} GPU-hours)"
    if plan.cost:
        yield "cost", _range(plan.cost)
    if plan.disk_gib is not None and plan.disk_parts_gib:
        parts = _parts(plan.disk_parts_gib, plan.disk_gib, least=0.05)
        yield "disk", f"{plan.disk_gib:.1f} GiB" + (f": {parts}" if parts else "")
    if plan.official_batch:
        yield "official", _official(plan.official_batch)
    if execution.certificate_sha256:
        yield "certificate", execution.certificate_sha256


def _memory(gib: MemoryGib) -> str:
    parts = _parts(gib.parts, gib.peak, least=max(0.05, 0.01 * gib.peak))
    host = "" if gib.host is None else f"; {gib.host:.1f} GiB of host RAM per GPU"
    return f"{gib.peak:.1f} GiB in a worst-case micro-batch{f': {parts}' if parts else ''}{host}"


def _parts(gib: Mapping[str, float], total: float, *, least: float) -> str:
    """The parts with one decimal, those below `least` as `other`; they add up to the total as it is
    printed.
    """
    shown = {name: size for name, size in gib.items() if size >= least}
    tenths = {name: round(10 * size) for name, size in shown.items()}
    rest = round(10 * total) - sum(tenths.values())
    if (other := total - sum(shown.values())) >= 0.05:
        tenths["other"] = max(1, round(10 * other))
        rest -= tenths["other"]
    # What rounding adds or takes is left to the largest parts, a tenth each.
    for name in sorted(tenths, key=lambda name: -tenths[name])[: abs(rest)]:
        tenths[name] += 1 if rest > 0 else -1
    return ", ".join(f"{name} {count / 10:.1f}" for name, count in tenths.items())


def _official(batch: OfficialBatch) -> str:
    def verdict(peak: float, fits: bool) -> str:
        return f"{peak:.1f} GiB and {'fits' if fits else 'does not fit'}"

    return (
        f"{batch.per_device_batch_size} samples per device: an average micro-batch takes "
        f"{verdict(batch.average_peak_gib, batch.average_fits)}, a worst-case one "
        f"{verdict(batch.peak_gib, batch.fits)}"
    )


def _range(value: Interval) -> str:
    """Both ends as `densekit plan --json` rounds them."""
    ends = value.as_json()
    return f"{_figure(ends['low'])} to {_figure(ends['high'])}"


def _figure(value: float) -> str:
    """Of a value of three digits: no decimal from 100 on, two digits below one."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def _table(others: Sequence[Alternative], own: float) -> Iterator[str]:
    """What else fits, beside `own`, the hours of all GPUs of the plan together."""
    yield "what fits, fewest GPU-hours first"
    yield "(by the geometric mean of both ends; ratio: that mean to this plan's):"
    yield (
        f"  {'GPU':11} {'GPUs':>4} {'nodes':>5} {'GiB':>5}  {'hours':>13}  {'GPU-hours':>15}  "
        f"{'ratio':>5}"
    )
    for other in others:
        execution, peak = other.candidate.execution, other.candidate.memory.peak / GIB
        offload = "  offload" if execution.cpu_offload else ""
        ratio = other.gpu_hours.geometric_mean / own
        yield (
            f"  {execution.gpu:11} {execution.world_size:4} {execution.nodes:5} {peak:5.1f}  "
            f"{_range(other.hours):>13}  {_range(other.gpu_hours):>15}  {ratio:5.2f}{offload}"
        )
