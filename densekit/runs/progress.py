"""Progress with ETA: plain lines, one a minute, in a log and on a stream that is no terminal; on a
terminal one line that is written again and again.

A driver that draws a bar on its terminal takes such lines for what they are (`is_progress`).
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

LOG_EVERY_SECONDS = 60.0
TERMINAL_EVERY_SECONDS = 0.2
DUMB = ("dumb", "unknown")
"""What TERM says of terminals on which nothing can be drawn twice, nor in a colour."""
_LINE = re.compile(r".+  \d+/\d+  \d+%  eta [\d:]+(  |$)")


class Progress:
    """Shows `label  done/total  NN%  eta` with a few words beside it."""

    def __init__(
        self,
        label: str,
        total: int,
        *,
        start: int = 0,
        stream: TextIO | None = None,
        log: TextIO | None = None,
        enabled: bool = True,
    ) -> None:
        """`start`: what earlier attempts had done; it says nothing about the speed of this one."""
        self.start = start
        self.label, self.total, self.log, self.enabled = label, total, log, enabled
        self.stream = stream or sys.stdout
        self.terminal = draws(self.stream)
        self.started = time.monotonic()
        self.last_shown = self.last_logged = float("-inf")

    def update(self, done: int, words: Callable[[], Sequence[str]] = tuple) -> None:
        """Report `done` of `total`; `words` is asked for what is shown beside it when a line is
        due.
        """
        if not self.enabled:
            return
        now = time.monotonic()
        edge = done in (self.start + 1, self.total)
        every = TERMINAL_EVERY_SECONDS if self.terminal else LOG_EVERY_SECONDS
        shows = edge or now - self.last_shown >= every
        logs = self.log is not None and (edge or now - self.last_logged >= LOG_EVERY_SECONDS)
        if not (shows or logs):
            return
        line = self._line(done, now, words())
        if shows:
            self.last_shown = now
            self.stream.write(self._over(line, last=done == self.total))
            self.stream.flush()
        if self.log is not None and logs:
            self.last_logged = now
            self.log.write(f"{line}\n")
            self.log.flush()

    def _over(self, line: str, *, last: bool) -> str:
        """What writes a line, on a terminal over the one before and within its width."""
        if not self.terminal:
            return f"{line}\n"
        columns = shutil.get_terminal_size().columns
        return f"\r\x1b[K{line[: columns - 1]}" + "\n" * last

    def _line(self, done: int, now: float, words: Sequence[str]) -> str:
        eta = (now - self.started) / max(done - self.start, 1) * (self.total - done)
        share = f"{done}/{self.total}  {100 * done // self.total}%"
        return "  ".join([self.label, share, f"eta {clock(eta)}", *words])


def draws(stream: TextIO) -> bool:
    """Whether a stream is a terminal that takes more than plain lines."""
    return stream.isatty() and os.environ.get("TERM", "") not in DUMB


def is_progress(line: str) -> bool:
    """Whether a line is one that Progress wrote."""
    return _LINE.match(line) is not None


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
