"""Every way to carry a workload out on some GPUs, with its memory and its time."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from densekit.planner.cluster import USABLE, Cluster
from densekit.planner.kernel import choose_kernel
from densekit.planner.memory import Memory, memory_of
from densekit.planner.model_states import ModelStates
from densekit.planner.time import StepTime, step_time
from densekit.planner.workload import MicroBatchShape, Workload
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.flops import flops_of
from densekit.spec.hardware import GIB, Efficiency
from densekit.spec.trained_model import TrainedModel
from densekit.spec.types import ZeroStage

DEFAULT_MICRO_BATCH = 16
EIGHTHS = 8
"""Parts of a longest sample by which the tokens of a micro-batch are planned."""
NOTHING_ASKED = ExecutionRequest()


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An execution with the largest micro-batches that fit (or one sample's, where none do)."""

    execution: Execution
    cluster: Cluster
    memory: Memory
    """Of a worst-case micro-batch."""
    time: StepTime
    """By the table: what candidates are compared by."""
    expected: StepTime
    """By what earlier runs on such GPUs reached, where there are some: what the plan states."""
    fits: bool

    def line(self) -> str:
        """For --why."""
        engine = ", ".join(self.execution.engine())
        step = f"{self.time.seconds.geometric_mean:6.2f} s per step"
        return (
            f"{engine:46} micro-batch {self.execution.tokens_per_micro_batch or 0:6} tokens: "
            f"{self.memory.peak / GIB:7.1f} GiB, {step if self.fits else 'does not fit'}"
        )


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A workload, and what the request leaves open of its execution."""

    workload: Workload
    request: ExecutionRequest = NOTHING_ASKED
    measured: Mapping[str, Efficiency] = field(default_factory=dict)
    """Efficiency of earlier runs, by kind of GPU."""

    def executions(self, cluster: Cluster) -> Iterator[Execution]:
        """Every execution in question, those without CPU offload first; micro-batches are open.

        One GPU has nothing to shard; several take ZeRO-2 or ZeRO-3. CPU offload needs ZeRO-3, and
        is no use to a stage that trains the connector alone.
        """
        request = self.request
        dtype, attention, _ = choose_kernel(request, "cuda", cluster.hardware.capability)
        for cpu_offload in (False, True):
            for zero_stage in self._zero_stages(cluster, cpu_offload):
                asked = request.activation_checkpointing
                for checkpointing in (False, True) if asked is None else (asked,):
                    yield Execution(
                        device="cuda",
                        world_size=cluster.world_size,
                        dtype=dtype,
                        attention=attention,
                        zero_stage=zero_stage,
                        activation_checkpointing=checkpointing,
                        cpu_offload=cpu_offload,
                    )

    def _zero_stages(self, cluster: Cluster, cpu_offload: bool) -> tuple[ZeroStage, ...]:
        """Those in question with, or without, CPU offload."""
        request = self.request
        if request.cpu_offload not in (None, cpu_offload):
            return ()
        if (
            cpu_offload
            and request.cpu_offload is None
            and self.workload.model.trains == "connector"
        ):
            return ()
        if request.zero_stage is not None:
            return () if cpu_offload and request.zero_stage != 3 else (request.zero_stage,)
        return (3,) if cpu_offload else (0,) if cluster.world_size == 1 else (2, 3)

    def candidates(self, cluster: Cluster, *, may_fit: bool = False) -> list[Candidate]:
        """Every execution with its largest micro-batch; CPU offload only where nothing fits
        without it.

        `may_fit`: without those whose weights and optimizer alone are too large.
        """
        found: list[Candidate] = []
        most = USABLE * cluster.hardware.memory
        for execution in self.executions(cluster):
            if execution.cpu_offload and any(
                candidate.fits and not candidate.execution.cpu_offload for candidate in found
            ):
                break
            if not may_fit or ModelStates(self.workload.model, execution).kept <= most:
                found.append(self.candidate(cluster, execution))
        return found

    def candidate(self, cluster: Cluster, execution: Execution) -> Candidate:
        """An execution with the most tokens a micro-batch that fit (or one sample's, where none
        do); or with the samples that were asked for, however long.
        """
        workload = self.workload
        share = -(-workload.global_batch_size // cluster.world_size)
        if self.request.micro_batch_size is None:
            samples, tokens = share, self._tokens(cluster, execution, share)
        else:
            samples = min(self.request.micro_batch_size, share)
            samples = -(
                -share // -(-share // samples)
            )  # as many, and none larger than it has to be
            tokens = samples * workload.max_length
        each = workload.sample.tokens
        micro_batches = max(-(-share // samples), math.ceil(share * each / tokens))
        memory = worst_memory(workload, execution, samples, tokens)
        flops = flops_of(
            workload.model,
            workload.sample,
            workload.global_batch_size,
            activation_checkpointing=execution.activation_checkpointing,
        )

        def timed(measured: Efficiency | None) -> StepTime:
            return step_time(
                workload.model,
                execution,
                cluster,
                flops,
                micro_batches=micro_batches,
                tokens=share * each / micro_batches,
                measured=measured,
            )

        where = {
            "gpu": cluster.hardware.name,
            "nodes": cluster.nodes,
            "micro_batch_size": samples,
            "tokens_per_micro_batch": tokens,
        }
        return Candidate(
            execution=execution.model_copy(update=where),
            cluster=cluster,
            memory=memory,
            time=timed(None),
            expected=timed(self.measured.get(cluster.hardware.name)),
            fits=cluster.excess(memory) <= 0,
        )

    def _tokens(self, cluster: Cluster, execution: Execution, samples: int) -> int:
        """The most tokens that fit a micro-batch of at most so many samples, in eighths of
        `data.max_length` and at least that.
        """
        workload = self.workload
        longest = min(samples, max(DEFAULT_MICRO_BATCH, workload.official_batch_size))

        def tokens(size: int) -> int:
            return workload.max_length * (EIGHTHS - 1 + size) // EIGHTHS

        fitting = largest(
            EIGHTHS * (longest - 1) + 1,
            lambda size: cluster.excess(worst_memory(workload, execution, samples, tokens(size))),
        )
        return tokens(fitting or 1)

    def best(self, cluster: Cluster) -> Candidate | None:
        """The fastest candidate that fits."""
        return fastest(self.candidates(cluster, may_fit=True))


def fastest(candidates: list[Candidate]) -> Candidate | None:
    """The one that fits and takes the least time; the first of equals."""
    return min(
        (candidate for candidate in candidates if candidate.fits),
        key=lambda candidate: candidate.time.seconds.geometric_mean,
        default=None,
    )


def worst_memory(
    workload: Workload, execution: Execution, samples: int, tokens: int | None = None
) -> Memory:
    """Of the larger worst-case micro-batch of at most so many samples and tokens."""
    memories = (
        _memory_of(workload.model, execution, micro_batch)
        for micro_batch in workload.worst_micro_batches(samples, tokens)
    )
    return max(memories, key=lambda memory: memory.peak)


@lru_cache(maxsize=8192)
def _memory_of(model: TrainedModel, execution: Execution, micro_batch: MicroBatchShape) -> Memory:
    """`memory_of`, once for all kinds of GPU that compute alike."""
    return memory_of(model, execution, micro_batch)


def largest(limit: int, value: Callable[[int], float]) -> int:
    """The largest number of 1 to `limit` whose value is not above 0, where values rise; else 0.

    They are nearly straight lines, so a guess between two known ones is nearly always right.
    """
    low, high = 1, limit
    if limit < 1 or (below := value(low)) > 0:
        return 0
    if limit == 1 or (above := value(high)) <= 0:
        return limit
    while high - low > 1:
        guess = low + int((high - low) * -below / (above - below))
        guess = min(max(guess, low + 1), high - 1)
        if (at_guess := value(guess)) <= 0:
            low, below = guess, at_guess
        else:
            high, above = guess, at_guess
    return low
