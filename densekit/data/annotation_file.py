"""The entries in an annotation file, as it is found: a JSON list, several lists one after the
other, or JSON Lines (one entry a line), read in one pass that holds a piece of the file at a time.

Everything that json.load reads is read, so that the sample ids of a file do not depend on who reads
it: a byte order mark, UTF-16, NaN, half of a surrogate pair in scraped text.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from densekit.errors import DataError
from densekit.files.json_files import check_depth, json_kind, open_file, parse_integer
from densekit.files.signatures import START, signature

MAX_BYTES = 1 << 34
"""Of an annotation file. The largest published ones take 1.5 GB."""
PIECE = 1 << 22
"""Bytes that are read at a time."""
MANY_BRACKETS = 90
"""An entry with fewer opening brackets cannot be nested too deeply."""
CUT_OFF = 16
"""A JSON error so close to the end of a piece may come from the cut, not from the file."""
REMEDY = "give the path of a JSON file (`densekit data unpack` makes one of parquet files)"
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_int=parse_integer)


class FoundEntry(NamedTuple):
    """One entry."""

    value: Any
    start: int
    """Where it begins in the file, in bytes; means nothing in an encoding other than UTF-8."""
    raw: bytes
    """Its JSON text in UTF-8 (half surrogate pairs included): the file's own bytes, if it is in
    UTF-8.
    """


def open_annotations(path: Path) -> BufferedReader:
    """Open an annotation file. Raises DataError when it is missing, no regular file, too large, or
    cannot be read.
    """
    file = open_file(path, REMEDY)
    if file.seek(0, 2) > MAX_BYTES:
        file.close()
        raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB; {REMEDY}")
    file.seek(0)
    return file


def parse_entry(raw: bytes) -> Any:
    """The value of `FoundEntry.raw`. Raises ValueError for anything else."""
    return _DECODER.decode(raw.decode("utf-8", "surrogatepass"))


class EntryScan:
    """One pass over the entries of an opened annotation file, in order; `path` is for messages.

    `form`, `sha256` (of the file's bytes) and `in_utf8` are known when the pass has ended. It
    raises DataError with line and column where the JSON breaks, and for a file of something else
    than entries.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.form: str | None = None
        """What the file is where it is not one list."""
        self._file, self._hash = file, hashlib.sha256()
        self._encoding = ""
        self._pending = b""
        self._text, self._at = "", 0
        self._byte = self._char = 0  # of self._text[self._at], in the file
        self._begun, self._first, self._ended = False, b"", False

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of what was read so far."""
        return self._hash.hexdigest()

    @property
    def in_utf8(self) -> bool:
        """Whether `FoundEntry.start` is a place in the file."""
        return self._encoding == "utf-8"

    def __iter__(self) -> Iterator[FoundEntry]:
        lists = entries = 0
        while self._next_char() is not None:
            if lists and self._next_char() == ",":  # `[...], [...]`
                self._advance(self._at + 1)
                self._next_char()
            top = self._char
            if self._next_char() == "[":
                lists += 1
                for found in self._in_list(top):
                    entries += 1
                    yield found
                continue
            found = self._entry(top, inside=False)
            if not isinstance(found.value, dict) or not (entries or _is_entry(found.value)):
                raise DataError(_other_value(self.path, found.value))
            entries += 1
            yield found
        if not entries:
            kind = "the list is empty" if lists else "the file is empty"
            raise DataError(f"{self.path}: {kind}; at least one entry is needed")
        if lists != 1:
            self.form = f"{lists} lists" if lists else "JSON Lines (one entry a line)"

    def _in_list(self, top: int) -> Iterator[FoundEntry]:
        self._advance(self._at + 1)
        if self._next_char() == "]":
            self._advance(self._at + 1)
            return
        while True:
            yield self._entry(top, inside=True)
            behind = self._next_char()
            if behind not in (",", "]"):
                raise DataError(self._broken("Expecting ',' delimiter", self._at))
            self._advance(self._at + 1)
            if behind == "]":
                return
            self._next_char()

    def _entry(self, top: int, *, inside: bool) -> FoundEntry:
        """The value at hand. `top`: where the outermost value around it begins."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                size = end - self._at
                # A number may go on in the next piece.
                if end < len(self._text) or not self._read_on():
                    break
            except json.JSONDecodeError as error:
                cut = error.pos + CUT_OFF > len(self._text) or error.msg.startswith("Unterminated")
                behind = error.pos - self._at
                if not (cut and self._read_on()):
                    raise DataError(self._broken(error.msg, self._at + behind)) from None
            except (RecursionError, ValueError) as error:
                raise DataError(self._unreadable(error, top)) from None
        text = self._text[self._at : self._at + size]
        if text.count("[") + text.count("{") >= MANY_BRACKETS:
            try:
                check_depth([value] if inside else value)
            except ValueError as error:
                raise DataError(self._unreadable(error, top)) from None
        raw = text.encode("utf-8", "surrogatepass")
        start = self._byte
        self._at += size
        self._byte += len(raw)
        self._char += size
        return FoundEntry(value, start, raw)

    def _next_char(self) -> str | None:
        """The next character that is no space, after moving there; None at the end of the file."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._advance(found.end())
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return None

    def _advance(self, at: int) -> None:
        """Move over characters of one byte each."""
        self._byte += at - self._at
        self._char += at - self._at
        self._at = at

    def _read_on(self) -> bool:
        """Add the next piece of the file to the text at hand; False at its end."""
        if self._ended:
            return False
        try:
            data = self._file.read(PIECE)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}; {REMEDY}") from None
        self._hash.update(data)
        self._first = self._first or data[:START]
        if not self._encoding:
            self._encoding = json.detect_encoding(data).removesuffix("-sig")
            self._decoder = codecs.getincrementaldecoder(self._encoding)("surrogatepass")
        self._ended = not data
        data = self._pending + data
        whole = len(data) if self._ended or not self.in_utf8 else _whole_characters(data)
        self._pending = data[whole:]
        try:
            text = self._decoder.decode(data[:whole], final=self._ended)
        except UnicodeDecodeError as error:
            if (other := self._instead()) is not None:
                raise DataError(other) from None
            place = self._file.tell() - len(self._pending) - len(error.object) + error.start
            raise DataError(
                f"{self.path}: byte {place}: not valid UTF-8; save the file as UTF-8"
            ) from None
        if not self._begun:
            marks = len(text) - len(text := text.lstrip("\ufeff"))
            self._byte += marks * len("\ufeff".encode())
            self._begun = bool(text)
        self._text, self._at = self._text[self._at :] + text, 0
        return not self._ended or bool(text)

    def _line(self, char: int) -> tuple[int, int]:
        """Line and column, from 1, of a character of the file."""
        again = EntryScan(self.path, self._file)
        self._file.seek(0)
        lines, column, left = 1, 1, char
        while left >= 0 and again._read_on():
            text, again._text = again._text[:left], ""
            left -= len(text)
            lines += text.count("\n")
            newline = text.rfind("\n")
            column = len(text) - newline if newline >= 0 else column + len(text)
            if not left:
                break
        return lines, column

    def _broken(self, reason: str, at: int) -> str:
        """Broken JSON at `at` in the text at hand."""
        char = self._char + at - self._at
        self._advance(at)
        more_follows = self._next_char() is not None
        if (other := self._instead()) is not None:
            return other
        line, column = self._line(char)
        where = f"{self.path}: line {line}, column {column}: broken JSON ({reason})"
        if more_follows:
            return f"{where}; correct it there, or download the file again"
        return f"{where}; the file may be cut off: compare its size with the source"

    def _instead(self) -> str | None:
        """What the file is by its first bytes, where that is not JSON, and what to do."""
        found = signature(self._first)
        if found is None or found.kind in ("server_message", "text_file"):
            return None
        remedy = {
            "archive": "unpack it, and give the JSON file in it",
            "lfs_pointer": "run `git lfs pull`, or download it",
        }.get(found.kind, "download the file itself")
        if self._first.startswith(b"PAR1"):
            remedy = "`densekit data unpack FILE --to DIR` makes one of it"
        return f"{self.path}: is {found.what}, not JSON; {remedy}"

    def _unreadable(self, error: Exception, top: int) -> str:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        line, _ = self._line(top)
        return f"{self.path}: from line {line} on: cannot be read: {reason}; correct the file"


def _whole_characters(data: bytes) -> int:
    """How many of the bytes, in UTF-8, are whole characters: none is cut at their end."""
    for last in range(len(data) - 1, max(len(data) - 5, -1), -1):
        if data[last] & 0xC0 != 0x80:
            return last if data[last] >= 0x80 else last + 1
    return len(data)


def _is_entry(value: dict[str, Any]) -> bool:
    return "conversations" in value or "messages" in value


def _other_value(path: Path, value: Any) -> str:
    needed = "a list of entries is needed"
    if isinstance(value, dict):
        inside = next((key for key, item in value.items() if isinstance(item, list)), None)
        hint = f": the list under '{inside[:40]}' alone" if inside else ""
        return f"{path}: holds an object without 'conversations'; {needed}{hint}"
    return f"{path}: holds {json_kind(value)}; {needed}"
