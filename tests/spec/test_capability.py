"""The table of compute capabilities: dtype, kernel and container image of a GPU, and refusals."""

from pathlib import Path
from typing import Any

import pytest

from densekit.containers.build import targets
from densekit.errors import UsageError
from densekit.spec.capability import (
    GENERATIONS,
    check_combination,
    check_gpu,
    check_offload,
    container_image_for,
    generation_of,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("capability", "dtype", "attention"),
    [
        ((7, 0), "fp16", "xformers"),  # V100
        ((7, 5), "fp16", "xformers"),  # T4
        ((8, 0), "bf16", "flash"),  # A100
        ((8, 9), "bf16", "flash"),  # L40
        ((9, 0), "bf16", "flash"),  # H100, H200
        ((10, 0), "bf16", "flash"),
    ],
)
def test_dtype_and_kernel_follow_compute_capability(
    capability: tuple[int, int], dtype: str, attention: str
) -> None:
    row = generation_of(capability)
    assert (row.dtype, row.attention) == (dtype, attention)
    line = check_gpu(capability, row.dtype, row.attention)
    number = f"{capability[0]}.{capability[1]}"
    chosen = f"{dtype}, {attention} attention"
    assert line == f"compute capability {number}: {chosen}: {row.reason}"


def test_too_old_gpu_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"compute capability 6\.1; densekit needs 7\.0 \(V100\) or newer"
    ):
        check_gpu((6, 1), "fp32", "sdpa")


@pytest.mark.parametrize(
    ("dtype", "attention", "message"),
    [
        (
            "bf16",
            "xformers",
            "--dtype bf16: .* 7.0, bf16 needs 8.0; use --dtype fp16 --attention xformers",
        ),
        (
            "fp16",
            "flash",
            "--attention flash: .* 7.0, flash-attn needs 8.0; use --dtype fp16 --attention xf",
        ),
    ],
)
def test_bf16_and_flash_are_refused_on_v100(dtype: Any, attention: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_gpu((7, 0), dtype, attention)


def test_requested_dtype_and_kernel_are_named_beside_the_default() -> None:
    assert check_gpu((9, 0), "fp16", "xformers").endswith(
        "(A100, H100, H200); requested: fp16, xformers attention"
    )
    assert check_gpu((7, 0), "fp32", "sdpa").endswith("(V100); requested: fp32, sdpa attention")


@pytest.mark.parametrize(
    ("device", "dtype", "attention", "message"),
    [
        ("cpu", "fp32", "flash", "CUDA only; use --attention sdpa"),
        ("cpu", "bf16", "xformers", "CUDA only; use --attention sdpa"),
        ("cuda", "fp32", "flash", "no fp32 kernels; use --attention sdpa"),
    ],
)
def test_impossible_kernels_are_refused(
    device: Any, dtype: Any, attention: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=f"--attention {attention} --d.*{message}"):
        check_combination(device, dtype, attention)
    check_combination(device, dtype, "sdpa")


@pytest.mark.parametrize(
    ("capability", "container_image"),
    [
        ((7, 0), "v100"),
        ((7, 5), None),
        ((8, 0), "a100"),
        ((8, 6), "a100"),
        ((8, 9), "a100"),
        ((9, 0), "a100"),
        ((10, 0), None),
    ],
)
def test_container_image_has_kernels_for_the_gpu(
    capability: tuple[int, int], container_image: str | None
) -> None:
    row = container_image_for(capability)
    assert (row.container_image if row else None) == container_image


def test_generations_are_listed_newest_first_with_an_image_each() -> None:
    lowest = [row.lowest for row in GENERATIONS]
    assert lowest == sorted(lowest, reverse=True)
    assert set(targets(ROOT)) >= {row.container_image for row in GENERATIONS}


def test_cpu_offload_needs_zero_3() -> None:
    check_offload(True, 3)
    check_offload(False, 2)
    for zero_stage in (0, 2):
        with pytest.raises(
            UsageError,
            match=f"--offload --zero-stage {zero_stage}: only ZeRO-3 .*; use --zero-stage 3",
        ):
            check_offload(True, zero_stage)
