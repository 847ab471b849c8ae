"""Workers a process: as many as reading needs at twice the speed of the GPU, within bounds."""

from types import SimpleNamespace
from typing import Any

import pytest

from densekit.planner.workers import planned_workers
from densekit.spec.execution import ExecutionRequest


def decision(device: str, seconds: float | None) -> Any:
    """What was decided, with the shortest time that a step may take (None: not known)."""
    expected = SimpleNamespace(seconds=SimpleNamespace(low=seconds))
    candidate = None if seconds is None else SimpleNamespace(expected=expected)
    return SimpleNamespace(execution=SimpleNamespace(device=device), candidate=candidate)


@pytest.mark.parametrize(
    ("asked", "device", "seconds", "workers", "note"),
    [
        (None, "cuda", 3.0, 2, "one reads what a process feeds in a step in 1.10 s, and the step"),
        (None, "cuda", 1.0, 3, "the step takes 1.00 s or more"),
        (None, "cuda", 0.1, 4, "workers: 4 a process"),
        (None, "cuda", None, 2, "the speed of the GPU is not known"),
        (None, "cpu", None, 0, None),
        (7, "cuda", 1.0, 7, None),
        (0, "cuda", 1.0, 0, None),
    ],
)
def test_workers_of_100_samples(
    asked: int | None, device: str, seconds: float | None, workers: int, note: str | None
) -> None:
    found, notes = planned_workers(
        ExecutionRequest(workers=asked), decision(device, seconds), samples_per_rank=100
    )
    assert found == workers
    assert not notes if note is None else note in notes[0]
