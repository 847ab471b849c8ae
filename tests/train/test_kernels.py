"""The execution's kernel is the one that computes, and one that is not here ends the run before a
weight is read.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from densekit.spec.execution import Execution
from densekit.train.engines import process_group
from densekit.train.engines.process_group import make_accelerator
from tests.support.kernel_doubles import install_for_good
from tests.support.ranks import run_ranks
from tests.support.worlds import FEW, gradients

pytestmark = pytest.mark.ranks


def step_with(golden: Path, attention: Any, **execution: Any) -> tuple[list, int]:
    """One recorded step with a stand-in for the kernel's package, which a CPU may run: what it
    gives, and its calls.
    """
    seen = install_for_good()
    process_group.check_combination = lambda *_: None
    found = gradients(golden, [(2, FEW)], Execution(attention=attention, **execution))
    return found, len(seen.flash if attention == "flash" else seen.xformers)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param({"zero_stage": 0}, id="none"),
        pytest.param(
            {"zero_stage": 3, "activation_checkpointing": True},
            id="zero3",
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.parametrize("attention", ["flash", "xformers"])
def test_the_trainer_computes_with_the_kernel_of_the_execution(
    golden: Path, attention: str, engine: dict[str, Any]
) -> None:
    ((loss, expected, _),) = run_ranks(1, gradients, golden, [(2, FEW)], Execution(**engine))[
        0
    ].returned
    ((found_loss, found, _),), calls = run_ranks(1, step_with, golden, attention, **engine)[
        0
    ].returned
    layers, micro_batches = 2, 2
    assert calls == layers * micro_batches * (2 if len(engine) > 1 else 1)
    assert found_loss == pytest.approx(loss, abs=1e-5)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm().clamp(min=1e-3), name


def start_on_cuda(capability: tuple[int, int], **execution: Any) -> None:
    """The start of a trainer on a GPU that is not there."""
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_capability = lambda: capability
    torch.cuda.get_device_name = lambda: "a GPU"
    make_accelerator(Execution(device="cuda", **execution))


@pytest.mark.parametrize(
    ("capability", "execution", "message"),
    [
        ((9, 0), {"dtype": "bf16", "attention": "flash"}, "flash_attn cannot be imported here"),
        (
            (7, 0),
            {"dtype": "fp16", "attention": "xformers"},
            "xformers.ops cannot be imported here",
        ),
        (
            (7, 0),
            {"dtype": "fp16", "attention": "flash"},
            "needs 8.0; use --dtype fp16 --attention xformers",
        ),
        ((7, 0), {"dtype": "bf16"}, "bf16 needs 8.0"),
        ((9, 0), {"attention": "flash"}, "flash-attn has no fp32"),
    ],
)
def test_missing_kernel_raises(capability: Any, execution: dict[str, Any], message: str) -> None:
    outcome = run_ranks(1, without_packages, capability, may_fail=True, **execution)[0]
    assert "UsageError" in str(outcome.error) and message in str(outcome.error)


def without_packages(capability: tuple[int, int], **execution: Any) -> None:
    """Also where one of the packages is installed."""
    sys.modules |= {"flash_attn": None, "xformers": None, "xformers.ops": None}  # type: ignore[dict-item]
    start_on_cuda(capability, **execution)


def test_the_trainer_says_what_suits_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (
        ("is_available", True),
        ("get_device_capability", (9, 0)),
        ("get_device_name", "H100"),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        process_group._check_cuda(Execution(device="cuda", dtype="fp16"))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("H100: compute capability 9.0: bf16, flash attention: ")
    assert line.endswith("requested: fp16, sdpa attention")


def test_a_cpu_runs_no_cuda_kernel() -> None:
    outcome = run_ranks(1, make_accelerator, Execution(attention="flash"), may_fail=True)[0]
    assert "UsageError: --attention flash --device cpu: this kernel runs on CUDA only" in str(
        outcome.error
    )
