"""Variables by which launchers and platforms tell a process which rank it is, in one list.

A pod, an MPI job or an `accelerate config` leaves them in the environment. accelerate, DeepSpeed
and torch then wait for ranks that nobody started, or take another engine or dtype. The run
directory decides; torchrun's own reach a trainer only where it is one of the ranks of its run.

Nothing that a trainer imports reads SLURM_*: they stay.
"""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

from densekit.errors import UsageError
from densekit.spec.execution import Execution

PREFIXES = (
    "ACCELERATE_",
    "DS_",
    "PET_",  # defaults of torchrun's options
    "PMI_",
    "PMIX_",
    "PALS_",
    "OMPI_",
    "MV2_",
    "MPI_LOCAL",
    "HOROVOD_",
    "SM_",  # SageMaker
    "AZ_BATCH",
)
"""Never right for a trainer, whoever started it."""
RANK_PREFIXES = ("TORCHELASTIC_", "TORCH_ELASTIC_", "MASTER_", "GROUP_", "ROLE_", "CROSS_")
RANK_NAMES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "LOCAL_SIZE",
    "NODE_RANK",
    "DLTS_JOB_ID",
)
"""Right where torchrun set them for a rank of this run, and nowhere else."""
SET_BY_TORCHRUN = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
)
"""What every rank of a distributed run has."""
DRIVERS = {"train": "run", "answer": "evaluate", "measure": "plan RECIPE --measure N"}
"""The command that starts each verb of launchers."""
ACCELERATOR_VARIABLE = "DS_ACCELERATOR"
"""Always set from the execution."""


def clear_inherited(
    environment: MutableMapping[str, str] | None = None, *, keep_ranks: bool
) -> list[str]:
    """Remove the variables from `environment` (default: this process's) and name them on stderr.

    `keep_ranks`: torchrun's stay, because this process is a rank of torchrun. Call it before torch
    is imported. Returns the names.
    """
    variables = os.environ if environment is None else environment
    rank = variables.get("RANK", "0") if keep_ranks else "0"
    names = [name for name in sorted(variables) if _inherited(name, keep_ranks=keep_ranks)]
    for name in names:
        del variables[name]
    if names and rank == "0":
        print(
            f"ignored environment variables: {', '.join(names)} (the run directory decides)",
            file=sys.stderr,
            flush=True,
        )
    return names


def clear_for(run: Path, execution: Execution, *, verb: str = "train") -> None:
    """Make this process a rank of the run with this execution, or its only one; `verb` is what
    launchers start on it.

    Raises UsageError where the run needs several ranks and torchrun did not start this one as one
    of them: it would wait for the others for ever.
    """
    if execution.is_distributed:
        _check_ranks(run, execution, verb)
    clear_inherited(keep_ranks=execution.is_distributed)


def _inherited(name: str, *, keep_ranks: bool) -> bool:
    if name == ACCELERATOR_VARIABLE:
        return False
    if name.startswith(PREFIXES):
        return True
    return not keep_ranks and (name in RANK_NAMES or name.startswith(RANK_PREFIXES))


def _check_ranks(run: Path, execution: Execution, verb: str) -> None:
    size = execution.world_size
    start = (
        f"`densekit {DRIVERS[verb]}` starts them, or `torchrun --standalone --nproc-per-node "
        f"{size} -m densekit {verb} {run}` does"
    )
    if missing := [name for name in SET_BY_TORCHRUN if name not in os.environ]:
        raise UsageError(
            f"{run} is planned for {_ranks(size)} of torchrun, and this process is none of them "
            f"({', '.join(missing)} not set): {start}"
        )
    if (found := os.environ["WORLD_SIZE"]) != str(size):
        raise UsageError(
            f"WORLD_SIZE={found} is set, but {run} is planned for {_ranks(size)}: {start}"
        )


def _ranks(size: int) -> str:
    return "1 rank" if size == 1 else f"{size} ranks"
