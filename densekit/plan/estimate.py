"""What a plan says beyond the execution: hours, cost, disk, and whether the official batch would have fitted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from densekit.plan.certificates import kept_lengths
from densekit.plan.hardware import GIB
from densekit.plan.lengths import average_sample, lengths_of
from densekit.plan.memory import Layout, Memory
from densekit.plan.search import Fixed, Job, Place, fits
from densekit.plan.shapes import shape_of
from densekit.plan.time import Interval
from densekit.recipe.schema import Recipe
from densekit.run.roots import Roots


def job_of(
    recipe: Recipe, roots: Roots | None, fixed: Fixed, measured: Mapping[str, tuple[float, float]] | None
) -> tuple[Job, str]:
    """A recipe with the shapes of its models and its average sample, and where that length comes from.

    Raises UsageError for models whose shape is not known, DataError for a config.json that cannot be read.
    """
    shape = shape_of(recipe, roots)
    lengths = lengths_of(recipe, kept_lengths(recipe, roots) if roots else None)
    sample = average_sample(recipe, lengths, shape.image_tokens)
    return Job(recipe, shape, sample, fixed, measured or {}), lengths.source


def in_gib(memory: Memory) -> dict[str, float]:
    """GiB by part, and `peak`; `host` where an optimiser is offloaded."""
    sizes = {name: size for name, size in memory.parts.items() if size} | {"peak": memory.peak}
    if memory.host:
        sizes["host"] = memory.host
    return {name: round(size / GIB, 2) for name, size in sizes.items()}


def official_batch(job: Job, place: Place, layout: Layout) -> dict[str, Any]:
    """Whether the official scripts' batch per device fits as one row of their engine, worst and average.

    Their engine: ZeRO-2 in stage 1, ZeRO-3 in stage 2, with activation checkpointing.
    """
    samples = job.recipe.reference.per_device_batch_size
    official = replace(
        layout, zero_stage=2 if job.recipe.stage == 1 else 3, checkpointing=True, offload=False
    )  # fmt: skip
    worst, typical = job.worst_memory(official, samples), job.typical_memory(official, samples)
    return {
        "per_device_batch_size": samples,
        "peak_gib": round(worst.peak / GIB, 2),
        "fits": fits(worst, place),
        "average_peak_gib": round(typical.peak / GIB, 2),
        "average_fits": fits(typical, place),
    }


def interval(value: Interval | None, digits: int = 2) -> dict[str, float] | None:
    """Plain values."""
    return None if value is None else {"low": round(value.low, digits), "high": round(value.high, digits)}
