"""What a command that names no launcher gets: chosen from this host, always with its reason."""

import os
import shutil
from dataclasses import dataclass
from typing import Literal

from densekit.errors import UsageError
from densekit.launch.host_gpus import Gpu, find_gpus, pick
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.docker.launcher import Docker
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.slurm.launcher import Slurm
from densekit.launch.launchers.slurm.script import Batch
from densekit.planner.cluster import usual_nodes
from densekit.spec.hardware import Hardware, found_hardware, hardware
from densekit.spec.recipe import Recipe
from densekit.spec.types import Device

LauncherName = Literal["local", "docker", "slurm"]
INSIDE_VARIABLE = "DENSEKIT_TARGET"
"""Set in every image: a launcher inside a container starts processes, no further containers."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says; None where it says nothing."""

    launcher: LauncherName | None = None
    device: Device | None = None
    gpus: int | None = None
    nodes: int | None = None
    gpu: str | None = None
    """Kind of the cluster's GPUs."""
    image: str | None = None
    batch: Batch | None = None
    queue_minutes: float | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A launcher and what it depends on, filled in."""

    launcher: Launcher
    device: Device
    gpus: int
    nodes: int
    hardware: Hardware | None
    """The GPUs that are here, or that the cluster is said to have; None on CPU and where nobody
    said.
    """
    reason: str
    """One line for the user."""


def choose(recipe: Recipe, asked: Asked) -> Choice:
    """Fill in launcher, device, number and kind of GPUs, and nodes.

    Tiny recipes stay on the processor. Others take the GPUs that are here, at most as many as the
    paper used; on a GPU host in a container. Raises UsageError when there are fewer GPUs than asked
    for, or of another kind.
    """
    looks = (
        asked.launcher != "slurm"
        and asked.device != "cpu"
        and (asked.device == "cuda" or recipe.assets is None)
    )
    found = find_gpus() if looks else []
    device = asked.device or _device(recipe, asked.launcher, found)
    gpus = _gpus(recipe, device, asked.launcher, found) if asked.gpus is None else asked.gpus
    kind: Hardware | None = None
    here = "the processor"
    if device == "cuda" and asked.launcher != "slurm":
        picked = pick(found, max(1, gpus))  # the plan refuses less
        here = f"{gpus} of {len(found)} GPUs here ({picked[0]})"
        kind = kind_of(picked)
        if asked.gpu is not None and hardware(asked.gpu).name != kind.name:
            raise UsageError(
                f"--gpu {asked.gpu}: this host has {kind.name}; leave --gpu away, or use --launcher slurm"
            )
    elif device == "cuda":
        kind = _clusters(recipe, asked.gpu)
    elif asked.gpu not in (None, "cpu"):
        raise UsageError(
            f"--gpu {asked.gpu}: this run is on the processor ({_why(recipe, device, asked)})"
        )
    name = asked.launcher or (
        "docker" if device == "cuda" and INSIDE_VARIABLE not in os.environ else "local"
    )
    launcher: Launcher
    if name != "slurm" and (
        asked.queue_minutes is not None or asked.batch not in (None, Batch(image=asked.image))
    ):
        raise UsageError(
            f"--container, --sbatch and --queue-minutes are for --launcher slurm; this run takes {name}"
        )
    if name == "local" and asked.image is not None:
        raise UsageError(
            f"--image {asked.image}: the local launcher has no container; use --launcher docker or slurm"
        )
    if name == "slurm":
        launcher, here = (
            Slurm(batch=asked.batch or Batch(), queue_minutes=asked.queue_minutes),
            "the cluster's nodes",
        )
    elif name == "docker":
        launcher = Docker(image=asked.image)
    else:
        launcher = Local()
    nodes = (
        asked.nodes
        if asked.nodes is not None
        else (usual_nodes(kind, gpus) if name == "slurm" and kind else 1)
    )
    why = "as asked" if asked.launcher else _why(recipe, device, asked)
    reason = f"launcher {name} ({why}): {here}"
    return Choice(
        launcher=launcher, device=device, gpus=gpus, nodes=nodes, hardware=kind, reason=reason
    )


def kind_of(picked: list[Gpu]) -> Hardware:
    """The kind of GPUs that are here, with the memory of the smallest."""
    return found_hardware(
        picked[0].name, picked[0].capability, min(gpu.memory_mib for gpu in picked)
    )


def _clusters(recipe: Recipe, gpu: str | None) -> Hardware | None:
    """The kind of a cluster's GPUs: as the command line says, else the paper's."""
    if gpu == "cpu":
        raise UsageError("--gpu cpu --device cuda: one of the two")
    if gpu is not None:
        return hardware(gpu)
    papers = recipe.hardware.gpu if recipe.hardware else "cpu"
    return hardware(papers, "hardware.gpu") if papers != "cpu" else None


def _device(recipe: Recipe, launcher: LauncherName | None, found: list[Gpu]) -> Device:
    if recipe.assets is not None:
        return "cpu"
    return "cuda" if launcher == "slurm" or found else "cpu"


def _gpus(recipe: Recipe, device: Device, launcher: LauncherName | None, found: list[Gpu]) -> int:
    if device == "cpu":
        return 1
    return (
        recipe.reference.gpus
        if launcher == "slurm"
        else max(1, min(recipe.reference.gpus, len(found)))
    )


def _why(recipe: Recipe, device: Device, asked: Asked) -> str:
    if INSIDE_VARIABLE in os.environ:
        return "this is a container already"
    if device == "cuda":
        return "this host has GPUs"
    if recipe.assets is not None:
        return "a tiny recipe"
    if asked.device == "cpu":
        return "--device cpu"
    return "no GPU here" + (
        "; --launcher slurm sends it to the cluster" if shutil.which("sbatch") else ""
    )
