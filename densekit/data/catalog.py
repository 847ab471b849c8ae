"""The published data sets and benchmarks (catalog.yaml): their files, sizes, licences, sources and
known faults.
"""

import functools
import os
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, model_validator

from densekit.errors import DataError
from densekit.recipes.yaml_lines import Loader, ShippedLoader
from densekit.spec.part import Part, PositiveInt, read_part

VARIABLE = "DENSEKIT_CATALOG"
"""Names a file with entries of a user's own."""
CATALOG = Path(__file__).with_name("catalog.yaml")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = rf"^\d+(\.\d+)? ({'|'.join(_UNITS)})$"
_URL = r"^(https?://|hf://datasets/[\w.-]+/[\w.-]+(@[\w./-]+)?/)[^\s]+$"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Endings of files that are extracted; every other file is kept as it is."""

Kind = Literal["training", "benchmark", "trajectory"]
"""trajectory: the log that a released checkpoint carries of its own training."""


def _below(path: str) -> str:
    """A relative path that stays where it starts."""
    parts = PurePosixPath(path).parts
    if not path or path.startswith("/") or ".." in parts or "\\" in path:
        raise ValueError("a name or folder is a relative path with `/` and without `..`")
    return path


Below = Annotated[str, AfterValidator(_below)]


class License(Part):
    """Under what terms it is published."""

    text: str
    """As its publisher calls it; "not stated" where nobody says."""
    source: str
    """Who says so."""


class FileObject(Part):
    """A published file, or a folder of them: one part of a data set."""

    name: Below
    """What `--part` calls it: this, or its first folder."""
    content_url: str | None = Field(default=None, alias="contentUrl", pattern=_URL)
    """http(s), or hf://datasets/OWNER/NAME[@REVISION]/FILE; None: the file `name` of the data set's
    own `repository`.
    """
    includes: tuple[str, ...] = ()
    """Instead of one file: patterns of the files of the repository that belong to this part."""
    content_size: str | None = Field(default=None, alias="contentSize", pattern=_SIZE)
    """As published, in decimal units; None where nobody published it."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the published file; only where it was measured or is published."""
    file_count: PositiveInt | None = Field(default=None, alias="fileCount")
    """Files in the folder that it leaves."""
    folder: Below = "."
    """Where the file, or what an archive holds, is put below the data set's `root`."""
    strip: Annotated[int, Field(ge=0, le=9, strict=True)] = 0
    """Leading folders of an archive's names that are left out."""
    by_hand: str | None = Field(default=None, alias="byHand")
    """Why it cannot be fetched and how a person gets it; None: it is fetched."""
    source: str
    """Who says so."""

    @model_validator(mode="after")
    def _one_origin(self) -> "FileObject":
        if self.includes and self.content_url:
            raise ValueError("`includes` names files of the repository: omit `contentUrl`")
        return self

    @property
    def bytes(self) -> float | None:
        """`content_size` as a number."""
        if self.content_size is None:
            return None
        number, unit = self.content_size.split()
        return float(number) * _UNITS[unit]

    @property
    def file_name(self) -> str:
        """Name of the published file itself."""
        return PurePosixPath((self.content_url or self.name).partition("?")[0]).name

    @property
    def is_archive(self) -> bool:
        """Whether it is extracted."""
        return not self.includes and self.file_name.lower().endswith(ARCHIVES)


class Repair(Part):
    """Files that are known to be wrong as published, and what mends them."""

    files: str
    """A path or a pattern below `root`."""
    problem: str
    """What is wrong with them."""
    action: Literal["rename", "re-encode", "link", "replace", "none"]
    """rename: to the name that the annotations use; re-encode: as the kind its name says; link:
    to where the files are; replace: from another source; none: no entry refers to them.
    """
    detail: str
    """How, in a sentence."""
    instead: tuple[str, ...] = ()
    """rename: the extensions under which the files are there; link: the folder they are in, from
    the folder of the images on. `densekit data verify --repair` follows these.
    """
    source: str
    """Who says so."""


