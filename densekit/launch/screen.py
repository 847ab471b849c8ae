"""What a command shows on a terminal while a run trains: whole lines within its width, and below
them a bar that says how far the run is. Elsewhere nothing of this happens: lines are printed as
they are.

The bar is drawn from what the run's processes write into its directory, so it is the same under
every launcher, and no step takes longer for it.
"""

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from densekit.launch.far import Far, how_far
from densekit.runs.layout import WorkDir
from densekit.runs.progress import clock, draws, is_progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REFRESHES_PER_SECOND = 4
LEAST_BAR = 8
"""Columns below which a bar says nothing."""


@contextmanager
def screen() -> Iterator[None]:
    """On a terminal, print in whole lines within its width, above the bars of `shown`."""
    if not draws(sys.stdout):
        yield
        return
    from rich.console import Console

    before = sys.stdout, sys.stderr
    printer = _Printer(Console(file=sys.stdout, highlight=False, markup=False))
    sys.stdout = _Lines(printer)
    if sys.stderr.isatty():
        sys.stderr = _Lines(printer)
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, _Lines)]
    try:
        yield
    finally:
        for stream in streams:
            stream.finish()
        sys.stdout, sys.stderr = before


@contextmanager
def shown(work: WorkDir, *, part: str = "") -> Iterator[None]:
    """A bar at the foot of the screen while something carries `work` out; nothing where there is
    no `screen`. `part`: of the command, `2 of 3`.
    """
    if not isinstance(sys.stdout, _Lines):
        yield
        return
    from rich.live import Live

    printer = sys.stdout.printer
    far, label = how_far(work), f"{work.name} ({part})" if part else work.name
    live = Live(
        get_renderable=lambda: bar(label, far(), printer.console.width, printer.aside),
        console=printer.console,
        refresh_per_second=REFRESHES_PER_SECOND,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with ExitStack() as stack:
        stack.enter_context(live)
        printer.has_bar = True
        stack.callback(setattr, printer, "has_bar", False)
        yield


def bar(label: str, far: Far, width: int, aside: str = "") -> "RenderableType":
    """How far a run is, in two lines or three of at most `width` columns. `aside`: what stands
    there before the first step.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    figures = far.phase
    if far.total:
        figures = f"{far.done}/{far.total}  {100 * far.done // far.total}%"
        eta = "" if far.eta_seconds is None else f"eta {clock(far.eta_seconds)}"
        figures = "  ".join(filter(None, [figures, eta, far.phase]))
    name = Text(label, style="bold", no_wrap=True)
    name.truncate(max(1, width - len(figures) - 4), overflow="ellipsis")
    room = width - name.cell_len - len(figures) - 5
    line = Table.grid(padding=(0, 2, 0, 0))
    cells: list[RenderableType] = [name]
    if room >= LEAST_BAR:
        cells.append(ProgressBar(total=far.total, completed=far.done, width=room))
    line.add_row(*cells, Text(figures, no_wrap=True))
    words = far.words or aside.split("  ")
    return Group(line, *(Text(f"  {text}", style="dim") for text in packed(words, width - 3)))


def packed(phrases: list[str], width: int) -> list[str]:
    """Phrases side by side, in as few lines of at most `width` as hold them."""
    lines: list[str] = []
    for phrase in phrases:
        if lines and len(lines[-1]) + 2 + len(phrase) <= width:
            lines[-1] += f"  {phrase}"
        else:
            lines.append(phrase)
    return lines


class _Printer:
    """Prints lines on a console, from any thread."""

    def __init__(self, console: "Console") -> None:
        self.console = console
        self.has_bar = False
        self.aside = ""
        """The last line about something else that takes time, such as making models."""

    def line(self, text: str) -> None:
        """One line, broken between words where the console is narrower; what the trainer says of
        its progress is what a bar shows.
        """
        from rich.text import Text

        if self.has_bar and is_progress(text):
            self.aside = text
        else:
            self.console.print(Text.from_ansi(text))


class _Lines(io.TextIOBase):
    """A stream that hands whole lines to a printer. It is no terminal to whoever asks: nothing in
    it is written twice.
    """

    def __init__(self, printer: _Printer) -> None:
        self.printer = printer
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Print the lines that are whole now."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self.printer.line(line)
        return len(text)

    def finish(self) -> None:
        """Print what is left."""
        if self._rest:
            self.write("\n")
