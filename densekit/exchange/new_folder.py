"""A folder that is made whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.files import durable

STAGE = ".unfinished"
"""What is written lies in here until all of it is there."""


def check_new(target: Path) -> None:
    """Raise UsageError where `target` holds anything but what a killed process left there."""
    if target.exists() and not target.is_dir():
        raise UsageError(f"--to {target} is a file: name a folder, new or empty")
    if target.is_dir() and any(path.name != STAGE for path in target.iterdir()):
        raise UsageError(f"--to {target} is not empty: name a folder, new or empty")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into; after the block its content is in `target`, moved there by renames.

    Raises UsageError where `target` holds anything but what a killed process left there, DataError
    where it cannot be written.
    """
    check_new(target)
    made = not target.exists()
    stage = target / STAGE
    try:
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"--to {target} cannot be written: {error.strerror}") from None
    try:
        yield stage
        for path in sorted(stage.rglob("*")):
            durable.fsync(path)
        # The record of what is there comes last.
        for path in sorted(stage.iterdir(), key=lambda path: (path.suffix == ".json", path.name)):
            durable.rename(path, target / path.name)
        stage.rmdir()
    except BaseException as error:
        shutil.rmtree(target if made else stage, ignore_errors=True)
        if isinstance(error, OSError):
            raise DataError(f"--to {target} cannot be written: {error.strerror}") from None
        raise
