"""Fixed rules in place of the search: for a CPU, a GPU that nobody named, models nobody knows."""

from typing import Literal

from densekit.errors import UsageError
from densekit.planner.candidates import DEFAULT_MICRO_BATCH, worst_memory
from densekit.planner.kernel import choose_kernel
from densekit.planner.notes import Caution
from densekit.planner.search import Decision
from densekit.planner.workload import Workload
from densekit.spec.capability import Capability
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.hardware import GIB, host_memory
from densekit.spec.recipe import Recipe
from densekit.spec.types import Device, ZeroStage


def apply_rules(
    recipe: Recipe,
    workload: Workload | None,
    request: ExecutionRequest,
    *,
    device: Device,
    world_size: int,
    nodes: int,
    capability: Capability | None,
) -> Decision:
    """What was asked for, and the rest by rules; `workload` is None where shapes are not known.

    Raises UsageError for what cannot work together.
    """
    dtype, attention, notes = choose_kernel(request, device, capability)
    zero_stage, checkpointing, sharding_notes = choose_sharding(request, recipe.stage, device)
    if device == "cpu" and dtype == "fp16" and zero_stage:
        raise UsageError(
            f"--dtype fp16 --zero-stage {zero_stage} --device cpu: DeepSpeed has no fp16 on a CPU; "
            "use --zero-stage 0, or --dtype bf16"
        )
    share = -(-recipe.global_batch_size // world_size)
    execution = Execution(
        device=device,
        world_size=world_size,
        nodes=nodes,
        micro_batch_size=min(request.micro_batch_size or DEFAULT_MICRO_BATCH, share),
        dtype=dtype,
        attention=attention,
        zero_stage=zero_stage,
        activation_checkpointing=checkpointing,
        cpu_offload=bool(request.cpu_offload),
    )
    notes = [*notes, *sharding_notes]
    if workload is None:
        return Decision(execution=execution, memory=None, fits=None, notes=notes)
    memory = worst_memory(workload, execution, execution.micro_batch_size)
    fits = None
    if device == "cpu":
        need = (memory.peak + memory.host) * execution.per_node
        fits = need <= host_memory()
        if not fits:
            takes = f"a worst-case micro-batch takes {need / GIB:.0f} GiB of host RAM"
            notes.append(Caution(f"{takes}; this host has {host_memory() / GIB:.0f}"))
    else:
        notes.append("whether it fits is unknown: the GPU is not known; name it with --gpu")
    return Decision(execution=execution, memory=memory, fits=fits, notes=notes)


def choose_sharding(
    request: ExecutionRequest, stage: Literal[1, 2], device: Device
) -> tuple[ZeroStage, bool, list[str]]:
    """ZeRO stage, activation checkpointing, and a note on each that was not asked for."""
    notes: list[str] = []
    zero_stage, checkpointing = request.zero_stage, request.activation_checkpointing
    if zero_stage is None and request.cpu_offload:
        zero_stage = 3
    if zero_stage is None:
        zero_stage, reason = _default_zero_stage(stage, device)
        notes.append(f"ZeRO stage {zero_stage}: {reason}")
    if checkpointing is None:
        checkpointing, reason = _default_checkpointing(device)
        notes.append(f"activation checkpointing {'on' if checkpointing else 'off'}: {reason}")
    return zero_stage, checkpointing, notes


def _default_zero_stage(stage: Literal[1, 2], device: Device) -> tuple[ZeroStage, str]:
    if device == "cpu":
        return 0, "on a CPU nothing is sharded unless --zero-stage asks for it"
    if stage == 1:
        return 2, "as the official pretrain script (zero2.json)"
    return 3, "as the official finetune script (zero3.json)"


def _default_checkpointing(device: Device) -> tuple[bool, str]:
    if device == "cpu":
        return False, "on a CPU it is used where --activation-checkpointing asks for it"
    return True, "as the official scripts (--gradient_checkpointing True)"
