"""Other GPUs that carry a recipe out: for a comparison, and for the refusal of a plan that does not
fit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from densekit.errors import UsageError
from densekit.planner.candidates import Candidate, SearchSpace
from densekit.planner.cluster import USABLE, Cluster, usual_nodes
from densekit.planner.time import Interval
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import ADVISED, GIB, Hardware
from densekit.spec.math import Lora

COUNTS = (1, 2, 4, 8, 16, 32, 64)
PAPER_LORA = Lora(r=128, alpha=256)


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """GPUs that the recipe fits on."""

    candidate: Candidate
    hours: Interval

    @property
    def gpu_hours(self) -> Interval:
        """Hours of all GPUs together."""
        return self.hours.times(self.candidate.execution.world_size)

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names of `densekit plan --json`."""
        execution = self.candidate.execution
        return {
            "gpu": execution.gpu,
            "gpus": execution.world_size,
            "nodes": execution.nodes,
            "zero_stage": execution.zero_stage,
            "checkpointing": execution.activation_checkpointing,
            "offload": execution.cpu_offload,
            "micro_batch_size": execution.micro_batch_size,
            "tokens_per_micro_batch": execution.tokens_per_micro_batch,
            "peak_gib": round(self.candidate.memory.peak / GIB, 2),
            "hours": self.hours.as_json(),
            "gpu_hours": self.gpu_hours.as_json(),
        }


def alternatives(space: SearchSpace, steps: int, world_size: int) -> list[Alternative]:
    """Of every kind the fewest GPUs that fit and, where they fit too, `world_size`; the fewest
    GPU-hours first.
    """
    found: list[Alternative] = []
    for row in ADVISED:
        counts = [count for count in COUNTS if count <= space.workload.global_batch_size]
        fewest = next(_that_fit(space, [row], counts), None)
        same = next(_that_fit(space, [row], [world_size]), None)
        if same and fewest and fewest.execution.world_size == world_size:
            same = None
        for candidate in (fewest, same):
            if candidate is not None:
                hours = candidate.expected.seconds.times(steps / 3600)
                found.append(Alternative(candidate=candidate, hours=hours))
    return sorted(found, key=lambda alternative: alternative.gpu_hours.geometric_mean)


def _that_fit(
    space: SearchSpace, kinds: Sequence[Hardware], counts: Sequence[int]
) -> Iterator[Candidate]:
    """The best candidate of every cluster where one fits, kinds outside, counts inside."""
    for row in kinds:
        for count in counts:
            nodes = usual_nodes(row, count)
            try:
                best = space.best(Cluster(hardware=row, world_size=count, nodes=nodes))
            except UsageError:
                break  # the dtype or the kernel that was asked for does not run on this kind
            if best is not None:
                yield best


def refusal(space: SearchSpace, cluster: Cluster) -> UsageError:
    """Why nothing fits on a cluster, and the nearest that does."""
    smallest = min(space.candidates(cluster), key=lambda candidate: candidate.memory.peak)
    need, have = smallest.memory.peak, cluster.hardware.memory
    if need <= USABLE * have:
        in_node = smallest.memory.host * cluster.world_size / cluster.nodes / GIB
        why = (
            f"CPU offload needs {in_node:.0f} GiB of host RAM in each node, of "
            f"{cluster.hardware.host_gib}"
        )
    else:
        why = (
            f"its smallest worst-case micro-batch needs {need / GIB:.1f} GiB of each GPU, and "
            f"{USABLE:.0%} of {have / GIB:.1f} can be filled"
        )
    nearest = list(dict.fromkeys(offers(space, cluster)))
    fitting = "; ".join(nearest) if nearest else "no GPU of the table, up to 64 of them"
    return UsageError(
        f"{cluster}: {space.workload.name} does not fit: {why}; what fits: {fitting} "
        "(--micro-batch N plans it on this hardware, fitting or not)"
    )


def offers(space: SearchSpace, cluster: Cluster) -> Iterator[str]:
    """What fits instead, as options: fewer fixed, more GPUs, other GPUs, LoRA."""
    asked = space.request
    free = replace(space, request=ExecutionRequest(dtype=asked.dtype, attention=asked.attention))
    fixed = (
        asked.micro_batch_size,
        asked.zero_stage,
        asked.activation_checkpointing,
        asked.cpu_offload,
    )
    restricted = any(value is not None for value in fixed)
    if restricted and (best := free.best(cluster)) is not None:
        yield f"{cluster}{_options(best)}"
    own = cluster.hardware
    total = space.workload.global_batch_size
    more = [count for count in COUNTS if cluster.world_size < count <= total]
    others = [row for row in ADVISED if row.name != own.name]
    for kinds, counts in (([own], more), (others, [cluster.world_size]), (others, more)):
        found = next(_that_fit(free, kinds, counts), None)
        if found is not None:
            offload = " (with CPU offload)" if found.execution.cpu_offload else ""
            yield f"{found.cluster}{_options(found) if restricted else offload}"
            if kinds is others:
                break
    if space.workload.model.trains == "full":
        adapters = replace(free, workload=space.workload.with_lora(PAPER_LORA))
        found = next(_that_fit(adapters, [own], [cluster.world_size, *more]), None)
        if found is not None:
            lora = f"--set 'lora={{r: {PAPER_LORA.r}, alpha: {PAPER_LORA.alpha}}}'"
            options = _options(found) if restricted else ""
            yield f"{found.cluster}{options} {lora} (another experiment)"


def _options(found: Candidate) -> str:
    """An execution as options, for a command line that fixes another one."""
    execution = found.execution
    offload = " --offload" if execution.cpu_offload else ""
    checkpointing = "" if execution.activation_checkpointing else "no-"
    return (
        f" --zero-stage {execution.zero_stage}{offload} --{checkpointing}activation-checkpointing"
    )
