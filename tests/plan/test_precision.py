"""Number type, ZeRO stage and checkpointing: defaults with their reasons, and what cannot work."""

from typing import Any

import pytest

from densekit.errors import UsageError
from densekit.plan.execution import Plan, make_plan
from densekit.recipe.load import load_recipe


def _plan(stage: int, **wanted: Any) -> Plan:
    return make_plan(load_recipe(f"vicuna7b_clip_stage{stage}"), gpus=2, **wanted)


def _reasons(plan: Plan) -> list[str]:
    return [note for note in plan.notes if note.startswith(("dtype", "ZeRO", "activation"))]


@pytest.mark.parametrize(
    ("stage", "device", "dtype", "zero_stage", "checkpointing", "reasons"),
    [
        (1, "cpu", "fp32", 0, False, ["slower on most CPUs", "holds the whole model", "second forward pass"]),
        (2, "cpu", "fp32", 0, False, ["slower on most CPUs", "holds the whole model", "second forward pass"]),
        (
            1,
            "cuda",
            "bf16",
            2,
            True,
            ["needs --dtype fp16", "pretrain script (zero2.json)", "--gradient_checkpointing"],
        ),
        (
            2,
            "cuda",
            "bf16",
            3,
            True,
            ["needs --dtype fp16", "finetune script (zero3.json)", "--gradient_checkpointing"],
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
        f"ZeRO stage {zero_stage}",
        f"activation checkpointing {'on' if checkpointing else 'off'}",
    ]
    assert all(reason in note for reason, note in zip(reasons, told, strict=True))


@pytest.mark.parametrize(
    "wanted",
    [
        {"device": "cuda", "dtype": "fp16", "zero_stage": 2, "activation_checkpointing": False},
        {"device": "cuda", "dtype": "fp32", "zero_stage": 0, "activation_checkpointing": True},
        {"device": "cpu", "dtype": "bf16", "zero_stage": 3, "activation_checkpointing": True},
        {"device": "cpu", "dtype": "fp16", "zero_stage": 0, "activation_checkpointing": False},
    ],
)
def test_what_is_asked_for_is_taken_without_a_reason(wanted: dict[str, Any]) -> None:
    plan = _plan(2, **wanted)
    assert wanted == {
        "device": plan.device,
        "dtype": plan.dtype,
        "zero_stage": plan.zero_stage,
        "activation_checkpointing": plan.checkpointing,
    }
    assert _reasons(plan) == []


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_fp16_under_deepspeed_on_a_cpu_is_refused(zero_stage: Any) -> None:
    with pytest.raises(UsageError, match=f"--dtype fp16 --zero-stage {zero_stage} --device cpu: .*; nearest: "):
        _plan(1, dtype="fp16", zero_stage=zero_stage)


def test_the_execution_does_not_touch_what_is_fed() -> None:
    plain, other = _plan(2), _plan(2, device="cuda", dtype="fp16")
    for field in ("steps", "samples_dropped", "samples_repeated", "global_batch_size", "micro_batches", "num_samples"):
        assert getattr(plain, field) == getattr(other, field)
