"""The DeepSpeed configuration, and the engine of an execution against the one that came up."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from densekit.spec.execution import Execution
from densekit.train.engines import process_group, zero
from densekit.train.engines.process_group import deepspeed_config, make_accelerator
from tests.support.ranks import run_ranks
from tests.support.worlds import FEW, make_trainer, step_of

pytestmark = pytest.mark.ranks


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    else:
        yield value


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stage", [2, 3])
def test_nothing_is_left_to_deepspeed(dtype: Any, stage: Any) -> None:
    execution = Execution(dtype=dtype, zero_stage=stage)
    config = deepspeed_config(execution, world_size=4, max_grad_norm=None)
    assert "auto" not in list(leaves(config))
    assert config["zero_optimization"]["stage"] == stage and config["gradient_clipping"] == 0.0
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == (
        dtype == "bf16",
        dtype == "fp16",
    )
    assert config["data_types"]["grad_accum_dtype"] == config["communication_data_type"] == "fp32"
    assert deepspeed_config(execution, world_size=4, max_grad_norm=0.5)["gradient_clipping"] == 0.5


def wrong_stage(golden: Path) -> None:
    """ZeRO-3 in the execution, ZeRO-2 in DeepSpeed."""
    real = zero.ZeroEngine._prepare

    def prepare(self: zero.ZeroEngine, part: nn.Module) -> nn.Module:
        self.execution = self.execution.model_copy(update={"zero_stage": 3})
        return real(self, part)

    zero.ZeroEngine._prepare = prepare  # type: ignore[method-assign]
    make_trainer(golden, [step_of(FEW)], Execution(zero_stage=2))


def test_engine_that_differs_from_the_execution_stops_the_run(golden: Path) -> None:
    outcome = run_ranks(1, wrong_stage, golden, may_fail=True)[0]
    assert (
        "execution.json asks for DeepSpeed ZeRO-3, accelerate prepared DeepSpeedEngine, stage 2"
        in str(outcome.error)
    )


def without_offload(golden: Path) -> None:
    """CPU offload in the execution, none in DeepSpeed."""
    real = process_group.deepspeed_config
    process_group.deepspeed_config = lambda execution, **options: real(  # type: ignore[assignment]
        execution.model_copy(update={"cpu_offload": False}), **options
    )
    make_trainer(golden, [step_of(FEW)], Execution(zero_stage=3, cpu_offload=True))


def test_cpu_offload_that_differs_from_the_execution_stops_the_run(golden: Path) -> None:
    outcome = run_ranks(1, without_offload, golden, may_fail=True)[0]
    assert "execution.json says cpu_offload True, DeepSpeed came up with False" in str(
        outcome.error
    )
    outcome = run_ranks(
        1, make_accelerator, Execution(zero_stage=2, cpu_offload=True), may_fail=True
    )[0]
    assert (
        "UsageError: --offload --zero-stage 2: only ZeRO-3 keeps the optimizer in host RAM"
        in str(outcome.error)
    )


def inherited() -> list[str]:
    import os

    os.environ |= {"ACCELERATE_MIXED_PRECISION": "fp16", "DS_BUILD_OPS": "1"}
    make_accelerator(Execution())
    return sorted(name for name in os.environ if name.startswith(("ACCELERATE_", "DS_")))


def test_inherited_variables_do_not_reach_the_run() -> None:
    assert run_ranks(1, inherited)[0].returned == ["DS_ACCELERATOR"]


def test_cuda_where_there_is_none() -> None:
    outcome = run_ranks(1, make_accelerator, Execution(device="cuda"), may_fail=True)[0]
    assert "UsageError: --device cuda: torch sees no CUDA device" in str(outcome.error)
