"""What was fetched: a small file per model and per part of a data set, below `.fetched` of its
root, written last, so that what it names is there whole.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock, Timeout
from pydantic import Field

from densekit.errors import DataError
from densekit.files.durable import fsync, rename
from densekit.spec.part import Part

FOLDER = ".fetched"
REVISION = ".revision"
"""A file in the folder of a model or of annotations that names its commit (runs/manifest.py reads
it).
"""


class Record(Part):
    """One model, or one part of a data set."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    state: Literal["started", "complete"]
    """started: what is there may be incomplete, and the next call goes on."""
    origin: str
    """The address, or the repository of the hub."""
    commit: str | None = None
    """Of that repository."""
    sha256: str | None = None
    """Of the archive or the file, measured here."""
    size: Annotated[int, Field(ge=0)] | None = None
    """Of the archive or the file."""
    folder_files: Annotated[int, Field(ge=0)] = 0
    """Files that an archive left."""
    folder_bytes: Annotated[int, Field(ge=0)] = 0
    """Their bytes."""
    files: dict[str, int] = Field(default_factory=dict)
    """Files that were taken one by one, and their sizes."""


class Records:
    """The records of one root (data or models)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> Record | None:
        """The record of `name`; None where there is none that can be read."""
        try:
            text = self._path(name).read_text(encoding="utf-8")
            return Record.model_validate(json.loads(text))
        except (OSError, ValueError):
            return None

    def write(self, name: str, record: Record) -> None:
        """Keep a record, by one rename. What a complete one names is on the disk before it, also
        after a power failure.
        """
        if record.state == "complete":
            os.sync()
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        text = record.model_dump_json(by_alias=True, indent=1, exclude_defaults=False)
        temporary.write_text(text + "\n", encoding="utf-8")
        fsync(temporary)
        rename(temporary, path)

    def waiting_place(self, name: str) -> Path:
        """Where archives of `name` wait for their extraction."""
        return self.root / FOLDER / "archives" / name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other fetches away from this root. Raises DataError where one is at work, OSError
        where nothing can be written.
        """
        place = self.root / FOLDER / "lock"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(place, timeout=0):
                yield
        except Timeout:
            raise DataError(
                f"another `densekit fetch` is at work in {self.root}; wait for it"
            ) from None

    def _path(self, name: str) -> Path:
        return self.root / FOLDER / f"{name}.json"
