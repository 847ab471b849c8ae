"""MFU: known for a GPU of the table alone, and a step's operations by hand."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from densekit.recipes.load import load_recipe
from densekit.runs.results import Results, Summary
from densekit.spec.execution import Execution
from densekit.spec.flops import FLASH_BACKWARD, AverageSample, flops_of
from densekit.spec.hardware import GIB
from densekit.spec.roots import Roots
from densekit.train import utilization
from densekit.train.report import report
from densekit.train.utilization import Utilization, take_peak_memory

MATH = load_recipe("vicuna7b_clip_stage2").math()
STEP: Any = SimpleNamespace(
    samples=2, tokens=250, squares=150**2 + 100**2, images=1, label_positions=9
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    found = SimpleNamespace(name="NVIDIA A100-SXM4-80GB", capability=(8, 0), gib=80)
    cuda = SimpleNamespace(
        get_device_name=lambda: found.name,
        get_device_capability=lambda: found.capability,
        mem_get_info=lambda: (0, found.gib * GIB),
    )
    monkeypatch.setattr(utilization, "torch", SimpleNamespace(cuda=cuda))
    return found


def on(**changes: Any) -> Utilization | None:
    execution = {"device": "cuda", "dtype": "bf16", "world_size": 4, "roots": Roots(), **changes}
    return Utilization.here(MATH, Execution(**execution))


def test_operations_of_the_step_over_the_peak_of_all_gpus(gpu: SimpleNamespace) -> None:
    known = on()
    assert known is not None and known.peak == 4 * 312e12
    sample = AverageSample(tokens=125, squares=STEP.squares / 2, images=0.5, label_positions=4.5)
    parts = flops_of(known.model, sample, 2, activation_checkpointing=False).parts
    attention = parts.pop("attention") * 3 / (1 + FLASH_BACKWARD)
    assert known.of(STEP, 0.5) == pytest.approx(
        (sum(parts.values()) + attention) / 0.5 / known.peak
    )
    checkpointing = on(activation_checkpointing=True)
    assert checkpointing is not None and checkpointing.of(STEP, 0.5) == known.of(STEP, 0.5), (
        "what is recomputed is no work of the model"
    )


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("NVIDIA A100-SXM4-80GB", {"device": "cpu", "dtype": "fp32"}),
        ("Some card of tomorrow", {}),
        ("Tesla V100-SXM2-32GB", {}),
    ],
    ids=["cpu", "unknown", "no-bf16"],
)
def test_without_a_peak_there_is_none(
    gpu: SimpleNamespace, name: str, changes: dict[str, Any]
) -> None:
    gpu.name = name
    gpu.gib = 32 if "V100" in name else gpu.gib
    assert on(**changes) is None


def test_a_pcie_card_has_its_own_peak(gpu: SimpleNamespace) -> None:
    gpu.name, gpu.capability = "NVIDIA H100 PCIe", (9, 0)
    found = on(world_size=1)
    assert found is not None and found.peak == 756e12


def test_the_report_has_the_mfu_of_the_run() -> None:
    summary = Summary(steps=1, seconds=10.0, compute_seconds=9.0, peak_seconds=4.2)
    (line,) = [line for line in report(Results(summary=summary), "here") if "tokens/s" in line]
    assert line.endswith("MFU 42.0%")
    summary.peak_seconds = 0.0
    assert not any("MFU" in line for line in report(Results(summary=summary), "here"))


@pytest.mark.parametrize(
    ("waited", "seconds", "slow"), [(120, 1000, True), (120, 2000, False), (30, 60, False)]
)
def test_a_slow_data_loader_is_one_that_cost_time(waited: int, seconds: int, slow: bool) -> None:
    """A tiny run waits for its workers to start, which nothing mends."""
    summary = Summary(steps=9, seconds=seconds, compute_seconds=1.0, data_seconds=waited)
    lines = report(Results(summary=summary), "here")
    assert any("give more --workers" in line for line in lines) == slow


def test_the_peak_of_a_step_is_read_once_and_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peaks = [3 * GIB]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: peaks[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: peaks.__setitem__(0, GIB))
    cuda = torch.device("cuda")
    assert [take_peak_memory(cuda), take_peak_memory(cuda)] == [3.0, 1.0]
    assert take_peak_memory(torch.device("cpu")) is None
