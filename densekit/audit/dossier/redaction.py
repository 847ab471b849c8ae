"""Copies of a run's files that name no machine: paths and hosts go, the rest stays as it is.

What a hash of the run covers cannot be changed: a path in math.json is refused.
"""

import json
from pathlib import Path
from typing import Any

from densekit.audit.report.privacy import Scrubber
from densekit.errors import DataError
from densekit.files.hashing import sealed
from densekit.runs.layout import MATH_FILE
from densekit.runs.manifest import MANIFEST_FILE

JSON_SUFFIXES = (".json", ".jsonl")


def redacted(data: bytes, name: str, scrub: Scrubber, *, path: Path) -> bytes:
    """A file's bytes without what names a machine; the same bytes where nothing does.

    `name` is its path inside the run. Raises DataError where the run's identity names a folder.
    """
    text = data.decode("utf-8", errors="replace")
    if name.endswith(JSON_SUFFIXES):
        whole = name.endswith(".json")
        parts = [text] if whole else text.splitlines(keepends=True)
        values = [json.loads(part) for part in parts]
        cleaned = [_cleaned(value, scrub) for value in values]
        if cleaned == values:
            return data
        if name == MATH_FILE or not whole:
            raise DataError(
                f"{path} names a folder or a host of this machine, and a hash of the run covers "
                "it: nothing can be taken out of it. Train from a recipe whose paths begin with "
                "`data:`, `models:` or `cache:`, or give --with-paths"
            )
        value = sealed(cleaned[0]) if name == MANIFEST_FILE else cleaned[0]
        return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
    clean = scrub(text)
    return data if clean == text else clean.encode()


def _cleaned(value: Any, scrub: Scrubber) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [_cleaned(part, scrub) for part in value]
    if isinstance(value, dict):
        return {name: _cleaned(part, scrub) for name, part in value.items()}
    return value
