"""Which launcher, device and number of GPUs an evaluation gets where the command line leaves that
open.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import UsageError
from densekit.launch.evaluation import evaluation_execution, math_of
from densekit.launch.host_gpus import find_gpus, kind_of, pick
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.launchers.registry import DEFAULT, DEFAULT_ON_GPU_HOST, launcher_class
from densekit.launch.selection import INSIDE_VARIABLE, configured
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.site import Site

MOST = 1 << 12
"""Processes that can be asked for."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSelection:
    """A launcher, and how it asks."""

    launcher: Launcher
    execution: Execution


def select_for_evaluation(
    source: Path,
    request: ExecutionRequest,
    *,
    launcher: str | None,
    options: LauncherOptions,
    site: Site,
) -> EvaluationSelection:
    """Fill in launcher, device and number of processes: all GPUs of this host, in a container; a
    tiny recipe's model, and any where there is no GPU, on the CPU.

    Raises UsageError when there are fewer GPUs than asked for, and for options that the launcher
    does not take.
    """
    for option, value in (("--gpus", request.world_size), ("--nodes", request.nodes)):
        if value is not None and not 1 <= value <= MOST:
            raise UsageError(f"{option} {value}: give a number from 1 to {MOST}")
    math = math_of(source)
    tiny = math is not None and math.assets is not None
    named = launcher or site.launcher
    remote = named is not None and launcher_class(named).remote
    looks = not remote and (request.device == "cuda" or (request.device is None and not tiny))
    found = find_gpus() if looks else []
    on_gpu = request.device or ("cuda" if not tiny and (remote or found) else "cpu")
    count = request.world_size or max(1, len(found))
    gpu = kind_of(pick(found, count)).name if on_gpu == "cuda" and not remote else None
    inside = INSIDE_VARIABLE in os.environ
    name = named or (DEFAULT_ON_GPU_HOST if on_gpu == "cuda" and not inside else DEFAULT)
    machines = Execution(
        device=on_gpu,
        gpu=site.gpu if remote else gpu,
        world_size=count,
        nodes=request.nodes or 1,
        roots=site.roots,
    )
    return EvaluationSelection(
        launcher=configured(name, options, site),
        execution=evaluation_execution(machines, dtype=request.dtype),
    )
