"""Number type, attention kernel, ZeRO stage and activation checkpointing of an execution: what was asked for, or a
default with its reason."""

from dataclasses import dataclass
from typing import Literal

from densekit.capability import TABLE, Attention, Capability, Device, Dtype, check_combination, check_gpu, suited
from densekit.errors import UsageError

ZeroStage = Literal[0, 2, 3]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What tensors are computed in and where they are kept."""

    dtype: Dtype
    attention: Attention
    """Kernel of packed rows."""
    zero_stage: ZeroStage
    """0: one process, or DistributedDataParallel with the whole model in each; 2, 3: DeepSpeed."""
    checkpointing: bool
    """Activations of the language model are computed again in the backward pass instead of being kept."""
    notes: tuple[str, ...]
    """The reason for every value that nobody asked for."""


def choose_precision(
    stage: Literal[1, 2],
    *,
    device: Device,
    dtype: Dtype | None,
    attention: Attention | None,
    capability: Capability | None,
    zero_stage: ZeroStage | None,
    activation_checkpointing: bool | None,
) -> Precision:
    """Fill in what is None for a training stage on a device; `capability` is that of its GPU, where it is known.

    Raises UsageError for fp16 under DeepSpeed on a CPU, for a kernel that does not run on the device or in the number
    type, and for a type or a kernel that the GPU does not have.
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
    if zero_stage is None:
        zero_stage, reason = _default_zero_stage(stage, device)
        notes.append(f"ZeRO stage {zero_stage}: {reason}")
    if activation_checkpointing is None:
        activation_checkpointing, reason = _default_checkpointing(device)
        notes.append(f"activation checkpointing {'on' if activation_checkpointing else 'off'}: {reason}")
    if device == "cpu" and dtype == "fp16" and zero_stage:
        raise UsageError(
            f"--dtype fp16 --zero-stage {zero_stage} --device cpu: DeepSpeed has no fp16 on CPU; nearest: "
            f"--zero-stage 0, or --dtype bf16"
        )
    return Precision(
        dtype=dtype,
        attention=attention,
        zero_stage=zero_stage,
        checkpointing=activation_checkpointing,
        notes=tuple(notes),
    )


def _default_dtype(device: Device, capability: Capability | None) -> tuple[Dtype, str]:
    if device == "cpu":
        return "fp32", "half precision is slower on most CPUs"
    if capability is not None:
        row = suited(capability)
        return row.dtype, row.reason
    return "bf16", "as the official scripts; a GPU below compute capability 8.0 (V100) needs --dtype fp16"


def _default_attention(device: Device, dtype: Dtype, capability: Capability | None) -> tuple[Attention, str]:
    if device == "cpu":
        return "sdpa", "the kernels of flash-attn and xformers run on CUDA only"
    if dtype == "fp32":
        return "sdpa", "flash-attn has no fp32"
    # Where the GPU is not known, it is taken for one that the number type suits.
    row = suited(capability) if capability is not None else next(row for row in TABLE if row.dtype == dtype)
    return row.attention, row.reason


def _default_zero_stage(stage: Literal[1, 2], device: Device) -> tuple[ZeroStage, str]:
    if device == "cpu":
        return 0, "every process holds the whole model, which is enough for the recipes that a CPU can train"
    if stage == 1:
        return 2, "as the official pretrain script (zero2.json)"
    return 3, "as the official finetune script (zero3.json)"


def _default_checkpointing(device: Device) -> tuple[bool, str]:
    if device == "cpu":
        return False, "it costs a second forward pass, and main memory is rarely what is short"
    return True, "as the official scripts (--gradient_checkpointing True)"
