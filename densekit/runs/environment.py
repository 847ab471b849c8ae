"""The environment of an attempt: versions, code, machine and devices."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import densekit
from densekit.files.hashing import file_sha256

PACKAGE = Path(densekit.__file__).resolve().parent
IMAGE_VARIABLE = (
    "DENSEKIT_IMAGE_ID"  # set by whatever starts a container: its image cannot be seen from inside
)
REVISION_VARIABLE = (
    "DENSEKIT_REVISION"  # an image has no .git: its build says which commit it was made from
)


def environment(devices: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Versions of densekit, Python and every installed package, lock files, git state, image and
    machine.

    `devices` are {"name", "driver"} of the accelerators in use, which only the trainer can see.
    """
    return {
        "densekit": densekit.__version__,
        "git": _git_state(PACKAGE),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": len(os.sched_getaffinity(0)),
        "packages": _packages(),
        "lock": _lock(PACKAGE.parent / "requirements"),
        "image": os.environ.get(IMAGE_VARIABLE) or None,
        "devices": [dict(device) for device in devices],
    }


def _packages() -> dict[str, str]:
    """Version of every installed distribution by normalised name; the first on the path is the one
    imported.
    """
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a leftover of a broken installation has none
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def _lock(folder: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(folder.glob("*.txt"))}


def _git_state(directory: Path) -> dict[str, Any] | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        built_from = os.environ.get(REVISION_VARIABLE)
        if not built_from:
            return None
        return {"commit": built_from.removesuffix("-dirty"), "dirty": built_from.endswith("-dirty")}
