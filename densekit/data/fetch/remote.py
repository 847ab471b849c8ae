"""One file that somebody publishes: where it is, and how one knows that it arrived whole."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Digest:
    """A hash of a whole file."""

    kind: Literal["sha256", "git"]
    """git: SHA-1 of git's blob, which the hub lists for files outside large-file storage."""
    value: str

    def of(self, path: Path) -> str:
        """The hash of this kind of the file at `path`."""
        if self.kind == "sha256":
            found = hashlib.sha256()
        else:
            found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        with path.open("rb") as file:
            while data := file.read(_CHUNK):
                found.update(data)
        return found.hexdigest()

    def describe(self, value: str) -> str:
        """A hash of this kind, in words."""
        return f"{'SHA-256' if self.kind == 'sha256' else 'git blob'} {value}"


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A published file."""

    url: str
    page: str
    """What a person opens about it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request (a token)."""
    size: int | None = None
    """Exact bytes, where the publisher lists them."""
    digest: Digest | None = None
    """Where the publisher, or the catalog, says it."""

    def is_whole(self, path: Path) -> bool:
        """Whether the file at `path` is this one, as far as size and digest say."""
        if not path.is_file() or (self.size is not None and path.stat().st_size != self.size):
            return False
        return self.digest is None or self.digest.of(path) == self.digest.value
