"""Which code turns conversations into ids: what was counted with other code is counted again."""

import functools
from pathlib import Path

from densekit.files.hashing import file_sha256, json_sha256


@functools.cache
def text_source_sha256() -> str:
    """SHA-256 over every file of this package, by name."""
    folder = Path(__file__).parent
    files = sorted(folder.rglob("*.py"))
    return json_sha256({str(path.relative_to(folder)): file_sha256(path) for path in files})
