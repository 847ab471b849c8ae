"""How commands print what they found: JSON for programs, tables and checks for people."""

import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from densekit.runs.progress import draws

if TYPE_CHECKING:
    from densekit.spec.check import Check


_HANGING = re.compile(r" *(note: |\S+ {2,})?")


CUT = "..."
"""Ends a line that a terminal has no room for."""
GREEN, YELLOW, RED = 32, 33, 31
COLOURS = {
    **dict.fromkeys(("ok", "fits", "complete", "REPRODUCED"), GREEN),
    **dict.fromkeys(("warn", "note", "unknown", "preempted", "queued", "COMPATIBLE"), YELLOW),
    **dict.fromkeys(("fail", "does NOT fit", "failed", "damaged", "gone", "DIVERGED"), RED),
}
"""Of words that say how something stands, as terminals number them."""


_WORD = re.compile(rf"(^|  )({'|'.join(map(re.escape, COLOURS))})(?=: |  |$)")


def coloured(word: str) -> str:
    """A word of COLOURS in its colour, where a person looks and NO_COLOR is not set."""
    colour = COLOURS.get(word)
    if colour is None or not draws(sys.stdout) or os.environ.get("NO_COLOR"):
        return word
    return f"\x1b[{colour}m{word}\x1b[0m"


def print_json(value: Any) -> None:
    """JSON, one key per line, letters as they are."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def print_lines(lines: Iterable[str]) -> None:
    """Lines for people: on a terminal within its width, elsewhere one line for each."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        lines = (_with_colour(part) for line in lines for part in wrapped(line, width))
    print("\n".join(lines))


def _with_colour(line: str) -> str:
    """With words of COLOURS that begin the line, or stand in a column of their own, in colour."""
    return _WORD.sub(lambda found: f"{found[1]}{coloured(found[2])}", line)


def wrapped(line: str, width: int) -> list[str]:
    """A line within a width, broken between words; what follows hangs below the text: behind
    `note: ` or the first column, else two columns behind the start of the line.
    """
    start = _HANGING.match(line)
    assert start is not None, "every line matches: nothing has to be there"
    hang = start.end() if start[1] else start.end() + 2
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * min(hang, width // 2),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, e.g. `1 entry`, `1,200 entries`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def print_table(rows: Sequence[Sequence[object]], *, header: Sequence[str]) -> None:
    """Columns as wide as their widest cell; the last is as long as it is, on a terminal up to its
    edge. Words of COLOURS have their colour there.
    """
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns
    for row in cells:
        line = "  ".join(map(str.ljust, row, widths)).rstrip()
        if terminal and len(line) > width:
            line = f"{line[: width - len(CUT)]}{CUT}"
        print(_with_colour(line) if terminal else line)


def print_checks(checks: "Sequence[Check]", *, as_json: bool) -> None:
    """Every check on a line, or as JSON; then exit: 0 when none failed, else 1."""
    ok = all(check.state != "fail" for check in checks)
    if as_json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        print_lines(_check_lines(checks))
    raise typer.Exit(0 if ok else 1)


def _check_lines(checks: "Sequence[Check]") -> Iterator[str]:
    """A line a check, and what they come to."""
    for check in checks:
        yield f"{check.state:4}  {check.name}: {check.message}"
    states: list[str] = [check.state for check in checks]
    worst = next((state for state in ("fail", "warn") if state in states), "ok")
    of = f" of {len(states)}"
    yield f"{worst}: {states.count(worst) if worst != 'ok' else 'all'}{of} checks"


def fitted(
    columns: dict[str, list[str]], *, drop: Sequence[str], last: int
) -> dict[str, list[str]]:
    """Columns for a terminal: of those in `drop`, the first go until the others fit beside the last
    one, of which `last` signs are to be seen. Elsewhere all of them.
    """
    if not sys.stdout.isatty():
        return columns
    kept = dict(columns)
    for name in drop:
        *fixed, tail = ([key, *cells] for key, cells in kept.items())
        width = sum(max(map(len, cells)) + 2 for cells in fixed)
        if width + min(last, max(map(len, tail))) <= shutil.get_terminal_size().columns:
            break
        kept.pop(name, None)
    return kept
