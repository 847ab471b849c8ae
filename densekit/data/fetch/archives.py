"""Archives from the network, extracted as data of strangers: no path leaves the folder, no links,
no bombs; each file appears whole, so that extraction goes on after a kill.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from densekit.errors import DataError

RATIO = 200
"""An archive may hold so many times its own bytes, and always `FLOOR`: text packs to a twentieth,
pictures not at all.
"""
FLOOR = 1 << 28
MEMBERS = 5_000_000
PAGE = re.compile(rb"\s*<(!doctype\s+html|html)", re.IGNORECASE)
"""How a web page begins."""
_CHUNK = 1 << 20
_NAME_BYTES = 255


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of an archive."""

    name: str
    """As written in the archive."""
    path: PurePosixPath
    """Where it is put, below the folder."""
    size: int
    crc: int | None
    """CRC-32; None where the format has none."""


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What an archive left."""

    files: int
    bytes: int


class BrokenArchiveError(DataError):
    """Its bytes are not those of a whole archive: another download may mend it."""


def unpacked_bytes(archive: Path) -> int | None:
    """Bytes of its files as a zip lists them; None for a tar, which lists nothing in front, and for
    a zip whose list cannot be read (extracting it says so).
    """
    if not zipfile.is_zipfile(archive):
        return None
    try:
        with _reading(archive), zipfile.ZipFile(archive) as opened:
            return sum(entry.file_size for entry in opened.infolist())
    except DataError:
        return None


def extract(
    archive: Path, folder: Path, *, strip: int = 0, tell: Callable[[int], None] = lambda _: None
) -> Extracted:
    """Extract `archive` into `folder` without the first `strip` folders of its names. `tell` gets
    the bytes extracted so far.

    Files that are there whole stay as they are. Everything that a zip lists is checked before the
    first file is written. Raises BrokenArchiveError for a truncated or damaged archive, DataError
    for one that must not be extracted.
    """
    limit = max(FLOOR, RATIO * archive.stat().st_size)
    with archive.open("rb") as file:
        if PAGE.match(file.read(200)):
            raise DataError(f"{archive} is a web page, not an archive; download it again")
    is_zip = zipfile.is_zipfile(archive)
    if not is_zip and archive.suffix.lower() == ".zip":
        raise BrokenArchiveError(f"{archive} is no whole zip archive: its list of files is missing")
    with _reading(archive):
        kind = _extract_zip if is_zip else _extract_tar
        return kind(archive, folder, strip, limit, tell)


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """What zipfile and tarfile raise about an archive, in words."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
        *(EOFError, UnicodeDecodeError),
    ) as error:
        raise _broken(archive, error) from None
    except OSError as error:
        # Without a number: wrong bytes, of bz2. EINVAL: a place before the archive's first byte,
        # or with a file's name one that the disk does not take.
        if error.errno not in (None, errno.EINVAL) or error.filename is not None:
            raise
        raise _broken(archive, error) from None
    except NotImplementedError as error:
        raise DataError(f"{archive}: {error}; extract it yourself") from None


def _broken(archive: Path, error: Exception) -> BrokenArchiveError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return BrokenArchiveError(f"{archive} is no whole archive ({reason})")


def _extract_zip(
    archive: Path, folder: Path, strip: int, limit: int, tell: Callable[[int], None]
) -> Extracted:
    with zipfile.ZipFile(archive) as opened:
        members = list(_zip_members(archive, opened, strip))
        _check(archive, members, limit)
        done = 0
        for member in members:
            target = folder / member.path
            if not _has(target, member):
                with opened.open(member.name) as source:
                    _write(archive, source, target, member)
            done += member.size
            tell(done)
        return Extracted(files=len({member.path for member in members}), bytes=done)


def _zip_members(archive: Path, opened: zipfile.ZipFile, strip: int) -> Iterator[Member]:
    for entry in opened.infolist():
        mode = entry.external_attr >> 16
        if entry.flag_bits & 1:
            raise DataError(f"{archive}: {entry.filename} is encrypted; nothing was extracted")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _link(archive, entry.filename)
        path = None if entry.is_dir() else _safe(archive, entry.filename, strip)
        if path is not None:
            yield Member(name=entry.filename, path=path, size=entry.file_size, crc=entry.CRC)


