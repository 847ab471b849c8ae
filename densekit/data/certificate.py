"""The data certificate: one hash over every image that an annotation file names, by path, size,
SHA-256, width, height and whether it decodes.

The hash is the root of a Merkle tree over the files in the order of their paths, as RFC 6962 has
it: SHA-256 of a zero byte and the canonical JSON of a file, of a one byte and two hashes inside the
tree. So two certificates can be compared file by file, and one file can be proved to be in one.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from densekit.errors import DataError
from densekit.files.hashing import canonical_json, check_seal, json_sha256, sealed
from densekit.files.json_files import read_object
from densekit.files.whole import written_whole
from densekit.spec.part import Part, read_part

SCHEMA: Literal[1] = 1
REMEDY = "give a file that `densekit data verify --full` wrote"
Row = tuple[str, int, str, int | None, int | None, bool]


@dataclass(frozen=True, kw_only=True)
class CertifiedFile:
    """One image of a certificate."""

    path: str
    """As the annotations name it."""
    size: int
    sha256: str
    width: int | None
    height: int | None
    decodes: bool

    @property
    def row(self) -> Row:
        """What is hashed."""
        return self.path, self.size, self.sha256, self.width, self.height, self.decodes


class DataCertificate(Part):
    """A certificate, as its file holds it."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    annotations: str
    """Name of the annotation file."""
    annotations_sha256: str
    root: str
    """Of the Merkle tree over `files`."""
    files: tuple[Row, ...]
    """(path, size, sha256, width, height, decodes), sorted by path."""
    sha256: str = ""
    """The seal: SHA-256 of the canonical JSON of everything else."""

    @cached_property
    def by_path(self) -> dict[str, Row]:
        """Each file's row."""
        return {row[0]: row for row in self.files}


def certify(
    annotations: str, annotations_sha256: str, files: Sequence[CertifiedFile]
) -> DataCertificate:
    """The certificate of these files, in any order."""
    rows = sorted(file.row for file in files)
    content = DataCertificate(
        annotations=annotations,
        annotations_sha256=annotations_sha256,
        root=merkle_root([canonical_json(row) for row in rows]),
        files=tuple(rows),
    )
    return DataCertificate.model_validate(sealed(content.model_dump(mode="json", by_alias=True)))


def merkle_root(leaves: Sequence[bytes]) -> str:
    """SHA-256 (hex) of a list, as RFC 6962 has it; of nothing where the list is empty."""
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        # Pairs from the left; what is left over goes up as it is: RFC 6962's split at the largest
        # power of two gives the same tree.
        paired = [
            hashlib.sha256(b"\1" + left + right).digest()
            for left, right in zip(level[::2], level[1::2], strict=False)
        ]
        level = paired + level[len(level) & ~1 :]
    return level[0].hex()


def read_certificate(path: Path) -> DataCertificate:
    """Raises DataError for a file that is no certificate, or was edited."""
    value = read_object(path, remedy=REMEDY)
    certificate = read_part(DataCertificate, value, source=path, remedy=REMEDY)
    if not check_seal(value):
        raise DataError(f"{path} was edited: its seal does not fit its content; {REMEDY}")
    return certificate


def write_certificate(path: Path, certificate: DataCertificate) -> None:
    """Write it, and its folder where there is none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(canonical_json(certificate.model_dump(mode="json", by_alias=True)))


def differences(
    earlier: DataCertificate, now: DataCertificate
) -> Iterator[tuple[Literal["differs", "missing", "new"], str, str]]:
    """(what, path, detail) of every file in which two certificates differ, by path."""
    for path in sorted(earlier.by_path.keys() | now.by_path.keys()):
        one, other = earlier.by_path.get(path), now.by_path.get(path)
        if one is None:
            yield "new", path, ""
        elif other is None:
            yield "missing", path, ""
        elif one != other:
            names = ("size", "sha256", "width", "height", "decodes")
            changed = [
                f"{name} {_short(a)} -> {_short(b)}"
                for name, a, b in zip(names, one[1:], other[1:], strict=True)
                if a != b
            ]
            yield "differs", path, ", ".join(changed)


def certificate_path(cache: Path, annotations_sha256: str, images: Path) -> Path:
    """Where the certificate of an annotation file with an image folder is kept."""
    key = json_sha256([SCHEMA, annotations_sha256, os.path.realpath(images)])[:32]
    return cache / "certificates" / f"{key}.json"


def known_root(cache: Path, annotations_sha256: str, images: Path) -> str | None:
    """The root of the certificate that is kept for an annotation file and its images, as they were
    then; None where there is none, or none that can be read.
    """
    path = certificate_path(cache, annotations_sha256, images)
    if not path.is_file():
        return None
    try:
        certificate = read_certificate(path)
    except DataError:
        return None
    return certificate.root if certificate.annotations_sha256 == annotations_sha256 else None


def _short(value: object) -> str:
    return str(value)[:10]
