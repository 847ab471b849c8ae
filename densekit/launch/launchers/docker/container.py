"""What the container of an attempt looks like: one description, from which the engine's call and a
shell command come.
"""

import csv
import io
import os
import re
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from densekit.errors import UsageError
from densekit.launch.launchers.conversion import conversion_arguments
from densekit.launch.launchers.exchange import exchange_arguments, folders_of, with_linked
from densekit.launch.launchers.inspection import VARIABLES, inspection_arguments
from densekit.launch.launchers.mounts import Mount, mounts
from densekit.launch.launchers.talk import reads, talk_arguments
from densekit.launch.launchers.trainer_command import (
    SHM_BYTES,
    job_name,
    passed_on,
    trainer_arguments,
    trainer_environment,
)
from densekit.runs.environment import IMAGE_VARIABLE
from densekit.runs.layout import WorkDir
from densekit.spec.conversion import ConversionRequest
from densekit.spec.exchange import ExchangeRequest
from densekit.spec.execution import Execution
from densekit.spec.model_parts import ModelParts
from densekit.spec.talk import TalkRequest

NORMAL_USER = 1000
"""Who a container runs as when root starts it (the user of the images)."""
USER_VARIABLE = "DENSEKIT_USER"
HOSTNAME = "localhost"
"""Without a network, no other name resolves: torchrun would wait minutes for its own."""
STACK_BYTES = 64 * 1024**2
SCRATCH = "/tmp"
"""The only folder to write that is no mount of the host: home, caches of triton and torch."""
SCRATCH_OPTIONS = "exec,nosuid,nodev,mode=1777"
"""`exec`: what triton and torch compile there is loaded from there."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container that trains one attempt, inspects models or converts weights: without
    capabilities or network, its root read-only.
    """

    name: str
    image: str
    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Sequence[Mount]
    user: str
    groups: Sequence[int]
    """Further groups of the user: data is often readable through one."""
    devices: Sequence[str]
    """Indices of the GPUs it sees, and no other."""
    shm_bytes: int
    terminal: bool
    """Whether what it writes goes to a terminal as it is."""
    interactive: bool = False
    """Whether it reads what is typed: only `docker run` does that."""

    def shell(self) -> str:
        """The `docker run` that does the same, as a shell takes it."""
        return shlex.join(self.words())

    def words(self) -> list[str]:
        """The `docker run` that does the same."""
        words = ["docker", "run", "--rm", "--name", self.name, "--user", self.user]
        words += ["--network", "none", "--hostname", HOSTNAME]
        for group in self.groups:
            words += ["--group-add", str(group)]
        words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--read-only"]
        words += ["--tmpfs", f"{SCRATCH}:{SCRATCH_OPTIONS}", "--shm-size", str(self.shm_bytes)]
        words += ["--interactive"] * self.interactive + ["--tty"] * self.terminal
        if self.devices:
            words += ["--gpus", f'"device={",".join(self.devices)}"']
            words += ["--ulimit", "memlock=-1", "--ulimit", f"stack={STACK_BYTES}"]
        for mount in self.mounts:
            words += ["--mount", _mount(mount)]
        for name, value in self.environment.items():
            words += ["--env", f"{name}={value}"]
        return [*words, self.image, *self.command]


def _mount(mount: Mount) -> str:
    """One line of CSV, as `docker run --mount` reads it."""
    fields = ["type=bind", f"source={mount.path}", f"target={mount.path}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*fields, *["readonly"] * mount.read_only])
    return line.getvalue()


def container_of(
    run: WorkDir,
    execution: Execution,
    *,
    image: str,
    image_id: str,
    devices: Sequence[str],
    user: str,
) -> Container:
    """The container of the run's latest attempt."""
    return Container(
        name=job_name(run),
        image=image,
        command=["python", *trainer_arguments(run, execution)],
        environment={
            **passed_on(),
            **trainer_environment(execution),
            "HOME": SCRATCH,
            IMAGE_VARIABLE: image_id,
        },
        mounts=mounts(run, execution),
        user=user,
        groups=_groups(user),
        devices=devices,
        shm_bytes=SHM_BYTES[execution.device],
        terminal=False,
    )


def inspection_container(parts: ModelParts, *, image: str, user: str) -> Container:
    """A container that inspects the models of a recipe and writes nowhere."""
    paths = {
        parts.language_model,
        parts.vision_tower,
        parts.high_resolution_tower,
        parts.connector_weights,
    }
    mounts = [Mount(path=path, read_only=True) for path in sorted(filter(None, paths))]
    return _on_the_side("inspect", inspection_arguments(parts), mounts, image=image, user=user)


def conversion_container(request: ConversionRequest, *, image: str, user: str) -> Container:
    """A container that converts the weights of a folder; the files of a hub cache, to which a
    folder there links, are mounted too.
    """
    linked = {path.resolve().parent for path in request.folder.iterdir() if path.is_symlink()}
    read_only = {path: True for path in (*linked, request.folder) if path.is_dir()}
    mounted = {**read_only, request.to or request.folder: False}
    mounts = [Mount(path=path, read_only=only) for path, only in sorted(mounted.items())]
    return _on_the_side("convert", conversion_arguments(request), mounts, image=image, user=user)


def exchange_container(request: ExchangeRequest, *, image: str, user: str) -> Container:
    """A container that imports or exports a checkpoint."""
    found = sorted(folders_of(request).items())
    mounts = [Mount(path=path, read_only=only) for path, only in found]
    return _on_the_side("exchange", exchange_arguments(request), mounts, image=image, user=user)


def talk_container(
    request: TalkRequest, *, image: str, devices: Sequence[str], user: str
) -> Container:
    """A container that answers in this terminal and writes nowhere."""
    mounts = [Mount(path=path, read_only=True) for path in sorted(with_linked(reads(request)))]
    plain = _on_the_side("talk", talk_arguments(request), mounts, image=image, user=user)
    typed = request.chat is not None
    return replace(
        plain,
        environment={"TOKENIZERS_PARALLELISM": "false", "HOME": SCRATCH},
        devices=devices,
        shm_bytes=SHM_BYTES[request.settings.device],
        terminal=typed and sys.stdin.isatty() and sys.stdout.isatty(),
        interactive=typed,
    )


def _on_the_side(
    what: str, arguments: Sequence[str], mounts: Sequence[Mount], *, image: str, user: str
) -> Container:
    """A container that does something else than train, without a GPU."""
    return Container(
        name=f"densekit-{what}-{secrets.token_hex(4)}",
        image=image,
        command=["python", *arguments],
        environment={**VARIABLES, "HOME": SCRATCH},
        mounts=mounts,
        user=user,
        groups=_groups(user),
        devices=(),
        shm_bytes=SHM_BYTES["cpu"],
        terminal=False,
    )


def _groups(user: str) -> list[int]:
    return os.getgroups() if os.getuid() and user == f"{os.getuid()}:{os.getgid()}" else []


def container_user(*, rootless: bool) -> str:
    """`uid:gid` inside: the host's user. Root's containers run as a normal user (1000, or what
    DENSEKIT_USER says), except in a rootless engine, where root inside is the normal user outside.
    """
    if rootless:
        return "0:0"
    if asked := os.environ.get(USER_VARIABLE):
        if not re.fullmatch(r"\d+:\d+", asked):
            raise UsageError(
                f"{USER_VARIABLE}={asked}: give the numbers of user and group, as in "
                f"{USER_VARIABLE}=1000:1000"
            )
        return asked
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else f"{NORMAL_USER}:{NORMAL_USER}"
