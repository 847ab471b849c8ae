"""The docker launcher: one container per attempt, with exactly the GPUs and folders it needs."""

import codecs
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densekit.errors import DataError, UsageError
from densekit.launch.host_gpus import Gpu, check_driver, check_target, find_gpus, pick, target_for
from densekit.launch.launchers.base import settle, this_host, wait_stoppable
from densekit.launch.launchers.docker.client import Engine, connect, sentences
from densekit.launch.launchers.docker.container import Container, container_user, describe
from densekit.runs.layout import RunDir
from densekit.runs.process_handle import Launched, write_launched
from densekit.spec.execution import Execution

POLL_SECONDS = 0.2
UNKNOWN_ID = "sha256:UNKNOWN"
"""Stands in `--print` for an image's id where no engine is there to tell it."""


@dataclass
class Docker:
    """Containers of the engine on this host. `image` None: the one for the GPUs found, or
    densekit:cpu.
    """

    image: str | None = None
    name: str = field(default="docker", init=False)

    def check(self, execution: Execution) -> None:
        """Engine, image, GPUs and driver, before anything is made. UsageError names the first that
        is missing.
        """
        self.check_options(execution)
        image = self._image(self._gpus(execution))
        connect().image_id(image)

    def check_options(self, execution: Execution) -> None:
        """UsageError for several nodes."""
        if execution.nodes > 1:
            raise UsageError(
                "--nodes: the docker launcher knows this host only; use --launcher slurm"
            )

    def commands(self, run: RunDir, execution: Execution) -> list[str]:
        """The `docker run` that does what `launch` does."""
        gpus = self._gpus(execution)
        image, rootless, image_id = self._image(gpus), False, UNKNOWN_ID
        try:
            engine = connect()
            rootless, image_id = engine.rootless, engine.image_id(image)
        except UsageError as error:  # a command can be shown where it cannot be run
            print(f"note: {error}", file=sys.stderr)
        user = container_user(rootless=rootless)
        devices = [str(gpu.index) for gpu in gpus]
        return [
            describe(
                run, execution, image=image, image_id=image_id, devices=devices, user=user
            ).shell()
        ]

    def launch(self, run: RunDir, execution: Execution) -> int:
        """Train in a container and remove it.

        Raises UsageError or DataError, with nothing left, when it cannot be started.
        """
        gpus = self._gpus(execution)
        image, engine = self._image(gpus), connect()
        image_id = engine.image_id(image)
        user = container_user(rootless=engine.rootless)
        cache = execution.roots.cache
        cache_is_new = not cache.exists()
        cache.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0 and user != "0:0":
            _give(run, user, cache if cache_is_new else None)
            _check_writable(cache, user)
        devices = [str(gpu.index) for gpu in gpus]
        container = describe(
            run, execution, image=image, image_id=image_id, devices=devices, user=user
        )
        return self._carry_out(run, engine, container, image_id)

    def _carry_out(self, run: RunDir, engine: Engine, container: Container, image_id: str) -> int:
        started = engine.start(container)
        try:
            launched = Launched(
                launcher=self.name, host=this_host(), container=container.name, image=image_id
            )
            write_launched(run, launched)
            follower = _Follower(started)
            code = wait_stoppable(run, wait=follower.wait, end=lambda: _kill(started))
            reason = engine.why_it_ended(started)
        finally:
            engine.remove(started)
        return settle(run, code, reason)

    def _gpus(self, execution: Execution) -> list[Gpu]:
        if execution.device == "cpu":
            return []
        gpus = pick(find_gpus(), execution.world_size)
        check_driver(gpus)
        return gpus

    def _image(self, gpus: Sequence[Gpu]) -> str:
        if self.image is None:
            return f"densekit:{target_for(gpus[0]).container_image if gpus else 'cpu'}"
        check_target(self.image.removeprefix("densekit:"), gpus)
        return self.image


class _Follower:
    """Shows what a container writes, and waits for its end in a way that Ctrl-C interrupts."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.code: int | None = None
        self.error: BaseException | None = None
        self.threads = [
            threading.Thread(target=work, daemon=True) for work in (self._show, self._wait)
        ]
        for thread in self.threads:
            thread.start()

    def wait(self) -> int:
        """The exit code."""
        for thread in self.threads:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
        if self.code is None:
            raise self.error or RuntimeError("the container's end was not seen")
        return self.code

    def _show(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with suppress(DataError), sentences():  # an engine that went away shows in _wait
            for chunk in self.container.logs(stream=True, follow=True):
                sys.stdout.write(decoder.decode(chunk))
                sys.stdout.flush()

    def _wait(self) -> None:
        try:
            with sentences():
                self.code = int(self.container.wait(timeout=None)["StatusCode"])
        except BaseException as error:
            self.error = error


def _kill(container: Any) -> None:
    with suppress(DataError), sentences():  # it may have ended by itself
        container.kill()
    with sentences():
        container.wait()


def _give(run: RunDir, user: str, cache: Path | None) -> None:
    """Root's containers run as a normal user: what root just made becomes theirs."""
    uid, gid = (int(part) for part in user.split(":"))
    for path in (run.path, *run.path.rglob("*"), *([cache] if cache else [])):
        os.chown(path, uid, gid, follow_symlinks=False)


def _check_writable(cache: Path, user: str) -> None:
    uid = int(user.split(":")[0])
    state = cache.stat()
    if state.st_uid != uid and not state.st_mode & 0o002:
        raise UsageError(
            f"the container runs as {user}, which may not write to the cache {cache}: `chown -R {user} {cache}`, or "
            "choose another with --cache-dir"
        )
