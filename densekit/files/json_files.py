"""The one place that reads and writes JSON files: bounded reading, atomic writing.

What is read may come from anybody: a model's folder, a data set, an edited run directory. So only
regular files of a bounded size are read, and whatever is wrong with one is a DataError that names
it and says what to do; nothing that would raise later (a lone surrogate, an integer that no float
holds) gets past.
"""

import codecs
import json
import math
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from densekit.errors import DataError
from densekit.files.whole import written_whole

REMEDY = "put the original file back"
MAX_BYTES = 1 << 28
"""Of a JSON file, and of a line of a JSON Lines file. Tokenizers, the largest, take some tens of
MiB.
"""
MAX_DEPTH = 100
"""Lists and objects inside each other. Tokenizers nest some ten; whoever writes, compares or copies
a value later calls itself once a level.
"""
MAX_DIGITS = 308
"""Longer integers do not fit a float. Tokenizers write 10**30 for "no limit"."""
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_file(path: Path, *, limit: int | None = None, remedy: str = REMEDY) -> bytes:
    """The bytes of a regular file of at most `limit` bytes (None: MAX_BYTES).

    Raises DataError, which ends in `remedy`, when it is missing, no regular file, larger, or cannot
    be read.
    """
    most = MAX_BYTES if limit is None else limit
    with open_file(path, remedy) as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; {remedy}") from None
    if len(data) > most:
        size = f"{most >> 20} MiB" if most >> 20 else f"{most >> 10} KiB"
        raise DataError(f"{path} is larger than {size}; {remedy}")
    return data


def read_json(path: Path, *, remedy: str = REMEDY) -> Any:
    """The value in a JSON file.

    Raises DataError, which ends in `remedy`, when the file is missing, is no regular file, is
    larger than MAX_BYTES, or is not JSON in UTF-8 with finite numbers.
    """
    data = read_file(path, remedy=remedy)
    try:
        return parse_json(data)
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}; {remedy}") from None


def read_object(path: Path, *keys: str, remedy: str = REMEDY) -> dict[str, Any]:
    """The object in a JSON file, with at least `keys`. Raises as read_json, and for another
    value.
    """
    value = read_json(path, remedy=remedy)
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object; {remedy}")
    missing = [key for key in keys if key not in value]
    if missing:
        names = ", ".join(f"`{key}`" for key in missing)
        raise DataError(f"{path} has no {names}; {remedy}")
    return value


def optional_object(path: Path, *, remedy: str = REMEDY) -> dict[str, Any]:
    """The object in a JSON file, {} when there is no file of that name."""
    return read_object(path, remedy=remedy) if os.path.lexists(path) else {}


def read_jsonl(
    path: Path, *, remedy: str = REMEDY, size: int | None = None
) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, one per line; of its first `size` bytes, if given.

    NaN and Infinity are read: the metrics of a run that diverged hold them. Raises DataError when
    the file cannot be read, and naming the line that is not an object.
    """
    records = []
    with open_file(path, remedy) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_BYTES), b""), start=1):
            if size is not None and file.tell() > size:
                line = line[: size - file.tell()]
            if not line:
                break
            try:
                record = parse_json(line, non_finite=True)
                if not isinstance(record, dict):
                    raise ValueError(f"it is {json_kind(record)}")
            except ValueError as error:
                raise DataError(
                    f"{path}: line {number} is not a JSON object ({error}): the file was cut off "
                    f"or edited; {remedy}"
                ) from None
            records.append(record)
    return records


def json_kind(value: object) -> str:
    """What a value that JSON spelt is, in JSON's words and with the article."""
    kinds = (
        (bool, "true or false"),
        (str, "a string"),
        (int | float, "a number"),
        (list, "a list"),
        (dict, "an object"),
    )
    return next((words for kind, words in kinds if isinstance(value, kind)), "null")


def parse_json(data: bytes, *, non_finite: bool = False) -> Any:
    """The value that UTF-8 JSON text spells. Raises ValueError, with the reason, for anything
    else; `non_finite` admits NaN and Infinity.
    """
    floats: dict[str, Any] = {"parse_float": _finite, "parse_constant": _no_constant}
    if data.startswith(codecs.BOM_UTF8):
        raise ValueError("it begins with a byte order mark: save it as UTF-8 without one")
    try:
        value = json.loads(
            data.decode("utf-8"), parse_int=parse_integer, **({} if non_finite else floats)
        )
        check_depth(value)
        if SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise ValueError(f"{error.msg} at {line}column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start})") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def json_bytes(value: Any) -> bytes:
    """A JSON file's content: UTF-8, indented by one, ending in a newline."""
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that readers see the old file or the whole new one."""
    data = json_bytes(value)
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def open_file(path: Path, remedy: str = REMEDY) -> BufferedReader:
    """Open a regular file. Raises DataError, which ends in `remedy`, as `read_file` does."""
    try:
        # A FIFO would block and a device never end, so the kind is looked at before opening.
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise DataError(f"{path} cannot be read: it is {kind}; {remedy}")
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {remedy}") from None
    except ValueError:  # a path with a NUL in it
        raise DataError(f"{str(path)!r} is not a path; {remedy}") from None


def check_depth(value: Any) -> None:
    """Raises ValueError for a JSON value that nests lists and objects deeper than MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for parent in level
            if isinstance(parent, dict | list)
            for item in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def parse_integer(digits: str) -> int:
    """An integer's digits as a number. Raises ValueError for one that no float holds."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
