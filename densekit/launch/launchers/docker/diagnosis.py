"""What `densekit doctor` says about the container engine, its NVIDIA toolkit and its image."""

import shutil
from collections.abc import Iterator, Sequence

import densekit
from densekit.containers.tags import how_to_get
from densekit.errors import DensekitError
from densekit.launch.host_gpus import Gpu, image_for_gpus
from densekit.launch.launchers.docker.client import (
    INSTALL_TOOLKIT,
    Engine,
    connect,
    one_sentence_errors,
)
from densekit.spec.check import Check, CheckState

VERSION_LABEL = "org.opencontainers.image.version"


def diagnose(gpus: Sequence[Gpu], *, tiny: bool) -> Iterator[Check]:
    """What is missing fails on a host with GPUs, and is a warning where `local` can train."""
    needed: CheckState = "fail" if gpus else "warn"
    try:
        engine = connect()
        with one_sentence_errors():
            version, info = engine.client.version(), engine.client.info()
    except DensekitError as error:
        yield Check(name="engine", state=needed, message=str(error))
        return
    rootless = ", rootless" if engine.rootless else ""
    yield Check(name="engine", state="ok", message=f"{version['Version']}{rootless}")
    if gpus:
        has_runtime = "nvidia" in info.get("Runtimes", {})
        if has_runtime or shutil.which("nvidia-container-runtime-hook") is not None:
            message = "the container engine can give GPUs to containers"
            yield Check(name="toolkit", state="ok", message=message)
        else:
            message = f"the container engine has no NVIDIA runtime: {INSTALL_TOOLKIT}"
            yield Check(name="toolkit", state="fail", message=message)
    try:
        yield _image(engine, image_for_gpus(() if tiny else gpus))
    except DensekitError as error:
        yield Check(name="image", state=needed, message=str(error))


def _image(engine: Engine, image: str) -> Check:
    engine.image_id(image)
    labels = engine.client.images.get(image).labels or {}
    built = labels.get(VERSION_LABEL) or "unknown"
    if built == densekit.__version__:
        return Check(name="image", state="ok", message=f"{image}, of this version")
    here = densekit.__version__
    message = f"{image} is of version {built}, this is {here}: {how_to_get(image)} again"
    return Check(name="image", state="warn", message=message)
