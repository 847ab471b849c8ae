"""What a GPU computes with, by its compute capability: dtype, attention kernel, container image.

One table; a generation of GPUs is one row of it. densekit.spec.hardware has the single cards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from densekit.errors import UsageError
from densekit.spec.types import AttentionKernel, Device, Dtype

Capability = tuple[int, int]
"""Compute capability of a GPU, as torch and the driver report it: (8, 0) is an A100."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One row: GPUs of `lowest` and above, up to the row before it."""

    lowest: Capability
    gpus: str
    """The cards of `container_image`, for messages."""
    dtype: Dtype
    attention: AttentionKernel
    reason: str
    container_image: str
    """Target of docker/Dockerfile."""
    highest: Capability
    """Of the container image's kernels. Newer GPUs compute with this row's dtype and attention
    kernel, in an environment of their own.
    """

    def has_kernels_for(self, capability: Capability) -> bool:
        """Whether the container image runs on such a GPU; code for 8.0 runs on 8.6 and 8.9 too."""
        return self.lowest <= capability <= self.highest


# Never torch.cuda.is_bf16_supported(): it says yes on a V100, by emulation.
GENERATIONS = (
    Generation(
        lowest=(8, 0),
        gpus="A100, H100, H200",
        dtype="bf16",
        attention="flash",
        reason="bf16 and flash-attn need compute capability 8.0 (A100, H100, H200)",
        container_image="a100",
        highest=(9, 0),
    ),
    Generation(
        lowest=(7, 0),
        gpus="V100",
        dtype="fp16",
        attention="xformers",
        reason="no bf16 and no flash-attn below compute capability 8.0 (V100)",
        container_image="v100",
        highest=(7, 0),
    ),
)


def has_code_for(capability: Capability, archs: Sequence[str]) -> bool:
    """Whether machine code built for `archs` ("sm_80", ...) runs on a GPU: same major version,
    minor not newer.

    `compute_XY` is left out: its code is compiled by the driver, and only by one that is new
    enough.
    """
    major, minor = capability
    built = [
        int(arch.removeprefix("sm_"))
        for arch in archs
        if arch.startswith("sm_") and arch[3:].isdigit()
    ]
    return any(number // 10 == major and number % 10 <= minor for number in built)


def generation_of(capability: Capability) -> Generation:
    """The row of a GPU. Raises UsageError for one that is too old."""
    for row in GENERATIONS:
        if capability >= row.lowest:
            return row
    oldest = GENERATIONS[-1]
    raise UsageError(
        f"--device cuda: this GPU has compute capability {_text(capability)}; densekit needs "
        f"{_text(oldest.lowest)} ({oldest.gpus}) or newer; use another GPU, or --device cpu"
    )


def container_image_for(capability: Capability) -> Generation | None:
    """The row whose container image has kernels for a GPU; None where no image has."""
    return next((row for row in GENERATIONS if row.has_kernels_for(capability)), None)


def check_combination(device: Device, dtype: Dtype, attention: AttentionKernel) -> None:
    """Raises UsageError for an attention kernel that cannot run on a device or in a dtype."""
    if attention == "sdpa":
        return
    if device == "cpu":
        raise UsageError(
            f"--attention {attention} --device cpu: this kernel runs on CUDA only; "
            "use --attention sdpa"
        )
    if dtype == "fp32" and attention == "flash":
        raise UsageError(
            "--attention flash --dtype fp32: flash-attn has no fp32 kernels; use --attention sdpa"
        )


def check_offload(cpu_offload: bool, zero_stage: int) -> None:
    """Raises UsageError for CPU offload of the optimizer without ZeRO-3.

    DeepSpeed's ZeRO-2 adds up offloaded gradients in half precision and does not recover from an
    fp16 overflow (0.19.8, docs/log.md); without ZeRO nothing offloads.
    """
    if cpu_offload and zero_stage != 3:
        raise UsageError(
            f"--offload --zero-stage {zero_stage}: only ZeRO-3 keeps the optimizer in host RAM; "
            "use --zero-stage 3"
        )


def check_gpu(capability: Capability, dtype: Dtype, attention: AttentionKernel) -> str:
    """One line that says what suits this GPU and what the run computes with.

    Raises UsageError for a dtype or an attention kernel that the GPU does not have.
    """
    row = generation_of(capability)
    gpu = f"this GPU has compute capability {_text(capability)}"
    instead = f"use --dtype {row.dtype} --attention {row.attention}"
    if capability < (8, 0) and dtype == "bf16":
        raise UsageError(f"--dtype bf16: {gpu}, bf16 needs 8.0; {instead}")
    if capability < (8, 0) and attention == "flash":
        raise UsageError(f"--attention flash: {gpu}, flash-attn needs 8.0; {instead}")
    default = f"{row.dtype}, {row.attention} attention"
    requested = f"{dtype}, {attention} attention"
    line = f"compute capability {_text(capability)}: {default}: {row.reason}"
    return line if requested == default else f"{line}; requested: {requested}"


def _text(capability: Capability) -> str:
    return ".".join(map(str, capability))
