"""How many processes per rank read data ahead, so that no GPU waits for it."""

import math

from densekit.planner.search import Decision
from densekit.spec.execution import ExecutionRequest

READ_SECONDS = 0.011
"""CPU time that reading one sample takes a worker: its image 0.009 s (a JPEG of 640 x 480, padded
for CLIP), its text 0.002 s (200 tokens, at 0.016 s for 2,042; docs/log.md).
"""
RESERVE = 2.0
"""So many times faster than needed: images are larger, disks slower and cores shared."""
FEWEST, MOST = 2, 4
"""On a GPU. One that stalls does not stop the rank; more than this nobody was seen to need."""


def planned_workers(
    request: ExecutionRequest, decision: Decision, *, samples_per_rank: int
) -> tuple[int, list[str]]:
    """Workers of a rank, and a note where they were not asked for: none on a CPU, where they would
    take time from the training itself.
    """
    if request.workers is not None:
        return request.workers, []
    if decision.execution.device == "cpu":
        return 0, []
    if decision.candidate is None:
        return FEWEST, [f"workers: {FEWEST} a process; the speed of the GPU is not known"]
    fastest = decision.candidate.expected.seconds.low
    needed = RESERVE * samples_per_rank * READ_SECONDS / fastest
    workers = min(max(math.ceil(needed), FEWEST), MOST)
    return workers, [
        f"workers: {workers} a process; one reads what a process feeds in a step in "
        f"{samples_per_rank * READ_SECONDS:.2f} s, and the step takes {fastest:.2f} s or more"
    ]
