"""A recipe and a number of processes become an execution: micro-batches per rank, steps, and what it costs the data."""

import os
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from densekit.batching.certificate import BatchCertificate
from densekit.batching.counts import official_step_counts
from densekit.batching.micro import split_step
from densekit.batching.order import ReferenceTopology
from densekit.batching.run_order import count_run
from densekit.capability import Attention, Capability, Device, Dtype
from densekit.errors import UsageError
from densekit.plan.precision import ZeroStage, choose_precision
from densekit.recipe.schema import Recipe

DEFAULT_MICRO_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How this machine carries the recipe's math out; it never changes the math."""

    recipe: str
    device: Device
    gpu: str
    gpus: int
    nodes: int
    micro_batch_size: int
    grad_accum_steps: int
    """Micro-batches of every rank in one optimiser step."""
    micro_batches: list[list[int]]
    """Per rank, the samples of each micro-batch in one full optimiser step."""
    global_batch_size: int
    num_samples: int | None
    """Entries of the annotation file; with steps and samples below null while it is not known."""
    steps: int | None
    samples_dropped: int | None
    samples_repeated: int | None
    certificate_sha256: str | None
    """Null until one is computed (`densekit plan --certify`)."""
    attention: Attention
    """Kernel of packed rows: SDPA segment by segment, flash-attn varlen or xformers block-diagonal."""
    dtype: Dtype
    zero_stage: ZeroStage
    """0: one process, or DistributedDataParallel; 2, 3: DeepSpeed."""
    checkpointing: bool
    """Activation checkpointing of the language model."""
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
    device: Device = "cpu",
    dtype: Dtype | None = None,
    attention: Attention | None = None,
    capability: Capability | None = None,
    zero_stage: ZeroStage | None = None,
    activation_checkpointing: bool | None = None,
    num_samples: int | None = None,
    certificate: BatchCertificate | None = None,
) -> Plan:
    """Plan a recipe on `gpus` processes, each with `workers` processes that read its data (0: it reads itself).

    What is None gets a default, with its reason in the notes. `capability` is the compute capability of the GPUs, where
    they are known: it decides number type and kernel. `num_samples` overrides the count the recipe states;
    `certificate` is that of the recipe's batches, where one was computed, and its count comes first.

    Raises UsageError for what cannot work; it names the nearest that can.
    """
    total = recipe.global_batch_size
    if not 1 <= gpus <= total:
        nearest, samples_each = (1, total) if gpus < 1 else (total, 1)
        raise UsageError(
            f"--gpus {gpus}: {recipe.name} feeds {total} samples per step, so 1 to {total} processes can work; "
            f"nearest: --gpus {nearest} ({samples_each} sample{'s' * (samples_each > 1)} each)"
        )
    if micro_batch_size is not None and micro_batch_size < 1:
        raise UsageError(f"--micro-batch {micro_batch_size}: at least one sample; nearest: --micro-batch 1")
    if workers < 0:
        raise UsageError(f"--workers {workers}: 0 (the trainer reads its data itself) or more")
    precision = choose_precision(
        recipe.stage,
        device=device,
        dtype=dtype,
        attention=attention,
        capability=capability,
        zero_stage=zero_stage,
        activation_checkpointing=activation_checkpointing,
    )
    share = -(-total // gpus)
    micro = min(micro_batch_size or DEFAULT_MICRO_BATCH, share)
    # The number of samples in a micro-batch does not depend on their lengths.
    split = split_step([1] * total, world_size=gpus, micro_batch_size=micro)
    notes = [
        f"order and loss weights follow the reference topology {_reference(recipe)}, whatever runs it",
        f"device {device}: one process per --gpus",
        *precision.notes,
    ]
    if micro_batch_size is not None and micro_batch_size > share:
        notes.append(f"--micro-batch {micro_batch_size}: a process has at most {share} samples per step, so {share}")
    samples = certificate.num_samples if certificate else num_samples or recipe.data.samples
    counts = None
    if samples is None:
        notes.append("steps unknown: the annotation file is not here and the recipe states no `data.samples`")
    else:
        counts = count_run(recipe.math(), samples)
        notes.extend(_tail_notes(recipe, samples))
    if certificate:
        notes.append(f"certificate: {certificate.source}")
    return Plan(
        recipe=recipe.name,
        device=device,
        gpu=device,
        gpus=gpus,
        nodes=1,
        micro_batch_size=micro,
        grad_accum_steps=len(split[0]),
        micro_batches=[[len(batch) for batch in rank] for rank in split],
        global_batch_size=total,
        num_samples=samples,
        steps=counts.steps if counts else None,
        samples_dropped=counts.samples_dropped if counts else None,
        samples_repeated=counts.samples_repeated if counts else None,
        certificate_sha256=certificate.sha256 if certificate else None,
        attention=precision.attention,
        dtype=precision.dtype,
        zero_stage=precision.zero_stage,
        checkpointing=precision.checkpointing,
        threads=_threads(recipe, gpus),
        workers=workers,
        notes=notes,
    )


def _reference(recipe: Recipe) -> str:
    reference = recipe.reference
    return f"{reference.gpus} x {reference.per_device_batch_size} x {reference.grad_accum_steps}"


def _tail_notes(recipe: Recipe, samples: int) -> list[str]:
    """What the end of an epoch does to the number of steps, where that is not obvious (docs/upstream.md, U9)."""
    if recipe.semantics_of("U9") == "fixed":
        short = samples % recipe.global_batch_size
        return [f"ledger U9 fixed: the last step of every epoch has {short} samples"] if short else []
    official = official_step_counts(samples, ReferenceTopology.of(recipe.reference.model_dump()))
    if recipe.optimizer.max_steps or len(set(official.values())) == 1:
        return []
    told = [
        f"{steps} with accumulation {', '.join(str(accumulation) for accumulation, _ in same)}"
        for steps, same in groupby(official.items(), key=lambda item: item[1])
    ]
    return [
        f"the official trainer's steps per epoch depend on its accumulation: {'; '.join(told)}; "
        f"counted here with {recipe.reference.grad_accum_steps}"
    ]


def _threads(recipe: Recipe, processes: int) -> int:
    """CPU threads of a process: one for the tiny models, which are too small to share, else an equal share."""
    if recipe.assets is not None:
        return 1
    return max(1, len(os.sched_getaffinity(0)) // processes)
