"""Progress with ETA: one live line on a terminal, plain lines now and then elsewhere and in the log
of the run.
"""

import sys
import time
from typing import TextIO

LOG_EVERY_SECONDS = 10.0
TERMINAL_EVERY_SECONDS = 0.2


class Progress:
    """Shows `label  done/total  NN%  eta` with a few values beside it."""

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
        self.terminal = self.stream.isatty()
        self.started = time.monotonic()
        self.last_shown = self.last_logged = float("-inf")

    def update(self, done: int, **values: float | None) -> None:
        """Report `done` of `total`; `values` are shown with four digits, None not at all."""
        now = time.monotonic()
        edge = done in (self.start + 1, self.total)
        if not self.enabled:
            return
        line = self._line(done, now, values)
        if edge or now - self.last_shown >= (
            TERMINAL_EVERY_SECONDS if self.terminal else LOG_EVERY_SECONDS
        ):
            self.last_shown = now
            end = "\n" if done == self.total else ""
            self.stream.write(f"\r\x1b[K{line}{end}" if self.terminal else f"{line}\n")
            self.stream.flush()
        if self.log is not None and (edge or now - self.last_logged >= LOG_EVERY_SECONDS):
            self.last_logged = now
            self.log.write(f"{line}\n")
            self.log.flush()

    def _line(self, done: int, now: float, values: dict[str, float | None]) -> str:
        eta = (now - self.started) / max(done - self.start, 1) * (self.total - done)
        shown = "  ".join(
            f"{name} {value:.4g}" for name, value in values.items() if value is not None
        )
        share = f"{done}/{self.total}  {100 * done // self.total}%"
        return f"{self.label}  {share}  eta {clock(eta)}  {shown}".rstrip()


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
