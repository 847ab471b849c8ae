"""What the first steps of a recipe took on the hardware at hand, and what follows for the whole run
(docs/planner.md, "Hours, measured").
"""

from dataclasses import dataclass
from typing import Any

from densekit.planner.time import Interval

WARM_UP = 10
"""Steps that are not counted: kernels are chosen and memory is allocated in them."""
MARGIN = 0.1
"""What another run of the same kind may differ by."""
FEWEST = 6
"""Steps of a measurement: three to warm up, three that count."""
MOST = 1000
CONFIDENCE = 0.95
"""Of the interval of a step's mean time."""


def warm_up_of(steps: int) -> int:
    """How many of the first steps are not counted: half of them, at most WARM_UP."""
    return min(WARM_UP, steps // 2)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measurement of one recipe on one machine."""

    on: str
    """What measured it: the processes, and the device of each."""
    steps: int
    """Optimizer steps that were taken, ..."""
    warm_up: int
    """... of which so many at the beginning are not counted."""
    step_seconds: float
    """Mean of the steps that count, ..."""
    step_interval: Interval
    """... and the interval of that mean, seconds."""
    run_steps: int
    """Steps of the whole run."""
    hours: Interval
    """All of its steps."""
    peak_memory_gib: float | None
    """The most that tensors took of rank 0's GPU; None on a CPU."""
    estimated: Interval | None = None
    """Hours before they were measured; None where they could not be estimated."""

    def describe(self) -> str:
        """In words, what was measured and on what."""
        memory = self.peak_memory_gib
        peak = "" if memory is None else f"; {memory:.1f} GiB at most"
        low, high = (f"{end:.3g}" for end in (self.step_interval.low, self.step_interval.high))
        return (
            f"{self.step_seconds:.3g} s/step ({low} to {high}) in steps {self.warm_up + 1} to "
            f"{self.steps} of {self.run_steps} {self.on}{peak}"
        )

    def arithmetic(self) -> str:
        """How the hours follow, in words."""
        return (
            f"{self.run_steps} steps at the measured mean, {CONFIDENCE:.0%} interval by Student's "
            f"t of {self.steps - self.warm_up} steps, {MARGIN:.0%} wider at both ends; loading, "
            "checkpoints and evaluation come on top"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values for `densekit plan --json`."""
        return {
            "on": self.on,
            "steps": self.steps,
            "warm_up": self.warm_up,
            "step_seconds": float(f"{self.step_seconds:.3g}"),
            "step_seconds_interval": self.step_interval.as_json(),
            "run_steps": self.run_steps,
            "hours": self.hours.as_json(),
            "peak_memory_gib": self.peak_memory_gib,
            "estimated_hours": self.estimated.as_json() if self.estimated else None,
        }
