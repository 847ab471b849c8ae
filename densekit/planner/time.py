"""Seconds of one optimiser step: computing, talking between GPUs, and an optimiser in main memory."""

import math
from dataclasses import dataclass

from densekit.planner.flops import Flops
from densekit.planner.memory import Layout
from densekit.spec.architectures import ModelShape
from densekit.spec.hardware import Hardware

LINK_SHARE = 0.7
"""Assumed share of a link's nominal speed that collectives reach."""
HOST_BANDWIDTH = 1e11
"""Assumed bytes/s at which a node's processors read and write main memory."""
HOST_BYTES = (28, 120)
"""Bytes that AdamW moves per weight: weight, gradient and moments once; or once for each of torch's
operations.
"""
ROW_TOKENS = 300
"""Assumed tokens of a row at which a GPU reaches half of what it does on long ones."""
PCIE = 16e9
"""Assumed bytes/s between a GPU and main memory."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Two ends of what is expected."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Geometric mean: what candidates are compared by."""
        return math.sqrt(self.low * self.high)

    def times(self, factor: float) -> "Interval":
        """Both ends multiplied."""
        return Interval(low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one optimiser step and the arithmetic behind them."""

    seconds: Interval
    peak: float
    """Seconds at the full peak of the GPUs."""
    talking: float
    host: Interval
    efficiency: Interval
    flops: Flops

    def lines(self) -> list[str]:
        """The arithmetic of one step, one line per part."""
        parts = [
            f"{name:10} {value:9.3e} FLOP  {self.flops.formulas[name]}"
            for name, value in self.flops.parts.items()
        ]
        return [
            *(line for line, value in zip(parts, self.flops.parts.values(), strict=True) if value),
            f"{'all':10} {self.flops.total:9.3e} FLOP  {self.peak:.2f} s at the GPUs' peak",
            f"computing: {self.efficiency.low:.0%} to {self.efficiency.high:.0%} of it; "
            f"between GPUs: {self.talking:.2f} s, hidden (low) or not (high)",
            *(
                [f"AdamW in main memory: {self.host.low:.2f} to {self.host.high:.2f} s"]
                if self.host.high
                else []
            ),
            f"step: {self.seconds.low:.2f} to {self.seconds.high:.2f} s",
        ]


def step_time(
    shape: ModelShape,
    layout: Layout,
    hardware: Hardware,
    flops: Flops,
    *,
    trained: int,
    micro_batches: int,
    row_tokens: float,
    nodes: int,
    measured: tuple[float, float] | None = None,
) -> StepTime:
    """Time of a step of `flops` on `layout.world` GPUs, in `micro_batches` rows of `row_tokens` on
    each; `trained`: weights with gradients.

    `measured` is the efficiency of earlier runs, which has the talking in it. docs/planner.md,
    "Hours".
    """
    peak = flops.total / (layout.world * hardware.flops[layout.dtype])
    filled = row_tokens / (row_tokens + ROW_TOKENS)
    low, high = measured or (hardware.efficiency[0] * filled, hardware.efficiency[1] * filled)
    talking = (
        0.0
        if measured
        else talk_seconds(
            shape, layout, hardware, trained=trained, micro_batches=micro_batches, nodes=nodes
        )
    )
    host = Interval(low=0, high=0)
    if layout.offload:
        moved = trained / layout.world * (4 * micro_batches + 2) / PCIE
        host = Interval(
            low=moved + trained / nodes * HOST_BYTES[0] / HOST_BANDWIDTH,
            high=moved + trained / nodes * HOST_BYTES[1] / HOST_BANDWIDTH,
        )
    seconds = Interval(
        low=max(peak / high, talking) + host.low, high=peak / low + talking + host.high
    )
    return StepTime(
        seconds=seconds,
        peak=peak,
        talking=talking,
        host=host,
        efficiency=Interval(low=low, high=high),
        flops=flops,
    )


def talk_seconds(
    shape: ModelShape,
    layout: Layout,
    hardware: Hardware,
    *,
    trained: int,
    micro_batches: int,
    nodes: int,
) -> float:
    """Seconds that one step's collectives take by themselves.

    ZeRO-3 gathers the language model's weights twice for every row, ZeRO-2 the trained ones once a
    step; both reduce gradients in fp32 after every row, DistributedDataParallel once a step.
    """
    world = layout.world
    if world == 1:
        return 0.0
    size = 4 if layout.dtype == "fp32" else 2
    if layout.zero_stage == 3:
        moved = micro_batches * (2 * size * shape.language.parameters + 4 * trained)
    elif layout.zero_stage == 2:
        moved = size * trained + micro_batches * 4 * trained
    else:
        moved = 2 * 4 * trained
    speed = hardware.link if nodes == 1 else min(hardware.link, hardware.network * world / nodes)
    return moved * (world - 1) / world / (speed * LINK_SHARE)
