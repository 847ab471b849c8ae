"""What a micro-batch has alive, as straight lines: traced for four sizes, and known for all others.

The tape allocates and frees in the same order whatever the sizes are, and every size is a constant
plus multiples of tokens, images and label positions. So what is alive at an allocation is such a
sum too.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from densekit.planner.memory_trace.autograd import Meter
from densekit.planner.memory_trace.model import TracedStep
from densekit.spec.execution import Execution
from densekit.spec.trained_model import TrainedModel

Bytes = NDArray[np.int64]


class Phase:
    """The allocations of one phase: bytes by part, for the first of four micro-batches, and what
    each of the others has more.
    """

    def __init__(self, parts: list[str], start: Bytes, slopes: Bytes) -> None:
        self.parts, self.start, self.slopes = parts, start, slopes  # [E, P], [3, E, P]
        self.totals, self.total_slopes = start.sum(axis=1), slopes.sum(axis=2)  # [E], [3, E]

    def peak(self, more: Bytes) -> dict[str, int]:
        """Bytes by part at the highest total of a micro-batch with `more` [3] than the first."""
        place = (self.totals + more @ self.total_slopes).argmax()
        highest = self.start[place] + more @ self.slopes[:, place]
        return dict(zip(self.parts, highest.tolist(), strict=True))


def peaks(
    model: TrainedModel,
    execution: Execution,
    size: tuple[int, int, int],
    *,
    layers: int,
    accumulates: bool,
) -> dict[str, dict[str, int]]:
    """Bytes by part at the peak of every phase, in a language model of `layers` layers.

    `size` is (tokens, images, label positions) of the micro-batch.
    """
    first, phases = _phases(model, execution, layers, accumulates)
    more = np.array(size) - first
    return {name: phase.peak(more) for name, phase in phases.items()}


@lru_cache(maxsize=256)
def _phases(
    model: TrainedModel, execution: Execution, layers: int, accumulates: bool
) -> tuple[Bytes, dict[str, Phase]]:
    """The first size (tokens, images, label positions) and the lines through it."""

    def snapshots(size: Bytes) -> dict[str, list[dict[str, int]]]:
        meter = Meter()
        step = TracedStep(model, execution, meter, layers=layers, accumulates=accumulates)
        step.run(*size.tolist())
        return meter.snapshots

    first = np.array([4 * model.shape.image_tokens, 1, 64])  # its image tokens fit into every one
    start, *others = map(snapshots, (first, *(first + np.diag(first))))
    phases = {}
    for name, alive in start.items():
        parts = sorted({part for snapshot in alive for part in snapshot})
        base, *rest = (_table(each[name], parts) for each in (start, *others))
        slopes = np.stack([(table - base) // step for table, step in zip(rest, first, strict=True)])
        phases[name] = Phase(parts, base, slopes)
    return first, phases


def _table(snapshots: list[dict[str, int]], parts: list[str]) -> Bytes:
    return np.array([[alive.get(part, 0) for part in parts] for alive in snapshots], dtype=np.int64)
