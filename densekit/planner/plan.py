"""A plan: how the hardware that was asked about carries a recipe out, in values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from densekit.planner.estimate import OfficialBatch
from densekit.planner.measured import Measured
from densekit.planner.memory import Memory
from densekit.planner.time import Interval
from densekit.spec.execution import Execution
from densekit.spec.hardware import GIB


@dataclass(frozen=True, kw_only=True)
class MemoryGib:
    """Memory in GiB, to two decimals."""

    parts: dict[str, float]
    """By the names of densekit.planner.memory, those that take some."""
    peak: float
    host: float | None
    """Host RAM of CPU offload; None without."""

    @classmethod
    def of(cls, memory: Memory) -> "MemoryGib":
        """From bytes."""
        sizes = {name: size for name, size in memory.parts.items() if size}
        return cls(
            parts={name: round(size / GIB, 2) for name, size in sizes.items()},
            peak=round(memory.peak / GIB, 2),
            host=round(memory.host / GIB, 2) if memory.host else None,
        )

    def as_json(self) -> dict[str, float]:
        """The parts with `peak` and, where there is one, `host`, under the names of `densekit plan
        --json`.
        """
        host = {} if self.host is None else {"host": self.host}
        return {**_renamed(self.parts), "peak": self.peak, **host}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How this machine carries the recipe's math out; it never changes the math."""

    recipe: str
    execution: Execution
    gpu: str
    """Name in the hardware table; `cpu`, or `cuda` for a GPU that nobody named."""
    micro_batches: list[list[int]]
    """Per rank, the samples of each micro-batch in one full optimizer step; where micro-batches are
    cut by tokens, of average samples.
    """
    global_batch_size: int
    num_samples: int | None
    """Entries of the annotation file; with steps and samples below None while it is not known."""
    steps: int | None
    samples_dropped: int | None
    samples_repeated: int | None
    container_image: str | None
    """None where no image has kernels for the GPU, or the GPU is not known."""
    memory_gib: MemoryGib | None
    """Of one GPU (or process) in a worst-case micro-batch; None where the models' shapes are not
    known.
    """
    fits: bool | None
    """None where it cannot be said."""
    hours: Interval | None
    gpu_hours: Interval | None
    cost: Interval | None
    disk_gib: float | None
    disk_parts_gib: dict[str, float] | None
    official_batch: OfficialBatch | None
    """Whether the official scripts' batch per device would fit on this GPU."""
    notes: list[str]
    ledger: list[str]
    """Which keys of the ledger are followed, and what each changes."""
    why: dict[str, list[str]] = field(repr=False)
    """The arithmetic, by subject (`densekit plan --why`)."""
    host_ram_short: bool = False
    """Whether a usual node of this kind, or this host, has less RAM than a node needs."""
    measured: Measured | None = None
    """What hours were narrowed by."""

    def narrowed(self, measured: Measured, price: float | None) -> "Plan":
        """With the hours that were measured instead of the estimated ones."""
        count = self.execution.world_size
        gpu_hours = measured.hours.times(count) if self.execution.device == "cuda" else None
        return replace(
            self,
            hours=measured.hours,
            gpu_hours=gpu_hours,
            cost=gpu_hours.times(price) if gpu_hours and price is not None else None,
            notes=[*self.notes, f"hours: {measured.arithmetic()}"],
            measured=replace(measured, estimated=self.hours),
        )

    @property
    def micro_batches_per_step(self) -> int:
        """Micro-batches of a process in one full optimizer step."""
        return len(self.micro_batches[0])

    def as_json(self) -> dict[str, Any]:
        """Plain values under the names of `densekit plan --json`, some of them older than ours."""
        run = self.execution
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("why", "execution", "measured"):
            del values[name]
        for name in ("hours", "gpu_hours", "cost", "official_batch"):
            values[name] = values[name].as_json() if values[name] else None
        if self.memory_gib is not None:
            values["memory_gib"] = self.memory_gib.as_json()
        measured = {} if self.measured is None else {"measured": self.measured.as_json()}
        return {
            **_renamed(values),
            **measured,
            "device": run.device,
            "gpus": run.world_size,
            "nodes": run.nodes,
            "micro_batch_size": run.micro_batch_size,
            **_renamed({"micro_batches_per_step": self.micro_batches_per_step}),
            "certificate_sha256": run.certificate_sha256,
            "attention": run.attention,
            "dtype": run.dtype,
            "zero_stage": run.zero_stage,
            "checkpointing": run.activation_checkpointing,
            "offload": run.cpu_offload,
            "threads": run.threads,
            "workers": run.workers,
            "execution": {
                "tokens_per_micro_batch": run.tokens_per_micro_batch,
                "workers": run.workers,
            },
        }

    def why_as_json(self) -> dict[str, list[str]]:
        """The arithmetic, under the names of `densekit plan --why --json`."""
        return _renamed(self.why)


_JSON_NAMES = {
    "container_image": "image",
    "optimizer": "optimiser",
    "candidates": "layouts",
    "micro_batches_per_step": "grad_accum_steps",
}
"""What `densekit plan --json` writes under an older name."""
Value = TypeVar("Value")


def _renamed(values: Mapping[str, Value]) -> dict[str, Value]:
    return {_JSON_NAMES.get(name, name): value for name, value in values.items()}
