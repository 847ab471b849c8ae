"""The launchers there are. A new one is a line here and a subclass of `base.Launcher`.

A launcher is imported when it is used, so that `densekit plan` does not pay for those of others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Literal

from densekit.errors import UsageError

if TYPE_CHECKING:
    from densekit.launch.launchers.base import Launcher

LAUNCHERS = {
    "local": "densekit.launch.launchers.local:Local",
    "docker": "densekit.launch.launchers.docker.launcher:Docker",
    "slurm": "densekit.launch.launchers.slurm.launcher:Slurm",
}
"""Name on the command line and in launch.json -> module and class."""
if TYPE_CHECKING:
    LauncherName = str
else:
    LauncherName = Literal[tuple(LAUNCHERS)]
"""One of the names, for the command line to offer and check."""
DEFAULT = "local"
DEFAULT_ON_GPU_HOST = "docker"


def launcher_names() -> list[str]:
    """In the order of the registry."""
    return list(LAUNCHERS)


def launcher_class(name: str) -> "type[Launcher]":
    """Raises UsageError for a name that the registry does not have."""
    if name not in LAUNCHERS:
        raise UsageError(f"no launcher named '{name}'; there are {', '.join(LAUNCHERS)}")
    module, _, attribute = LAUNCHERS[name].partition(":")
    found: type[Launcher] = getattr(import_module(module), attribute)
    return found
