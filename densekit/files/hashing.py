"""Hashes that identify what ran: canonical JSON and files."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from densekit.files.regular import open_regular


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that is hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def json_sha256(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its seal, `sha256`: the hash of the canonical JSON of everything else."""
    content = {name: part for name, part in value.items() if name != "sha256"}
    return {**content, "sha256": json_sha256(content)}


def check_seal(value: Mapping[str, Any]) -> bool:
    """Whether nothing in a sealed JSON object changed since."""
    return bool(value.get("sha256") == sealed(value)["sha256"])


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises OSError, for what is no regular file too."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(directory: Path, *, skip: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of every file directly in a folder, by name, those in `skip` left out."""
    files = [path for path in sorted(directory.iterdir()) if path.is_file()]
    return {path.name: file_sha256(path) for path in files if path.name not in skip}
