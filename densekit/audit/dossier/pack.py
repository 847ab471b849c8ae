"""`densekit dossier`: runs, with the ones they start from, into one archive."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import densekit
from densekit.audit.dossier.archive import write_archive
from densekit.audit.dossier.contents import (
    CITATION_FILE,
    Packed,
    packed_run,
    report_of,
    with_stage1,
)
from densekit.audit.dossier.crate import crate_metadata
from densekit.audit.dossier.listing import CRATE_FILE, DOSSIER_FILE, Dossier, DossierRun, Entry
from densekit.errors import UsageError
from densekit.files.hashing import canonical_json, file_sha256
from densekit.files.shipped import SHIPPED


def pack(runs: Sequence[Path], to: Path, *, with_paths: bool = False) -> tuple[str, Dossier]:
    """Write a dossier of runs; returns the SHA-256 that the archive ends in, and its listing.

    Raises UsageError where `to` is taken, DataError for a damaged run, and for one that names
    folders of this machine where they cannot be taken out, unless `with_paths`.
    """
    if to.exists():
        raise UsageError(f"--to {to} exists; name another file, or remove it")
    listed: list[DossierRun] = []
    files: list[Packed] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for path in with_stage1(runs):
            run, packed = packed_run(path, with_paths=with_paths)
            files += [*packed, report_of(path, run.folder, scratch)]
            listed.append(run)
        citation = SHIPPED / CITATION_FILE
        if citation.is_file():
            files.append(Packed(path=CITATION_FILE, data=citation.read_bytes()))
        dossier = Dossier(
            densekit=densekit.__version__,
            runs=tuple(listed),
            files=tuple(_entry(file) for file in files),
        )
        content = {file.path: file.data for file in files}
        for inside, data in content.items():
            target = scratch / "crate" / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        (scratch / "crate" / DOSSIER_FILE).touch()
        metadata = crate_metadata(dossier, scratch / "crate", [DOSSIER_FILE])
    about = Packed(path=CRATE_FILE, data=metadata)
    dossier = dossier.model_copy(update={"files": (*dossier.files, _entry(about))}).sealed()
    listing = canonical_json(dossier.as_json()) + b"\n"
    return write_archive(to, {DOSSIER_FILE: listing, CRATE_FILE: metadata, **content}), dossier


def _entry(file: Packed) -> Entry:
    digest = hashlib.sha256(file.data).hexdigest()
    original = file_sha256(file.original) if file.original else digest
    return Entry(
        path=file.path,
        bytes=len(file.data),
        sha256=digest,
        original_sha256=None if original == digest else original,
    )
