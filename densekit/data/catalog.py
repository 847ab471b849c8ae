"""The published data sets that recipes name (catalog.yaml): their parts, sizes and sources."""

import functools
import re
from pathlib import Path

import yaml
from pydantic import Field

from densekit.errors import DataError
from densekit.spec.part import Part, PositiveInt, read_part

CATALOG = Path(__file__).with_name("catalog.yaml")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = rf"^\d+(\.\d+)? ({'|'.join(_UNITS)})$"


class FileObject(Part):
    """A published file, or a folder of them."""

    name: str
    content_url: str | None = Field(default=None, alias="contentUrl")
    """Where it is published, where that is not the data set's own repository."""
    content_size: str | None = Field(default=None, alias="contentSize", pattern=_SIZE)
    """As published, in decimal units; None where nobody published it."""
    file_count: PositiveInt | None = Field(default=None, alias="fileCount")
    """Files in the folder."""
    source: str
    """Who says so."""

    @property
    def bytes(self) -> float | None:
        """`content_size` as a number."""
        if self.content_size is None:
            return None
        number, unit = self.content_size.split()
        return float(number) * _UNITS[unit]


class DataSet(Part):
    """One data set: an annotation file and what it refers to."""

    name: str
    description: str
    url: str
    annotations: str
    """Name of its annotation file."""
    distribution: tuple[FileObject, ...]


def load_catalog(path: Path = CATALOG) -> tuple[DataSet, ...]:
    """Read a catalog. Raises DataError that names the file, the entry and the field."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(entries, list):
        raise DataError(f"{path} must hold a list of data sets, each with a `name`")
    data_sets = []
    for number, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        source = f"{path}: entry {number} ({name or 'without a name'})"
        data_sets.append(read_part(DataSet, entry, source=source, remedy="correct the entry"))
    return tuple(data_sets)


@functools.cache
def _shipped() -> dict[str, DataSet]:
    return {data_set.annotations: data_set for data_set in load_catalog()}


def data_set_of(annotations: str) -> DataSet | None:
    """The data set of an annotation file, by the last part of a path or reference."""
    return _shipped().get(re.split(r"[/:]", annotations)[-1])
