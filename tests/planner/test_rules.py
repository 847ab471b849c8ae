"""Dtype, kernel, ZeRO stage and activation checkpointing: defaults with reasons, and refusals."""

from typing import Any

import pytest

from densekit.errors import UsageError
from densekit.planner.kernel import choose_kernel
from densekit.planner.plan import Plan
from densekit.planner.planning import make_plan
from densekit.recipes.load import load_recipe
from densekit.spec.execution import ExecutionRequest


def _plan(stage: int, **request: Any) -> Plan:
    recipe = load_recipe(f"vicuna7b_clip_stage{stage}")
    return make_plan(recipe, ExecutionRequest(world_size=2, **request))


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
            [
                "slower on most CPUs",
                "CUDA only",
                "nothing is sharded",
                "--activation-checkpointing",
            ],
        ),
        (
            2,
            "cpu",
            "fp32",
            0,
            False,
            [
                "slower on most CPUs",
                "CUDA only",
                "nothing is sharded",
                "--activation-checkpointing",
            ],
        ),
        (
            1,
            "cuda",
            "bf16",
            2,
            True,
            [
                "needs --dtype fp16",
                "flash-attn need compute capability 8.0",
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
                "flash-attn need compute capability 8.0",
                "finetune script (zero3.json)",
                "--gradient_checkpointing",
            ],
        ),
    ],
)
def test_defaults_come_with_their_reasons(
    stage: int, device: Any, dtype: str, zero_stage: int, checkpointing: bool, reasons: list[str]
) -> None:
    plan = _plan(stage, device=device)
    chosen = plan.execution
    assert (chosen.device, plan.gpu) == (device, device)
    assert (chosen.dtype, chosen.zero_stage) == (dtype, zero_stage)
    assert chosen.activation_checkpointing == checkpointing
    notes = _reasons(plan)
    assert [note.split(":")[0] for note in notes] == [
        f"dtype {dtype}",
        f"attention {chosen.attention}",
        f"ZeRO stage {zero_stage}",
        f"activation checkpointing {'on' if checkpointing else 'off'}",
    ]
    assert all(reason in note for reason, note in zip(reasons, notes, strict=True))


@pytest.mark.parametrize(
    "requested",
    [
        {
            "device": "cuda",
            "dtype": "fp16",
            "attention": "flash",
            "zero_stage": 2,
            "activation_checkpointing": False,
        },
        {
            "device": "cuda",
            "dtype": "fp32",
            "attention": "xformers",
            "zero_stage": 0,
            "activation_checkpointing": True,
        },
        {
            "device": "cpu",
            "dtype": "bf16",
            "attention": "sdpa",
            "zero_stage": 3,
            "activation_checkpointing": True,
        },
        {
            "device": "cpu",
            "dtype": "fp16",
            "attention": "sdpa",
            "zero_stage": 0,
            "activation_checkpointing": False,
        },
    ],
)
def test_requested_values_are_kept_without_a_note(requested: dict[str, Any]) -> None:
    plan = _plan(2, **requested)
    assert requested.items() <= plan.execution.model_dump().items()
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
def test_kernel_follows_device_and_dtype(
    device: Any, dtype: Any, attention: str, reason: str
) -> None:
    plan = _plan(1, device=device, dtype=dtype)
    assert plan.execution.attention == attention
    (note,) = [note for note in plan.notes if note.startswith(f"attention {attention}: ")]
    assert reason in note


@pytest.mark.parametrize(
    ("capability", "requested", "expected"),
    [
        ((7, 0), {}, ("fp16", "xformers")),
        ((7, 0), {"dtype": "fp32"}, ("fp32", "sdpa")),
        ((9, 0), {}, ("bf16", "flash")),
        ((9, 0), {"dtype": "fp16"}, ("fp16", "flash")),
        ((9, 0), {"attention": "xformers"}, ("bf16", "xformers")),
    ],
)
def test_known_gpu_decides_dtype_and_kernel_with_one_note(
    capability: Any, requested: dict[str, Any], expected: tuple[str, str]
) -> None:
    dtype, attention, notes = choose_kernel(ExecutionRequest(**requested), "cuda", capability)
    assert (dtype, attention) == expected
    (note,) = notes
    chosen = [f"dtype {dtype}"] * ("dtype" not in requested)
    chosen += [f"attention {attention}"] * ("attention" not in requested)
    assert note.partition(":")[0] == ", ".join(chosen)


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ({"attention": "flash"}, "--attention flash --device cpu: .*; use --attention sdpa"),
        (
            {"device": "cuda", "dtype": "fp32", "attention": "flash"},
            "no fp32 kernels; use --attention sdpa",
        ),
    ],
)
def test_impossible_kernels_are_refused(requested: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _plan(1, **requested)


@pytest.mark.parametrize(
    ("dtype", "attention", "capability", "message"),
    [
        ("bf16", None, (7, 0), "bf16 needs 8.0; use --dtype fp16"),
        (None, "flash", (7, 0), "flash-attn needs 8.0"),
        (None, None, (6, 0), "densekit needs 7.0 .* or newer"),
    ],
)
def test_dtype_or_kernel_that_the_gpu_lacks_is_refused(
    dtype: Any, attention: Any, capability: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        choose_kernel(ExecutionRequest(dtype=dtype, attention=attention), "cuda", capability)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_fp16_zero_on_cpu_is_refused(zero_stage: Any) -> None:
    with pytest.raises(
        UsageError, match=f"--dtype fp16 --zero-stage {zero_stage} --device cpu: .*; use "
    ):
        _plan(1, dtype="fp16", zero_stage=zero_stage)


def test_execution_does_not_change_what_is_fed() -> None:
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
