"""What a training row has alive, as straight lines: followed for four rows, and known for all
others.

The tape allocates and frees in the same order whatever a row's sizes are, and every size is a
constant plus multiples of its tokens, its images and its supervised positions. So what is alive at
an allocation is such a sum too.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from densekit.planner.memory_trace.autograd import Meter
from densekit.planner.memory_trace.model import Settings, Step
from densekit.spec.architectures import ModelShape

Bytes = NDArray[np.int64]


class Moment:
    """The allocations of one moment: bytes by part, for the first of four rows and by what each
    other row has more.
    """

    def __init__(self, parts: list[str], start: Bytes, slopes: Bytes) -> None:
        self.parts, self.start, self.slopes = parts, start, slopes  # [E, P], [3, E, P]

    def peak(self, more: Bytes) -> dict[str, int]:
        """Bytes by part at the highest total of a row that has `more` [3] than the first one."""
        alive = self.start + np.tensordot(more, self.slopes, 1)
        highest = alive[alive.sum(axis=1).argmax()]
        return dict(zip(self.parts, highest.tolist(), strict=True))


def peaks(
    shape: ModelShape, settings: Settings, tokens: int, images: int, supervised: int, layers: int
) -> dict[str, dict[str, int]]:
    """Bytes by part at the peak of every moment of a row, in a model of `layers` layers."""
    first, moments = _moments(shape, settings, layers)
    more = np.array([tokens, images, supervised]) - first
    return {name: moment.peak(more) for name, moment in moments.items()}


@lru_cache(maxsize=256)
def _moments(shape: ModelShape, settings: Settings, layers: int) -> tuple[Bytes, dict[str, Moment]]:
    """The first row (tokens, images, supervised positions) and the lines through it."""
    first = np.array([4 * shape.image_tokens, 1, 64])  # an image's tokens fit into every row
    steps = np.diag(first)
    start, *others = (
        _looks(shape, settings, row.tolist(), layers) for row in (first, *(first + steps))
    )
    moments = {}
    for name, looks in start.items():
        parts = sorted({part for look in looks for part in look})
        base, *rest = (_table(every[name], parts) for every in (start, *others))
        slopes = np.stack([(table - base) // step for table, step in zip(rest, first, strict=True)])
        moments[name] = Moment(parts, base, slopes)
    return first, moments


def _looks(
    shape: ModelShape, settings: Settings, row: list[int], layers: int
) -> dict[str, list[dict[str, int]]]:
    meter = Meter()
    Step(shape, settings, meter, layers=layers).run(*row)
    return meter.looks


def _table(looks: list[dict[str, int]], parts: list[str]) -> Bytes:
    return np.array([[look.get(part, 0) for part in parts] for look in looks], dtype=np.int64)
