"""What a micro-batch has alive at the peak of every phase: traced once, and known for all sizes.

The tape allocates and frees in the same order whatever the sizes are, and every size is a constant
plus multiples of tokens, images and label positions. So is what is alive at an allocation. The step
is traced with the three sizes 2**64, 2**128 and 2**192: the four 64-bit digits of every sum of
bytes are then its constant and its three multiples.
"""

from collections.abc import Iterable
from functools import lru_cache
from operator import ge, mul
from struct import Struct

from densekit.planner.memory_trace.autograd import Meter
from densekit.planner.memory_trace.model import TracedStep
from densekit.spec.execution import Execution
from densekit.spec.trained_model import TrainedModel

TOKENS, IMAGES, LABEL_POSITIONS = 2**64, 2**128, 2**192
DIGITS = Struct("<4Q")

Digits = tuple[int, ...]
"""Bytes: a constant, and those of each token, image and label position."""


class Phase:
    """The allocations of one phase that can be its peak, in their order: total, and bytes by
    part.
    """

    def __init__(self, snapshots: list[dict[str, int]]) -> None:
        alive = {_digits(sum(parts.values())): parts for parts in reversed(snapshots)}
        self.highest = [
            (total, {part: _digits(alive[total].get(part, 0)) for part in snapshots[-1]})
            for total in _undominated(reversed(alive))
        ]

    def peak(self, size: Digits) -> dict[str, int]:
        """Bytes by part at the highest total, the first of equals."""
        parts = max(self.highest, key=lambda snapshot: _bytes(snapshot[0], size))[1]
        return {part: _bytes(digits, size) for part, digits in parts.items()}


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
    phases = _phases(model, execution, layers, accumulates)
    return {name: phase.peak((1, *size)) for name, phase in phases.items()}


@lru_cache(maxsize=256)
def _phases(
    model: TrainedModel, execution: Execution, layers: int, accumulates: bool
) -> dict[str, Phase]:
    meter = Meter()
    step = TracedStep(model, execution, meter, layers=layers, accumulates=accumulates)
    step.run(TOKENS, IMAGES, LABEL_POSITIONS)
    return {name: Phase(snapshots) for name, snapshots in meter.snapshots.items()}


def _undominated(totals: Iterable[Digits]) -> list[Digits]:
    """Those of which no other has as much of everything: one of them is highest at any size."""
    found: list[Digits] = []
    for total in totals:
        if not any(all(map(ge, other, total)) for other in found):
            found = [other for other in found if not all(map(ge, total, other))]
            found.append(total)
    return found


def _digits(size: int) -> Digits:
    return DIGITS.unpack(size.to_bytes(DIGITS.size, "little"))


def _bytes(digits: Digits, size: Digits) -> int:
    return sum(map(mul, digits, size))
