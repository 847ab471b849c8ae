"""What stands on a terminal after a command, compared with a committed text, tests/screens/*.txt.

What no two machines or days share is written over before: `normal` says what and how. A text is
changed by copying the one that the failing test names.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import pyte

SCREENS = Path(__file__).resolve().parent.parent / "screens"
SIZES = [(80, 24), (120, 40)]
"""Columns and lines."""

RULES = (
    (re.compile(r"-[0-9a-f]{10}\b"), "-0123456789"),  # the hash of a run
    (re.compile(r"\b\d\d-\d\d \d\d:\d\d\b"), "01-01 00:00"),  # a date
    (re.compile(r"(?<=  )\d+:\d\d(:\d\d)?(?=  |$)"), lambda m: re.sub(r"\d", "0", m[0])),  # a time
)
"""Written over in this order, by text of the same width."""


def normal(line: str) -> str:
    """A line with what is of this machine and this moment written over."""
    for pattern, text in RULES:
        line = pattern.sub(text, line)
    return line


def drawn(output: str, size: tuple[int, int]) -> list[str]:
    """The screen that a command leaves: its last lines, and the prompt below them."""
    screen = pyte.Screen(*size)
    pyte.Stream(screen).feed(output.replace("\n", "\r\n") + "$ ")
    return [line.rstrip() for line in screen.display]


def check_widths(output: str, columns: int) -> None:
    """No line is wider than the terminal, which would wrap it anywhere."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    wide = [line for line in plain.splitlines() if len(line) > columns]
    assert not wide, f"wider than {columns} columns: {wide}"


def check_screen(name: str, lines: Sequence[str], size: tuple[int, int], folder: Path) -> None:
    """Compare a screen with its committed text; `folder` takes what is there now."""
    columns, height = size
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    now = "".join(f"{normal(line)}\n" for line in lines)
    kept = SCREENS / f"{name}_{columns}x{height}.txt"
    made = folder / kept.name
    made.write_text(now, encoding="utf-8")
    before = kept.read_text(encoding="utf-8") if kept.exists() else ""
    assert now == before, f"the screen changed; where that is meant: cp {made} {kept}\n{now}"
