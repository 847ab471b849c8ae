"""A recipe and what was asked for become a plan: the execution, steps, memory, hours, disk."""

import os
from collections.abc import Mapping

from densekit.batching.certificate import BatchCertificate
from densekit.batching.counts import StepCounts
from densekit.batching.run_length import count_run
from densekit.batching.split import split_step
from densekit.errors import UsageError
from densekit.planner.candidates import NOTHING_ASKED, SearchSpace
from densekit.planner.cluster import Cluster, check_cluster
from densekit.planner.estimate import estimate
from densekit.planner.host_ram import checkpoint_copy, host_ram_gib
from densekit.planner.notes import (
    Caution,
    no_room_for_answers,
    reference_notes,
    short_of_host_ram,
    tail_notes,
)
from densekit.planner.plan import MemoryGib, Plan
from densekit.planner.rules import apply_rules
from densekit.planner.search import Decision, search
from densekit.planner.workers import planned_workers
from densekit.planner.workload import Workload
from densekit.spec.architectures import UnknownShapeError
from densekit.spec.capability import check_offload, container_image_for
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.hardware import GIB, Efficiency, Hardware
from densekit.spec.ledger import ledger_lines
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

MAX_PRICE = 1e9
"""Of a GPU for an hour, in any currency."""


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
    device = request.device or "cpu"
    _check(recipe, request, world_size, nodes)
    check_price(price)
    workload, unknown = _workload_if_known(recipe, roots)
    decision = _decide(
        recipe, workload, request, hardware, measured or {}, world_size=world_size, nodes=nodes
    )
    share = -(-recipe.global_batch_size // world_size)
    workers, of_workers = planned_workers(request, decision, samples_per_rank=share)
    host_ram, of_host_ram = _host_ram(workload, decision, workers, hardware)
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
    samples = certificate.num_samples if certificate else num_samples or recipe.data.samples
    counts, of_steps = _counted(recipe, samples)
    beyond = estimate(
        recipe,
        workload,
        decision,
        steps=counts.steps if counts else None,
        keep=execution.checkpoints.keep,
    )
    gpu_hours = beyond.hours.times(world_size) if beyond.hours else None
    return Plan(
        recipe=recipe.name,
        execution=execution,
        gpu=execution.gpu or device,
        micro_batches=_micro_batches(workload, execution, recipe.global_batch_size),
        global_batch_size=recipe.global_batch_size,
        num_samples=samples,
        steps=counts.steps if counts else None,
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
        notes=[
            *reference_notes(recipe, device),
            *_no_room(recipe, workload),
            *of_host_ram,
            *decision.notes,
            *unknown,
            *of_workers,
            *_too_many_samples(request, share),
            *of_steps,
            *([f"certificate: {certificate.source}"] if certificate else []),
            *beyond.notes,
        ],
        ledger=ledger_lines(recipe.math(), execution.dtype),
        why={
            "candidates": [candidate.line() for candidate in decision.candidates],
            "memory": decision.memory.lines() if decision.memory else [],
            **beyond.why,
        },
        host_ram_short=bool(of_host_ram),
    )


def _check(recipe: Recipe, request: ExecutionRequest, world_size: int, nodes: int) -> None:
    """Raise UsageError for what no hardware carries out."""
    request.check()
    if request.zero_stage is not None:
        check_offload(bool(request.cpu_offload), request.zero_stage)
    total = recipe.global_batch_size
    check_cluster(world_size, nodes, recipe=recipe.name, global_batch_size=total)


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


def _host_ram(
    workload: Workload | None, decision: Decision, workers: int, hardware: Hardware | None
) -> tuple[int | None, list[str]]:
    """GiB of each node, None where they are not known; a note where a node of GPUs has less."""
    if workload is None or decision.memory is None:
        return None, []
    sized = decision.execution.model_copy(update={"workers": workers})
    needed = host_ram_gib(workload.model, sized, decision.memory)
    if hardware is None or sized.device != "cuda" or needed <= hardware.host_gib:
        return needed, []
    copied = checkpoint_copy(workload.model, sized) / GIB
    return needed, [short_of_host_ram(needed, copied, hardware)]


def _micro_batches(
    workload: Workload | None, execution: Execution, samples: int
) -> list[list[int]]:
    """Samples of every micro-batch of a step of so many, by rank; cut by tokens, of average
    samples.
    """
    # Without a limit of tokens the samples of a micro-batch do not depend on their lengths.
    each = 1
    if workload is not None and execution.tokens_per_micro_batch is not None:
        each = min(round(workload.sample.tokens), execution.tokens_per_micro_batch)
    split = split_step(
        [each] * samples,
        world_size=execution.world_size,
        micro_batch_size=execution.micro_batch_size,
        tokens_per_micro_batch=execution.tokens_per_micro_batch,
    )
    return [[len(batch) for batch in rank] for rank in split]


def _counted(recipe: Recipe, samples: int | None) -> tuple[StepCounts | None, list[str]]:
    """Steps over so many samples, and notes on them."""
    if samples is None:
        states = "the recipe states no `data.samples`"
        return None, [Caution(f"steps unknown: the annotation file is not here and {states}")]
    return count_run(recipe.math(), samples), tail_notes(recipe, samples)


def _no_room(recipe: Recipe, workload: Workload | None) -> list[str]:
    """A note where an image leaves an answer no room."""
    if workload is None:
        return []
    problem = no_room_for_answers(recipe, workload.model.shape.connector.image_tokens)
    return [] if problem is None else [Caution(f"no run with images: {problem}")]


def _too_many_samples(request: ExecutionRequest, share: int) -> list[str]:
    """A note where a micro-batch was asked for that is larger than a process's `share` of a
    step.
    """
    size = request.micro_batch_size
    if size is None or size <= share:
        return []
    most = f"a process has at most {share} samples per step, so {share}"
    return [Caution(f"--micro-batch {size}: {most}")]
