"""What the process that imports, exports and converts is asked, and what it answers."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from densekit.spec.imported import ImportRequest
from densekit.spec.part import Part
from densekit.spec.roots import Roots
from densekit.spec.types import Dtype, ExportFormat


class ExportRequest(Part):
    """What `densekit export` asks the trainer's environment for."""

    source: Path
    """A complete run directory, or a folder that `densekit import` made."""
    to: Path
    """A folder that does not exist yet, or is empty."""
    format: ExportFormat
    merge_lora: bool = False
    dtype: Dtype | None = None
    """Of the weights; None: each as it is stored."""
    dry_run: bool = False
    """Say what would be written, and write nothing."""
    roots: Roots = Roots()
    """Of the named roots in a run's recipe."""


class ConnectorRequest(Part):
    """What `models.connector` in the official code's format asks the trainer's environment for."""

    file: Path
    """mm_projector.bin, or what holds the same tensors."""
    to: Path
    """A folder that does not exist yet, or is empty."""


class ExchangeRequest(Part):
    """One of the three."""

    import_: ImportRequest | None = Field(default=None)
    export: ExportRequest | None = None
    connector: ConnectorRequest | None = None

    @property
    def to(self) -> Path:
        """The folder that is written."""
        asked = self.import_ or self.export or self.connector
        assert asked is not None
        return asked.to

    @property
    def what(self) -> str:
        """In words."""
        if self.connector is not None:
            return "converting a connector"
        return "importing a checkpoint" if self.import_ else "exporting a model"

    def reads(self) -> Iterator[Path]:
        """Folders and files that are read."""
        if self.import_ is not None:
            asked = self.import_
            yield asked.folder
            yield asked.folder.parent / "mm_projector"
            yield from filter(None, (asked.base, asked.tower, asked.connector, *asked.search))
        if self.export is not None:
            yield self.export.source
            yield self.export.roots.models
            yield self.export.roots.cache
        if self.connector is not None:
            yield self.connector.file


class ExchangeReport(Part):
    """What was done, in lines for people."""

    lines: tuple[str, ...]
