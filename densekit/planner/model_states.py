"""What a process keeps from step to step under each engine, and the buffers it works with; no
activations.

DeepSpeed's parts were read in its 0.19.8 (runtime/zero/stage_1_and_2.py, stage3.py,
partitioned_param_coordinator.py) for the configuration that densekit writes
(densekit.train.engines.process_group.deepspeed_config).
"""

from densekit.planner.memory_trace.autograd import SINGLE
from densekit.spec.deepspeed import BUCKET_ELEMENTS, MAX_LIVE_ELEMENTS, SUB_GROUP_ELEMENTS
from densekit.spec.execution import Execution
from densekit.spec.trained_model import TrainedModel
from densekit.spec.types import DTYPE_BYTES

CUDA_CONTEXT = 723 * 2**20
"""A process that has put one number on a GPU (as reported in the PyTorch forum, thread 73021): an
allowance.
"""
NCCL = 400 * 2**20
"""NCCL's buffers of 4 MiB (NCCL_BUFFSIZE) for every channel and neighbour: an allowance, not
measured.
"""
FRAGMENTATION = 0.05
"""Of what comes and goes within a step (activations, logits, buffers): an allowance for blocks that
torch's allocator holds and cannot use, not measured.
"""
UPDATE = "update"
"""The phase in which the optimizer runs."""


class ModelStates:
    """Bytes per process of weights, gradients, optimizer and buffers."""

    def __init__(self, model: TrainedModel, execution: Execution) -> None:
        self.model, self.execution = model, execution
        language = model.shape.language
        self.width = DTYPE_BYTES[execution.dtype]
        """Bytes of an element in the forward pass."""
        self.trained, self.frozen = model.trained, model.frozen
        self.tower = 0 if model.trains_tower else model.shape.tower_parameters
        """Weights of a frozen tower."""
        self.embedding = language.embedding_parameters
        self.share = -(-self.trained // (execution.world_size if execution.zero_stage else 1))
        """Trained weights that this process updates."""
        hidden = language.hidden
        connector = model.shape.connector
        projector = max(max(connector.width, hidden) * hidden, connector.learned)
        matrices = [i * o for _, i, o in language.linears]
        adapters = [model.lora_r * max(i, o) for _, i, o in language.linears]
        layer = max({"connector": [0], "full": matrices, "lora": adapters}[model.trains])
        ends = language.embedding_parameters if model.trains == "full" else 0
        self.largest = {"loss": ends, "layer": layer, "connector": max(projector, ends)}
        """Elements of the largest gradient that a part of the backward pass gives to ZeRO."""

    @property
    def weights(self) -> int:
        """Weights; ZeRO's master weights count to the optimizer."""
        execution, width = self.execution, self.width
        if not execution.zero_stage:
            return SINGLE * self.trained + width * (self.frozen + self.tower)
        if execution.zero_stage == 2:
            return width * (self.trained + self.frozen + self.tower)
        return width * (self.share + -(-self.frozen // execution.world_size) + self.tower)

    @property
    def kept(self) -> int:
        """What is there in every phase of a step."""
        return self.weights + self.optimizer

    @property
    def gradients(self) -> int:
        """fp32 gradients, where they are not left to the backward pass to make."""
        return 0 if self.execution.cpu_offload else SINGLE * self.share

    @property
    def optimizer(self) -> int:
        """exp_avg and exp_avg_sq in fp32; under ZeRO also the master weights, where weights are
        not fp32 themselves.
        """
        return 0 if self.execution.cpu_offload else (8 + self._master_width) * self.share

    @property
    def _master_width(self) -> int:
        # ZeRO-2 copies fp32 weights too; ZeRO-3 does not.
        stage = self.execution.zero_stage
        return 0 if not stage or (stage == 3 and self.width == SINGLE) else SINGLE

    @property
    def host(self) -> int:
        """Host RAM of CPU offload: master weights, exp_avg, exp_avg_sq, gradients, and staging."""
        if not self.execution.cpu_offload:
            return 0
        # Gradients once for accumulation and once for the optimizer; torch's AdamW on the CPU makes
        # two temporaries of the largest group.
        return (12 + 8 + 8) * self.share

    def buffers(self, phase: str) -> dict[str, int]:
        """Buffers alive in a phase, by what they are for."""
        execution, sizes = self.execution, self.outside_allocator
        if execution.zero_stage == 0 and execution.world_size > 1:
            sizes["DDP buckets"] = SINGLE * self.trained
        if execution.zero_stage:
            sizes |= self._zero(phase)
        if phase == UPDATE:
            sizes["temporaries of AdamW"] = self._update()
        return {name: size for name, size in sizes.items() if size}

    @property
    def outside_allocator(self) -> dict[str, int]:
        """Buffers that torch's allocator does not hold."""
        if self.execution.device == "cpu":
            return {}
        sizes = {"CUDA context": CUDA_CONTEXT}
        return sizes | ({"NCCL": NCCL} if self.execution.world_size > 1 else {})

    def _zero(self, phase: str) -> dict[str, int]:
        """Reducing gradients and gathering weights."""
        stage, width = self.execution.zero_stage, self.width
        part = "loss" if "loss" in phase else "connector" if "connector" in phase else "layer"
        reduced = max(min(BUCKET_ELEMENTS, self.trained), self.largest[part])
        sizes = {}
        if phase.startswith("backward"):
            if stage == 2:
                # Two buckets in the dtype of the weights, and a copy in fp32 to be reduced.
                sizes["ZeRO buckets"] = 2 * BUCKET_ELEMENTS * width + SINGLE * reduced
            else:
                # One bucket in fp32, and its copy in the order of the ranks; a larger gradient
                # takes two copies.
                copies = 1 if reduced <= BUCKET_ELEMENTS else 2
                sizes["ZeRO buckets"] = SINGLE * (BUCKET_ELEMENTS + copies * reduced)
        elif stage == 3:
            sizes["ZeRO buckets"] = SINGLE * BUCKET_ELEMENTS
        if stage == 3 and phase != UPDATE:
            live = max(MAX_LIVE_ELEMENTS, self.embedding) + BUCKET_ELEMENTS
            sizes["gathered weights"] = width * min(self.trained + self.frozen, live)
        return sizes

    def _update(self) -> int:
        """torch's AdamW takes the root of exp_avg_sq: on a GPU of a whole group at once."""
        execution = self.execution
        if execution.cpu_offload:
            return 0
        if execution.zero_stage == 3:
            # The gradients of a sub-group are joined first.
            group = min(self.trained, SUB_GROUP_ELEMENTS)
            return 2 * SINGLE * -(-group // execution.world_size)
        if execution.device == "cpu" and not execution.zero_stage:
            return 2 * SINGLE * max(self.largest.values())  # one weight after the other
        return SINGLE * self.share
