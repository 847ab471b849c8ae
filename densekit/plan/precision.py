"""Number type, ZeRO stage and activation checkpointing of an execution: what was asked for, or a default with its
reason."""

from dataclasses import dataclass
from typing import Literal

from densekit.errors import UsageError

Device = Literal["cpu", "cuda"]
Dtype = Literal["fp32", "bf16", "fp16"]
ZeroStage = Literal[0, 2, 3]


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What tensors are computed in and where they are kept."""

    dtype: Dtype
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
    zero_stage: ZeroStage | None,
    activation_checkpointing: bool | None,
) -> Precision:
    """Fill in what is None for a training stage on a device.

    Raises UsageError for fp16 under DeepSpeed on a CPU.
    """
    notes: list[str] = []
    if dtype is None:
        dtype, reason = _default_dtype(device)
        notes.append(f"dtype {dtype}: {reason}")
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
    return Precision(dtype=dtype, zero_stage=zero_stage, checkpointing=activation_checkpointing, notes=tuple(notes))


def _default_dtype(device: Device) -> tuple[Dtype, str]:
    if device == "cpu":
        return "fp32", "half precision is slower on most CPUs"
    return "bf16", "as the official scripts; a GPU below compute capability 8.0 (V100) needs --dtype fp16"


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
