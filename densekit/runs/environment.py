"""environment.json of an attempt: versions, code, machine, devices, and the variables that change
bits.
"""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

import densekit
from densekit.files.hashing import file_sha256
from densekit.spec.part import Part

ENVIRONMENT_FILE = "environment.json"
PACKAGE = Path(densekit.__file__).resolve().parent
IMAGE_VARIABLE = "DENSEKIT_IMAGE_ID"
"""Set by whatever starts a container: its image cannot be seen from inside."""
REVISION_VARIABLE = "DENSEKIT_REVISION"
"""A container image has no .git: its build says which commit it was made from."""
NUMERIC_VARIABLES = re.compile(
    "(MKL|ATEN|ONEDNN|DNNL|KMP|OMP|GOMP|OPENBLAS|CUBLAS|CUDNN|NCCL|TORCH)_.*"
    "|NVIDIA_TF32_OVERRIDE|GLIBC_TUNABLES|LD_PRELOAD"
)
"""Names of the variables by which a library chooses its kernels, its instructions or the order of
a sum: another value can change the last bit of a result. None of them holds a secret.
"""


class GitState(Part):
    """Which commit the code is of."""

    commit: str
    dirty: bool
    """Whether files differ from the commit."""


class Device(Part):
    """An accelerator in use."""

    name: str
    driver: str | None


class Cpu(Part):
    """The CPU, and the instruction sets that a library may choose its kernels by."""

    model: str
    flags: list[str]


class Environment(Part):
    """Where an attempt ran."""

    densekit: str
    git: GitState | None
    """None where neither a checkout nor the container image tells."""
    python: str
    platform: str
    processors: int
    """CPUs that the process may use."""
    packages: dict[str, str]
    """Version of every installed distribution, by normalised name."""
    lock: dict[str, str]
    """SHA-256 of the lock files."""
    image: str | None
    """Id of the container image; None outside a container."""
    devices: list[Device]
    cpu: Cpu | None = None
    """None in files of 0.1.0, and where /proc/cpuinfo does not tell."""
    variables: dict[str, str] = Field(default_factory=dict)
    """The environment variables of NUMERIC_VARIABLES that are set."""

    def as_json(self) -> dict[str, Any]:
        """What environment.json holds."""
        return self.model_dump(mode="json")


def environment(devices: Sequence[Mapping[str, Any]] = ()) -> Environment:
    """The environment of this process.

    `devices` are {"name", "driver"} of the accelerators in use, which only the trainer can see.
    """
    return Environment(
        densekit=densekit.__version__,
        git=_git_state(PACKAGE),
        python=platform.python_version(),
        platform=platform.platform(),
        processors=len(os.sched_getaffinity(0)),
        packages=_packages(),
        lock=_lock(PACKAGE.parent / "requirements"),
        image=os.environ.get(IMAGE_VARIABLE) or None,
        devices=[Device.model_validate(device) for device in devices],
        cpu=_cpu(Path("/proc/cpuinfo")),
        variables={
            name: value
            for name, value in sorted(os.environ.items())
            if NUMERIC_VARIABLES.fullmatch(name)
        },
    )


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


def _cpu(path: Path) -> Cpu | None:
    """The first processor of a cpuinfo file: `model name` and `flags` (x86) or `Features` (Arm)."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name.strip(), value.strip())
    flags = values.get("flags") or values.get("Features") or ""
    return Cpu(model=values.get("model name", "unknown"), flags=sorted(flags.split()))


def _git_state(directory: Path) -> GitState | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        return GitState(
            commit=git("rev-parse", "HEAD"),
            dirty=bool(git("status", "--porcelain", "--untracked-files=no")),
        )
    except (OSError, subprocess.SubprocessError):
        built_from = os.environ.get(REVISION_VARIABLE)
        if not built_from:
            return None
        return GitState(
            commit=built_from.removesuffix("-dirty"), dirty=built_from.endswith("-dirty")
        )
