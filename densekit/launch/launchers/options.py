"""What the command line says to launchers."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

ContainerRuntime = Literal["none", "pyxis", "apptainer"]
"""What runs containers on a cluster: none (this Python on every node), pyxis with enroot, or
apptainer.
"""


@dataclass(frozen=True, kw_only=True)
class LauncherOptions:
    """What the command line says to launchers; each launcher takes some of it."""

    image: str | None = None
    """Container image."""
    container: ContainerRuntime = "none"
    sbatch: Sequence[str] = ()
    """Options of sbatch, each as `partition=gpu`."""
    queue_minutes: float | None = None
    """How long a job may wait for its nodes."""

    def given(self) -> list[str]:
        """Names of the options that say something."""
        default = LauncherOptions()
        return [
            field.name
            for field in fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        ]
