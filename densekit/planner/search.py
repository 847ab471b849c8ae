"""The execution of a plan on a known GPU: the fastest candidate that fits, or a refusal."""

from dataclasses import dataclass, field

from densekit.planner.alternatives import refusal
from densekit.planner.candidates import Candidate, SearchSpace, fastest
from densekit.planner.cluster import Cluster
from densekit.planner.kernel import choose_kernel
from densekit.planner.memory import Memory
from densekit.planner.notes import choice_notes
from densekit.spec.execution import Execution


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An execution that was chosen, and why."""

    execution: Execution
    memory: Memory | None
    """Of a worst-case micro-batch; None where the models' shapes are not known."""
    fits: bool | None
    """None where it cannot be said."""
    notes: list[str]
    candidates: list[Candidate] = field(default_factory=list)
    candidate: Candidate | None = None


def search(space: SearchSpace, cluster: Cluster) -> Decision:
    """The fastest that fits; what does not fit is planned where --micro-batch insists on it.

    Raises UsageError where nothing fits; it says what does.
    """
    candidates = space.candidates(cluster)
    best = fastest(candidates)
    if best is None and (space.request.micro_batch_size is None or not candidates):
        raise refusal(space, cluster)
    chosen = best or min(candidates, key=lambda candidate: candidate.memory.peak)
    *_, notes = choose_kernel(space.request, "cuda", cluster.hardware.capability)
    return Decision(
        execution=chosen.execution,
        memory=chosen.memory,
        fits=chosen.fits,
        notes=[*notes, *choice_notes(space, chosen, candidates)],
        candidates=candidates,
        candidate=chosen,
    )
