"""The hash of a large file, computed once for as long as nobody changes the file."""

import hashlib
import json
import os
import re
import time
from io import BufferedReader
from pathlib import Path

from densekit.files.hashing import json_sha256
from densekit.files.json_files import write_json

SETTLED_S = 2.0
"""A file changed less than this before it is hashed may change again without its time showing."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def known_sha256(path: Path, file: BufferedReader, cache: Path) -> str:
    """SHA-256 (hex) of an opened file's bytes, kept under `<cache>/hashes`.

    Size, inode and both times stand for the content: the kernel sets the time of change (ctime),
    no program can set it back, so a file that was written to, or put in the other's place, is
    hashed again. Raises OSError where it cannot be read; what cannot be kept is not kept.
    """
    begun, state = time.time(), os.fstat(file.fileno())
    key = [path.name, state.st_size, state.st_ino, state.st_mtime_ns, state.st_ctime_ns]
    kept = cache / "hashes" / f"{json_sha256(key)}.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))["sha256"]
        if _SHA256.fullmatch(known):
            return str(known)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it can be hashed again
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    settled = state.st_ctime < begun - SETTLED_S
    if settled and os.fstat(file.fileno()).st_ctime_ns == state.st_ctime_ns:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, {"file": str(path.absolute()), "sha256": found})
        except OSError:
            pass
    return found
