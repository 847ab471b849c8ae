"""The folder in which a conversion is made, and the renames that publish it.

Everything is written and forced to disk in `TARGET/.converting` first. Then conversion.json is
renamed into TARGET, then the files, the one that makes the folder readable (the index, or a single
file) last: after a kill at any moment the folder holds no weights that are not whole, and the next
conversion begins anew. The lock lies in the same folder, so that nothing stays behind.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from densekit.errors import DataError
from densekit.files import durable
from densekit.files.pickle_files import CONVERSION

STAGING = ".converting"
SPARE = 16 << 20
"""Bytes beside the weights: headers, the index, copied tokenizers."""


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """An empty folder inside `target`, held by this process alone; gone after the block, except
    when the process is killed in it.

    Raises DataError when another process converts into `target`, or nothing can be written there.
    """
    folder = target / STAGING
    try:
        lock = _lock(folder)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror}): convert into another folder with --to"
        ) from None
    with lock:
        for left in folder.iterdir():
            if left.name != "lock":
                left.unlink()
        try:
            yield folder
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder)


def _lock(folder: Path) -> TextIO:
    """The locked file in the staging folder, open."""
    place = folder / "lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = place.open("w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have ended in between, and taken this file along.
            if place.exists() and os.path.samestat(os.fstat(file.fileno()), place.stat()):
                return file
        except BlockingIOError:
            file.close()
            raise DataError(
                f"{folder.parent} is being converted by another process: wait for it"
            ) from None
        file.close()


def check_room(target: Path, needed: int) -> None:
    """Raises DataError where the disk of `target` has less than `needed` bytes free."""
    free = shutil.disk_usage(target).free
    if free < needed + SPARE:
        raise DataError(
            f"{target}: converting needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: free "
            "disk space, or convert to another disk with --to"
        )


def publish(folder: Path, target: Path, *, order: Sequence[str], replaced: Sequence[str]) -> None:
    """Move everything in the staging folder into `target`: the record, then what is not in `order`,
    then the files in that order. Files of an earlier conversion (`replaced`) go before.
    """
    for path in sorted(folder.iterdir()):
        if path.name != "lock":
            durable.fsync(path)
    durable.fsync(folder)
    # From the last to the first: without its index the folder is not read.
    for name in reversed(replaced):
        (target / name).unlink(missing_ok=True)
    durable.fsync(target)
    besides = [
        path.name
        for path in sorted(folder.iterdir())
        if path.name not in (*order, CONVERSION, "lock")
    ]
    for name in (CONVERSION, *besides, *order):
        durable.rename(folder / name, target / name)
