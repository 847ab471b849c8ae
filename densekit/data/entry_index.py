"""What is known of an annotation file's entries without parsing them: where each begins, its digest
and length, whether it has an image and which.

Made in one pass over the file (densekit.data.entry_pass) and kept in the cache under the file's own
hash, as plain .npy files that every rank and worker maps: one copy for a whole host.
"""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from densekit.files import durable
from densekit.files.hashing import check_seal, file_sha256, sealed
from densekit.files.json_files import json_bytes, read_object
from densekit.files.whole import beside

# Goes up when the meaning of a stored array changes, or more entries are refused: files of another
# schema are rebuilt.
SCHEMA = 3
FOLDER = "index"
HAS_IMAGE, TAGGED = 1, 2
"""Bits of `flags`: the entry names an image; an image tag occurs in it."""
COLUMNS: dict[str, np.dtype[Any]] = {
    "starts": np.dtype(np.int64),
    "sizes": np.dtype(np.int64),
    "digests": np.dtype(np.uint64),
    "words": np.dtype(np.int64),
    "flags": np.dtype(np.uint8),
    "name_ends": np.dtype(np.int64),
}
"""One value an entry each."""
NAMES, ENTRIES, SUMMARY = "names", "entries", "index.json"


class EntryBytes(Protocol):
    """Where the JSON texts of entries are."""

    def read(self, start: int, size: int) -> bytes:
        """So many bytes from there on, fewer at the end."""
        ...


class FileBytes:
    """An opened file, read piece by piece: nothing of it stays in the process. Another process that
    it is handed to opens the file for itself.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        """Open `path`, or take over an open descriptor of it."""
        self._path = path
        flags = os.O_RDONLY | os.O_CLOEXEC
        self._descriptor = os.open(path, flags) if descriptor is None else descriptor

    def read(self, start: int, size: int) -> bytes:
        """As EntryBytes."""
        return os.pread(self._descriptor, size, start)

    def __reduce__(self) -> tuple[type["FileBytes"], tuple[Path]]:
        return FileBytes, (self._path,)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):  # it was never opened
            os.close(self._descriptor)


@dataclass(frozen=True)
class MemoryBytes:
    """Texts that no cache keeps."""

    data: bytes

    def read(self, start: int, size: int) -> bytes:
        """As EntryBytes."""
        return self.data[start : start + size]


@dataclass(frozen=True, kw_only=True, eq=False)
class EntryIndex:
    """The N entries of one annotation file."""

    sha256: str
    """SHA-256 (hex) of the file's bytes."""
    form: str | None
    """What the file is where it is not one list."""
    starts: npt.NDArray[np.int64]
    """Where each entry's text begins, in bytes, shape (N,)."""
    sizes: npt.NDArray[np.int64]
    """Bytes of each entry's text, shape (N,)."""
    digests: npt.NDArray[np.uint64]
    """First 16 hex digits of the SHA-256 of the canonical entry, shape (N,)."""
    words: npt.NDArray[np.int64]
    """Words over all turns, shape (N,); negative for a text-only entry, 0 where they cannot be
    counted (`text.lengths`).
    """
    flags: npt.NDArray[np.uint8]
    """HAS_IMAGE and TAGGED, shape (N,)."""
    name_ends: npt.NDArray[np.int64]
    """Where the name of each entry's image ends in `names`, shape (N,); it begins where the one
    before ends.
    """
    names: npt.NDArray[np.uint8]
    """Names of all images in UTF-8, one behind the other, shape (bytes,)."""
    entries: bytes | Path | None = None
    """The entries' texts where the file itself is not in UTF-8, or the file that holds them."""
    place: Path | None = None
    """Where it is kept."""

    def __reduce__(self) -> Any:
        """Another process that it is handed to maps the same files."""
        if self.place is None:
            return super().__reduce__()
        return read_index, (self.place, self.sha256)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self.starts)

    def texts(self, path: Path, descriptor: int) -> EntryBytes:
        """The entries' texts, given the annotation file and an open descriptor of it."""
        if isinstance(self.entries, bytes):
            return MemoryBytes(self.entries)
        if self.entries is not None:
            return FileBytes(self.entries)
        return FileBytes(path, os.dup(descriptor))

    def image_names(self) -> list[str | None]:
        """The image of every entry."""
        names, begin, found = self.names.tobytes(), 0, []
        for end, flags in zip(self.name_ends.tolist(), self.flags.tolist(), strict=True):
            name = names[begin:end].decode("utf-8", "surrogatepass") if flags & HAS_IMAGE else None
            found.append(name)
            begin = end
        return found


