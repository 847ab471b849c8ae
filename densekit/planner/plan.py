"""A recipe and hardware become an execution: micro-batches per rank, steps, memory, hours, and what
is dropped.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from densekit.batching.certificate import BatchCertificate
from densekit.batching.run_order import count_run
from densekit.batching.split import split_step
from densekit.errors import UsageError
from densekit.planner.estimate import estimated, in_gib, interval
from densekit.planner.layout import job_if_known, ruled, searched
from densekit.planner.notes import reference_notes, tail_notes
from densekit.planner.precision import ZeroStage
from densekit.planner.search import NOTHING, Fixed, Place
from densekit.spec.capability import Attention, Device, Dtype, image_for
from densekit.spec.hardware import Hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How this machine carries the recipe's math out; it never changes the math."""

    recipe: str
    device: Device
    gpu: str
    """Name in the hardware table; `cpu`, or `cuda` for a GPU that nobody named."""
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
    image: str | None
    """Name of the container image; null where no image has kernels for the GPU, or the GPU is not
    known.
    """
    attention: Attention
    """Kernel of packed rows: SDPA segment by segment, flash-attn varlen or xformers block-diagonal.
    """
    dtype: Dtype
    zero_stage: ZeroStage
    """0: one process, or DistributedDataParallel; 2, 3: DeepSpeed."""
    checkpointing: bool
    """Activation checkpointing of the language model."""
    offload: bool
    """AdamW and its moments in main memory."""
    memory_gib: dict[str, float] | None
    """Of one GPU (or process) in a worst-case row, by part, and `peak`; null where the models'
    shapes are not known.
    """
    fits: bool | None
    """Null where it cannot be said."""
    hours: dict[str, float] | None
    gpu_hours: dict[str, float] | None
    cost: dict[str, float] | None
    disk_gib: float | None
    disk_parts_gib: dict[str, float] | None
    official_batch: dict[str, Any] | None
    """Whether the official scripts' batch per device would fit on this GPU."""
    threads: int
    workers: int
    notes: list[str]
    why: dict[str, list[str]] = field(repr=False)
    """The arithmetic, by subject (`densekit plan --why`)."""

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names of `densekit plan --json`."""
        values = asdict(self)
        del values["why"]
        return values


def make_plan(
    recipe: Recipe,
    fixed: Fixed = NOTHING,
    *,
    gpus: int = 1,
    nodes: int = 1,
    workers: int = 0,
    device: Device = "cpu",
    hardware: Hardware | None = None,
    num_samples: int | None = None,
    certificate: BatchCertificate | None = None,
    roots: Roots | None = None,
    measured: Mapping[str, tuple[float, float]] | None = None,
    keep: int = 2,
    price: float | None = None,
) -> Plan:
    """Plan a recipe on `gpus` processes of `nodes` nodes, each with `workers` processes that read
    its data (0: itself).

    What `fixed` leaves open is chosen, with its reason in the notes: on `hardware`, the kind of the
    GPUs, by what fits and is fastest; on a CPU or on a GPU that is not known by fixed rules.
    `num_samples` overrides the count the recipe states; `certificate` is that of the recipe's
    batches, where one was computed, and its count comes first. `roots` are searched for the models'
    shapes, `measured` is the efficiency of earlier runs by kind of GPU, `keep` the number of
    checkpoints kept, `price` that of one GPU for an hour.

    Raises UsageError for what cannot work; it names the nearest that can.
    """
    _check(recipe, fixed, gpus=gpus, nodes=nodes, workers=workers, keep=keep, price=price)
    notes = reference_notes(recipe, device)
    job, unknown = job_if_known(recipe, roots, fixed, measured)
    if job is not None and hardware is not None and device == "cuda":
        sized = searched(job, Place(hardware=hardware, gpus=gpus, nodes=nodes))
    else:
        capability = hardware.capability if hardware else None
        sized = ruled(
            recipe, job, fixed, device=device, gpus=gpus, nodes=nodes, capability=capability
        )
    layout = sized.layout
    notes += [*sized.notes, *unknown]
    # The number of samples in a micro-batch does not depend on their lengths.
    total = recipe.global_batch_size
    split = split_step([1] * total, world_size=gpus, micro_batch_size=sized.micro_batch_size)
    share = -(-total // gpus)
    if fixed.micro_batch_size is not None and fixed.micro_batch_size > share:
        notes.append(
            f"--micro-batch {fixed.micro_batch_size}: a process has at most {share} samples per step, so {share}"
        )

    samples = certificate.num_samples if certificate else num_samples or recipe.data.samples
    counts = None
    if samples is None:
        notes.append(
            "steps unknown: the annotation file is not here and the recipe states no `data.samples`"
        )
    else:
        counts = count_run(recipe.math(), samples)
        notes.extend(tail_notes(recipe, samples))
    if certificate:
        notes.append(f"certificate: {certificate.source}")

    beyond = estimated(
        recipe,
        job,
        sized.candidate,
        layout,
        steps=counts.steps if counts else None,
        keep=keep,
        device=device,
    )
    notes += beyond.notes
    hours = beyond.hours
    why = {
        "layouts": [one.line() for one in sized.candidates],
        "memory": sized.memory.lines() if sized.memory else [],
        **beyond.why,
    }
    return Plan(
        recipe=recipe.name,
        device=device,
        gpu=hardware.name if hardware and device == "cuda" else device,
        gpus=gpus,
        nodes=nodes,
        micro_batch_size=sized.micro_batch_size,
        grad_accum_steps=len(split[0]),
        micro_batches=[[len(batch) for batch in rank] for rank in split],
        global_batch_size=total,
        num_samples=samples,
        steps=counts.steps if counts else None,
        samples_dropped=counts.samples_dropped if counts else None,
        samples_repeated=counts.samples_repeated if counts else None,
        certificate_sha256=certificate.sha256 if certificate else None,
        image=_image(device, hardware),
        attention=layout.attention,
        dtype=layout.dtype,
        zero_stage=layout.zero_stage,
        checkpointing=layout.checkpointing,
        offload=layout.offload,
        memory_gib=in_gib(sized.memory) if sized.memory else None,
        fits=sized.fits,
        hours=interval(hours),
        gpu_hours=interval(hours.times(gpus) if hours else None),
        cost=interval(hours.times(gpus * price) if hours and price is not None else None),
        disk_gib=beyond.disk.gib if beyond.disk else None,
        disk_parts_gib=beyond.disk.parts_gib if beyond.disk else None,
        official_batch=beyond.official,
        threads=_threads(recipe, -(-gpus // nodes)),
        workers=workers,
        notes=notes,
        why=why,
    )


def _check(
    recipe: Recipe,
    fixed: Fixed,
    *,
    gpus: int,
    nodes: int,
    workers: int,
    keep: int,
    price: float | None,
) -> None:
    total = recipe.global_batch_size
    if not 1 <= gpus <= total:
        nearest, samples_each = (1, total) if gpus < 1 else (total, 1)
        raise UsageError(
            f"--gpus {gpus}: {recipe.name} feeds {total} samples per step, so 1 to {total} processes can work; "
            f"nearest: --gpus {nearest} ({samples_each} sample{'s' * (samples_each > 1)} each)"
        )
    if nodes < 1 or gpus % nodes:
        nearest = max(one for one in range(1, max(2, min(nodes, gpus) + 1)) if gpus % one == 0)
        raise UsageError(
            f"--nodes {nodes}: every node runs the same share of --gpus {gpus} processes; nearest: --nodes {nearest}"
        )
    if workers < 0:
        raise UsageError(f"--workers {workers}: 0 (the trainer reads its data itself) or more")
    if keep < 1:
        raise UsageError(f"--keep {keep}: at least 1")
    if price is not None and not 0 <= price < float("inf"):
        raise UsageError(f"--price {price}: what one GPU costs for an hour, 0 or more")
    fixed.check()


def _image(device: Device, hardware: Hardware | None) -> str | None:
    if device == "cpu":
        return "cpu"
    target = image_for(hardware.capability) if hardware else None
    return target.name if target else None


def _threads(recipe: Recipe, processes: int) -> int:
    """CPU threads of a process: one for the tiny models, which are too small to share, else an
    equal share.
    """
    if recipe.assets is not None:
        return 1
    return max(1, len(os.sched_getaffinity(0)) // processes)
