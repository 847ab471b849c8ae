"""How a machine carries the math of a run out, every knob once, and what a user asked of it.

None of it changes what is computed. The planner turns an `ExecutionRequest` into an `Execution`;
execution.json holds it, the launchers and the trainer read it back.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from densekit.errors import DataError, UsageError
from densekit.spec.part import MAX_COUNT, Part, PositiveInt, read_part
from densekit.spec.roots import Roots
from densekit.spec.types import AttentionKernel, Device, Dtype, TrackerName, ZeroStage

SCHEMA = 2
"""Of execution.json. Schema 1 had no number, and other names for three fields."""
_SCHEMA_1 = {
    "gpus": "world_size",
    "checkpointing": "activation_checkpointing",
    "offload": "cpu_offload",
}
NotNegative = Annotated[float, Field(ge=0)]


class SavePolicy(Part):
    """When checkpoints are saved, and which are kept."""

    every_steps: PositiveInt | None = None
    every_minutes: Annotated[float, Field(gt=0)] | None = 15.0
    keep: PositiveInt = 2
    """The newest so many are kept, ..."""
    keep_hours: NotNegative = 0.0
    """... and those younger than this."""


class Execution(Part):
    """One way to carry a run out."""

    device: Device = "cpu"
    gpu: str | None = None
    """Name in the hardware table; None on a CPU, and for a GPU that nobody named."""
    world_size: PositiveInt = 1
    """Processes of all nodes together, one per GPU."""
    nodes: PositiveInt = 1
    """Machines, with the same number of processes each."""
    micro_batch_size: PositiveInt = 1
    """Samples of a micro-batch at most."""
    tokens_per_micro_batch: PositiveInt | None = None
    """Tokens of a micro-batch at most, by which samples are then packed into as few micro-batches
    as hold them; None: by their number alone, evenly.
    """
    dtype: Dtype = "fp32"
    attention: AttentionKernel = "sdpa"
    zero_stage: ZeroStage = 0
    activation_checkpointing: bool = False
    """Recompute the language model's activations in the backward pass instead of keeping them."""
    cpu_offload: bool = False
    """Master weights, exp_avg, exp_avg_sq and gradients in host RAM, AdamW on the CPU (ZeRO-3)."""
    workers: Annotated[int, Field(ge=0, strict=True)] = 0
    """Processes per rank that read data ahead; 0: the rank reads its own."""
    threads: PositiveInt = 1
    """CPU threads of a rank."""
    host_ram_gib: PositiveInt | None = None
    """Host RAM that one node needs, as planned; None where the models' shapes are not known."""
    deterministic: bool = False
    """Ask torch for deterministic kernels; an operation that has none raises."""
    certificate_sha256: str | None = None
    """Batch certificate that was known when this was planned."""
    checkpoints: SavePolicy = SavePolicy()
    roots: Roots = Roots()
    starts_from: str | None = None
    """Folder of the stage-1 run whose connector this run starts from."""
    from_checkpoint: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Step of the checkpoint to resume from; None, which execution.json leaves out: the newest."""

    trackers: tuple[TrackerName, ...] = ()
    """Where figures of steps go besides metrics.jsonl; execution.json leaves out that there is
    none.
    """

    @model_validator(mode="after")
    def _even(self) -> "Execution":
        if self.world_size % self.nodes:
            raise ValueError(
                f"world_size {self.world_size} on {self.nodes} nodes: every node must run the same "
                "number of processes"
            )
        return self

    @property
    def per_node(self) -> int:
        """Processes of one node."""
        return self.world_size // self.nodes

    @property
    def is_distributed(self) -> bool:
        """Whether ranks talk to each other: several processes, or ZeRO on one."""
        return self.world_size > 1 or self.zero_stage != 0

    def as_json(self) -> dict[str, Any]:
        """What execution.json holds."""
        values = {**self.model_dump(mode="json"), "roots": self.roots.as_json()}
        if self.from_checkpoint is None:
            del values["from_checkpoint"]
        if not self.trackers:
            del values["trackers"]
        return {"schema": SCHEMA, **values}

    @classmethod
    def from_json(cls, values: Any, *, source: str) -> "Execution":
        """Inverse of as_json; also reads schema 1. Raises DataError that names `source` and the
        field.
        """
        if not isinstance(values, dict):
            raise DataError(f"{source} must hold a JSON object; `densekit run` writes it")
        fields = dict(values)
        schema = fields.pop("schema", 1)
        if schema not in (1, SCHEMA):
            raise DataError(f"{source} has schema {schema}; this version reads 1 and {SCHEMA}")
        if schema == 1:
            fields.pop("micro_batches", None)  # follows from world_size and micro_batch_size
            fields = {_SCHEMA_1.get(name, name): value for name, value in fields.items()}
        return read_part(cls, fields, source=source, remedy="`densekit run` writes it")

    def describe(self, *, where: str = "") -> str:
        """How it runs, in words: `on 8 CUDA processes (ZeRO-3, bf16, flash attention)`."""
        count = f"{self.world_size} {self.device.upper()} process"
        count += "es" if self.world_size > 1 else ""
        nodes = f" of {self.nodes} nodes" if self.nodes > 1 else ""
        return f"on {count}{nodes}{where} ({', '.join(self.settings())})"

    def settings(self) -> list[str]:
        """What engine, dtype and kernel it uses, a phrase each."""
        return [*self.engine(), self.dtype, f"{self.attention} attention"]

    def engine(self) -> list[str]:
        """How the engine shards, recomputes and offloads, a phrase each."""
        ddp = "DDP" if self.world_size > 1 else "no sharding"
        words = [f"ZeRO-{self.zero_stage}" if self.zero_stage else ddp]
        if self.activation_checkpointing:
            words.append("activation checkpointing")
        if self.cpu_offload:
            words.append("CPU offload")
        return words


class ExecutionRequest(Part):
    """What a user asked of an execution; None leaves it to the planner. Any number goes in: `check`
    refuses, under the name of the option.
    """

    model_config = ConfigDict(allow_inf_nan=True)

    device: Device | None = None
    gpu: str | None = None
    world_size: int | None = None
    nodes: int | None = None
    micro_batch_size: int | None = None
    dtype: Dtype | None = None
    attention: AttentionKernel | None = None
    zero_stage: ZeroStage | None = None
    activation_checkpointing: bool | None = None
    cpu_offload: bool | None = None
    workers: int | None = None
    deterministic: bool | None = None
    save_steps: int | None = None
    save_minutes: float | None = None
    """0 saves by steps alone."""
    keep: int | None = None
    keep_hours: float | None = None
    from_checkpoint: int | None = None
    trackers: tuple[TrackerName, ...] = ()

    def check(self) -> None:
        """Raises UsageError, under the name of the option, for a value that cannot work."""
        for option, value, least, most in (
            ("--micro-batch", self.micro_batch_size, 1, 1 << 16),
            ("--workers", self.workers, 0, 256),
            ("--save-steps", self.save_steps, 1, MAX_COUNT),
            ("--save-minutes", self.save_minutes, 0, 1e6),
            ("--keep", self.keep, 1, 10**6),
            ("--keep-hours", self.keep_hours, 0, 1e6),
            ("--from-checkpoint", self.from_checkpoint, 0, MAX_COUNT),
        ):
            if value is not None and not least <= value <= most:
                limit = f"at most {most:.0f}" if value > most else f"at least {least}"
                raise UsageError(f"{option} {value}: give a number of {limit}")

    def save_policy(self) -> SavePolicy:
        """The checkpoints it asks for."""
        default = SavePolicy()
        minutes = default.every_minutes if self.save_minutes is None else self.save_minutes
        return SavePolicy(
            every_steps=self.save_steps,
            every_minutes=minutes or None,
            keep=default.keep if self.keep is None else self.keep,
            keep_hours=default.keep_hours if self.keep_hours is None else self.keep_hours,
        )
