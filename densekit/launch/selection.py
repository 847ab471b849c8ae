"""Which launcher, device and number of GPUs a run gets where the command line leaves that open:
chosen from this host, always with the reason.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from densekit.errors import UsageError
from densekit.launch.host_gpus import Gpu, find_gpus, kind_of, pick
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.launchers.registry import (
    DEFAULT,
    DEFAULT_ON_GPU_HOST,
    launcher_class,
    launcher_names,
)
from densekit.planner.cluster import usual_nodes
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import Hardware, hardware
from densekit.spec.recipe import Recipe
from densekit.spec.site import Site
from densekit.spec.types import Device

INSIDE_VARIABLE = "DENSEKIT_TARGET"
"""Set in every container image of ours: inside, a run is processes and no further container."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A launcher and what depends on the machines it trains on."""

    launcher: Launcher
    request: ExecutionRequest
    """What was asked, with device, world_size and nodes filled in."""
    hardware: Hardware | None
    """The GPUs of this host, or those that the cluster is assumed to have; None on a CPU and where
    nobody named them.
    """
    reason: str
    """One line for the user."""

    def describe(self) -> str:
        """In words: `slurm, 16 x a100-80g on 2 nodes`."""
        asked = self.request
        kind = self.hardware.name if self.hardware else asked.device
        nodes = f" on {asked.nodes} nodes" if asked.nodes != 1 else ""
        return f"{self.launcher.name}, {asked.world_size} x {kind}{nodes}"


def select(
    recipe: Recipe,
    request: ExecutionRequest,
    *,
    launcher: str | None = None,
    options: LauncherOptions | None = None,
    site: Site | None = None,
) -> Selection:
    """Fill in launcher, device, number and kind of GPUs, and nodes.

    Tiny recipes stay on the CPU. Others take the GPUs of this host, at most as many as the paper
    used; on a GPU host in a container. Raises UsageError when there are fewer GPUs than asked for,
    or of another kind, and for options that the launcher does not take. Settings of the `site`
    stand in for what the command line leaves open.
    """
    options, site = options or LauncherOptions(), site or Site()
    asked = launcher or site.launcher
    remote = asked is not None and launcher_class(asked).remote
    looks = not remote and request.device != "cpu"
    looks = looks and (request.device == "cuda" or recipe.assets is None)
    found = find_gpus() if looks else []
    device = request.device or _device(recipe, found, remote=remote)
    world_size = request.world_size
    if world_size is None:
        world_size = _world_size(recipe, device, found, remote=remote)
    why = _why(recipe, device, request)
    kind: Hardware | None = None
    where = "the cluster's nodes" if remote else "the CPU"
    if device == "cuda" and remote:
        kind = _cluster_kind(recipe, request.gpu or site.gpu)
    elif device == "cuda":
        picked = pick(found, max(1, world_size))  # the plan refuses less
        where = f"{world_size} of {len(found)} GPUs of this host ({picked[0]})"
        kind = kind_of(picked)
        _check_kind(request.gpu, kind)
    elif request.gpu not in (None, "cpu"):
        raise UsageError(f"--gpu {request.gpu}: this run trains on the CPU ({why}); omit --gpu")
    inside = INSIDE_VARIABLE in os.environ
    name = asked or (DEFAULT_ON_GPU_HOST if device == "cuda" and not inside else DEFAULT)
    nodes = request.nodes
    if nodes is None:
        nodes = usual_nodes(kind, world_size) if remote and kind else 1
    chosen = "as asked" if launcher else "site settings" if site.launcher else why
    filled = {"device": device, "world_size": world_size, "nodes": nodes}
    return Selection(
        launcher=configured(name, options, site),
        request=request.model_copy(update=filled),
        hardware=kind,
        reason=f"launcher {name} ({chosen}): {where}",
    )


def configured(name: str, options: LauncherOptions, site: Site) -> Launcher:
    """The launcher with what the command line says, which it has to take, and with those of the
    site's settings that it takes; none of them where the site trains with another launcher.
    """
    chosen = launcher_class(name)
    for option in options.given():
        if option not in chosen.takes:
            takers = [other for other in launcher_names() if option in launcher_class(other).takes]
            raise UsageError(
                f"--{option.replace('_', '-')}: the {name} launcher does not take it; use "
                f"--launcher {' or '.join(takers)}"
            )
    if site.launcher in (None, name):
        options = options.filled(chosen.takes, site)
    return chosen.from_options(options)


def _check_kind(gpu: str | None, kind: Hardware) -> None:
    if gpu is not None and hardware(gpu).name != kind.name:
        raise UsageError(
            f"--gpu {gpu}: this host has {kind.name}; omit --gpu, or use --launcher slurm"
        )


def _cluster_kind(recipe: Recipe, gpu: str | None) -> Hardware | None:
    """The kind of a cluster's GPUs: as the command line says, else the paper's."""
    if gpu == "cpu":
        raise UsageError("--gpu cpu --device cuda: give one of the two")
    if gpu is not None:
        return hardware(gpu)
    papers = recipe.hardware.gpu if recipe.hardware else "cpu"
    return hardware(papers, "hardware.gpu") if papers != "cpu" else None


def _device(recipe: Recipe, found: Sequence[Gpu], *, remote: bool) -> Device:
    return "cuda" if recipe.assets is None and (remote or found) else "cpu"


def _world_size(recipe: Recipe, device: Device, found: Sequence[Gpu], *, remote: bool) -> int:
    if device == "cpu":
        return 1
    papers = recipe.reference.gpus
    return papers if remote else max(1, min(papers, len(found)))


def _why(recipe: Recipe, device: Device, request: ExecutionRequest) -> str:
    if INSIDE_VARIABLE in os.environ:
        return "this is a container already"
    if device == "cuda":
        return "this host has GPUs"
    if recipe.assets is not None:
        return "a tiny recipe"
    if request.device == "cpu":
        return "--device cpu"
    cluster = "; --launcher slurm trains on the cluster" if shutil.which("sbatch") else ""
    return f"no GPU on this host{cluster}"
