"""The pin file: hashes of published files that nobody published, recorded by who verified them.

One JSON file in the data root, by data set of the catalog. `densekit data pin` writes what is on
the disk, never what is not; an examination compares with it.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from densekit.data.catalog import DataSet
from densekit.errors import DataError
from densekit.files.json_files import read_object, write_json
from densekit.spec.part import Part, read_part

PINS_FILE = "densekit_pins.json"
REMEDY = "correct it, or move it aside and pin again"


class Pin(Part):
    """What was verified of one data set."""

    annotations_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    annotations_size: int
    """Bytes."""
    certificate_root: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of its images; None where `densekit data verify --full` has not looked at them."""


class Pins(Part):
    """The pin file."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    data_sets: dict[str, Pin] = Field(default_factory=dict)
    """By name in the catalog."""


def read_pins(folder: Path) -> Pins:
    """The pins of a data root; empty where it has none. Raises DataError for a damaged file."""
    path = folder / PINS_FILE
    if not os.path.lexists(path):
        return Pins()
    return read_part(Pins, read_object(path, remedy=REMEDY), source=path, remedy=REMEDY)


def pin(folder: Path, data_set: DataSet, new: Pin, *, again: bool) -> tuple[Pin, Path]:
    """Record a pin; returns it, and the file. Raises DataError where another hash is pinned, unless
    `again`, and OSError.
    """
    pins = read_pins(folder)
    old = pins.data_sets.get(data_set.name)
    if old is not None and not again:
        for name, before, now in (
            ("annotation file", old.annotations_sha256, new.annotations_sha256),
            ("images", old.certificate_root, new.certificate_root),
        ):
            if before is not None and now is not None and before != now:
                raise DataError(
                    f"{folder / PINS_FILE}: the {name} of {data_set.name} is pinned as {before}, "
                    f"and is {now} now; --again pins what is there now"
                )
    if old is not None and old.annotations_sha256 == new.annotations_sha256:
        root = new.certificate_root or old.certificate_root
        new = new.model_copy(update={"certificate_root": root})
    updated = Pins(data_sets={**pins.data_sets, data_set.name: new})
    write_json(folder / PINS_FILE, updated.model_dump(mode="json", by_alias=True))
    return new, folder / PINS_FILE
