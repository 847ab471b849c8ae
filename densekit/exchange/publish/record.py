"""What is published beside weights and card: the run's manifest and math without the paths of the
machine, and publication.json, which says what the folder was made from and holds.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from densekit.errors import DataError, UsageError
from densekit.exchange.publish.subject import Subject
from densekit.files.hashing import check_seal, file_sha256, sealed
from densekit.files.json_files import read_object, write_json
from densekit.runs.layout import MATH_FILE
from densekit.runs.manifest import MANIFEST_FILE
from densekit.spec.part import Part, read_part
from densekit.spec.saved_file import SavedFile
from densekit.spec.types import Dtype, PublishFormat

PUBLICATION = "publication.json"
SCHEMA: Literal[1] = 1


class Publication(Part):
    """publication.json."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    run: str
    """Hash of math.json."""
    manifest_sha256: str
    """Seal of the run's own manifest.json, which names paths."""
    format: PublishFormat
    dtype: Dtype | None
    """Of the weights; None: each as it was stored."""
    files: Annotated[dict[str, SavedFile], Field(min_length=1)]
    """Everything in the folder but the card, which its publisher may edit."""
    sha256: str = ""
    """The seal."""


def write_records(subject: Subject, folder: Path) -> None:
    """manifest.json and math.json without paths, the manifest sealed again where it changed."""
    manifest = _without_paths(subject.manifest.as_json())
    write_json(folder / MANIFEST_FILE, sealed({**manifest, "sha256": ""}))
    write_json(folder / MATH_FILE, _without_paths(subject.math.as_json()))


def _without_paths(value: Any) -> Any:
    """The same with the last part of every absolute path in its place."""
    if isinstance(value, dict):
        return {key: _without_paths(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return PurePosixPath(value).name
    return value


def published_files(folder: Path, *, besides: tuple[str, ...]) -> dict[str, SavedFile]:
    """Hash and size of every file in `folder`, but those called as in `besides`."""
    return {
        path.relative_to(folder).as_posix(): SavedFile(
            sha256=file_sha256(path), bytes=path.stat().st_size
        )
        for path in sorted(_files(folder))
        if path.name not in besides
    }


def write_publication(
    subject: Subject,
    folder: Path,
    *,
    format_: PublishFormat,
    dtype: Dtype | None,
    files: dict[str, SavedFile],
) -> None:
    """Write publication.json, last of all: a folder with one is whole."""
    made = Publication(
        run=subject.math.sha256,
        manifest_sha256=subject.manifest.sha256,
        format=format_,
        dtype=dtype,
        files=files,
    )
    write_json(folder / PUBLICATION, sealed(made.model_dump(mode="json", by_alias=True)))


def is_prepared(
    subject: Subject, folder: Path, *, card: str, format_: PublishFormat, dtype: Dtype | None
) -> bool:
    """Whether an earlier dry run left in `folder` what is published now, so that it needs no second
    export.

    Raises UsageError where the folder holds anything else, DataError where its files changed since.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    remedy = f"remove {folder} or name another folder with --folder"
    path = folder / PUBLICATION
    if not path.is_file():
        raise UsageError(f"{folder} is not empty and not what a dry run left: {remedy}")
    value = read_object(path, remedy=remedy)
    found = read_part(Publication, value, source=path, remedy=remedy)
    if not check_seal(value):
        raise DataError(f"{path} was edited: its hash does not fit; {remedy}")
    asked = (subject.math.sha256, subject.manifest.sha256, format_, dtype)
    if (found.run, found.manifest_sha256, found.format, found.dtype) != asked:
        raise UsageError(
            f"{folder} was made of another run, or in another format or dtype than is asked for "
            f"now: {remedy}"
        )
    now = published_files(folder, besides=(card, PUBLICATION))
    changed = sorted(
        name for name in now.keys() | found.files.keys() if now.get(name) != found.files.get(name)
    )
    if changed:
        raise DataError(
            f"{folder}: {changed[0]} is not as the dry run left it (only {card} may be edited): "
            f"{remedy}"
        )
    return True


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
