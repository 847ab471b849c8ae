"""How the processes of a plan are laid out: searched for on a known GPU, by fixed rules elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from densekit.errors import UsageError
from densekit.planner.alternatives import refusal
from densekit.planner.estimate import job_of
from densekit.planner.memory import Layout, Memory
from densekit.planner.notes import chosen_notes
from densekit.planner.precision import choose_kernel, default_sharding
from densekit.planner.search import DEFAULT_MICRO_BATCH, Candidate, Job, Place, fastest
from densekit.spec.architectures import UnknownShapeError
from densekit.spec.capability import Capability
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import GIB, host_memory
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots
from densekit.spec.types import Device


@dataclass(frozen=True, kw_only=True)
class Sized:
    """How the processes are laid out."""

    layout: Layout
    micro_batch_size: int
    memory: Memory | None
    fits: bool | None
    notes: list[str]
    candidates: list[Candidate] = field(default_factory=list)
    candidate: Candidate | None = None


def searched(job: Job, place: Place) -> Sized:
    """The fastest layout that fits on a known GPU; what does not fit is planned where --micro-batch
    insists on it.
    """
    candidates = job.candidates(place)
    best = fastest(candidates)
    if best is None and (job.request.micro_batch_size is None or not candidates):
        raise refusal(job, place)
    chosen = best or min(candidates, key=lambda one: one.memory.peak)
    kernel = choose_kernel(
        "cuda", job.request.dtype, job.request.attention, place.hardware.capability
    )
    return Sized(
        layout=chosen.layout,
        micro_batch_size=chosen.micro_batch_size,
        memory=chosen.memory,
        fits=chosen.fits,
        notes=[*kernel.notes, *chosen_notes(job, chosen, candidates)],
        candidates=candidates,
        candidate=chosen,
    )


def ruled(
    recipe: Recipe,
    job: Job | None,
    request: ExecutionRequest,
    *,
    device: Device,
    gpus: int,
    nodes: int,
    capability: Capability | None,
) -> Sized:
    """The fixed rules for a CPU, for a GPU that nobody named, and for models of unknown shape."""
    kernel = choose_kernel(device, request.dtype, request.attention, capability)
    stage = 3 if request.cpu_offload and request.zero_stage is None else request.zero_stage
    sharding = default_sharding(recipe.stage, device, stage, request.activation_checkpointing)
    if device == "cpu" and kernel.dtype == "fp16" and sharding.zero_stage:
        raise UsageError(
            f"--dtype fp16 --zero-stage {sharding.zero_stage} --device cpu: DeepSpeed has no fp16 on CPU; nearest: "
            f"--zero-stage 0, or --dtype bf16"
        )
    layout = Layout(
        world=gpus,
        zero_stage=sharding.zero_stage,
        checkpointing=sharding.checkpointing,
        offload=bool(request.cpu_offload),
        dtype=kernel.dtype,
        attention=kernel.attention,
        trains=job.trains if job else "connector",
        lora_r=job.lora_r if job else 0,
        lora_dropout=bool(job and job.lora_dropout),
        device=device,
    )
    micro = min(
        request.micro_batch_size or DEFAULT_MICRO_BATCH, -(-recipe.global_batch_size // gpus)
    )
    memory = job.worst_memory(layout, micro) if job else None
    notes = [*kernel.notes, *sharding.notes]
    fits = None
    if memory is not None and device == "cpu":
        need = (memory.peak + memory.host) * -(-gpus // nodes)
        fits = need <= host_memory()
        if not fits:
            told = f"{need / GIB:.0f} GiB of main memory; this host has {host_memory() / GIB:.0f}"
            notes.append(f"a worst-case row takes {told}")
    elif job is not None:
        notes.append("the GPU is not known (--gpu), so it cannot be said whether this fits")
    return Sized(layout=layout, micro_batch_size=micro, memory=memory, fits=fits, notes=notes)


def job_if_known(
    recipe: Recipe,
    roots: Roots | None,
    request: ExecutionRequest,
    measured: Mapping[str, tuple[float, float]] | None,
) -> tuple[Job | None, list[str]]:
    """`job_of`, or None and a note that says why the models' shapes are not known."""
    try:
        return job_of(recipe, roots, request, measured), []
    except UnknownShapeError as error:
        return None, [f"memory, hours and disk are not known: {error}"]
