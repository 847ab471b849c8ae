"""A recipe and what was asked for become a plan: the execution, steps, memory, hours, disk."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from densekit.batching.certificate import BatchCertificate
from densekit.batching.run_length import count_run
from densekit.batching.split import split_step
from densekit.errors import UsageError
from densekit.planner.candidates import NOTHING_ASKED, SearchSpace
from densekit.planner.cluster import Cluster, check_cluster
from densekit.planner.estimate import OfficialBatch, estimate
from densekit.planner.host_ram import checkpoint_copy, host_ram_gib
from densekit.planner.measured import Measured
from densekit.planner.memory import Memory
from densekit.planner.notes import (
    Caution,
    no_room_for_answers,
    reference_notes,
    short_of_host_ram,
    tail_notes,
)
from densekit.planner.rules import apply_rules
from densekit.planner.search import Decision, search
from densekit.planner.time import Interval
from densekit.planner.workers import planned_workers
from densekit.planner.workload import Workload
from densekit.spec.architectures import UnknownShapeError
from densekit.spec.capability import check_offload, container_image_for
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.hardware import GIB, Efficiency, Hardware
from densekit.spec.ledger import ledger_lines
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


@dataclass(frozen=True, kw_only=True)
class MemoryGib:
    """Memory in GiB, to two decimals."""

    parts: dict[str, float]
    """By the names of densekit.planner.memory, those that take some."""
    peak: float
    host: float | None
    """Host RAM of CPU offload; None without."""

    @classmethod
    def of(cls, memory: Memory) -> "MemoryGib":
        """From bytes."""
        sizes = {name: size for name, size in memory.parts.items() if size}
        return cls(
            parts={name: round(size / GIB, 2) for name, size in sizes.items()},
            peak=round(memory.peak / GIB, 2),
            host=round(memory.host / GIB, 2) if memory.host else None,
        )

    def as_json(self) -> dict[str, float]:
        """The parts with `peak` and, where there is one, `host`, under the names of `densekit plan
        --json`.
        """
        host = {} if self.host is None else {"host": self.host}
        return {**_renamed(self.parts), "peak": self.peak, **host}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How this machine carries the recipe's math out; it never changes the math."""

    recipe: str
    execution: Execution
    gpu: str
    """Name in the hardware table; `cpu`, or `cuda` for a GPU that nobody named."""
    micro_batches: list[list[int]]
    """Per rank, the samples of each micro-batch in one full optimizer step; where micro-batches are
    cut by tokens, of average samples.
    """
    global_batch_size: int
    num_samples: int | None
    """Entries of the annotation file; with steps and samples below None while it is not known."""
    steps: int | None
    samples_dropped: int | None
    samples_repeated: int | None
    container_image: str | None
    """None where no image has kernels for the GPU, or the GPU is not known."""
    memory_gib: MemoryGib | None
    """Of one GPU (or process) in a worst-case micro-batch; None where the models' shapes are not
    known.
    """
    fits: bool | None
    """None where it cannot be said."""
    hours: Interval | None
    gpu_hours: Interval | None
    cost: Interval | None
    disk_gib: float | None
    disk_parts_gib: dict[str, float] | None
    official_batch: OfficialBatch | None
    """Whether the official scripts' batch per device would fit on this GPU."""
    notes: list[str]
    ledger: list[str]
    """Which keys of the ledger are followed, and what each changes."""
    why: dict[str, list[str]] = field(repr=False)
    """The arithmetic, by subject (`densekit plan --why`)."""
    host_ram_short: bool = False
    """Whether a usual node of this kind, or this host, has less RAM than a node needs."""
    measured: Measured | None = None
    """What hours were narrowed by."""

    def narrowed(self, measured: Measured, price: float | None) -> "Plan":
        """With the hours that were measured instead of the estimated ones."""
        count = self.execution.world_size
        gpu_hours = measured.hours.times(count) if self.execution.device == "cuda" else None
        return replace(
            self,
            hours=measured.hours,
            gpu_hours=gpu_hours,
            cost=gpu_hours.times(price) if gpu_hours and price is not None else None,
            notes=[*self.notes, f"hours: {measured.arithmetic()}"],
            measured=replace(measured, estimated=self.hours),
        )

    @property
    def micro_batches_per_step(self) -> int:
        """Micro-batches of a process in one full optimizer step."""
        return len(self.micro_batches[0])

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names of `densekit plan --json`, some of them older than ours."""
        run = self.execution
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("why", "execution", "measured"):
            del values[name]
        for name in ("hours", "gpu_hours", "cost", "official_batch"):
            values[name] = values[name].as_json() if values[name] else None
        if self.memory_gib is not None:
            values["memory_gib"] = self.memory_gib.as_json()
        measured = {} if self.measured is None else {"measured": self.measured.as_json()}
        return {
            **_renamed(values),
            **measured,
            "device": run.device,
            "gpus": run.world_size,
            "nodes": run.nodes,
            "micro_batch_size": run.micro_batch_size,
            **_renamed({"micro_batches_per_step": self.micro_batches_per_step}),
            "certificate_sha256": run.certificate_sha256,
            "attention": run.attention,
            "dtype": run.dtype,
            "zero_stage": run.zero_stage,
            "checkpointing": run.activation_checkpointing,
            "offload": run.cpu_offload,
            "threads": run.threads,
            "workers": run.workers,
            "execution": {
                "tokens_per_micro_batch": run.tokens_per_micro_batch,
                "workers": run.workers,
            },
        }

    def why_as_json(self) -> dict[str, list[str]]:
        """The arithmetic, under the names of `densekit plan --why --json`."""
        return _renamed(self.why)


_JSON_NAMES = {
    "container_image": "image",
    "optimizer": "optimiser",
    "candidates": "layouts",
    "micro_batches_per_step": "grad_accum_steps",
}
"""What `densekit plan --json` writes under an older name."""
Value = TypeVar("Value")
MAX_PRICE = 1e9
"""Of a GPU for an hour, in any currency."""


def _renamed(values: Mapping[str, Value]) -> dict[str, Value]:
    return {_JSON_NAMES.get(name, name): value for name, value in values.items()}


def make_plan(
    recipe: Recipe,
    request: ExecutionRequest = NOTHING_ASKED,
    *,
    hardware: Hardware | None = None,
    num_samples: int | None = None,
    certificate: BatchCertificate | None = None,
    roots: Roots | None = None,
    measured: Mapping[str, Efficiency] | None = None,
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
    world_size = 1 if request.world_size is None else request.world_size
    nodes = 1 if request.nodes is None else request.nodes
    total = recipe.global_batch_size
    request.check()
    if request.zero_stage is not None:
        check_offload(bool(request.cpu_offload), request.zero_stage)
    check_cluster(world_size, nodes, recipe=recipe.name, global_batch_size=total)
    check_price(price)

    device = request.device or "cpu"
    notes = reference_notes(recipe, device)
    workload, unknown = _workload_if_known(recipe, roots)
    if workload is not None:
        image_tokens = workload.model.shape.connector.image_tokens
        if (problem := no_room_for_answers(recipe, image_tokens)) is not None:
            notes.append(Caution(f"no run with images: {problem}"))
    decision = _decide(
        recipe, workload, request, hardware, measured or {}, world_size=world_size, nodes=nodes
    )
    share = -(-total // world_size)
    workers, workers_notes = planned_workers(request, decision, samples_per_rank=share)
    host_ram, host_short = None, False
    if workload is not None and decision.memory is not None:
        sized = decision.execution.model_copy(update={"workers": workers})
        host_ram = host_ram_gib(workload.model, sized, decision.memory)
        if hardware is not None and device == "cuda" and host_ram > hardware.host_gib:
            host_short = True
            copied = checkpoint_copy(workload.model, sized) / GIB
            notes.append(short_of_host_ram(host_ram, copied, hardware))
    execution = decision.execution.model_copy(
        update={
            "workers": workers,
            "threads": _threads(recipe, -(-world_size // nodes)),
            "host_ram_gib": host_ram,
            "deterministic": bool(request.deterministic),
            "trackers": request.trackers,
            "certificate_sha256": certificate.sha256 if certificate else None,
            "checkpoints": request.save_policy(),
            "gpu": hardware.name if hardware and device == "cuda" else None,
        }
    )
    notes += [*decision.notes, *unknown, *workers_notes]
    # Without a limit of tokens the samples of a micro-batch do not depend on their lengths.
    each = 1
    if workload is not None and execution.tokens_per_micro_batch is not None:
        each = min(round(workload.sample.tokens), execution.tokens_per_micro_batch)
    split = split_step(
        [each] * total,
        world_size=world_size,
        micro_batch_size=execution.micro_batch_size,
        tokens_per_micro_batch=execution.tokens_per_micro_batch,
    )
    if request.micro_batch_size is not None and request.micro_batch_size > share:
        size = request.micro_batch_size
        most = f"a process has at most {share} samples per step, so {share}"
        notes.append(Caution(f"--micro-batch {size}: {most}"))
    samples = certificate.num_samples if certificate else num_samples or recipe.data.samples
    counts = None
    if samples is None:
        states = "the recipe states no `data.samples`"
        notes.append(Caution(f"steps unknown: the annotation file is not here and {states}"))
    else:
        counts = count_run(recipe.math(), samples)
        notes.extend(tail_notes(recipe, samples))
    if certificate:
        notes.append(f"certificate: {certificate.source}")
    steps = counts.steps if counts else None
    keep = execution.checkpoints.keep
    beyond = estimate(recipe, workload, decision, steps=steps, keep=keep)
    gpu_hours = beyond.hours.times(world_size) if beyond.hours else None
    return Plan(
        recipe=recipe.name,
        execution=execution,
        gpu=execution.gpu or device,
        micro_batches=[[len(batch) for batch in rank] for rank in split],
        global_batch_size=total,
        num_samples=samples,
        steps=steps,
        samples_dropped=counts.samples_dropped if counts else None,
        samples_repeated=counts.samples_repeated if counts else None,
        container_image=_container_image(execution, hardware),
        memory_gib=MemoryGib.of(decision.memory) if decision.memory else None,
        fits=decision.fits,
        hours=beyond.hours,
        gpu_hours=gpu_hours,
        cost=gpu_hours.times(price) if gpu_hours and price is not None else None,
        disk_gib=beyond.disk.gib if beyond.disk else None,
        disk_parts_gib=beyond.disk.parts_gib if beyond.disk else None,
        official_batch=beyond.official,
        notes=notes + beyond.notes,
        ledger=ledger_lines(recipe.math(), execution.dtype),
        why={
            "candidates": [candidate.line() for candidate in decision.candidates],
            "memory": decision.memory.lines() if decision.memory else [],
            **beyond.why,
        },
        host_ram_short=host_short,
    )


def check_price(price: float | None) -> None:
    """Raise UsageError for what is no price of a GPU for an hour."""
    if price is not None and not 0 <= price <= MAX_PRICE:
        raise UsageError(
            f"--price {price}: give what one GPU costs for an hour, from 0 to {MAX_PRICE:.0f}"
        )


def _workload_if_known(recipe: Recipe, roots: Roots | None) -> tuple[Workload | None, list[str]]:
    """The workload, or None and a note that says why the models' shapes are not known."""
    try:
        return Workload.of(recipe, roots), []
    except UnknownShapeError as error:
        return None, [Caution(f"memory, hours and disk are unknown: {error}")]


def _decide(
    recipe: Recipe,
    workload: Workload | None,
    request: ExecutionRequest,
    hardware: Hardware | None,
    measured: Mapping[str, Efficiency],
    *,
    world_size: int,
    nodes: int,
) -> Decision:
    """By search where GPU and models are known, else by fixed rules."""
    device = request.device or "cpu"
    if workload is not None and hardware is not None and device == "cuda":
        space = SearchSpace(workload=workload, request=request, measured=measured)
        return search(space, Cluster(hardware=hardware, world_size=world_size, nodes=nodes))
    return apply_rules(
        recipe,
        workload,
        request,
        device=device,
        world_size=world_size,
        nodes=nodes,
        capability=hardware.capability if hardware else None,
    )


def _container_image(execution: Execution, hardware: Hardware | None) -> str | None:
    if execution.device == "cpu":
        return "cpu"
    row = container_image_for(hardware.capability) if hardware else None
    return row.container_image if row else None


def _threads(recipe: Recipe, processes: int) -> int:
    """CPU threads of a process: one for the tiny models, which are too small to share, else an
    equal share.
    """
    if recipe.assets is not None:
        return 1
    return max(1, len(os.sched_getaffinity(0)) // processes)
