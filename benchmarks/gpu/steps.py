"""One training step as a run takes it: seconds of data and compute, MFU, peak memory beside the
plan's, and a profile.
"""

import statistics
from typing import Any

import torch

from densekit.errors import UsageError
from densekit.model.attention import require_kernel, try_kernel
from densekit.model.dtypes import TORCH_DTYPES
from densekit.planner.memory import Memory, memory_of
from densekit.planner.model_states import ModelStates
from densekit.planner.workload import MicroBatchShape, Workload
from densekit.runs.records import StepMetrics
from densekit.spec.capability import check_gpu
from densekit.spec.execution import Execution
from densekit.spec.flops import AverageSample, flops_of
from densekit.spec.hardware import GIB
from densekit.spec.types import AttentionKernel, Dtype
from densekit.train.engines.process_group import make_accelerator
from densekit.train.utilization import Utilization
from gpu.made import MadeReader, make_trainer, workload_of
from gpu.peak import here, usable_bytes
from gpu.profiled import profiled

SAMPLES = {"stage1": 16, "lora": 8, "full": 4}
"""Of a micro-batch on a GPU; a step has two, so that gradients add up. A CPU takes two."""
WORKERS = 2
"""As the plan of a run on a GPU has them at least."""
USABLE = 0.9
"""Share of the memory that the plan may fill: depth is cut until it does."""


def execution_here(device: str) -> Execution:
    """fp32 and SDPA on a CPU; on a GPU its half-precision dtype and the best kernel here."""
    if device == "cpu":
        return Execution(device="cpu")
    capability = torch.cuda.get_device_capability()
    dtype: Dtype = "bf16" if capability >= (8, 0) else "fp16"
    kernels: tuple[AttentionKernel, ...] = ("flash", "xformers", "sdpa")
    for kernel in kernels:
        try:
            check_gpu(capability, dtype, kernel)
            require_kernel(kernel)
            try_kernel(kernel, torch.device("cuda"), TORCH_DTYPES[dtype])
        except UsageError:
            continue
        return Execution(device="cuda", dtype=dtype, attention=kernel)
    raise AssertionError("SDPA is part of torch")


class Kept:
    """In the place of a run's records: keeps what each step measured."""

    def __init__(self, device: str) -> None:
        self.steps: list[StepMetrics] = []
        self._device = device

    def append(self, metrics: StepMetrics, samples: Any, images: Any) -> None:
        """A step is over; the first one warmed up and made exp_avg and exp_avg_sq."""
        self.steps.append(metrics)
        if self._device == "cuda" and len(self.steps) == 1:
            torch.cuda.reset_peak_memory_stats()


def measure_step(what: str, size: str, device: str, steps: int) -> dict[str, Any]:
    """Train `steps` steps after a first one, through the trainer's own loop, and profile one."""
    samples = SAMPLES[what] if device == "cuda" else 2
    execution = execution_here(device).model_copy(
        update={
            "micro_batch_size": samples,
            "activation_checkpointing": what != "stage1",
            "workers": WORKERS if device == "cuda" else 0,
        }
    )
    math, workload = workload_of(size, what)
    full_depth = workload.model.shape.language.layers
    layers = full_depth
    while device == "cuda" and not _fits(workload, execution, samples):
        layers -= 2
        if layers < 2:
            return {"ok": False, "error": "not even two layers fit this GPU"}
        math, workload = workload_of(size, what, layers)
    accelerator = make_accelerator(execution, max_grad_norm=math.optimizer.max_grad_norm)
    gpu = here(device)
    trainer = make_trainer(
        math,
        workload,
        execution,
        accelerator,
        steps=steps + 1,
        samples=2 * samples,
        on=device,
        utilization=Utilization(model=workload.model, peak=gpu.flops[execution.dtype])
        if gpu
        else None,
    )
    kept = Kept(device)
    trainer.train(kept, label=what, quiet=True)  # type: ignore[arg-type]
    timed, losses = kept.steps[1:], [step.loss for step in kept.steps]
    sample = _measured_sample(workload, steps, samples)
    flops = flops_of(
        workload.model,
        sample,
        2 * samples,
        activation_checkpointing=execution.activation_checkpointing,
    )
    step_seconds = statistics.median(step.seconds for step in timed)
    result: dict[str, Any] = {
        "ok": all(loss is not None for loss in losses),
        "execution": execution.describe(),
        "layers": f"{layers} of {full_depth}",
        "samples": 2 * samples,
        "tokens": round(2 * samples * sample.tokens),
        "losses": losses,
        "first_step_seconds": kept.steps[0].seconds,
        "step_seconds": step_seconds,
        "data_seconds": statistics.median(step.data_seconds for step in timed),
        "compute_seconds": statistics.median(step.compute_seconds for step in timed),
        "tokens_per_second": statistics.median(step.tokens_per_second for step in timed),
        "tflops_per_second": round(flops.total / max(step_seconds, 1e-4) / 1e12, 4),
    }
    if gpu is not None:
        result["mfu"] = statistics.median(step.mfu or 0.0 for step in timed)
        result["executed_share_of_peak"] = round(
            flops.total / step_seconds / gpu.flops[execution.dtype], 4
        )
        result |= _against_the_plan(workload, execution, trainer)
    batch = next(trainer.batches())
    result["profile"] = profiled(lambda: trainer.step(batch), device)
    return result


def _against_the_plan(workload: Workload, execution: Execution, trainer: Any) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info()
    largest = max(
        (batch for step in trainer.batches() for batch in step.micro_batches),
        key=lambda batch: len(batch.input_ids),
    )
    planned = memory_of(
        workload.model,
        execution,
        MicroBatchShape(
            samples=len(largest.sample_ids),
            tokens=len(largest.input_ids),
            images=len(largest.pixels),
            label_positions=len(largest.targets),
        ),
    )
    outside = sum(ModelStates(workload.model, execution).outside_allocator.values())
    measured = torch.cuda.max_memory_allocated()
    allocated = planned.peak - outside - planned.parts.get("fragmentation", 0)
    return {
        "peak_allocated_gib": round(measured / GIB, 2),
        "planned_allocated_gib": round(allocated / GIB, 2),
        "planned_over_measured": round(allocated / measured, 3),
        "peak_reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
        "in_use_gib": round((total - free) / GIB, 2),
        "planned_peak_gib": round(planned.peak / GIB, 2),
    }


def _measured_sample(workload: Workload, steps: int, samples: int) -> AverageSample:
    """The average of the samples that the timed steps fed."""
    reader = MadeReader(workload=workload)
    numbers = range(2 * samples, 2 * samples * (steps + 1))
    lengths = [len(reader.sequence(number)[0].input_ids) for number in numbers]
    labels = [int((reader.sequence(number)[0].labels >= 0).sum()) for number in numbers]
    count = len(lengths)
    return AverageSample(
        tokens=sum(lengths) / count,
        squares=sum(length**2 for length in lengths) / count,
        images=1.0,
        label_positions=sum(labels) / count,
    )


def _fits(workload: Workload, execution: Execution, samples: int) -> bool:
    shape = workload.typical_micro_batch(samples)
    needed: Memory = memory_of(workload.model, execution, shape)
    return needed.peak <= USABLE * usable_bytes()
