"""The container engine through the docker SDK; whatever it refuses becomes one sentence with the
next step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from densekit.containers.tags import how_to_get
from densekit.errors import DataError, UsageError
from densekit.launch.launchers.docker.container import (
    HOSTNAME,
    SCRATCH,
    SCRATCH_OPTIONS,
    STACK_BYTES,
    Container,
)

INSTALL_TOOLKIT = (
    "install the NVIDIA Container Toolkit, run `nvidia-ctk runtime configure` and restart the "
    "engine"
)
MEANINGS = (
    (
        "could not select device driver",
        f"the container engine cannot give GPUs to containers: {INSTALL_TOOLKIT}",
    ),
    (
        "unknown runtime specified nvidia",
        f"the container engine has no NVIDIA runtime: {INSTALL_TOOLKIT}",
    ),
    (
        "unsatisfied condition: cuda",
        "the NVIDIA driver of this host is too old for the container image: update it "
        "(`densekit doctor` says to which version)",
    ),
    (
        "no space left on device",
        "the disk of the container engine is full: `docker system df` shows what fills it, "
        "`docker system prune` frees what is unused",
    ),
    (
        "error setting rlimit",
        "the container engine may not grant the limits that GPUs need (memlock): raise the "
        "engine's own limits, or use --launcher local",
    ),
    (
        "is already in use by container",
        "a container of this run exists already: `densekit stop RUN_DIR` stops it, `docker rm` "
        "removes a dead one",
    ),
    (
        "executable file not found",
        "the container image has no densekit: use one that `densekit containers build` made",
    ),
)
"""Part of what an engine answers, in lower case -> what it means for the user."""
GONE = (404, 409)
"""What an engine answers about a container that is not there, and about one that somebody else is
removing.
"""
UNDER_WAY = ("running", "created", "paused", "restarting")
"""States of a container that is not over."""
OUT_OF_MEMORY = (
    "the container was killed because host RAM ran out: use fewer --workers, a smaller "
    "--micro-batch, or a host with more RAM"
)


class Engine:
    """A connected container engine."""

    def __init__(self, client: Any) -> None:
        self.client = client

    @property
    def rootless(self) -> bool:
        """Whether root inside a container is the normal user outside."""
        return any(
            "rootless" in option for option in self.client.info().get("SecurityOptions") or ()
        )

    def image_id(self, image: str) -> str:
        """The id of a container image that the engine has; UsageError when it has not (nothing is
        ever pulled).
        """
        from docker.errors import ImageNotFound

        with one_sentence_errors():
            try:
                return str(self.client.images.get(image).id)
            except ImageNotFound:
                raise UsageError(
                    f"the container engine has no image {image}: {how_to_get(image)}, or name "
                    "another with --image"
                ) from None

    def start(self, container: Container) -> Any:
        """Create and start a container; returns the SDK's handle. Nothing is left of one that does
        not start.
        """
        from docker.types import DeviceRequest, Mount, Ulimit

        gpus: dict[str, Any] = {}
        if container.devices:
            gpus = {
                "device_requests": [
                    DeviceRequest(
                        driver="nvidia",
                        device_ids=[*container.devices],
                        capabilities=[["gpu"]],
                    )
                ],
                "ulimits": [
                    Ulimit(name="memlock", soft=-1, hard=-1),
                    Ulimit(name="stack", soft=STACK_BYTES, hard=STACK_BYTES),
                ],
            }
        with one_sentence_errors():
            made = self.client.containers.create(
                container.image,
                [*container.command],
                name=container.name,
                user=container.user,
                group_add=[*container.groups],
                environment={**container.environment},
                mounts=[
                    Mount(
                        target=str(mount.path),
                        source=str(mount.path),
                        type="bind",
                        read_only=mount.read_only,
                    )
                    for mount in container.mounts
                ],
                network_mode="none",
                hostname=HOSTNAME,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                read_only=True,
                tmpfs={SCRATCH: SCRATCH_OPTIONS},
                shm_size=container.shm_bytes,
                tty=container.terminal,
                **gpus,
            )
            try:
                made.start()
            except BaseException:
                made.remove(force=True)
                raise
        return made

    def why_it_ended(self, container: Any) -> str | None:
        """What the engine knows about a container's end and its exit code does not say; None when
        it is nothing.
        """
        from docker.errors import NotFound

        with one_sentence_errors():
            try:
                container.reload()
            except NotFound:
                return "the container was removed while it trained"
        return OUT_OF_MEMORY if container.attrs["State"].get("OOMKilled") else None

    def output(self, container: Any) -> tuple[int, bytes, bytes]:
        """Wait for a container's end; returns its exit code and what it wrote to stdout and
        stderr.
        """
        with one_sentence_errors():
            code = int(container.wait(timeout=None)["StatusCode"])
            out, errors = (
                container.logs(stdout=stdout, stderr=not stdout) for stdout in (True, False)
            )
        return code, out, errors

    def remove(self, container: Any) -> None:
        """Remove a container, which may be running or gone."""
        from docker.errors import APIError

        with one_sentence_errors():
            try:
                container.remove(force=True)
            except APIError as error:
                if error.status_code not in GONE:
                    raise

    def find(self, name: str) -> Any | None:
        """A container that is not over, by name or id; None when there is none."""
        from docker.errors import NotFound

        with one_sentence_errors():
            try:
                found = self.client.containers.get(name)
            except NotFound:
                return None
        return found if found.status in UNDER_WAY else None


def connect() -> Engine:
    """The engine that DOCKER_HOST or the default socket names; UsageError when none answers."""
    try:
        import docker
    except ImportError:
        raise UsageError(
            "the Python package `docker` is not installed: run `make setup`, or use "
            "--launcher local"
        ) from None
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except Exception as error:  # the SDK lets those of requests, urllib3 and the system through
        raise UsageError(_no_engine(str(error))) from None
    return Engine(client)


def _no_engine(answer: str) -> str:
    if "Permission denied" in answer:
        return (
            "this user may not use the container engine: run `sudo usermod -aG docker $USER`, then "
            "log in again"
        )
    if "No such file" in answer:
        reason = "its socket is not there"
    elif "Connection refused" in answer:
        reason = "the connection was refused"
    else:
        reason = answer.splitlines()[0][:120]
    return (
        f"no container engine answers ({reason}): start one "
        "(`sudo systemctl start docker`), set DOCKER_HOST, or use --launcher local"
    )


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Turn what the engine refuses inside the block into DataError with one sentence."""
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        answer = str(error.explanation or error)
        for pattern, meaning in MEANINGS:
            if pattern in answer.lower():
                raise DataError(meaning) from None
        raise DataError(f"the container engine refuses: {answer.splitlines()[0]}") from None
    except (DockerException, OSError) as error:  # requests' errors are OSErrors
        raise DataError(f"the container engine no longer answers: {error}") from None
