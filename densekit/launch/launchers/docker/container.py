"""What the container of an attempt looks like: one description, from which the engine's call and a
shell command come.

Everything a run reads or writes is mounted at the path it has on the host. So execution.json, which
names absolute paths, holds inside and outside, and a run that was begun in a container can be
continued without one, and vice versa.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.errors import UsageError
from densekit.launch.launchers.base import passed_on, trainer_arguments, trainer_environment
from densekit.runs.environment import IMAGE_VARIABLE
from densekit.runs.layout import RunDir
from densekit.spec.execution import Execution

NORMAL_USER = 1000
"""Who a container runs as when root starts it (the user of the images)."""
USER_VARIABLE = "DENSEKIT_USER"
GIB = 1024**3
SHM_BYTES = {"cuda": 16 * GIB, "cpu": GIB}
"""NCCL and data workers hand tensors over in shared memory; an engine's default is 64 MB."""


HOSTNAME = "localhost"
"""Without a network, no other name resolves: torchrun would wait minutes for its own."""
STACK_BYTES = 64 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or file of the host, at the same path inside."""

    path: Path
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container that trains one attempt."""

    name: str
    image: str
    command: list[str]
    environment: dict[str, str]
    mounts: list[Mount]
    user: str
    groups: list[int]
    """Further groups of the user: data is often readable through one."""
    devices: list[str]
    """Indices of the GPUs it sees, and no other."""
    shm_bytes: int
    terminal: bool
    """Whether the progress bar may move: the driver's own output is a terminal."""

    def shell(self) -> str:
        """The `docker run` that does the same."""
        words = [
            "docker",
            "run",
            "--rm",
            "--name",
            self.name,
            "--user",
            self.user,
            "--network",
            "none",
            "--hostname",
            HOSTNAME,
        ]
        for group in self.groups:
            words += ["--group-add", str(group)]
        words += ["--security-opt", "no-new-privileges:true", "--shm-size", str(self.shm_bytes)]
        words += ["--tty"] * self.terminal
        if self.devices:
            words += ["--gpus", f'"device={",".join(self.devices)}"']
            words += ["--ulimit", "memlock=-1", "--ulimit", f"stack={STACK_BYTES}"]
        for mount in self.mounts:
            only = ",readonly" if mount.read_only else ""
            words += ["--mount", f"type=bind,source={mount.path},target={mount.path}{only}"]
        for name, value in self.environment.items():
            words += ["--env", f"{name}={value}"]
        return shlex.join([*words, self.image, *self.command])


def container_name(run: RunDir) -> str:
    """One name per run, so that an engine keeps a second container away from it."""
    return f"densekit-{run.path.name}"


def describe(
    run: RunDir,
    execution: Execution,
    *,
    image: str,
    image_id: str,
    devices: list[str],
    user: str,
) -> Container:
    """The container of the run's latest attempt."""
    return Container(
        name=container_name(run),
        image=image,
        command=["python", *trainer_arguments(run.path.resolve(), execution)],
        environment={**passed_on(), **trainer_environment(execution), IMAGE_VARIABLE: image_id},
        mounts=mounts(run, execution),
        user=user,
        groups=os.getgroups() if os.getuid() and user == f"{os.getuid()}:{os.getgid()}" else [],
        devices=devices,
        shm_bytes=SHM_BYTES[execution.device],
        terminal=sys.stdout.isatty(),
    )


def mounts(run: RunDir, execution: Execution) -> list[Mount]:
    """What a run needs of the host: its own folder and the cache to write, everything else to read.

    A folder that does not exist is left out: tiny recipes make their data in the cache.
    """
    writable = [run.path, execution.roots.cache]
    readable = [Path(getattr(execution.roots, name)) for name in ("data", "models")]
    named = [*_paths_in(run.math.recipe.as_json())]
    # The trainer asks for a path as the recipe writes it, also where a link stands.
    links = [path for path in named if path.exists()]
    seen: dict[Path, bool] = {path.resolve(): True for path in (*readable, *named) if path.exists()}
    seen.update(dict.fromkeys(links, True))
    if execution.starts_from:  # with --print it is not there yet
        seen[Path(execution.starts_from).resolve()] = True
    seen.update({path.resolve(): False for path in writable})
    return [Mount(path=path, read_only=only) for path, only in sorted(seen.items())]


def _paths_in(recipe: Mapping[str, Any]) -> Iterator[Path]:
    """Absolute paths that a recipe of one's own names instead of roots."""
    models, data, probe = recipe["models"], recipe["data"], recipe["probe"] or {}
    for reference in (*models.values(), data["annotations"], data["images"], *probe.values()):
        if isinstance(reference, str) and Path(reference).is_absolute():
            yield Path(reference)


def container_user(*, rootless: bool) -> str:
    """`uid:gid` inside: the host's user. Root's containers run as a normal user (1000, or what
    DENSEKIT_USER says), except in a rootless engine, where root inside is the normal user outside.
    """
    if rootless:
        return "0:0"
    if asked := os.environ.get(USER_VARIABLE):
        if not re.fullmatch(r"\d+:\d+", asked):
            raise UsageError(
                f"{USER_VARIABLE}={asked}: write it as numbers, as in {USER_VARIABLE}=1000:1000"
            )
        return asked
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{NORMAL_USER}:{NORMAL_USER}"
