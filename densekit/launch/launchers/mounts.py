"""The folders and files of the host that a run in a container reads and writes.

Each is mounted at the path it has on the host. So execution.json, which names absolute paths, holds
inside and outside, and a run that began in a container can resume without one, and vice versa.
"""

from dataclasses import dataclass
from pathlib import Path

from densekit.launch.launchers.paths import recipe_paths
from densekit.runs.layout import WorkDir
from densekit.spec.execution import Execution


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder or file of the host, at the same path inside."""

    path: Path
    read_only: bool


def mounts(run: WorkDir, execution: Execution) -> list[Mount]:
    """The run directory and the cache to write, everything else to read.

    A folder that does not exist is left out: tiny recipes make their data in the cache.
    """
    writable = [run.path, execution.roots.cache]
    readable = [execution.roots.data, execution.roots.models]
    named = [path for recipe in run.recipes for _, path in recipe_paths(recipe)]
    # The trainer opens a path as the recipe writes it, also where that is a symbolic link.
    links = [path for path in named if path.exists()]
    seen: dict[Path, bool] = {
        path.resolve(): True for path in (*readable, *run.reads, *named) if path.exists()
    }
    seen.update(dict.fromkeys(links, True))
    if execution.starts_from:  # with --print it is not there yet
        seen[Path(execution.starts_from).resolve()] = True
    seen.update({path.resolve(): False for path in writable})
    return [Mount(path=path, read_only=only) for path, only in sorted(seen.items())]
