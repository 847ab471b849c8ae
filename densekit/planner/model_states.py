"""What a process keeps from step to step under each engine, and the buffers it works with; no
activations.

DeepSpeed's parts were read in its 0.19.8 (runtime/zero/stage_1_and_2.py, stage3.py,
partitioned_param_coordinator.py) for the configuration that densekit writes
(densekit.train.engines.process_group.deepspeed_config).
"""

from dataclasses import dataclass
from typing import Literal

from densekit.planner.memory_trace.autograd import SINGLE
from densekit.spec.architectures import ModelShape
from densekit.spec.types import AttentionKernel, Device, Dtype, Trains

BUCKET_ELEMENTS = 50_000_000
"""Elements of a ZeRO bucket (densekit.train.engines.process_group.BUCKET_ELEMENTS)."""
LIVE_ELEMENTS = 1_000_000_000
"""ZeRO-3 keeps up to so many gathered weights (DeepSpeed's stage3_max_live_parameters, which
densekit leaves).
"""
SUBGROUP_ELEMENTS = 1_000_000_000
"""ZeRO-3 updates so many weights at once, of all ranks together (DeepSpeed's sub_group_size)."""
CONTEXT = 723 * 2**20
"""A process that has put one number on a GPU (as reported in the PyTorch forum, thread 73021): an
allowance.
"""
COLLECTIVES = 400 * 2**20
"""NCCL's buffers of 4 MiB (NCCL_BUFFSIZE) for every channel and neighbour: an allowance, not
measured.
"""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model is laid out over processes and number types."""

    world: int
    zero_stage: Literal[0, 2, 3]
    """0: one process, or DistributedDataParallel; 2, 3: DeepSpeed."""
    checkpointing: bool
    offload: bool
    """DeepSpeed keeps masters and moments in host memory, and updates them there."""
    dtype: Dtype
    attention: AttentionKernel
    trains: Trains
    lora_r: int = 0
    lora_dropout: bool = True
    device: Device = "cuda"
    accumulates: bool = True
    """A step has several rows per process: from the second on, gradients of the ones before are
    there.
    """

    @property
    def width(self) -> int:
        """Bytes of an element in the forward pass."""
        return 4 if self.dtype == "fp32" else 2


class States:
    """Bytes per process of weights, gradients, optimiser and buffers, with the arithmetic of each."""

    def __init__(self, shape: ModelShape, layout: Layout) -> None:
        language, self.layout = shape.language, layout
        more = {
            "connector": 0,
            "full": language.parameters,
            "lora": language.lora_parameters(layout.lora_r),
        }
        self.trained = shape.projector_parameters + more[layout.trains]
        self.frozen = 0 if layout.trains == "full" else language.parameters
        self.tower = shape.tower_parameters
        self.embedding = language.embedding_parameters
        self.share = -(-self.trained // (layout.world if layout.zero_stage else 1))
        """Trained weights that this process updates."""
        hidden = language.hidden
        projector = max(shape.connector.width, hidden) * hidden
        matrices = [i * o for _, i, o in language.linears]
        adapters = [layout.lora_r * max(i, o) for _, i, o in language.linears]
        layer = max({"connector": [0], "full": matrices, "lora": adapters}[layout.trains])
        ends = language.embedding_parameters if layout.trains == "full" else 0
        self.largest = {"loss": ends, "layer": max(layer, 0), "connector": max(projector, ends)}
        """Elements of the largest gradient that a part of the backward pass gives to ZeRO."""

    @property
    def weights(self) -> int:
        """Weights; masters count to the optimiser."""
        layout, width = self.layout, self.layout.width
        if not layout.zero_stage:
            return SINGLE * self.trained + width * (self.frozen + self.tower)
        if layout.zero_stage == 2:
            return width * (self.trained + self.frozen + self.tower)
        return width * (self.share + -(-self.frozen // layout.world) + self.tower)

    @property
    def kept(self) -> int:
        """What is there in every moment."""
        return self.weights + self.optimiser

    @property
    def gradients(self) -> int:
        """fp32 gradients, where they are not left to the backward pass to make."""
        return 0 if self.layout.offload else SINGLE * self.share

    @property
    def optimiser(self) -> int:
        """Two moments in fp32; under ZeRO also the masters, where weights are not fp32 themselves."""
        return 0 if self.layout.offload else (8 + self._masters) * self.share

    @property
    def _masters(self) -> int:
        # ZeRO-2 copies fp32 weights too; ZeRO-3 does not.
        stage = self.layout.zero_stage
        return 0 if not stage or (stage == 3 and self.layout.width == SINGLE) else SINGLE

    @property
    def host(self) -> int:
        """Host memory of an offloaded optimiser: masters, moments, gradients, and the staging of
        each engine.
        """
        if not self.layout.offload:
            return 0
        # Gradients once for accumulation and once for the optimiser; torch's AdamW on the CPU makes
        # two temporaries of the largest group.
        return (12 + 8 + 8) * self.share

    def buffers(self, moment: str) -> dict[str, int]:
        """Buffers alive in a moment, by what they are for."""
        layout, found = self.layout, {}
        if layout.device == "cuda":
            found["CUDA context"] = CONTEXT
            if layout.world > 1:
                found["NCCL"] = COLLECTIVES
        if layout.zero_stage == 0 and layout.world > 1:
            found["DDP buckets"] = SINGLE * self.trained
        if layout.zero_stage:
            found |= self._zero(moment)
        if moment == "update":
            found["temporaries of AdamW"] = self._update()
        return {name: size for name, size in found.items() if size}

    def _zero(self, moment: str) -> dict[str, int]:
        """Reducing gradients and gathering weights."""
        layout = self.layout
        part = "loss" if "loss" in moment else "connector" if "connector" in moment else "layer"
        reduced = max(min(BUCKET_ELEMENTS, self.trained), self.largest[part])
        found = {}
        if moment.startswith("backward"):
            if layout.zero_stage == 2:
                # Two buckets in the type of the weights, and a copy in fp32 to be reduced.
                found["ZeRO buckets"] = 2 * BUCKET_ELEMENTS * layout.width + SINGLE * reduced
            else:
                # One bucket in fp32, and its copy in the order of the ranks; a larger gradient
                # takes two copies.
                copies = 1 if reduced <= BUCKET_ELEMENTS else 2
                found["ZeRO buckets"] = SINGLE * (BUCKET_ELEMENTS + copies * reduced)
        elif layout.zero_stage == 3:
            found["ZeRO buckets"] = SINGLE * BUCKET_ELEMENTS
        if layout.zero_stage == 3 and moment != "update":
            live = min(
                self.trained + self.frozen, max(LIVE_ELEMENTS, self.embedding) + BUCKET_ELEMENTS
            )
            found["gathered weights"] = layout.width * live
        return found

    def _update(self) -> int:
        """torch's AdamW makes a root of the second moment: on a GPU of all weights of a group at
        once.
        """
        layout = self.layout
        if layout.offload:
            return 0
        if layout.zero_stage == 3:
            # The gradients of a sub-group are joined first.
            return 2 * SINGLE * -(-min(self.trained, SUBGROUP_ELEMENTS) // layout.world)
        if layout.device == "cpu" and not layout.zero_stage:
            return 2 * SINGLE * max(self.largest.values())  # one weight after the other
        return SINGLE * self.share
