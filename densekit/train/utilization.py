"""What a step takes of its GPUs: model FLOPs utilisation (MFU), where the GPU is one whose peak is
known, and memory.
"""

from dataclasses import dataclass

import torch

from densekit.errors import DensekitError
from densekit.spec.architectures import shape_of
from densekit.spec.execution import Execution
from densekit.spec.flops import AverageSample, model_flops
from densekit.spec.hardware import GIB, MIB, found_hardware, named_hardware
from densekit.spec.math import Math
from densekit.spec.trained_model import TrainedModel
from densekit.train.step_dataset import StepBatch


@dataclass(frozen=True, kw_only=True)
class Utilization:
    """What a step computes, against what its GPUs could."""

    model: TrainedModel
    peak: float
    """Dense peak of all ranks' GPUs in the run's dtype, FLOP/s."""

    @classmethod
    def here(cls, math: Math, execution: Execution) -> "Utilization | None":
        """That of this process's GPU; None on a CPU, for a GPU that is not in the table, and for
        models whose shape is not known.
        """
        if execution.device != "cuda":
            return None
        name = torch.cuda.get_device_name()
        if named_hardware(name) is None:
            return None
        memory = torch.cuda.mem_get_info()[1]
        gpu = found_hardware(name, torch.cuda.get_device_capability(), memory // MIB)
        try:
            model = TrainedModel.of(math, shape_of(math, execution.roots))
        except DensekitError:
            return None
        if execution.dtype not in gpu.flops:
            return None
        return cls(model=model, peak=gpu.flops[execution.dtype] * execution.world_size)

    def of(self, batch: StepBatch, seconds: float) -> float:
        """The share of the peak that a step of all ranks reached (0 to 1)."""
        sample = AverageSample(
            tokens=batch.tokens / batch.samples,
            squares=batch.squares / batch.samples,
            images=batch.images / batch.samples,
            label_positions=batch.label_positions / batch.samples,
        )
        flops = model_flops(self.model, sample, batch.samples)
        return flops / (max(seconds, 1e-4) * self.peak)


def take_peak_memory(device: torch.device) -> float | None:
    """The most that tensors took of a GPU since this was last asked, GiB; None on a CPU."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return round(peak / GIB, 3)
