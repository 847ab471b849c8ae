"""Dtype and attention kernel of an execution: what was asked for, or a default with its reason."""

from densekit.spec.capability import (
    GENERATIONS,
    Capability,
    check_combination,
    check_gpu,
    generation_of,
)
from densekit.spec.execution import ExecutionRequest
from densekit.spec.types import AttentionKernel, Device, Dtype


def choose_kernel(
    request: ExecutionRequest, device: Device, capability: Capability | None
) -> tuple[Dtype, AttentionKernel, list[str]]:
    """Dtype, attention kernel, and a note on what was not asked for: one where both have a reason.

    `capability` is that of the GPU, where it is known. Raises UsageError for a kernel that does not
    run on the device or in the dtype, and for one of the two that the GPU does not have.
    """
    reasons: dict[str, list[str]] = {}
    dtype, attention = request.dtype, request.attention
    if dtype is None:
        dtype, reason = _default_dtype(device, capability)
        reasons.setdefault(reason, []).append(f"dtype {dtype}")
    if attention is None:
        attention, reason = _default_attention(device, dtype, capability)
        reasons.setdefault(reason, []).append(f"attention {attention}")
    check_combination(device, dtype, attention)
    if device == "cuda" and capability is not None:
        check_gpu(capability, dtype, attention)
    return dtype, attention, [f"{', '.join(chosen)}: {why}" for why, chosen in reasons.items()]


def _default_dtype(device: Device, capability: Capability | None) -> tuple[Dtype, str]:
    if device == "cpu":
        return "fp32", "half precision is slower on most CPUs"
    if capability is not None:
        row = generation_of(capability)
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
        return "sdpa", "flash-attn has no fp32 kernels"
    # Where the GPU is not known, it is taken for one that the dtype suits.
    row = (
        generation_of(capability)
        if capability is not None
        else next(row for row in GENERATIONS if row.dtype == dtype)
    )
    return row.attention, row.reason