def _extract_tar(
    archive: Path, folder: Path, strip: int, limit: int, tell: Callable[[int], None]
) -> Extracted:
    files = done = 0
    _check_stream(archive, limit)
    with tarfile.open(archive) as opened:
        for entry in opened:
            if not (entry.isreg() or entry.isdir()):
                raise _link(archive, entry.name)
            path = _safe(archive, entry.name, strip) if entry.isreg() else None
            if path is None:
                continue
            files, done = files + 1, done + entry.size
            _check_limits(archive, files, done, limit)
            source = opened.extractfile(entry)
            assert source is not None, "a regular file has a content"
            member = Member(name=entry.name, path=path, size=entry.size, crc=None)
            _write(archive, source, folder / path, member)
            tell(done)
    if not files:
        raise BrokenArchiveError(f"{archive} holds no file")
    return Extracted(files=files, bytes=done)


def _check_stream(archive: Path, limit: int) -> None:
    """Read a compressed tar once to its end, where its checksum is; tarfile stops before that."""
    stream = _decompressed(archive)
    if stream is None:
        return
    size = 0
    with stream as opened:
        while data := opened.read(_CHUNK):
            size += len(data)
            _check_limits(archive, 1, size, limit)


def _decompressed(archive: Path) -> io.BufferedIOBase | None:
    """What a compressed file holds; None for one that is not compressed."""
    with archive.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(archive)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(archive)
    return lzma.LZMAFile(archive) if magic == b"\xfd7zXZ\0" else None


def _check(archive: Path, members: list[Member], limit: int) -> None:
    """Everything that a listing shows. Raises DataError."""
    if not members:
        raise BrokenArchiveError(f"{archive} holds no file")
    _check_limits(archive, len(members), sum(member.size for member in members), limit)
    seen: dict[PurePosixPath, Member] = {}
    for member in members:
        other = seen.setdefault(member.path, member)
        if (other.size, other.crc) != (member.size, member.crc):
            raise DataError(
                f"{archive} holds two different files {member.path}; nothing was extracted"
            )
    for member in members:
        if inside := next((folder for folder in member.path.parents if folder in seen), None):
            raise DataError(
                f"{archive} holds {inside} as a file and as a folder; nothing was extracted"
            )


def _check_limits(archive: Path, files: int, size: int, limit: int) -> None:
    if size > limit or files > MEMBERS:
        raise DataError(
            f"{archive} holds {files} files of {size} bytes at least; the limits are {RATIO} times "
            f"its own size, and {MEMBERS} files: it is not extracted"
        )


def _safe(archive: Path, name: str, strip: int) -> PurePosixPath | None:
    """Where a member belongs; None for one that `strip` leaves nothing of."""
    path = PurePosixPath(name)
    parts = path.parts
    if path.is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise DataError(f"{archive}: {name!r} would leave the folder; it is not extracted")
    if any(len(os.fsencode(part)) > _NAME_BYTES for part in parts):
        raise DataError(f"{archive}: {name[:80]!r}... is longer than a file's name may be")
    return PurePosixPath(*parts[strip:]) if len(parts) > strip else None


def _link(archive: Path, name: str) -> DataError:
    return DataError(
        f"{archive}: {name} is a link or a device, and only files are extracted; look at the "
        "archive"
    )


def _has(target: Path, member: Member) -> bool:
    """Whether a member is already there whole."""
    if target.is_symlink() or not target.is_file() or target.stat().st_size != member.size:
        return False
    crc = 0
    with target.open("rb") as file:
        while data := file.read(_CHUNK):
            crc = zlib.crc32(data, crc)
    return crc == member.crc


def _write(archive: Path, source: IO[bytes], target: Path, member: Member) -> None:
    """A member's file: written beside its place and renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name[:200]}.extracting")
    written = 0
    with temporary.open("wb") as file:
        while data := source.read(_CHUNK):
            written += len(data)
            if written > member.size:
                raise DataError(f"{archive}: {member.name} is larger than the archive says")
            file.write(data)
    if written != member.size:
        raise BrokenArchiveError(f"{archive}: {member.name} ends after {written} bytes")
    temporary.replace(target)
