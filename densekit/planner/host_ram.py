"""Host RAM that one node of a run needs: its processes, CPU offload, and the larger of loading the
pretrained weights and what saving holds.
"""

from densekit.planner.memory import Memory
from densekit.spec.execution import Execution
from densekit.spec.hardware import GIB
from densekit.spec.trained_model import TrainedModel
from densekit.spec.types import DTYPE_BYTES

PROCESS = 8 * GIB
"""Assumed of one rank: Python, torch, the CUDA context, pinned buffers."""
WORKER = GIB
"""Assumed of one process that reads data ahead."""
MARGIN = 1.1
STATE_BYTES = 12
"""A checkpoint copies master weight, exp_avg and exp_avg_sq of every trained weight, in fp32."""


def checkpoint_copy(model: TrainedModel, execution: Execution) -> int:
    """Bytes in one node of the copy that a thread writes while training goes on; it stays for the
    next save. Under CPU offload the states are in host RAM themselves, and none is made.
    """
    if execution.cpu_offload:
        return 0
    return STATE_BYTES * model.trained * execution.per_node // execution.world_size


def host_ram_gib(model: TrainedModel, execution: Execution, memory: Memory) -> int:
    """GiB of one node, rounded up: what a job has to ask a cluster for.

    Without ZeRO-3 every rank loads the weights that it will compute with; under it one file of them
    at a time is whole, here taken for the whole model once.
    """
    ranks = execution.per_node
    weights = model.shape.parameters * DTYPE_BYTES[execution.dtype]
    if execution.zero_stage == 0 and model.trains == "full":
        weights = model.shape.parameters * DTYPE_BYTES["fp32"]
    loading = weights * (1 if execution.zero_stage == 3 else ranks)
    # The copy of the last checkpoint is still there when the trained weights are gathered.
    saving = checkpoint_copy(model, execution) + weights
    always = ranks * (PROCESS + execution.workers * WORKER + memory.host)
    return -int(-MARGIN * (always + max(loading, saving)) // GIB)
