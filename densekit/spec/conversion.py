"""conversion.json: which pickles a folder's safetensors were made of, and the request for one."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from densekit.errors import DataError
from densekit.files.hashing import check_seal, sealed
from densekit.files.json_files import read_object
from densekit.files.pickle_files import CONVERSION
from densekit.spec.part import Part, read_part
from densekit.spec.saved_file import Count, SavedFile

SCHEMA: Literal[1] = 1
REMEDY = "remove it, and convert the folder again with `densekit convert`"


class ConversionRequest(Part):
    """What `densekit convert` asks the trainer's environment for."""

    folder: Path
    to: Path | None = None
    """None: the safetensors go beside the pickles."""


class Conversion(Part):
    """conversion.json: every tensor of `originals` is in `files`, bit for bit, or is named here."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    originals: Annotated[dict[str, SavedFile], Field(min_length=1)]
    """The pickles, by file name."""
    files: Annotated[dict[str, SavedFile], Field(min_length=1)]
    """What was written: the safetensors, and their index where there are several."""
    tensors: Count
    """Tensors in `files`."""
    tied: dict[str, str] = Field(default_factory=dict)
    """A tensor that is kept once -> the tensor whose values it has: config.json ties them."""
    left_out: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Per pickle: what it holds besides weights (an epoch, an optimizer)."""
    renamed: dict[str, str] = Field(default_factory=dict)
    """Per pickle: the prefix that all its tensors had, which the files do not."""
    torch: str
    """Version that read them."""
    sha256: str = ""
    """The seal."""

    def as_json(self) -> dict[str, Any]:
        """What conversion.json holds: the same, sealed."""
        return sealed(self.model_dump(mode="json", by_alias=True))


class ConversionReport(Part):
    """What the process that converts prints."""

    conversion: Conversion
    already: bool
    """Whether all of it was there before."""


def read_conversion(folder: Path) -> Conversion | None:
    """The record in a folder; None where there is none. Raises DataError for one that is damaged or
    was edited.
    """
    path = folder / CONVERSION
    if not path.exists():
        return None
    value = read_object(path, remedy=REMEDY)
    if not check_seal(value):
        raise DataError(f"{path}: its own hash does not fit its content: it was edited; {REMEDY}")
    return read_part(Conversion, value, source=path, remedy=REMEDY)
