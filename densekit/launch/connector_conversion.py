"""`models.connector` in the official code's format: converted before anything of a run is made."""

import sys
from collections.abc import Sequence
from pathlib import Path

from densekit.launch.launchers.base import Launcher
from densekit.runs.connector_weights import conversion_folder
from densekit.runs.layout import CONNECTOR_FILE
from densekit.spec.exchange import ConnectorRequest, ExchangeRequest
from densekit.spec.execution import Execution
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots


def convert_connectors(
    chain: Sequence[Recipe], roots: Roots, launcher: Launcher, execution: Execution
) -> None:
    """Convert what the recipes name, in a process of the trainer's environment, where that was not
    done before. A file that is not there is left to the preflight.

    Raises UsageError or DataError where it holds no projector or cannot be read.
    """
    for recipe in chain:
        if recipe.models.connector is None:
            continue
        path = roots.resolve(recipe.models.connector).resolve()
        folder = conversion_folder(path, roots.cache) if path.is_file() else None
        if folder is None or (folder / CONNECTOR_FILE).is_file():
            continue
        request = ConnectorRequest(file=path, to=folder)
        for line in launcher.exchange(ExchangeRequest(connector=request), execution).lines:
            print(line, file=sys.stderr)


def awaits_conversion(path: Path, cache: Path) -> bool:
    """Whether a file is converted when a run starts, and not before."""
    folder = conversion_folder(path, cache)
    return folder is not None and not (folder / CONNECTOR_FILE).is_file()
