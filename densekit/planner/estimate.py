"""What a plan says beyond the execution: hours, cost, disk, and whether the official batch would
have fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from densekit.batching.run_order import count_run
from densekit.planner.certificates import kept_lengths
from densekit.planner.disk import Disk, disk_of
from densekit.planner.lengths import average_sample, lengths_of
from densekit.planner.memory import Layout, Memory
from densekit.planner.search import Candidate, Job, Place, fits
from densekit.planner.time import Interval
from densekit.spec.architectures import shape_of
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import GIB
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.types import Device


def job_of(
    recipe: Recipe,
    roots: Roots | None,
    request: ExecutionRequest,
    measured: Mapping[str, tuple[float, float]] | None,
) -> Job:
    """A recipe with the shapes of its models and its average sample.

    Raises UsageError for models whose shape is not known, DataError for a config.json that cannot
    be read.
    """
    shape = shape_of(recipe, roots)
    lengths = lengths_of(recipe, kept_lengths(recipe, roots) if roots else None)
    sample = average_sample(recipe, lengths, shape.image_tokens)
    return Job(recipe, shape, sample, lengths.source, request, measured or {})


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a plan says beyond the execution."""

    hours: Interval | None = None
    disk: Disk | None = None
    official: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    why: dict[str, list[str]] = field(default_factory=dict)


def estimated(
    recipe: Recipe,
    job: Job | None,
    candidate: Candidate | None,
    layout: Layout,
    *,
    steps: int | None,
    keep: int,
    device: Device,
) -> Estimate:
    """Disk where the models' shapes are known; hours and the official batch where the GPU is known
    too.
    """
    if job is None:
        return Estimate()
    disk = disk_of(
        recipe,
        job.shape,
        trained=job.trained,
        dtype=layout.dtype,
        keep=keep,
        image=device == "cuda",
    )
    notes, why = list(disk.notes), {"disk": disk.lines()}
    if candidate is None:
        return Estimate(disk=disk, notes=notes, why=why)
    counted, told = steps_for_hours(recipe, steps)
    return Estimate(
        hours=candidate.expected.seconds.times(counted / 3600) if counted else None,
        disk=disk,
        official=official_batch(job, candidate.place, layout),
        notes=[f"hours: {job.lengths}", *told, *notes],
        why={"time": candidate.expected.lines(), **why},
    )


def in_gib(memory: Memory) -> dict[str, float]:
    """GiB by part, and `peak`; `host` where an optimiser is offloaded."""
    sizes = {name: size for name, size in memory.parts.items() if size} | {"peak": memory.peak}
    if memory.host:
        sizes["host"] = memory.host
    return {name: round(size / GIB, 2) for name, size in sizes.items()}


def official_batch(job: Job, place: Place, layout: Layout) -> dict[str, Any]:
    """Whether the official scripts' batch per device fits as one row of their engine, worst and
    average.

    Their engine: ZeRO-2 in stage 1, ZeRO-3 in stage 2, with activation checkpointing.
    """
    samples = job.recipe.reference.per_device_batch_size
    official = replace(
        layout, zero_stage=2 if job.recipe.stage == 1 else 3, checkpointing=True, offload=False
    )
    worst, typical = job.worst_memory(official, samples), job.typical_memory(official, samples)
    return {
        "per_device_batch_size": samples,
        "peak_gib": round(worst.peak / GIB, 2),
        "fits": fits(worst, place),
        "average_peak_gib": round(typical.peak / GIB, 2),
        "average_fits": fits(typical, place),
    }


def steps_for_hours(recipe: Recipe, steps: int | None) -> tuple[int | None, list[str]]:
    """Steps that hours are counted with, and a note where they are estimated; None where nothing is
    published.
    """
    estimate = recipe.data.samples_estimate
    if steps is not None or estimate is None:
        return steps, []
    counts = count_run(recipe.math(), estimate)
    return counts.steps, [f"hours: about {estimate} samples are assumed, {counts.steps} steps"]


def interval(value: Interval | None) -> dict[str, float] | None:
    """Plain values of three digits."""
    return (
        None
        if value is None
        else {"low": float(f"{value.low:.3g}"), "high": float(f"{value.high:.3g}")}
    )
