"""The docker launcher: one container per attempt, with exactly the GPUs and folders it needs."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Self

from densekit.errors import UsageError
from densekit.launch.host_gpus import (
    Gpu,
    check_driver,
    check_image,
    find_gpus,
    image_for_gpus,
    pick,
)
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.conversion import made
from densekit.launch.launchers.docker.client import Engine, connect
from densekit.launch.launchers.docker.container import (
    Container,
    container_of,
    container_user,
    conversion_container,
    exchange_container,
    inspection_container,
    talk_container,
)
from densekit.launch.launchers.docker.diagnosis import diagnose
from densekit.launch.launchers.docker.follower import Follower, kill_container
from densekit.launch.launchers.exchange import exchanged
from densekit.launch.launchers.inspection import found_problems
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.launchers.paths import printable
from densekit.launch.launchers.talk import become, in_sight
from densekit.launch.launchers.waiting import settle, wait_stoppable
from densekit.runs.layout import WorkDir
from densekit.runs.process_handle import ProcessHandle
from densekit.spec.check import Check
from densekit.spec.conversion import ConversionReport, ConversionRequest
from densekit.spec.exchange import ExchangeReport, ExchangeRequest
from densekit.spec.execution import Execution
from densekit.spec.model_parts import ModelParts
from densekit.spec.talk import TalkRequest

IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
"""Names, addresses, tags and digests of images, by their letters."""
UNKNOWN_ID = "sha256:UNKNOWN"
"""Stands in `--print` for an image's id where no engine is there to tell it."""


