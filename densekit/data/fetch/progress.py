"""How far a fetch is: bars with speed and time left on a terminal, else a line now and then."""

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

EVERY = 30
"""Seconds between two lines about one file where there is no terminal."""
GB = 10**9


class Progress:
    """Progress on standard error; a context manager."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def task(self, label: str, total: int | None) -> Callable[[int], None]:
        """A new thing that takes time; what is returned takes the bytes done so far."""
        if self._bars is None:
            return self._lines(label, total)
        bars = self._bars
        task = bars.add_task(label, total=total)

        def tell(done: int) -> None:
            bars.update(task, completed=done, visible=done != total)

        return tell

    def say(self, text: str) -> None:
        """One line of its own."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            with self._lock:
                print(text, file=sys.stderr, flush=True)

    def _lines(self, label: str, total: int | None) -> Callable[[int], None]:
        began = last = time.monotonic()
        first: int | None = None

        def tell(done: int) -> None:
            nonlocal last, first
            first = done if first is None else first
            now = time.monotonic()
            if now - last < EVERY:
                return
            last = now
            self.say(_line(label, total, done, (done - first) / (now - began)))

        return tell


def _line(label: str, total: int | None, done: int, speed: float) -> str:
    text = f"{label}: {size_text(done)}"
    if total:
        text += f" of {size_text(total)} ({100 * done // total} %)"
    text += f", {size_text(speed)}/s"
    if total and speed > 0:
        minutes = (total - done) / speed / 60
        text += f", {minutes:.0f} min left" if minutes >= 1 else ", under a minute left"
    return text


def size_text(size: float) -> str:
    """Bytes in decimal units, as publishers give them."""
    for unit, factor in (("GB", GB), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"
