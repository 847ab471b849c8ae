"""How long steps take on the device: on a GPU by events in its own queue, so that nobody waits for
it to read the time.
"""

import time

import torch

Mark = float | torch.cuda.Event
"""A moment: on a GPU the one when it has done everything that was asked of it before."""


class StepClock:
    """The time as a device sees it."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def mark(self) -> Mark:
        """This moment."""
        if not self._cuda:
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def between(first: Mark, last: Mark) -> float:
        """Seconds between two moments that are over."""
        if isinstance(first, float) or isinstance(last, float):
            assert isinstance(first, float) and isinstance(last, float)
            return last - first
        return float(first.elapsed_time(last)) / 1000