class Docker(Launcher):
    """Containers of the engine on this host."""

    name = "docker"
    takes = ("image",)
    contained = True
    forbidden_in_paths = ""

    def __init__(self, *, image: str | None = None) -> None:
        self.image = image
        """None: the one that has kernels for the GPUs found, or the one for the CPU."""

    @classmethod
    def from_options(cls, options: LauncherOptions) -> Self:
        """With the container image that was asked for. Raises UsageError for one that no engine
        could have.
        """
        if options.image is not None and not IMAGE_NAME.fullmatch(options.image):
            raise UsageError(
                f"--image {printable(options.image)}: the docker launcher takes the name of an "
                "image, as in densekit:a100 or HOST/densekit@sha256:..."
            )
        return cls(image=options.image)

    def check(self, execution: Execution) -> None:
        """Engine, container image, GPUs and driver. UsageError names the first that is missing."""
        super().check(execution)
        image = self._image(_gpus(execution))
        connect().image_id(image)

    def inspection_environment(self, execution: Execution) -> str | None:
        """The container image, by its id."""
        return connect().image_id(self._image(_gpus(execution)))

    def inspect(self, parts: ModelParts, execution: Execution) -> list[str]:
        """In a container of the image, without a GPU, and removed again."""
        engine, image = connect(), self._image(_gpus(execution))
        user = container_user(rootless=engine.rootless)
        container = inspection_container(parts, image=image, user=user)
        return found_problems(*_output(engine, container))

    def convert(self, request: ConversionRequest, execution: Execution) -> ConversionReport:
        """In a container of the image, without a GPU, and removed again."""
        engine, image = connect(), self._image(_gpus(execution))
        user = container_user(rootless=engine.rootless)
        if request.to is not None:
            request.to.mkdir(parents=True, exist_ok=True)  # what is mounted has to be there
        container = conversion_container(request, image=image, user=user)
        return made(*_output(engine, container))

    def exchange(self, request: ExchangeRequest, execution: Execution) -> ExchangeReport:
        """In a container of the image, without a GPU, and removed again."""
        engine, image = connect(), self._image(_gpus(execution))
        user = container_user(rootless=engine.rootless)
        request.to.mkdir(parents=True, exist_ok=True)  # what is mounted has to be there
        container = exchange_container(request, image=image, user=user)
        return exchanged(*_output(engine, container))

    def talk(self, request: TalkRequest, execution: Execution) -> NoReturn:
        """Become the `docker run` of a container of the image, with one GPU where that is asked
        for.
        """
        gpus = _gpus(execution)
        image, engine = self._image(gpus), connect()
        engine.image_id(image)
        user = container_user(rootless=engine.rootless)
        container = talk_container(
            in_sight(request), image=image, devices=_indices(gpus), user=user
        )
        become(container.words(), {})

    def commands(self, run: WorkDir, execution: Execution) -> list[str]:
        """The `docker run` that does what `launch` does."""
        gpus = _gpus(execution)
        image, rootless, image_id = self._image(gpus), False, UNKNOWN_ID
        try:
            engine = connect()
            rootless, image_id = engine.rootless, engine.image_id(image)
        except UsageError as error:  # a command can be shown where it cannot be run
            print(f"note: {error}", file=sys.stderr)
        container = container_of(
            run,
            execution,
            image=image,
            image_id=image_id,
            devices=_indices(gpus),
            user=container_user(rootless=rootless),
        )
        return [container.shell()]

    def launch(self, run: WorkDir, execution: Execution) -> int:
        """Train in a container and remove it.

        Raises UsageError or DataError, with nothing left, when it cannot be started.
        """
        gpus = _gpus(execution)
        image, engine = self._image(gpus), connect()
        image_id = engine.image_id(image)
        user = container_user(rootless=engine.rootless)
        _prepare_folders(run, execution.roots.cache, user)
        container = container_of(
            run, execution, image=image, image_id=image_id, devices=_indices(gpus), user=user
        )
        started = engine.start(container)
        try:
            self.note(run, container=container.name, image=image_id)
            follower = Follower(started)
            code = wait_stoppable(run, wait=follower.wait, kill=lambda: kill_container(started))
            reason = engine.why_it_ended(started)
        finally:
            engine.remove(started)
        return settle(run, code, reason)

    def where(self, handle: ProcessHandle) -> str:
        """By container name and host."""
        return f"container {handle.text('container')} on {handle.host}"

    def is_alive(self, handle: ProcessHandle) -> bool:
        """Whether the engine has the container and it is not over."""
        return connect().find(handle.text("container")) is not None

    def kill(self, handle: ProcessHandle) -> None:
        """Remove the container with what runs in it."""
        engine = connect()
        if (found := engine.find(handle.text("container"))) is not None:
            engine.remove(found)

    @classmethod
    def diagnose(cls, gpus: Sequence[Gpu], *, tiny: bool) -> list[Check]:
        """The engine, its NVIDIA toolkit and its container image."""
        return [*diagnose(gpus, tiny=tiny)]

    def _image(self, gpus: Sequence[Gpu]) -> str:
        if self.image is None:
            return image_for_gpus(gpus)
        check_image(self.image, gpus)
        return self.image


def _output(engine: Engine, container: Container) -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of a container that is removed again."""
    started = engine.start(container)
    try:
        return engine.output(started)
    finally:
        engine.remove(started)


def _gpus(execution: Execution) -> list[Gpu]:
    if execution.device == "cpu":
        return []
    gpus = pick(find_gpus(), execution.world_size)
    check_driver(gpus)
    return gpus


def _indices(gpus: Sequence[Gpu]) -> list[str]:
    return [str(gpu.index) for gpu in gpus]


def _prepare_folders(run: WorkDir, cache: Path, user: str) -> None:
    """Make the cache. Where root starts a container that runs as a normal `user`, what root just
    made becomes theirs; UsageError when they may not write to a cache that was there.
    """
    cache_is_new = not cache.exists()
    cache.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0 or user == "0:0":
        return
    uid, gid = (int(part) for part in user.split(":"))
    for path in (run.path, *run.path.rglob("*"), *([cache] if cache_is_new else [])):
        os.chown(path, uid, gid, follow_symlinks=False)
    state = cache.stat()
    if state.st_uid != uid and not state.st_mode & 0o002:
        raise UsageError(
            f"the container runs as {user}, which may not write to the cache {cache}: run "
            f"`chown -R {user} {cache}`, or choose another with --cache-dir"
        )
