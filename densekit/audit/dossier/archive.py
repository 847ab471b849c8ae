"""The archive itself: a ZIP file that ends in the SHA-256 of everything before it, so that any
flipped byte shows, and a reader that trusts nothing in it.
"""

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from densekit.audit.dossier.listing import check_name
from densekit.errors import DataError
from densekit.files.regular import open_regular
from densekit.files.whole import written_whole

MARK = b"densekit-dossier-sha256:"
DIGITS = 64
DATE = (1980, 1, 1, 0, 0, 0)
"""Of every entry: the earliest that the format has."""
MAX_FILES = 20_000
MAX_BYTES = 8 << 30
"""Of all files together, extracted."""
MAX_RATIO = 500
"""Extracted bytes for each byte of the archive. Records shrink to a third, repeated text more."""
CHUNK = 1 << 20
REMEDY = "ask for the file again: it is not as it was packed"


def write_archive(path: Path, files: Mapping[str, bytes]) -> str:
    """Write files into a new archive, by one rename; returns the SHA-256 that it ends in."""
    with written_whole(path, flush=True) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                info = zipfile.ZipInfo(check_name(name), DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, data)
            archive.comment = MARK + b"0" * DIGITS
        with temporary.open("r+b") as file:
            file.seek(-DIGITS, 2)
            size = file.tell()
            digest = _sha256(temporary, size)
            file.write(digest.encode())
    return digest


def check_bytes(path: Path) -> str:
    """The SHA-256 that an archive ends in. Raises DataError where it is not that of the bytes
    before it.
    """
    try:
        size = path.stat().st_size
        with open_regular(path) as file:
            file.seek(max(0, size - DIGITS - len(MARK)))
            end = file.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    if not end.startswith(MARK):
        raise DataError(
            f"{path} is no dossier, or was cut off or packed again: it does not end in its hash; "
            f"{REMEDY}"
        )
    said = end[len(MARK) :].decode("ascii", errors="replace")
    found = _sha256(path, size - DIGITS)
    if found != said:
        raise DataError(
            f"{path}: its bytes have SHA-256 {found[:16]}..., and it ends in {said[:16]}...: it "
            f"was changed; {REMEDY}"
        )
    return said


def extract(path: Path, folder: Path) -> list[str]:
    """Extract an archive into an empty folder; returns the names, in order.

    Raises DataError, before anything is written, for names that lead out of the folder, links and
    other special files, names that come twice, encryption, too many files, and more bytes than
    MAX_BYTES or MAX_RATIO times the archive; and for data that is not what the archive says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(path, entries)
            for entry in entries:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as written:
                    left = entry.file_size
                    while chunk := source.read(min(CHUNK, left + 1)):
                        left -= len(chunk)
                        if left < 0:
                            raise DataError(
                                f"{path}: {entry.filename} is longer than it says; {REMEDY}"
                            )
                        written.write(chunk)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no ZIP file that can be read ({error}); {REMEDY}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be extracted: {error}") from None
    return [entry.filename for entry in entries]


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_FILES:
        raise DataError(f"{path} holds {len(entries):,} files, and a dossier {MAX_FILES:,} at most")
    total = sum(entry.file_size for entry in entries)
    most = min(MAX_BYTES, MAX_RATIO * path.stat().st_size)
    if total > most:
        raise DataError(
            f"{path} would extract to {total:,} bytes, more than {most:,}: it is no dossier"
        )
    seen: set[str] = set()
    for entry in entries:
        try:
            check_name(entry.filename)
        except ValueError as error:
            raise DataError(f"{path}: {error}; {REMEDY}") from None
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir() or kind not in (0, stat.S_IFREG):
            raise DataError(f"{path}: {entry.filename} is no regular file; {REMEDY}")
        if entry.flag_bits & 1:
            raise DataError(f"{path}: {entry.filename} is encrypted; {REMEDY}")
        folded = entry.filename.casefold()
        if folded in seen:
            raise DataError(f"{path}: {entry.filename} comes twice; {REMEDY}")
        seen.add(folded)


def _sha256(path: Path, size: int) -> str:
    """Of a file's first `size` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (chunk := file.read(min(CHUNK, size))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()
