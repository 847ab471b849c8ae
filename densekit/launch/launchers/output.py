"""What the processes of a run print, handed on line by line: each warning once, and how often it
came at the end.

They write into files without a name, not into pipes: where the driver is killed they go on to their
checkpoint, and nobody has to read what they say.
"""

import codecs
import fcntl
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Literal, TextIO

StreamName = Literal["stdout", "stderr"]
POLL_SECONDS = 0.1
READ_BYTES = 1 << 20
_WARNING = re.compile(r"\b\w*Warning: |\bWARNING\b|(^|\])\[?W\d{3}")
"""As Python, its logging and torch's C++ mark a warning."""
_NUMBER = re.compile(r"\d+")


class Warned:
    """The warnings that were printed."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._hides = False
        """The line of source code that Python prints below a warning."""

    def passes(self, line: str) -> bool:
        """Whether a line is printed: a warning is once, whatever numbers it names."""
        hides, self._hides = self._hides, False
        if _WARNING.search(line) is None:
            return not (hides and line.startswith("  "))
        key = _NUMBER.sub("#", line)
        self._counts[key] += 1
        self._first.setdefault(key, line)
        self._hides = self._counts[key] > 1
        return not self._hides

    def repeated(self) -> list[str]:
        """A line for each that came more than once."""
        return [
            f"{self._counts[key] - 1} more of: {line}"
            for key, line in self._first.items()
            if self._counts[key] > 1
        ]


class Lines:
    """Text that comes in pieces, printed in whole lines on one of this process's streams."""

    def __init__(self, stream: StreamName, warned: Warned, *, prefix: str = "") -> None:
        """`prefix` stands before every line."""
        self._stream: StreamName = stream
        self._warned, self._prefix = warned, prefix
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def write(self, data: bytes) -> None:
        """Print the lines that are whole now."""
        *lines, self._rest = (self._rest + self._decoder.decode(data)).split("\n")
        self._print(lines)

    def end(self) -> None:
        """Print what is left."""
        rest, self._rest = self._rest, ""
        if rest:
            self._print([rest])

    def _print(self, lines: list[str]) -> None:
        # What rewrites its line is shown as it was in the end.
        shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        text = "".join(f"{self._prefix}{line}\n" for line in shown if self._warned.passes(line))
        if text:
            _write(sys.stdout if self._stream == "stdout" else sys.stderr, text)


class Output:
    """Takes what processes print, as `stdout` and `stderr` of a Popen; a context manager inside
    which it is handed on.
    """

    def __init__(self) -> None:
        self._warned = Warned()
        self._taken: list[_Taken] = [_Taken(name, self._warned) for name in ("stdout", "stderr")]
        self.stdout, self.stderr = (taken.file for taken in self._taken)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._until_ended, daemon=True)

    def __enter__(self) -> "Output":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        for taken in self._taken:
            taken.hand_on()
            taken.lines.end()
            taken.file.close()
        say_repeated(self._warned)

    def _until_ended(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            for taken in self._taken:
                taken.hand_on()


class _Taken:
    """One stream of the processes: a file, and how far it was read."""

    def __init__(self, stream: StreamName, warned: Warned) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        flags = fcntl.fcntl(self.file, fcntl.F_GETFL)
        fcntl.fcntl(self.file, fcntl.F_SETFL, flags | os.O_APPEND)
        self.lines = Lines(stream, warned)
        self._read = 0

    def hand_on(self) -> None:
        """Print what came since the last time."""
        while data := os.pread(self.file.fileno(), READ_BYTES, self._read):
            self._read += len(data)
            self.lines.write(data)


def say_repeated(warned: Warned) -> None:
    """Print how often warnings came again."""
    for line in warned.repeated():
        _write(sys.stderr, f"{line}\n")


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError, ValueError):  # whoever read it is gone; the run is not
        stream.write(text)
        stream.flush()
