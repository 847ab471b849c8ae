"""What is there of a file that is being downloaded: its bytes, and what the server called them, so
that a later request goes on only with the same file.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densekit.data.fetch.remote import Remote
from densekit.files.durable import fsync, rename


def part_path(target: Path) -> Path:
    """Where the bytes of a file are until it is whole."""
    return target.with_name(f".{target.name}.part")


def part_bytes(target: Path) -> int:
    """Bytes that an earlier call left of a file."""
    part = part_path(target)
    return part.stat().st_size if part.exists() else 0


class PartFile:
    """`.NAME.part` beside the target, and `.NAME.part.json` with what is known about it."""

    def __init__(self, target: Path, remote: Remote) -> None:
        self._target, self._remote = target, remote
        self._path = part_path(target)
        self._note = target.with_name(f".{target.name}.part.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        known = self._read_note()
        self._trusted = bool(known)
        """Whether bytes that are here may be gone on with."""
        self._ranges = True
        """Whether the server keeps to ranges, as far as it was seen."""
        self.validator: str | None = known.get("validator")
        """A strong ETag or a date: the server's name for these very bytes."""
        self.total: int | None = remote.size if remote.size is not None else known.get("total")
        """Bytes of the whole file; None where nobody says."""
        self._done = False
        if not known:
            self._path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self._path.stat().st_size if self._path.exists() else 0

    @property
    def may_resume(self) -> bool:
        """Whether a request for the rest makes sense: the same bytes can be recognised."""
        known = self.validator is not None or self._remote.digest is not None
        return self._ranges and self._trusted and known

    @property
    def is_complete(self) -> bool:
        """Whether every byte is here."""
        return self._done or (self.may_resume and self.size > 0 and self.size == self.total)

    def agrees(self, content_range: str | None, total: int | None, again: bytes) -> bool:
        """Whether a resumed response goes on with what is here: its range, its total, and the bytes
        that were asked for once more.
        """
        start = self.size - len(again)
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range or "")
        if not found or int(found[1]) != start or total not in (None, self.total or total):
            return False
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read() == again

    def begin(self, headers: Mapping[str, str], total: int | None, *, resumed: bool) -> None:
        """What a response says of the file it sends; without `resumed` what is here is dropped."""
        self._done = False
        if resumed:
            return
        self._path.write_bytes(b"")
        etag = headers.get("ETag")
        strong = etag if etag and not etag.startswith("W/") else None
        self.validator = strong or headers.get("Last-Modified")
        self.total = total if self._remote.size is None else self._remote.size
        self._trusted = headers.get("Accept-Ranges", "bytes") != "none"
        self._write_note()

    def write(self, data: bytes) -> None:
        """Add bytes."""
        with self._path.open("ab", buffering=0) as file:
            file.write(data)

    def ended(self) -> bool:
        """After a response that ended as HTTP says: whether everything is here."""
        self._done = self.total is None or self.size >= self.total
        return self._done

    def distrust(self) -> None:
        """The server does not keep to ranges: further requests ask for the whole file."""
        self._ranges = False
        self.clear()

    def clear(self) -> None:
        """Drop what is here."""
        self._done = self._trusted = False
        self._path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def problem(self) -> str | None:
        """What is wrong with the whole file, in words; None when size and digest are right."""
        remote = self._remote
        if self.total is not None and self.size != self.total:
            return f"{self.size} bytes came, {self.total} are listed"
        if remote.digest is None:
            return None
        found = remote.digest.of(self._path)
        if found == remote.digest.value:
            return None
        listed = remote.digest.describe(remote.digest.value)
        return f"the bytes are wrong: {remote.digest.describe(found)}, listed is {listed}"

    def publish(self) -> None:
        """Give the file its name."""
        fsync(self._path)
        rename(self._path, self._target)
        self._note.unlink(missing_ok=True)

    def put_aside(self) -> Path:
        """Keep a wrong file under another name, so that a person can look at it."""
        kept = self._target.with_name(f"{self._target.name}.wrong")
        self._path.replace(kept)
        self._note.unlink(missing_ok=True)
        return kept

    def _identity(self) -> str:
        digest = self._remote.digest
        return self._remote.url if digest is None else f"{digest.kind}:{digest.value}"

    def _read_note(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        same = isinstance(note, dict) and note.get("of") == self._identity()
        return note if same and self._path.exists() else {}

    def _write_note(self) -> None:
        note = {"of": self._identity(), "validator": self.validator, "total": self.total}
        temporary = self._note.with_name(f"{self._note.name}.tmp")
        temporary.write_text(json.dumps(note), encoding="utf-8")
        temporary.replace(self._note)
