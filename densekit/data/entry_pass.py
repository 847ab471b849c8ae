"""The one pass over an annotation file that checks, measures and hashes every entry."""

import hashlib
import json
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from densekit.data.annotation_file import EntryScan
from densekit.data.entries import read_conversation
from densekit.data.entry_index import COLUMNS, HAS_IMAGE, TAGGED, EntryIndex
from densekit.errors import DataError
from densekit.spec.types import IMAGE_TOKEN
from densekit.text.lengths import modality_length

NAMED = 10
"""Of the entries that are refused, so many are named after the first."""
PROGRESS_EVERY = 100_000
UNTAGGED = f"image without a {IMAGE_TOKEN} tag; add the tag to the human turn"
# ASCII escapes, so that a lone surrogate (they exist in scraped text) still has an encoding to
# hash.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def entry_digest(entry: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of an entry's canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(entry).encode("ascii")).hexdigest()[:16]


def index_entries(
    path: Path, file: BinaryIO, *, sha256: str | None, require_tag: bool
) -> EntryIndex:
    """Read an opened annotation file and check every entry.

    Raises DataError naming the file and the entry (line and column for broken JSON), and how many
    more are refused (with `require_tag` those without a tag too); also where the file is not the
    one with this hash (None: any).
    """
    file.seek(0)
    scan = EntryScan(path, file)
    columns = {name: array(_CODES[name]) for name in COLUMNS}
    names, texts = bytearray(), bytearray()
    refused: list[tuple[int, str]] = []
    for number, found in enumerate(scan):
        if number and number % PROGRESS_EVERY == 0:
            print(f"{path}: indexed {number} entries", file=sys.stderr)
        try:
            conversation = read_conversation(found.value)
            image, tagged = conversation.image, conversation.tagged
            if image is not None and not tagged and require_tag:
                refused.append((number, UNTAGGED))
        except DataError as error:
            refused.append((number, str(error)))
            continue
        try:
            words = modality_length(conversation.as_turns(), image is not None)
        except DataError:  # whoever needs it says so
            words = 0
        names += (image or "").encode("utf-8", "surrogatepass")
        values = {
            "starts": found.start if scan.in_utf8 else len(texts),
            "sizes": len(found.raw),
            "digests": int(entry_digest(found.value), 16),
            "words": words,
            "flags": HAS_IMAGE * (image is not None) + TAGGED * tagged,
            "name_ends": len(names),
        }
        for name, value in values.items():
            columns[name].append(value)
        if not scan.in_utf8:
            texts += found.raw
    if sha256 not in (None, scan.sha256):
        raise DataError(f"{path} changed while it was read; run the command again")
    if any(problem != UNTAGGED for _, problem in refused):
        refuse(path, refused)
    arrays: dict[str, Any] = {
        name: np.frombuffer(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()
    }
    return EntryIndex(
        sha256=scan.sha256,
        form=scan.form,
        names=np.frombuffer(bytes(names), np.uint8),
        entries=None if scan.in_utf8 else bytes(texts),
        **arrays,
    )


_CODES = {"starts": "q", "sizes": "q", "digests": "Q", "words": "q", "flags": "B", "name_ends": "q"}


def refuse(path: Path, refused: Sequence[tuple[int, str]]) -> None:
    """Raise DataError for entries that are refused: the first with its reason, and how many more,
    and which. Nothing, where there are none.
    """
    if not refused:
        return
    index, problem = refused[0]
    more = ""
    if len(refused) > 1:
        named = ", ".join(str(index) for index, _ in refused[1 : NAMED + 1])
        entries = "entry is" if len(refused) == 2 else "entries are"
        others = ", ..." if len(refused) > NAMED + 1 else ""
        more = f" ({len(refused) - 1} more {entries} refused: {named}{others})"
    raise DataError(f"{path}: entry {index}: {problem}{more}")
