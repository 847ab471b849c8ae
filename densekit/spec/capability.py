"""What a device should compute with: number type, attention kernel and image by compute capability,
in two tables.
"""

from dataclasses import dataclass

from densekit.errors import UsageError
from densekit.spec.types import AttentionKernel, Device, Dtype

Capability = tuple[int, int]
"""Compute capability of a GPU, as torch and the driver give it: (8, 0) is an A100, (7, 0) a V100.
"""


@dataclass(frozen=True, kw_only=True)
class Suited:
    """One row of the table: GPUs from `since` up to the row above."""

    since: Capability
    dtype: Dtype
    attention: AttentionKernel
    reason: str


# Never torch.cuda.is_bf16_supported(): it says yes on a V100, by emulation.
TABLE = (
    Suited(
        since=(8, 0),
        dtype="bf16",
        attention="flash",
        reason="bf16 and flash-attn need 8.0 (A100, H100, H200)",
    ),
    Suited(
        since=(7, 0),
        dtype="fp16",
        attention="xformers",
        reason="no bf16 and no flash-attn below 8.0 (V100)",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A GPU image of docker/Dockerfile: the compute capabilities it has kernels for, lowest and
    highest.
    """

    name: str
    lowest: Capability
    highest: Capability
    cards: str

    def has_code_for(self, capability: Capability) -> bool:
        """Whether its kernels run on such a GPU; code for 8.0 runs on 8.6 and 8.9 too."""
        return self.lowest <= capability <= self.highest


TARGETS = (
    Target(name="a100", lowest=(8, 0), highest=(9, 0), cards="A100, H100, H200"),
    Target(name="v100", lowest=(7, 0), highest=(7, 0), cards="V100"),
)


def image_for(capability: Capability) -> Target | None:
    """The image that has code for a GPU, if any has."""
    return next((target for target in TARGETS if target.has_code_for(capability)), None)


def suited(capability: Capability) -> Suited:
    """The row of a GPU. Raises UsageError for one that is too old."""
    for row in TABLE:
        if capability >= row.since:
            return row
    raise UsageError(
        f"--device cuda: this GPU has compute capability {_text(capability)}; {_text(TABLE[-1].since)} (V100) or newer "
        "is needed; use another GPU, or --device cpu"
    )


def check_combination(device: Device, dtype: Dtype, attention: AttentionKernel) -> None:
    """Raises UsageError for a kernel that cannot run on a device in a number type; it names one
    that can.
    """
    if attention == "sdpa":
        return
    if device == "cpu":
        raise UsageError(
            f"--attention {attention} --device cpu: this kernel runs on CUDA only; nearest: --attention sdpa"
        )
    if dtype == "fp32" and attention == "flash":
        raise UsageError(
            "--attention flash --dtype fp32: flash-attn has no fp32; nearest: --attention sdpa"
        )


def check_offload(offload: bool, zero_stage: int) -> None:
    """Raises UsageError for an optimiser in host memory without ZeRO-3.

    DeepSpeed's ZeRO-2 adds up offloaded gradients in half precision and does not recover from an
    fp16 overflow (0.19.8, docs/log.md); without ZeRO nothing offloads.
    """
    if offload and zero_stage != 3:
        raise UsageError(
            f"--offload --zero-stage {zero_stage}: only ZeRO-3 keeps the optimiser in host memory; nearest: "
            "--zero-stage 3"
        )


def check_gpu(capability: Capability, dtype: Dtype, attention: AttentionKernel) -> str:
    """One line that says what suits this GPU and what the run computes with.

    Raises UsageError for a number type or a kernel that the GPU does not have; it names those that
    suit it.
    """
    row = suited(capability)
    here = f"this GPU has compute capability {_text(capability)}"
    instead = f"use --dtype {row.dtype} --attention {row.attention}"
    if capability < (8, 0) and dtype == "bf16":
        raise UsageError(f"--dtype bf16: {here}, bf16 needs 8.0; {instead}")
    if capability < (8, 0) and attention == "flash":
        raise UsageError(f"--attention flash: {here}, flash-attn needs 8.0; {instead}")
    asked = (
        ""
        if (dtype, attention) == (row.dtype, row.attention)
        else f"; asked for: {dtype}, {attention} attention"
    )
    return f"compute capability {_text(capability)}: {row.dtype}, {row.attention} attention: {row.reason}{asked}"


def _text(capability: Capability) -> str:
    return ".".join(map(str, capability))
