"""The entries in an annotation file, as it is found: a JSON list, several lists one after the
other, or JSON Lines (one entry a line).

Everything that json.load reads is read, so that the sample ids of a file do not depend on who reads
it: a byte order mark, UTF-16, NaN, half of a surrogate pair in scraped text.
"""

import json
from pathlib import Path
from typing import Any

from densekit.errors import DataError
from densekit.files.json_files import check_depth, parse_integer

MAX_BYTES = 1 << 34
"""Of an annotation file. The largest published ones take 1.5 GB."""
REMEDY = "give the path of a JSON file"
SPACE = " \t\r\n"


def parse_entries(path: Path, data: bytes) -> list[Any]:
    """The entries in the bytes of an annotation file, in order. `path` is for messages.

    Raises DataError with line and column where the JSON breaks, and for a file of something else
    than entries.
    """
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start}: not valid UTF-8; save the file as UTF-8"
        ) from None
    entries: list[Any] = []
    lists = 0
    decoder = json.JSONDecoder(parse_int=parse_integer)
    position = _behind_space(text, 0)
    while position < len(text):
        if lists and text[position] == ",":  # `[...], [...]`
            position = _behind_space(text, position + 1)
        try:
            value, end = decoder.raw_decode(text, position)
            check_depth(value)
        except json.JSONDecodeError as error:
            raise DataError(_broken(path, text, error)) from None
        except (RecursionError, ValueError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            line = text.count("\n", 0, position) + 1
            raise DataError(
                f"{path}: from line {line} on: cannot be read: {reason}; correct the file"
            ) from None
        if isinstance(value, list):
            entries += value
            lists += 1
        elif isinstance(value, dict) and (entries or _is_entry(value)):
            entries.append(value)
        else:
            raise DataError(_other_value(path, value))
        position = _behind_space(text, end)
    if not entries:
        kind = "the list is empty" if lists else "the file is empty"
        raise DataError(f"{path}: {kind}; at least one entry is needed")
    return entries


def _behind_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in SPACE:
        position += 1
    return position


def _is_entry(value: dict[str, Any]) -> bool:
    return "conversations" in value or "messages" in value


def _broken(path: Path, text: str, error: json.JSONDecodeError) -> str:
    where = f"{path}: line {error.lineno}, column {error.colno}"
    start = text[:200].lstrip().lower()
    if start.startswith("version https://git-lfs"):
        return f"{path}: is a pointer of Git LFS, not the file; run `git lfs pull`, or download it"
    if start.startswith(("<!doctype", "<html")):
        return f"{path}: is a web page, not JSON; download the file itself"
    if _behind_space(text, error.pos) < len(text):
        return f"{where}: broken JSON ({error.msg}); correct it there, or download the file again"
    return (
        f"{where}: broken JSON ({error.msg}); the file may be cut off: compare its size with the "
        "source"
    )


def _other_value(path: Path, value: Any) -> str:
    needed = "a list of entries is needed"
    if isinstance(value, dict):
        inside = next((key for key, item in value.items() if isinstance(item, list)), None)
        hint = f": the list under '{inside[:40]}' alone" if inside else ""
        return f"{path}: holds a JSON object without 'conversations'; {needed}{hint}"
    return f"{path}: holds a JSON {type(value).__name__}; {needed}"