class Unavailable(Part):
    """What cannot be had any more."""

    what: str
    """Files, in words."""
    folder: Below | None = None
    """Where they would be, below `root`."""
    file_count: PositiveInt | None = Field(default=None, alias="fileCount")
    """How many, where somebody counted."""
    effect: str
    """What their absence does to a training or a score."""
    source: str
    """Who says so."""


class Entries(Part):
    """What the published annotation file holds."""

    count: PositiveInt | None = None
    """Entries."""
    text_only: PositiveInt | None = Field(default=None, alias="textOnly")
    """Entries without an image."""
    folders: dict[str, PositiveInt] = Field(default_factory=dict)
    """Entries by the first folder of their image."""
    source: str
    """Who says so."""


class DataSet(Part):
    """One data set: an annotation file and what it refers to; or one benchmark."""

    name: Below
    description: str
    url: str
    kind: Kind
    license: License
    annotations: str | None = None
    """Name of its annotation file; every set for training has one."""
    entries: Entries | None = None
    """Of that file; None where nobody published them."""
    questions: PositiveInt | None = None
    """Of a benchmark, as the paper's protocol asks them."""
    recipes: tuple[str, ...] = ()
    """The recipes whose training a trajectory is of."""
    root: Below
    """Folder below the data root that everything of it is in."""
    repository: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Data set repository on the hub, for the files without a `contentUrl`."""
    revision: str | None = None
    """Commit of `repository` where recipes/revisions.yaml has none."""
    distribution: tuple[FileObject, ...]
    repairs: tuple[Repair, ...] = ()
    unavailable: tuple[Unavailable, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> "DataSet":
        if self.kind == "training" and self.annotations is None:
            raise ValueError("a data set for training needs `annotations`")
        if (self.kind == "trajectory") != bool(self.recipes):
            raise ValueError("a trajectory, and nothing else, needs the `recipes` it is of")
        names = [file.name for file in self.distribution]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two parts of `distribution` are called {twice[0]}")
        for file in self.distribution:
            if not (file.content_url or self.repository or file.by_hand):
                raise ValueError(
                    f"part {file.name} needs a `contentUrl`, `byHand`, or the `repository` of the "
                    "data set"
                )
        return self


def load_catalog(path: Path = CATALOG) -> tuple[DataSet, ...]:
    """Read a catalog. Raises DataError that names the file, the entry and the field."""
    try:
        loader = ShippedLoader if path == CATALOG else Loader
        entries = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except RecursionError:
        raise DataError(f"{path} cannot be read: nested too deeply") from None
    if not isinstance(entries, list):
        raise DataError(f"{path} must hold a list of data sets, each with a `name`")
    data_sets = []
    for number, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        source = f"{path}: entry {number} ({name or 'without a name'})"
        data_sets.append(read_part(DataSet, entry, source=source, remedy="correct the entry"))
    return tuple(data_sets)


@functools.cache
def _read(more: str | None) -> dict[str, DataSet]:
    if more and not Path(more).is_file():
        raise DataError(f"{VARIABLE} names {more}, and there is no such file; correct or unset it")
    entries = {data_set.name: data_set for data_set in load_catalog()}
    return entries | {entry.name: entry for entry in (load_catalog(Path(more)) if more else ())}


def data_sets(kind: Kind | None = None) -> tuple[DataSet, ...]:
    """Every data set of the catalog, or those of one kind; a file that DENSEKIT_CATALOG names adds
    entries and replaces those of the same name.
    """
    entries = _read(os.environ.get(VARIABLE)).values()
    return tuple(entry for entry in entries if kind in (None, entry.kind))


def data_set_of(annotations: str) -> DataSet | None:
    """The data set of an annotation file, by the last part of a path or reference."""
    name = re.split(r"[/:]", annotations)[-1]
    return next((entry for entry in data_sets() if entry.annotations == name), None)
