"""A plan as people read it: one screen, the arithmetic with --why, and what else would fit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from densekit.planner.alternatives import Alternative
from densekit.planner.estimate import interval
from densekit.planner.plan import Plan
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
        values["alternatives"] = [_alternative(one) for one in others]
    return values | ({"why": plan.why} if why else {})


def screen(
    plan: Plan, others: Sequence[Alternative] | None, scores: Mapping[str, float], *, why: bool
) -> Iterator[str]:
    """Lines of a plan; `scores` are the reported ones, `why` adds the arithmetic, `others` where
    else it fits.
    """
    where = f"{plan.execution.world_size} x {plan.gpu}" + (
        f" on {plan.execution.nodes} nodes" if plan.execution.nodes > 1 else ""
    )
    fits = {True: "fits", False: "does NOT fit", None: "whether it fits is not known"}[plan.fits]
    yield f"{plan.recipe} on {where}: {fits}"
    for name, text in _facts(plan):
        yield f"  {name:12} {text}"
    if scores:
        yield f"  {'reported':12} {', '.join(f'{title} {value:g}' for title, value in scores.items())}"
    for note in plan.notes:
        yield f"note: {note}"
    if why:
        for subject, lines in plan.why.items():
            if lines:
                yield f"why, {subject}:"
                yield from (f"  {line}" for line in lines)
    if others and plan.gpu_hours:
        yield from _table(others, Interval(**plan.gpu_hours).middle)


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.memory_gib:
        parts = [
            f"{name} {size:.1f}"
            for name, size in plan.memory_gib.items()
            if name not in ("peak", "host") and size >= 0.01 * plan.memory_gib["peak"]
        ]
        host = (
            f"; {plan.memory_gib['host']:.1f} GiB of main memory per GPU"
            if "host" in plan.memory_gib
            else ""
        )
        yield (
            "memory",
            f"{plan.memory_gib['peak']:.1f} GiB in a worst-case row: {', '.join(parts)}{host}",
        )
    engine = (
        f"ZeRO-{plan.execution.zero_stage}"
        if plan.execution.zero_stage
        else "DDP"
        if plan.execution.world_size > 1
        else "no sharding"
    )
    engine += ", offload" if plan.execution.cpu_offload else ""
    recompute = (
        f"activation checkpointing {'on' if plan.execution.activation_checkpointing else 'off'}"
    )
    yield (
        "execution",
        f"{engine}, {recompute}, {plan.execution.dtype}, {plan.execution.attention} attention; image {plan.image or 'unknown'}",
    )
    rows = f"{len(plan.micro_batches[0])} row{'s' * (len(plan.micro_batches[0]) > 1)} of up to {plan.execution.micro_batch_size}"
    yield "step", f"{plan.global_batch_size} samples: on every process {rows}"
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
        parts = [f"{name} {size:.1f}" for name, size in plan.disk_parts_gib.items() if size >= 0.05]
        yield "disk", f"{plan.disk_gib:.1f} GiB" + (f": {', '.join(parts)}" if parts else "")
    if plan.official_batch:
        yield "official", _official(plan.official_batch)
    if plan.execution.certificate_sha256:
        yield "certificate", plan.execution.certificate_sha256


def _official(batch: dict[str, Any]) -> str:
    average = f"an average row takes {batch['average_peak_gib']:.1f} GiB and {_yes(batch['average_fits'])}"
    worst = f"a worst-case row {batch['peak_gib']:.1f} GiB and {_yes(batch['fits'])}"
    return f"their {batch['per_device_batch_size']} samples per device: {average}, {worst}"


def _yes(fits: bool) -> str:
    return "fits" if fits else "does not fit"


def _range(value: dict[str, float]) -> str:
    return f"{_figure(value['low'])} to {_figure(value['high'])}"


def _figure(value: float) -> str:
    """With one decimal, or two digits where it is less than one."""
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def _table(found: Sequence[Alternative], own: float) -> Iterator[str]:
    """What else fits, beside `own`, the hours of all GPUs of the plan together."""
    yield "what fits, fewest GPU-hours first:"
    yield f"  {'GPU':12} {'GPUs':>4} {'nodes':>5}  {'GiB':>6}  {'hours':>14}  {'GPU-hours':>17}  against this plan"
    for one in found:
        place, hours, all_hours = one.candidate.place, one.hours, one.gpu_hours
        peak = one.candidate.memory.peak / GIB
        how = ", offload" if one.candidate.layout.offload else ""
        span = f"{_figure(hours.low)} to {_figure(hours.high)}"
        spent = f"{_figure(all_hours.low)} to {_figure(all_hours.high)}"
        against = f"x {all_hours.middle / own:.2f}{how}"
        numbers = f"{place.gpus:4} {place.nodes:5}  {peak:6.1f}  {span:>14}  {spent:>17}  {against}"
        yield f"  {place.hardware.name:12} {numbers}"


def _alternative(one: Alternative) -> dict[str, Any]:
    candidate, place = one.candidate, one.candidate.place
    return {
        "gpu": place.hardware.name,
        "gpus": place.gpus,
        "nodes": place.nodes,
        "zero_stage": candidate.layout.zero_stage,
        "checkpointing": candidate.layout.checkpointing,
        "offload": candidate.layout.offload,
        "micro_batch_size": candidate.micro_batch_size,
        "peak_gib": round(candidate.memory.peak / GIB, 2),
        "hours": interval(one.hours),
        "gpu_hours": interval(one.gpu_hours),
    }
