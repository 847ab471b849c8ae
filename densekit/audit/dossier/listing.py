"""dossier.json: every file of a dossier with its size and hash, sealed with its own."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from densekit.files.hashing import sealed
from densekit.spec.part import Part

DOSSIER_FILE = "dossier.json"
CRATE_FILE = "ro-crate-metadata.json"
RUNS = "runs"
"""Folder of the runs in a dossier."""
SCHEMA: Literal[1] = 1
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def check_name(name: str) -> str:
    """A path that stays inside the folder it is extracted into, on any system. Raises ValueError
    for another.
    """
    parts = PurePosixPath(name).parts
    inside = bool(parts) and not name.startswith("/") and ".." not in parts
    if not inside or "\\" in name or ":" in name or "\0" in name or name != "/".join(parts):
        raise ValueError(f"{name!r} is no path inside the dossier")
    return name


class Entry(Part):
    """One file."""

    path: Annotated[str, AfterValidator(check_name)]
    bytes: Annotated[int, Field(ge=0, strict=True)]
    sha256: Digest
    original_sha256: Digest | None = None
    """Of the run's own file, where the dossier's copy lacks what names a machine; None: it is a
    copy byte for byte.
    """


class DossierRun(Part):
    """One run."""

    folder: Annotated[str, AfterValidator(check_name)]
    """In the dossier."""
    recipe: str
    sha256: Digest
    """Of its math.json."""
    state: str
    left_out: dict[str, Digest]
    """What it trained and the dossier does not hold, by path inside the run: weights."""


class Dossier(Part):
    """dossier.json."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    densekit: str
    """Version that packed it."""
    runs: tuple[DossierRun, ...]
    files: tuple[Entry, ...]
    """All but dossier.json itself."""
    sha256: str = ""
    """The seal."""

    def as_json(self) -> dict[str, Any]:
        """What dossier.json holds."""
        return self.model_dump(mode="json", by_alias=True)

    def sealed(self) -> "Dossier":
        """The same with a seal that fits its content."""
        return Dossier.model_validate(sealed(self.as_json()))
