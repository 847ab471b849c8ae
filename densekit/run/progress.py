"""Progress with ETA: one live line on a terminal, a plain line now and then in a log."""

import sys
import time
from typing import TextIO

LOG_EVERY_SECONDS = 10.0
TERMINAL_EVERY_SECONDS = 0.2


class Progress:
    """Shows `label  done/total  NN%  eta` with a few values beside it."""

    def __init__(self, label: str, total: int, *, stream: TextIO | None = None, enabled: bool = True) -> None:
        self.label, self.total, self.enabled = label, total, enabled
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty()
        self.started = time.monotonic()
        self.last_shown = float("-inf")

    def update(self, done: int, **values: float) -> None:
        """Report `done` of `total`; `values` are shown with four digits."""
        now = time.monotonic()
        pause = TERMINAL_EVERY_SECONDS if self.terminal else LOG_EVERY_SECONDS
        if not self.enabled or (done not in (1, self.total) and now - self.last_shown < pause):
            return
        self.last_shown = now
        eta = (now - self.started) / max(done, 1) * (self.total - done)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        line = f"{self.label}  {done}/{self.total}  {100 * done // self.total}%  eta {clock(eta)}  {shown}".rstrip()
        if self.terminal:
            self.stream.write(f"\r\x1b[K{line}" + ("\n" if done == self.total else ""))
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
