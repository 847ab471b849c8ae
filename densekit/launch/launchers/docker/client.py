"""The container engine through the docker SDK; whatever it refuses becomes one sentence with the
next step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from densekit.errors import DataError, UsageError
from densekit.launch.launchers.docker.container import HOSTNAME, STACK_BYTES, Container

# What an engine says, in lower case, and what it means for the user.
MEANINGS = (
    (
        "could not select device driver",
        "the engine cannot hand out GPUs: install the NVIDIA Container Toolkit, then `nvidia-ctk runtime configure` "
        "and restart the engine",
    ),
    (
        "unknown runtime specified nvidia",
        "the engine knows no NVIDIA runtime: install the NVIDIA Container Toolkit",
    ),
    (
        "unsatisfied condition: cuda",
        "the host's driver is too old for the image: update it (`densekit doctor` says to which version)",
    ),
    (
        "no space left on device",
        "the engine's disk is full: `docker system df` says by what, then free some",
    ),
    (
        "error setting rlimit",
        "the engine may not grant the limits that GPUs need (memlock): raise the engine's own limits, or use the "
        "host's --launcher local",
    ),
    (
        "is already in use by container",
        "a container of this run is there already: `densekit stop RUN_DIR`, or `docker rm` it if it is dead",
    ),
    (
        "executable file not found",
        "the image holds no densekit: name one that `densekit containers build` made",
    ),
)

GONE = (404, 409)
"""What an engine answers about a container that is not there, and about one that somebody else is
removing.
"""
OUT_OF_MEMORY = "the container was killed because memory ran out: fewer --workers, or a smaller --micro-batch, or a host with more"


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
        """The id of an image that is here; UsageError when it is not (nothing is ever pulled)."""
        from docker.errors import ImageNotFound

        with sentences():
            try:
                return str(self.client.images.get(image).id)
            except ImageNotFound:
                name, _, target = image.partition(":")
                how = (
                    f"`densekit containers build {target}`"
                    if name == "densekit" and target
                    else "build or load it"
                )
                raise UsageError(
                    f"image {image} is not in this engine: {how}, or name another with --image"
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
                        driver="nvidia", device_ids=container.devices, capabilities=[["gpu"]]
                    )
                ],
                "ulimits": [
                    Ulimit(name="memlock", soft=-1, hard=-1),
                    Ulimit(name="stack", soft=STACK_BYTES, hard=STACK_BYTES),
                ],
            }
        with sentences():
            made = self.client.containers.create(
                container.image,
                container.command,
                name=container.name,
                user=container.user,
                group_add=container.groups,
                environment=container.environment,
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
                security_opt=["no-new-privileges:true"],
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

        with sentences():
            try:
                container.reload()
            except NotFound:
                return "the container was removed while it trained"
        return OUT_OF_MEMORY if container.attrs["State"].get("OOMKilled") else None

    def remove(self, container: Any) -> None:
        """Remove a container, which may be running or gone."""
        from docker.errors import APIError

        with sentences():
            try:
                container.remove(force=True)
            except APIError as error:
                if error.status_code not in GONE:
                    raise

    def find(self, name: str) -> Any | None:
        """A running container by name or id; None when there is none."""
        from docker.errors import NotFound

        with sentences():
            try:
                found = self.client.containers.get(name)
            except NotFound:
                return None
        return found if found.status in ("running", "created", "paused", "restarting") else None


def connect() -> Engine:
    """The engine that DOCKER_HOST or the default socket names; UsageError when none answers."""
    try:
        import docker
    except ImportError:
        raise UsageError(
            "the docker package is not installed: run `make setup`, or use --launcher local"
        ) from None
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except Exception as error:  # the SDK lets those of requests, urllib3 and the system through
        raise UsageError(_no_engine(str(error))) from None
    return Engine(client)


def _no_engine(told: str) -> str:
    if "Permission denied" in told:
        return "no right to use the container engine: join its group (`sudo usermod -aG docker $USER`, then log in anew)"
    return (
        f"no container engine answers ({told.splitlines()[0][:120]}): start one (`sudo systemctl start docker`), set "
        "DOCKER_HOST, or use --launcher local"
    )


@contextmanager
def sentences() -> Iterator[None]:
    """Turn what the engine refuses inside the block into DataError with one sentence."""
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        told = str(error.explanation or error)
        for pattern, meaning in MEANINGS:
            if pattern in told.lower():
                raise DataError(meaning) from None
        raise DataError(f"the container engine refuses: {told.splitlines()[0]}") from None
    except DockerException as error:
        raise DataError(f"the container engine does not answer any more: {error}") from None
    except OSError as error:  # requests' errors are OSErrors
        raise DataError(f"the container engine does not answer any more: {error}") from None
