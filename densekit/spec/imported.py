"""import.json: what an imported checkpoint is made of and from; and the request for an import."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from densekit.errors import DataError
from densekit.files.hashing import check_seal, sealed
from densekit.files.json_files import read_object
from densekit.spec.anyres import AnyRes
from densekit.spec.connector import Connector
from densekit.spec.part import Part, PathReference, PositiveInt, read_part
from densekit.spec.saved_file import SavedFile, Sha256
from densekit.spec.types import AspectRatio, Trains

IMPORT_FILE = "import.json"
SCHEMA: Literal[1] = 1
REMEDY = "import the checkpoint again with `densekit import`"


class ImportRequest(Part):
    """What `densekit import` asks the trainer's environment for."""

    folder: Path
    """As the official code left it."""
    to: Path
    """A folder that does not exist yet, or is empty."""
    base: Path | None = None
    """Language model; None: the one that the checkpoint names, where it is found."""
    tower: Path | None = None
    """Vision tower; None: likewise."""
    connector: Path | None = None
    """File of the connector; None: the one in the folder."""
    template: str | None = None
    """Of conversations; None: by the tokenizer."""
    search: tuple[Path, ...] = ()
    """Where models are looked for by the names that the checkpoint gives them."""


class ReadFolder(Part):
    """A model's folder beside the checkpoint, as it was."""

    folder: PathReference
    files: dict[str, Sha256]
    """SHA-256 by file name."""


class Imported(Part):
    """import.json. Paths are relative to the folder that holds it, or absolute."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    trains: Trains
    """What the official run trained."""
    connector: Connector
    template: str
    image_aspect_ratio: AspectRatio
    anyres: AnyRes | None = Field(default=None, exclude_if=lambda value: value is None)
    """Sizes and order of an image's tiles, where it has several."""
    max_length: PositiveInt
    """Of a sequence with its image's tokens: what is longer is cut at its end, also in a prompt."""
    vocabulary: PositiveInt
    """Tokens of the tokenizer: rows of the embedding behind them are left out when it is loaded."""
    language_model: PathReference
    """Folder in transformers' format; of a LoRA run the base, without the adapters."""
    vision_tower: PathReference
    tokenizer: PathReference
    base: ReadFolder | None
    """The language model that is not in the checkpoint."""
    tower: ReadFolder | None
    """The tower that was named; None where the copy inside the checkpoint is used."""
    source: str
    """Name of the folder that was imported."""
    read: Annotated[dict[str, SavedFile], Field(min_length=1)]
    """Every file of the checkpoint that was read, by its name."""
    files: Annotated[dict[str, SavedFile], Field(min_length=1)]
    """Every file that was written, by its path in the folder."""
    left_out: dict[str, PositiveInt] = Field(default_factory=dict)
    """Tensors that were not kept, counted by kind."""
    notes: tuple[str, ...] = ()
    """What was found that a user should know."""
    sha256: str = ""
    """The seal."""

    def as_json(self) -> dict[str, Any]:
        """What import.json holds: the same, sealed."""
        return sealed(self.model_dump(mode="json", by_alias=True))


def is_imported(folder: Path) -> bool:
    """Whether a folder is one that `densekit import` made."""
    return (folder / IMPORT_FILE).is_file()


def read_imported(folder: Path) -> Imported:
    """The record of an imported folder. Raises DataError for one that is missing, damaged or was
    edited.
    """
    path = folder / IMPORT_FILE
    value = read_object(path, remedy=REMEDY)
    if not check_seal(value):
        raise DataError(f"{path}: its own hash does not fit its content: it was edited; {REMEDY}")
    return read_part(Imported, value, source=path, remedy=REMEDY)
