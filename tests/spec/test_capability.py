"""The table of compute capabilities: what suits a GPU, what is refused on it, and what is named
instead.
"""

from typing import Any

import pytest

from densekit.errors import UsageError
from densekit.spec.capability import check_combination, check_gpu, suited


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
def test_what_suits_a_gpu(capability: tuple[int, int], dtype: str, attention: str) -> None:
    row = suited(capability)
    assert (row.dtype, row.attention) == (dtype, attention)
    line = check_gpu(capability, row.dtype, row.attention)
    assert (
        line
        == f"compute capability {capability[0]}.{capability[1]}: {dtype}, {attention} attention: {row.reason}"
    )


def test_a_gpu_that_is_too_old() -> None:
    with pytest.raises(
        UsageError, match=r"compute capability 6\.1; 7\.0 \(V100\) or newer is needed"
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
            "--attention flash: .* 7.0, flash-attn needs 8.0; use --dtype fp16 --attention xformers",
        ),
    ],
)
def test_what_a_v100_does_not_have(dtype: Any, attention: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_gpu((7, 0), dtype, attention)


def test_another_choice_is_carried_out_and_told() -> None:
    assert check_gpu((9, 0), "fp16", "xformers").endswith(
        "(A100, H100, H200); asked for: fp16, xformers attention"
    )
    assert check_gpu((7, 0), "fp32", "sdpa").endswith("(V100); asked for: fp32, sdpa attention")


@pytest.mark.parametrize(
    ("device", "dtype", "attention", "nearest"),
    [
        ("cpu", "fp32", "flash", "CUDA only; nearest: --attention sdpa"),
        ("cpu", "bf16", "xformers", "CUDA only; nearest: --attention sdpa"),
        ("cuda", "fp32", "flash", "no fp32; nearest: --attention sdpa"),
    ],
)
def test_kernels_that_cannot_run(device: Any, dtype: Any, attention: Any, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"--attention {attention} --d.*{nearest}"):
        check_combination(device, dtype, attention)
    check_combination(device, dtype, "sdpa")
