"""Seconds of one optimizer step: compute, communication between GPUs, and CPU offload."""

import math
from dataclasses import dataclass

from densekit.planner.cluster import Cluster
from densekit.spec.execution import Execution
from densekit.spec.flops import Flops
from densekit.spec.hardware import Efficiency
from densekit.spec.trained_model import TrainedModel
from densekit.spec.types import DTYPE_BYTES

LINK_SHARE = 0.7
"""Assumed share of a link's nominal speed that collectives reach."""
HOST_BANDWIDTH = 1e11
"""Assumed bytes/s at which a node's CPUs read and write host RAM."""
HOST_BYTES = (28, 120)
"""Bytes that AdamW moves per weight: weight, gradient, exp_avg and exp_avg_sq once; or once for
each of torch's operations.
"""
HALF_EFFICIENT_TOKENS = 300
"""Assumed tokens of a micro-batch at which a GPU reaches half of what it does on long ones."""
PCIE = 16e9
"""Assumed bytes/s between a GPU and host RAM."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Two ends of what is expected."""

    low: float
    high: float

    @property
    def geometric_mean(self) -> float:
        """What candidates are compared by."""
        return math.sqrt(self.low * self.high)

    def times(self, factor: float) -> "Interval":
        """Both ends multiplied."""
        return Interval(low=self.low * factor, high=self.high * factor)

    def as_json(self) -> dict[str, float]:
        """Three digits of each end."""
        return {"low": float(f"{self.low:.3g}"), "high": float(f"{self.high:.3g}")}


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one optimizer step and the arithmetic behind them."""

    seconds: Interval
    peak: float
    """Seconds at the full peak of the GPUs."""
    communication: float
    host: Interval
    efficiency: Interval
    flops: Flops

    def lines(self) -> list[str]:
        """The arithmetic of one step, one line per part."""
        parts = [
            f"{name:10} {value:9.3e} FLOP  {self.flops.formulas[name]}"
            for name, value in self.flops.parts.items()
            if value
        ]
        offload = f"AdamW in host RAM: {self.host.low:.2f} to {self.host.high:.2f} s"
        return [
            *parts,
            f"{'all':10} {self.flops.total:9.3e} FLOP  {self.peak:.2f} s at the GPUs' peak",
            f"compute at {self.efficiency.low:.0%} to {self.efficiency.high:.0%} of peak; "
            f"communication {self.communication:.2f} s "
            "(overlapped in the low estimate, exposed in the high)",
            *([offload] if self.host.high else []),
            f"step: {self.seconds.low:.2f} to {self.seconds.high:.2f} s",
        ]


def step_time(
    model: TrainedModel,
    execution: Execution,
    cluster: Cluster,
    flops: Flops,
    *,
    micro_batches: int,
    tokens: float,
    measured: Efficiency | None = None,
) -> StepTime:
    """Time of a step of `flops`, in `micro_batches` micro-batches of `tokens` tokens on each GPU.

    `measured` is the efficiency of earlier runs, which has the communication in it.
    docs/planner.md, "Hours".
    """
    hardware, world_size = cluster.hardware, cluster.world_size
    peak = flops.total / (world_size * hardware.flops[execution.dtype])
    filled = tokens / (tokens + HALF_EFFICIENT_TOKENS)
    low, high = measured or (hardware.efficiency[0] * filled, hardware.efficiency[1] * filled)
    communication = (
        0.0
        if measured
        else communication_seconds(model, execution, cluster, micro_batches=micro_batches)
    )
    host = Interval(low=0, high=0)
    if execution.cpu_offload:
        moved = model.trained / world_size * (4 * micro_batches + 2) / PCIE
        updated = model.trained / cluster.nodes
        least, most = (moved + updated * each / HOST_BANDWIDTH for each in HOST_BYTES)
        host = Interval(low=least, high=most)
    seconds = Interval(
        low=max(peak / high, communication) + host.low, high=peak / low + communication + host.high
    )
    return StepTime(
        seconds=seconds,
        peak=peak,
        communication=communication,
        host=host,
        efficiency=Interval(low=low, high=high),
        flops=flops,
    )


def communication_seconds(
    model: TrainedModel, execution: Execution, cluster: Cluster, *, micro_batches: int
) -> float:
    """Seconds that one step's collectives take by themselves.

    ZeRO-3 gathers the language model's weights twice for every micro-batch, ZeRO-2 the trained ones
    once a step; both reduce gradients in fp32 after every micro-batch, DistributedDataParallel once
    a step.
    """
    hardware, world_size, nodes = cluster.hardware, cluster.world_size, cluster.nodes
    if world_size == 1:
        return 0.0
    size, trained = DTYPE_BYTES[execution.dtype], model.trained
    if execution.zero_stage == 3:
        moved = micro_batches * (2 * size * model.shape.language.parameters + 4 * trained)
    elif execution.zero_stage == 2:
        moved = size * trained + micro_batches * 4 * trained
    else:
        moved = 2 * 4 * trained
    between = hardware.network * world_size / nodes
    speed = hardware.link if nodes == 1 else min(hardware.link, between)
    return moved * (world_size - 1) / world_size / (speed * LINK_SHARE)