class KeptIndexes:
    """Indexes in a cache."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / FOLDER

    def get(self, sha256: str, make: Callable[[], EntryIndex]) -> EntryIndex:
        """The index of the file with this hash, made and kept where it is not there yet; of several
        processes that need it at once one makes it. A damaged one is rebuilt, and said so on the
        terminal.
        """
        place = self._folder / sha256
        if (found := self._read(place, sha256, quiet=True)) is not None:
            return found
        lock = FileLock(self._folder / f".{sha256}.lock")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            return _not_kept(place, error, make())
        try:
            if (found := self._read(place, sha256)) is not None:
                return found
            made = make()
            try:
                _keep(place, made)
            except OSError as error:
                return _not_kept(place, error, made)
            return read_index(place, sha256)
        finally:
            lock.release()

    def _read(self, place: Path, sha256: str, *, quiet: bool = False) -> EntryIndex | None:
        if not place.is_dir():
            return None
        try:
            return read_index(place, sha256)
        except Exception as error:  # numpy raises half a dozen kinds, and it can be made again
            if not quiet:
                print(f"{place}: damaged ({error}); it is rebuilt", file=sys.stderr)
            return None


def read_index(place: Path, sha256: str) -> EntryIndex:
    """Map a kept index. Raises DataError, OSError or ValueError unless every byte of it is what was
    written.
    """
    summary = read_object(place / SUMMARY, "schema", "sha256", "annotations", "count", "files")
    if not check_seal(summary):
        raise ValueError(f"{SUMMARY} was edited")
    if summary["schema"] != SCHEMA or summary["annotations"] != sha256:
        raise ValueError(f"not an index of this file in schema {SCHEMA}")
    for name, expected in summary["files"].items():
        if file_sha256(place / name) != expected:
            raise ValueError(f"{name} changed")
    arrays: dict[str, Any] = {}
    for name in (*COLUMNS, NAMES):
        # A plain array on the mapping: np.memmap itself is slow to index.
        arrays[name] = np.asarray(np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False))
    for name, dtype in COLUMNS.items():
        if arrays[name].shape != (summary["count"],) or arrays[name].dtype != dtype:
            raise ValueError(f"{name}.npy does not hold {summary['count']} values of {dtype}")
    entries = place / ENTRIES if ENTRIES in summary["files"] else None
    return EntryIndex(sha256=sha256, form=summary["form"], entries=entries, place=place, **arrays)


def _keep(place: Path, index: EntryIndex) -> None:
    """Write an index beside its place, then rename it there."""
    temporary = beside(place)
    temporary.mkdir()
    try:
        files = {f"{name}.npy": getattr(index, name) for name in (*COLUMNS, NAMES)}
        for name, array in files.items():
            np.save(temporary / name, array, allow_pickle=False)
            durable.wrote(temporary / name)
        if isinstance(index.entries, bytes):
            durable.write_bytes(temporary / ENTRIES, index.entries)
        written = sorted(path.name for path in temporary.iterdir())
        for name in written:
            durable.fsync(temporary / name)
        summary: Mapping[str, Any] = {
            "schema": SCHEMA,
            "annotations": index.sha256,
            "count": len(index),
            "form": index.form,
            "files": {name: file_sha256(temporary / name) for name in written},
        }
        durable.write_bytes(temporary / SUMMARY, json_bytes(sealed(summary)))
        durable.fsync(temporary / SUMMARY)
        if place.exists():  # damaged: who has it mapped keeps what it has
            place.rename(temporary / "damaged")
        durable.rename(temporary, place)
        shutil.rmtree(place / "damaged", ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _not_kept(place: Path, error: OSError, index: EntryIndex) -> EntryIndex:
    reason = error.strerror or error
    print(f"{place}: not kept ({reason}); every process reads all entries", file=sys.stderr)
    return index
