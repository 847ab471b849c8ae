"""A recipe and hardware become an execution: micro-batches per rank, steps, memory, hours, and what
is dropped.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from densekit.batching.certificate import BatchCertificate
from densekit.batching.run_order import count_run
from densekit.batching.split import split_step
from densekit.errors import UsageError
from densekit.planner.estimate import estimated, in_gib, interval
from densekit.planner.layout import job_if_known, ruled, searched
from densekit.planner.notes import reference_notes, tail_notes
from densekit.planner.search import Place
from densekit.spec.capability import check_offload, image_for
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.hardware import Hardware
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.types import Device

NOTHING_ASKED = ExecutionRequest()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How this machine carries the recipe's math out; it never changes the math."""

    recipe: str
    execution: Execution
    gpu: str
    """Name in the hardware table; `cpu`, or `cuda` for a GPU that nobody named."""
    micro_batches: list[list[int]]
    """Per rank, the samples of each micro-batch in one full optimizer step."""
    global_batch_size: int
    num_samples: int | None
    """Entries of the annotation file; with steps and samples below null while it is not known."""
    steps: int | None
    samples_dropped: int | None
    samples_repeated: int | None
    image: str | None
    """Name of the container image; null where no image has kernels for the GPU, or the GPU is not
    known.
    """
    memory_gib: dict[str, float] | None
    """Of one GPU (or process) in a worst-case micro-batch, by part, and `peak`; null where the
    models' shapes are not known.
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
    notes: list[str]
    why: dict[str, list[str]] = field(repr=False)
    """The arithmetic, by subject (`densekit plan --why`)."""

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names of `densekit plan --json`."""
        run = self.execution
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        del told["why"], told["execution"]
        return {
            **told,
            "device": run.device,
            "gpus": run.world_size,
            "nodes": run.nodes,
            "micro_batch_size": run.micro_batch_size,
            "grad_accum_steps": len(self.micro_batches[0]),
            "certificate_sha256": run.certificate_sha256,
            "attention": run.attention,
            "dtype": run.dtype,
            "zero_stage": run.zero_stage,
            "checkpointing": run.activation_checkpointing,
            "offload": run.cpu_offload,
            "threads": run.threads,
            "workers": run.workers,
        }


def make_plan(
    recipe: Recipe,
    request: ExecutionRequest = NOTHING_ASKED,
    *,
    hardware: Hardware | None = None,
    num_samples: int | None = None,
    certificate: BatchCertificate | None = None,
    roots: Roots | None = None,
    measured: Mapping[str, tuple[float, float]] | None = None,
    price: float | None = None,
) -> Plan:
    """Plan a recipe for what was asked: one process on a CPU where nothing was.

    What `request` leaves open is chosen, with its reason in the notes: on `hardware`, the kind of
    the GPUs, by what fits and is fastest; on a CPU or on a GPU that is not known by fixed rules.
    `num_samples` overrides the count the recipe states; `certificate` is that of the recipe's
    batches, where one was computed, and its count comes first. `roots` are searched for the models'
    shapes, `measured` is the efficiency of earlier runs by kind of GPU, `price` that of one GPU for
    an hour.

    Raises UsageError for what cannot work; it names the nearest that can.
    """
    device = request.device or "cpu"
    gpus = 1 if request.world_size is None else request.world_size
    nodes = 1 if request.nodes is None else request.nodes
    _check(recipe, request, gpus=gpus, nodes=nodes, price=price)
    notes = reference_notes(recipe, device)
    job, unknown = job_if_known(recipe, roots, request, measured)
    if job is not None and hardware is not None and device == "cuda":
        sized = searched(job, Place(hardware=hardware, gpus=gpus, nodes=nodes))
    else:
        capability = hardware.capability if hardware else None
        sized = ruled(
            recipe, job, request, device=device, gpus=gpus, nodes=nodes, capability=capability
        )
    layout = sized.layout
    notes += [*sized.notes, *unknown]
    # The number of samples in a micro-batch does not depend on their lengths.
    total = recipe.global_batch_size
    split = split_step([1] * total, world_size=gpus, micro_batch_size=sized.micro_batch_size)
    share = -(-total // gpus)
    if request.micro_batch_size is not None and request.micro_batch_size > share:
        notes.append(
            f"--micro-batch {request.micro_batch_size}: a process has at most {share} samples per step, so {share}"
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
        keep=request.save_policy().keep,
        device=device,
    )
    notes += beyond.notes
    hours = beyond.hours
    why = {
        "layouts": [one.line() for one in sized.candidates],
        "memory": sized.memory.lines() if sized.memory else [],
        **beyond.why,
    }
    execution = Execution(
        device=device,
        gpu=hardware.name if hardware and device == "cuda" else None,
        world_size=gpus,
        nodes=nodes,
        micro_batch_size=sized.micro_batch_size,
        dtype=layout.dtype,
        attention=layout.attention,
        zero_stage=layout.zero_stage,
        activation_checkpointing=layout.checkpointing,
        cpu_offload=layout.offload,
        workers=request.workers or 0,
        threads=_threads(recipe, -(-gpus // nodes)),
        deterministic=bool(request.deterministic),
        certificate_sha256=certificate.sha256 if certificate else None,
        checkpoints=request.save_policy(),
    )
    return Plan(
        recipe=recipe.name,
        execution=execution,
        gpu=execution.gpu or device,
        micro_batches=[[len(batch) for batch in rank] for rank in split],
        global_batch_size=total,
        num_samples=samples,
        steps=counts.steps if counts else None,
        samples_dropped=counts.samples_dropped if counts else None,
        samples_repeated=counts.samples_repeated if counts else None,
        image=_image(device, hardware),
        memory_gib=in_gib(sized.memory) if sized.memory else None,
        fits=sized.fits,
        hours=interval(hours),
        gpu_hours=interval(hours.times(gpus) if hours else None),
        cost=interval(hours.times(gpus * price) if hours and price is not None else None),
        disk_gib=beyond.disk.gib if beyond.disk else None,
        disk_parts_gib=beyond.disk.parts_gib if beyond.disk else None,
        official_batch=beyond.official,
        notes=notes,
        why=why,
    )


def _check(
    recipe: Recipe, request: ExecutionRequest, *, gpus: int, nodes: int, price: float | None
) -> None:
    request.check()
    if request.zero_stage is not None:
        check_offload(bool(request.cpu_offload), request.zero_stage)
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
    if price is not None and not 0 <= price < float("inf"):
        raise UsageError(f"--price {price}: what one GPU costs for an hour, 0 or more")


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
