"""A command on a terminal of a given size, and what a person sees there: the screen is drawn by
pyte, line for line.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pyte

PATIENCE_S = 240
"""Importing torch, on a busy machine."""


class Terminal:
    """A process group that leads a pseudo-terminal of its own; a context manager that ends it."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        columns: int,
        lines: int,
        environment: Mapping[str, str],
    ) -> None:
        """Start this Python with these arguments in a folder."""
        self.screen = pyte.HistoryScreen(columns, lines, history=2000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        """Everything that was written to the terminal."""
        self._master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=folder,
            env={**_without_size(os.environ), "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(terminal)

    def text(self) -> list[str]:
        """The lines of the screen, those above that are empty at the end left out."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def until(self, word: str) -> list[str]:
        """The screen once it shows a word."""
        end = time.monotonic() + PATIENCE_S
        while not any(word in line for line in self.text()):
            assert time.monotonic() < end, f"waited for {word!r}, saw {self.text()}"
            assert self._read(1), f"it ended before {word!r}: {self.text()}"
        return self.text()

    def press(self, text: str) -> None:
        """Type something."""
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Read on until the process ends; returns its exit code."""
        while self._read(1):
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self, seconds: float) -> bool:
        """Draw what comes within some time; whether anything may come after it."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # Linux: the other side is closed
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


def _without_size(variables: Mapping[str, str]) -> dict[str, str]:
    """The terminal says its size; runners of tests set another."""
    return {name: text for name, text in variables.items() if name not in ("COLUMNS", "LINES")}


def _own_terminal() -> None:
    """Be whom Ctrl-C on this terminal interrupts."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
