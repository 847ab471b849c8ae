"""What a plan says beyond the execution: hours, disk, and whether the official batch would fit."""

from dataclasses import asdict, dataclass, field
from typing import Any

from densekit.batching.run_length import count_run
from densekit.planner.candidates import worst_memory
from densekit.planner.cluster import Cluster
from densekit.planner.disk import Disk, disk_of
from densekit.planner.memory import memory_of
from densekit.planner.search import Decision
from densekit.planner.time import Interval
from densekit.planner.workload import Workload
from densekit.spec.execution import Execution
from densekit.spec.hardware import GIB
from densekit.spec.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class OfficialBatch:
    """The official scripts' samples per device, as one micro-batch of their engine on this GPU."""

    per_device_batch_size: int
    peak_gib: float
    """Of the worst case, ..."""
    fits: bool
    average_peak_gib: float
    """... and of average samples."""
    average_fits: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names of `densekit plan --json`."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Hours, disk and the official batch; None where they are not known."""

    hours: Interval | None = None
    disk: Disk | None = None
    official: OfficialBatch | None = None
    notes: list[str] = field(default_factory=list)
    why: dict[str, list[str]] = field(default_factory=dict)


def estimate(
    recipe: Recipe, workload: Workload | None, decision: Decision, *, steps: int | None, keep: int
) -> Estimate:
    """Disk where the models' shapes are known; hours and the official batch where the GPU is known
    too.
    """
    if workload is None:
        return Estimate()
    disk = disk_of(
        recipe,
        workload.model,
        dtype=decision.execution.dtype,
        keep=keep,
        container_image=decision.execution.device == "cuda",
    )
    notes, why = list(disk.notes), {"disk": disk.lines()}
    candidate = decision.candidate
    if candidate is None:
        return Estimate(disk=disk, notes=notes, why=why)
    counted, steps_notes = steps_for_hours(recipe, steps)
    return Estimate(
        hours=candidate.expected.seconds.times(counted / 3600) if counted else None,
        disk=disk,
        official=_official_batch(
            workload, candidate.cluster, candidate.execution, stage=recipe.stage
        ),
        notes=[f"hours: {workload.lengths}", *steps_notes, *notes],
        why={"time": candidate.expected.lines(), **why},
    )


def _official_batch(
    workload: Workload, cluster: Cluster, execution: Execution, *, stage: int
) -> OfficialBatch:
    """Their engine: ZeRO-2 in stage 1, ZeRO-3 in stage 2, with activation checkpointing."""
    samples = workload.official_batch_size
    official = execution.model_copy(
        update={
            "zero_stage": 2 if stage == 1 else 3,
            "activation_checkpointing": True,
            "cpu_offload": False,
        }
    )
    worst = worst_memory(workload, official, samples)
    typical = memory_of(workload.model, official, workload.typical_micro_batch(samples))
    return OfficialBatch(
        per_device_batch_size=samples,
        peak_gib=round(worst.peak / GIB, 2),
        fits=cluster.excess(worst) <= 0,
        average_peak_gib=round(typical.peak / GIB, 2),
        average_fits=cluster.excess(typical) <= 0,
    )


def steps_for_hours(recipe: Recipe, steps: int | None) -> tuple[int | None, list[str]]:
    """Steps that hours are counted with, and a note where they are estimated; None where nothing is
    published.
    """
    samples = recipe.data.samples_estimate
    if steps is not None or samples is None:
        return steps, []
    counts = count_run(recipe.math(), samples)
    return counts.steps, [f"hours: about {samples} samples are assumed, {counts.steps} steps"]
