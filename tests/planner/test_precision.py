"""Number type, kernel, ZeRO stage and checkpointing: defaults with their reasons, and what cannot
work.
"""

from typing import Any

import pytest

from densekit.errors import UsageError
from densekit.planner.plan import Plan, make_plan
from densekit.planner.precision import choose_kernel
from densekit.planner.search import Fixed
from densekit.recipes.load import load_recipe


def _plan(stage: int, *, device: Any = "cpu", **wanted: Any) -> Plan:
    return make_plan(
        load_recipe(f"vicuna7b_clip_stage{stage}"), Fixed(**wanted), gpus=2, device=device
    )


def _reasons(plan: Plan) -> list[str]:
    return [
        note for note in plan.notes if note.startswith(("dtype", "attention", "ZeRO", "activation"))
    ]


@pytest.mark.parametrize(
    ("stage", "device", "dtype", "zero_stage", "checkpointing", "reasons"),
    [
        (
            1,
            "cpu",
            "fp32",
            0,
            False,
            ["slower on most CPUs", "CUDA only", "holds the whole model", "second forward pass"],
        ),
        (
            2,
            "cpu",
            "fp32",
            0,
            False,
            ["slower on most CPUs", "CUDA only", "holds the whole model", "second forward pass"],
        ),
        (
            1,
            "cuda",
            "bf16",
            2,
            True,
            [
                "needs --dtype fp16",
                "flash-attn need 8.0",
                "pretrain script (zero2.json)",
                "--gradient_checkpointing",
            ],
        ),
        (
            2,
            "cuda",
            "bf16",
            3,
            True,
            [
                "needs --dtype fp16",
                "flash-attn need 8.0",
                "finetune script (zero3.json)",
                "--gradient_checkpointing",
            ],
        ),
    ],
)
def test_defaults_say_why(
    stage: int, device: Any, dtype: str, zero_stage: int, checkpointing: bool, reasons: list[str]
) -> None:
    plan = _plan(stage, device=device)
    assert (plan.device, plan.gpu) == (device, device)
    assert (plan.dtype, plan.zero_stage, plan.checkpointing) == (dtype, zero_stage, checkpointing)
    told = _reasons(plan)
    assert [note.split(":")[0] for note in told] == [
        f"dtype {dtype}",
        f"attention {plan.attention}",
        f"ZeRO stage {zero_stage}",
        f"activation checkpointing {'on' if checkpointing else 'off'}",
    ]
    assert all(reason in note for reason, note in zip(reasons, told, strict=True))


@pytest.mark.parametrize(
    "wanted",
    [
        {
            "device": "cuda",
            "dtype": "fp16",
            "attention": "flash",
            "zero_stage": 2,
            "checkpointing": False,
        },
        {
            "device": "cuda",
            "dtype": "fp32",
            "attention": "xformers",
            "zero_stage": 0,
            "checkpointing": True,
        },
        {
            "device": "cpu",
            "dtype": "bf16",
            "attention": "sdpa",
            "zero_stage": 3,
            "checkpointing": True,
        },
        {
            "device": "cpu",
            "dtype": "fp16",
            "attention": "sdpa",
            "zero_stage": 0,
            "checkpointing": False,
        },
    ],
)
def test_what_is_asked_for_is_taken_without_a_reason(wanted: dict[str, Any]) -> None:
    plan = _plan(2, **wanted)
    assert wanted == {
        "device": plan.device,
        "dtype": plan.dtype,
        "attention": plan.attention,
        "zero_stage": plan.zero_stage,
        "checkpointing": plan.checkpointing,
    }
    assert _reasons(plan) == []


@pytest.mark.parametrize(
    ("device", "dtype", "attention", "reason"),
    [
        ("cpu", None, "sdpa", "CUDA only"),
        ("cpu", "bf16", "sdpa", "CUDA only"),
        ("cuda", None, "flash", "A100"),
        ("cuda", "bf16", "flash", "A100"),
        ("cuda", "fp16", "xformers", "V100"),
        ("cuda", "fp32", "sdpa", "no fp32"),
    ],
)
def test_the_kernel_follows_device_and_number_type(
    device: Any, dtype: Any, attention: str, reason: str
) -> None:
    plan = _plan(1, device=device, dtype=dtype)
    assert plan.attention == attention
    (told,) = [note for note in plan.notes if note.startswith(f"attention {attention}: ")]
    assert reason in told


@pytest.mark.parametrize(
    ("capability", "wanted", "expected"),
    [
        ((7, 0), {}, ("fp16", "xformers")),
        ((7, 0), {"dtype": "fp32"}, ("fp32", "sdpa")),
        ((9, 0), {}, ("bf16", "flash")),
        ((9, 0), {"dtype": "fp16"}, ("fp16", "flash")),
        ((9, 0), {"attention": "xformers"}, ("bf16", "xformers")),
    ],
)
def test_a_known_gpu_decides(
    capability: Any, wanted: dict[str, Any], expected: tuple[str, str]
) -> None:
    kernel = choose_kernel("cuda", wanted.get("dtype"), wanted.get("attention"), capability)
    assert (kernel.dtype, kernel.attention) == expected


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"attention": "flash"}, "--attention flash --device cpu: .*; nearest: --attention sdpa"),
        (
            {"device": "cuda", "dtype": "fp32", "attention": "flash"},
            "no fp32; nearest: --attention sdpa",
        ),
    ],
)
def test_kernels_that_cannot_run_are_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _plan(1, **wanted)


@pytest.mark.parametrize(
    ("dtype", "attention", "capability", "message"),
    [
        ("bf16", None, (7, 0), "bf16 needs 8.0; use --dtype fp16"),
        (None, "flash", (7, 0), "flash-attn needs 8.0"),
        (None, None, (6, 0), "or newer is needed"),
    ],
)
def test_what_a_gpu_does_not_have_is_refused(
    dtype: Any, attention: Any, capability: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        choose_kernel("cuda", dtype, attention, capability)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_fp16_under_deepspeed_on_a_cpu_is_refused(zero_stage: Any) -> None:
    with pytest.raises(
        UsageError, match=f"--dtype fp16 --zero-stage {zero_stage} --device cpu: .*; nearest: "
    ):
        _plan(1, dtype="fp16", zero_stage=zero_stage)


def test_the_execution_does_not_touch_what_is_fed() -> None:
    plain, other = _plan(2), _plan(2, device="cuda", dtype="fp16")
    for field in (
        "steps",
        "samples_dropped",
        "samples_repeated",
        "global_batch_size",
        "micro_batches",
        "num_samples",
    ):
        assert getattr(plain, field) == getattr(other, field)
