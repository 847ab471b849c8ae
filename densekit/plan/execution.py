"""A recipe and a number of processes become an execution: micro-batches per rank, steps, and what it costs the data."""

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from densekit.batching.micro import split_step
from densekit.batching.order import ReferenceTopology
from densekit.batching.steps import Step, count_steps
from densekit.errors import UsageError
from densekit.recipe.schema import Recipe

DEFAULT_MICRO_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How this machine carries the recipe's math out; it never changes the math.

    `micro_batches` lists, per rank, the samples of each micro-batch in one optimiser step; steps and samples
    are null while the number of samples is not known. `certificate_sha256` stays null until one is computed.
    """

    recipe: str
    gpu: str
    gpus: int
    nodes: int
    micro_batch_size: int
    grad_accum_steps: int
    micro_batches: list[list[int]]
    global_batch_size: int
    num_samples: int | None
    steps: int | None
    samples_dropped: int | None
    samples_repeated: int | None
    certificate_sha256: str | None
    attention: str
    dtype: str
    threads: int
    workers: int
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names of `densekit plan --json`."""
        return asdict(self)


def make_plan(
    recipe: Recipe,
    *,
    gpus: int = 1,
    micro_batch_size: int | None = None,
    workers: int = 0,
    num_samples: int | None = None,
) -> Plan:
    """Plan a recipe on `gpus` CPU processes, each with `workers` processes that read its data (0: it reads itself).

    `num_samples` overrides the count the recipe states.

    Raises UsageError for counts that cannot work.
    """
    total = recipe.global_batch_size
    if not 1 <= gpus <= total:
        raise UsageError(
            f"--gpus {gpus}: {recipe.name} feeds {total} samples per step, so 1 to {total} processes can work"
        )
    if micro_batch_size is not None and micro_batch_size < 1:
        raise UsageError(f"--micro-batch {micro_batch_size}: at least one sample")
    if workers < 0:
        raise UsageError(f"--workers {workers}: 0 (the trainer reads its data itself) or more")
    share = -(-total // gpus)
    micro = min(micro_batch_size or DEFAULT_MICRO_BATCH, share)
    topology = ReferenceTopology.of(recipe.reference.model_dump())
    groups = np.array_split(np.arange(total), topology.groups_per_step)
    split = split_step(Step(index=0, groups=list(groups)), world_size=gpus, micro_batch_size=micro)
    notes = [
        f"order and loss weights follow the reference topology {recipe.reference.gpus} x "
        f"{recipe.reference.per_device_batch_size} x {recipe.reference.grad_accum_steps}, whatever runs it",
        "device cpu: fp32 and SDPA, one process per --gpus",
    ]
    samples = num_samples or recipe.data.samples
    counts = None
    if samples is None:
        notes.append("steps unknown: the annotation file is not here and the recipe states no `data.samples`")
    else:
        optimizer = recipe.optimizer
        counts = count_steps(
            samples,
            topology=topology,
            epochs=None if optimizer.max_steps else optimizer.epochs,
            max_steps=optimizer.max_steps,
        )
    return Plan(
        recipe=recipe.name,
        gpu="cpu",
        gpus=gpus,
        nodes=1,
        micro_batch_size=micro,
        grad_accum_steps=max(len(rank) for rank in split),
        micro_batches=[[len(batch) for batch in rank] for rank in split],
        global_batch_size=total,
        num_samples=samples,
        steps=counts.steps if counts else None,
        samples_dropped=counts.samples_dropped if counts else None,
        samples_repeated=counts.samples_repeated if counts else None,
        certificate_sha256=None,
        attention="sdpa",
        dtype="fp32",
        threads=_threads(recipe, gpus),
        workers=workers,
        notes=notes,
    )


def _threads(recipe: Recipe, processes: int) -> int:
    """CPU threads of a process: one for the tiny models, which are too small to share, else an equal share."""
    if recipe.assets is not None:
        return 1
    return max(1, len(os.sched_getaffinity(0)) // processes)
