"""A file as it was when it was written: what a record keeps to recognise it by."""

from typing import Annotated

from pydantic import Field, StringConstraints

from densekit.spec.part import Part

Count = Annotated[int, Field(ge=0, strict=True)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class SavedFile(Part):
    """Hash and size of one file."""

    sha256: Sha256
    bytes: Count
