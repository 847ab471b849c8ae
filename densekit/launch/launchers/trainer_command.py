"""The command that trains a run and the environment variables with it, wherever it runs."""

import os
import re
from importlib.util import find_spec

from densekit.runs.layout import WorkDir
from densekit.spec.execution import Execution
from densekit.spec.hardware import GIB

PASSED_PREFIXES = (
    "NCCL_",
    "TORCH_NCCL_",
    "TORCH_DISTRIBUTED_",
    "GLOO_",
    "CUDA_LAUNCH_BLOCKING",
    "DENSEKIT_SELFTEST",
)
"""Variables of this shell that reach a container or job: how libraries communicate and log, never
what is computed, no secrets.
"""
PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed")
"""What the trainer imports and the driver does without."""
SHM_BYTES = {"cuda": 16 * GIB, "cpu": GIB}
"""Shared memory that NCCL and data workers hand tensors over in, by device; the default of a
container engine is 64 MB.
"""


def missing_packages() -> list[str]:
    """Which of PACKAGES this Python lacks."""
    return [name for name in PACKAGES if find_spec(name) is None]


def trainer_arguments(run: WorkDir, execution: Execution) -> list[str]:
    """What follows the interpreter to carry a run or an evaluation out on the processes of one
    host.
    """
    trainer = ["-m", "densekit", run.verb, str(run.path.resolve())]
    if not execution.is_distributed:
        return trainer
    processes = str(execution.world_size)
    torchrun = ["-m", "densekit.train.torchrun", "--standalone", "--nproc-per-node", processes]
    return [*torchrun, *trainer]


def trainer_environment(execution: Execution) -> dict[str, str]:
    """Variables that the plan decides, whatever the caller's are."""
    return {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(execution.threads)}


def passed_on() -> dict[str, str]:
    """The variables of PASSED_PREFIXES that are set and that a shell can name."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(PASSED_PREFIXES) and name.isidentifier()
    }


def job_name(run: WorkDir) -> str:
    """What an engine or a cluster calls the run: one name, so that a second one is noticed, of
    letters that both take.
    """
    return "densekit-" + re.sub("[^A-Za-z0-9_.-]", "-", run.path.name)
