"""Which layout carries a recipe out on some GPUs: all candidates with memory and time, and the
fastest that fits.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from densekit.planner.flops import Flops, flops_of
from densekit.planner.lengths import Sample
from densekit.planner.memory import Layout, Memory, Row, memory_of
from densekit.planner.model_states import States
from densekit.planner.precision import choose_kernel
from densekit.planner.time import StepTime, step_time
from densekit.spec.architectures import ModelShape
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import BY_NAME, GIB, Hardware
from densekit.spec.recipe import Recipe
from densekit.spec.types import Trains, ZeroStage

DEFAULT_MICRO_BATCH = 16
USABLE = 0.95
"""Share of a GPU's memory that a worst-case row may fill: the driver keeps some, and no allocator
packs perfectly.
"""
HOST_USABLE = 0.8
"""Share of a node's main memory that an offloaded optimiser may fill."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """GPUs of one kind on some nodes."""

    hardware: Hardware
    gpus: int
    nodes: int

    def __str__(self) -> str:
        """As options of `densekit plan`; a card that the table does not name is no --gpu."""
        if self.hardware.name not in BY_NAME:
            return f"{self.gpus} x {self.hardware.name}" + (
                f" on {self.nodes} nodes" if self.nodes > 1 else ""
            )
        nodes = f" --nodes {self.nodes}" if self.nodes > 1 else ""
        return f"--gpu {self.hardware.name} --gpus {self.gpus}{nodes}"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One layout, with the largest micro-batch that fits (or one sample, where none does)."""

    place: Place
    layout: Layout
    micro_batch_size: int
    memory: Memory
    """Of a worst-case row of that many samples."""
    time: StepTime
    """By the table: what layouts are compared by."""
    expected: StepTime
    """By what earlier runs on such GPUs reached, where there are some: what is told."""
    fits: bool

    def line(self) -> str:
        """For --why."""
        how = f"ZeRO-{self.layout.zero_stage}" if self.layout.zero_stage else "no sharding"
        how += f", recompute {'on' if self.layout.checkpointing else 'off'}"
        how += ", offload" if self.layout.offload else ""
        verdict = f"{self.time.seconds.middle:6.2f} s a step" if self.fits else "does not fit"
        return f"{how:36} rows of {self.micro_batch_size:2}: {self.memory.peak / GIB:7.1f} GiB, {verdict}"


@dataclass(frozen=True)
class Job:
    """A recipe as far as memory and time go."""

    recipe: Recipe
    shape: ModelShape
    sample: Sample
    lengths: str
    """Where the sample's length comes from."""
    request: ExecutionRequest = ExecutionRequest()
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Efficiency of earlier runs, by kind of GPU."""

    @property
    def trains(self) -> Trains:
        """What has gradients."""
        return "connector" if self.recipe.stage == 1 else "lora" if self.recipe.lora else "full"

    @property
    def lora_r(self) -> int:
        """Rank of the adapters; 0 without LoRA."""
        return self.recipe.lora.r if self.recipe.lora else 0

    @property
    def lora_dropout(self) -> bool:
        """Whether adapters keep a mask for the backward pass."""
        return bool(self.recipe.lora and self.recipe.lora.dropout)

    @cached_property
    def trained(self) -> int:
        """Weights that have gradients."""
        return trained_parameters(self.shape, self.trains, self.lora_r)

    def worst_memory(self, layout: Layout, samples: int) -> Memory:
        """The larger of two rows: all samples as long as `data.max_length`, with an image each, or
        text that is all supervised (which the template `plain` does not have).
        """
        length, image = self.recipe.data.max_length, self.shape.image_tokens
        tokens, supervised = samples * length, samples * max(1, length - image)
        rows = [Row(samples=samples, tokens=tokens, images=samples, supervised=supervised)]
        if self.recipe.data.template != "plain":
            # A row without images feeds one zero image.
            rows.append(Row(samples=samples, tokens=tokens, images=1, supervised=tokens))
        return max(
            (_memory_of(self.shape, layout, row) for row in rows), key=lambda memory: memory.peak
        )

    def typical_memory(self, layout: Layout, samples: int) -> Memory:
        """A row of average samples, each with an image."""
        tokens, supervised = (
            round(samples * self.sample.tokens),
            round(samples * self.sample.supervised),
        )
        return memory_of(
            self.shape,
            layout,
            Row(samples=samples, tokens=tokens, images=samples, supervised=max(1, supervised)),
        )

    def flops(self, checkpointing: bool) -> Flops:
        """Of one optimiser step."""
        return flops_of(
            self.shape,
            self.sample,
            self.recipe.global_batch_size,
            trains=self.trains,
            lora_r=self.lora_r,
            checkpointing=checkpointing,
        )

    def layouts(self, place: Place) -> Iterator[Layout]:
        """Every layout in question, those without offload first.

        One GPU has nothing to shard; several take ZeRO-2 or ZeRO-3. An offloaded optimiser needs
        ZeRO-3, and is no use to a stage that trains the connector alone.
        """
        kernel = choose_kernel(
            "cuda", self.request.dtype, self.request.attention, place.hardware.capability
        )
        for offload in (False, True):
            if self.request.cpu_offload not in (None, offload) or (
                offload and self.request.cpu_offload is None and not self.heavy
            ):
                continue
            stages: tuple[ZeroStage, ...] = (3,) if offload else (0,) if place.gpus == 1 else (2, 3)
            if self.request.zero_stage is not None:
                stages = (
                    (self.request.zero_stage,)
                    if not offload or self.request.zero_stage == 3
                    else ()
                )
            for stage in stages:
                for checkpointing in (
                    (False, True)
                    if self.request.activation_checkpointing is None
                    else (self.request.activation_checkpointing,)
                ):
                    yield Layout(
                        world=place.gpus,
                        zero_stage=stage,
                        checkpointing=checkpointing,
                        offload=offload,
                        dtype=kernel.dtype,
                        attention=kernel.attention,
                        trains=self.trains,
                        lora_r=self.lora_r,
                        lora_dropout=self.lora_dropout,
                    )

    @property
    def heavy(self) -> bool:
        """Whether there is an optimiser worth moving."""
        return self.trains != "connector"

    def candidates(self, place: Place, *, hopeful: bool = False) -> list[Candidate]:
        """Every layout with its largest micro-batch; offload only where nothing fits without it.

        `hopeful`: without those whose weights and optimiser alone are too large, which no row has
        to be followed for.
        """
        found: list[Candidate] = []
        for layout in self.layouts(place):
            if layout.offload and any(one.fits and not one.layout.offload for one in found):
                break
            if not hopeful or States(self.shape, layout).kept <= USABLE * place.hardware.memory:
                found.append(self.candidate(place, layout))
        return found

    def candidate(self, place: Place, layout: Layout) -> Candidate:
        """A layout with the micro-batch that was asked for, or else the largest that fits."""
        share = -(-self.recipe.global_batch_size // place.gpus)
        if self.request.micro_batch_size is not None:
            samples = min(self.request.micro_batch_size, share)
        else:
            limit = min(
                share, max(DEFAULT_MICRO_BATCH, self.recipe.reference.per_device_batch_size)
            )
            samples = (
                largest(limit, lambda size: excess(self.worst_memory(layout, size), place)) or 1
            )
        rows = -(-share // samples)
        samples = -(-share // rows)  # as many rows, and none larger than it has to be
        memory = self.worst_memory(layout, samples)
        time, expected = (
            step_time(
                self.shape,
                layout,
                place.hardware,
                self.flops(layout.checkpointing),
                trained=self.trained,
                micro_batches=rows,
                row_tokens=samples * self.sample.tokens,
                nodes=place.nodes,
                measured=measured,
            )
            for measured in (None, self.measured.get(place.hardware.name))
        )
        return Candidate(
            place=place,
            layout=layout,
            micro_batch_size=samples,
            memory=memory,
            time=time,
            expected=expected,
            fits=fits(memory, place),
        )

    def best(self, place: Place) -> Candidate | None:
        """The fastest candidate that fits."""
        return fastest(self.candidates(place, hopeful=True))


def fastest(candidates: list[Candidate]) -> Candidate | None:
    """The one that fits and takes the least time; the first of equals."""
    return min(
        (one for one in candidates if one.fits),
        key=lambda one: one.time.seconds.middle,
        default=None,
    )


def fits(memory: Memory, place: Place) -> bool:
    """Whether a row's memory is there, on the GPU and in the node."""
    return excess(memory, place) <= 0


