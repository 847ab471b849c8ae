"""The command that builds a container image: pinned bases, labels with the commit."""

import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import densekit
from densekit.containers.base_images import DOCKERFILE, base_images, pinned
from densekit.containers.tags import image_tag
from densekit.errors import UsageError

TARGET = re.compile(r"^FROM \S+ AS ([a-z0-9]+)$", re.MULTILINE)
STAGES = ("wheels", "source")  # of docker/Dockerfile that are no container images


def targets(root: Path) -> list[str]:
    """The container images that docker/Dockerfile can build."""
    base_images(root)  # says so when there is no Dockerfile
    found = TARGET.findall((root / DOCKERFILE).read_text(encoding="utf-8"))
    return [name for name in found if name not in STAGES]


def build_command(root: Path, target: str, extra: Sequence[str] = ()) -> list[str]:
    """`docker build` of one target of the checkout at `root`; `extra` are more of its options.

    Raises UsageError for a target that does not exist.
    """
    known = targets(root)
    if target not in known:
        raise UsageError(f"no container image is named {target}; there are {', '.join(known)}")
    arguments = {**pinned(root), **_origin(root)}
    command = [
        "docker",
        "build",
        "--file",
        str(root / DOCKERFILE),
        "--target",
        target,
        "--tag",
        image_tag(target),
    ]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    return [*command, *extra, str(root)]


def build(command: Sequence[str]) -> int:
    """Run it; returns its exit code."""
    try:
        return subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise UsageError(
            "containers build: `docker` is not installed; install Docker Engine with buildx"
        ) from None


def _origin(root: Path) -> dict[str, str]:
    """Version, commit and its time; without git only the version."""
    origin = {"VERSION": densekit.__version__}
    try:
        commit = _git(root, "rev-parse", "HEAD")
        seconds = _git(root, "log", "-1", "--format=%ct")
        changed = _git(root, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return origin
    created = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    revision = f"{commit}-dirty" if changed else commit
    return {**origin, "REVISION": revision, "CREATED": created, "SOURCE_DATE_EPOCH": seconds}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()
