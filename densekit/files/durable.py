"""Writing that survives a kill at any moment: bytes, flush to disk, and the one rename that makes
them visible.

Every step of a save goes through these functions, so that a test can enumerate them (`observer`).
"""

import os
from collections.abc import Callable
from pathlib import Path

observer: Callable[[str, Path], None] | None = None
"""Called after each operation with its name (write, fsync, rename) and path; tests end the process
in it.
"""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole (not yet on disk: see fsync)."""
    path.write_bytes(data)
    wrote(path)


def wrote(path: Path) -> None:
    """Say that somebody else (safetensors) wrote `path`."""
    _observe("write", path)


def fsync(path: Path) -> None:
    """Force a file's, or a folder's, content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _observe("fsync", path)


def rename(source: Path, target: Path) -> None:
    """Rename, replacing a file of that name, and force the folder's entry to disk."""
    source.replace(target)
    _observe("rename", target)
    fsync(target.parent)


def _observe(operation: str, path: Path) -> None:
    if observer is not None:
        observer(operation, path)