def excess(memory: Memory, place: Place) -> float:
    """Bytes that a row needs beyond what may be filled, on the GPU or in the node; negative where
    it fits.
    """
    on_node = memory.host * -(-place.gpus // place.nodes)
    return max(
        memory.peak - USABLE * place.hardware.memory,
        on_node - HOST_USABLE * place.hardware.host_gib * GIB,
    )


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
        if (found := value(guess)) <= 0:
            low, below = guess, found
        else:
            high, above = guess, found
    return low


@lru_cache(maxsize=8192)
def _memory_of(shape: ModelShape, layout: Layout, row: Row) -> Memory:
    """`memory_of`, once for all kinds of GPU that compute alike."""
    return memory_of(shape, layout, row)


def trained_parameters(shape: ModelShape, trains: Trains, lora_r: int) -> int:
    """Weights with gradients: the projector, and with it the language model or its adapters."""
    more = {
        "connector": 0,
        "full": shape.language.parameters,
        "lora": shape.language.lora_parameters(lora_r),
    }
    return shape.projector_parameters + more[trains]


def usual_nodes(hardware: Hardware, gpus: int) -> int:
    """The fewest nodes of this kind that hold `gpus` evenly."""
    nodes = max(1, -(-gpus // hardware.per_node))
    while gpus % nodes:
        nodes += 1
    return nodes
