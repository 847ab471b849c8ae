"""Number type and attention kernel of an execution, and its sharding where memory is not known:
what was asked for, or a default with its reason.
"""

from dataclasses import dataclass
from typing import Literal

from densekit.spec.capability import TABLE, Capability, check_combination, check_gpu, suited
from densekit.spec.types import AttentionKernel, Device, Dtype, ZeroStage


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What tensors are computed in, and by which attention."""

    dtype: Dtype
    attention: AttentionKernel
    """Kernel of packed rows."""
    notes: tuple[str, ...]
    """The reason for every value that nobody asked for."""


def choose_kernel(
    device: Device,
    dtype: Dtype | None,
    attention: AttentionKernel | None,
    capability: Capability | None,
) -> Kernel:
    """Fill in what is None on a device; `capability` is that of its GPU, where it is known.

    Raises UsageError for a kernel that does not run on the device or in the number type, and for a
    type or a kernel that the GPU does not have.
    """
    notes: list[str] = []
    if dtype is None:
        dtype, reason = _default_dtype(device, capability)
        notes.append(f"dtype {dtype}: {reason}")
    if attention is None:
        attention, reason = _default_attention(device, dtype, capability)
        notes.append(f"attention {attention}: {reason}")
    check_combination(device, dtype, attention)
    if device == "cuda" and capability is not None:
        check_gpu(capability, dtype, attention)
    return Kernel(dtype=dtype, attention=attention, notes=tuple(notes))


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """Where weights, gradients and moments are kept, and whether activations are."""

    zero_stage: ZeroStage
    """0: one process, or DistributedDataParallel with the whole model in each; 2, 3: DeepSpeed."""
    checkpointing: bool
    """Activations of the language model are computed again in the backward pass instead of being
    kept.
    """
    notes: tuple[str, ...]
    """The reason for every value that nobody asked for."""


def default_sharding(
    stage: Literal[1, 2], device: Device, zero_stage: ZeroStage | None, checkpointing: bool | None
) -> Sharding:
    """Fill in what is None where the memory of the device is not known: on CPU, and on a GPU that
    nobody named.
    """
    notes: list[str] = []
    if zero_stage is None:
        zero_stage, reason = _default_zero_stage(stage, device)
        notes.append(f"ZeRO stage {zero_stage}: {reason}")
    if checkpointing is None:
        checkpointing, reason = _default_checkpointing(device)
        notes.append(f"activation checkpointing {'on' if checkpointing else 'off'}: {reason}")
    return Sharding(zero_stage=zero_stage, checkpointing=checkpointing, notes=tuple(notes))


def _default_dtype(device: Device, capability: Capability | None) -> tuple[Dtype, str]:
    if device == "cpu":
        return "fp32", "half precision is slower on most CPUs"
    if capability is not None:
        row = suited(capability)
        return row.dtype, row.reason
    return (
        "bf16",
        "as the official scripts; a GPU below compute capability 8.0 (V100) needs --dtype fp16",
    )


def _default_attention(
    device: Device, dtype: Dtype, capability: Capability | None
) -> tuple[AttentionKernel, str]:
    if device == "cpu":
        return "sdpa", "the kernels of flash-attn and xformers run on CUDA only"
    if dtype == "fp32":
        return "sdpa", "flash-attn has no fp32"
    # Where the GPU is not known, it is taken for one that the number type suits.
    row = (
        suited(capability)
        if capability is not None
        else next(row for row in TABLE if row.dtype == dtype)
    )
    return row.attention, row.reason


def _default_zero_stage(stage: Literal[1, 2], device: Device) -> tuple[ZeroStage, str]:
    if device == "cpu":
        return (
            0,
            "every process holds the whole model, which is enough for the recipes that a CPU can train",
        )
    if stage == 1:
        return 2, "as the official pretrain script (zero2.json)"
    return 3, "as the official finetune script (zero3.json)"


def _default_checkpointing(device: Device) -> tuple[bool, str]:
    if device == "cpu":
        return False, "it costs a second forward pass, and main memory is rarely what is short"
    return True, "as the official scripts (--gradient_checkpointing True)"
