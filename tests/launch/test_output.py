"""What processes print, handed on: whole lines, each warning once, nobody's end awaited."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densekit.launch.launchers.output import Lines, Output, Warned

PYTHON = "/lib/a.py:{}: UserWarning: used {} times"


def test_a_warning_is_printed_once_whatever_numbers_it_names() -> None:
    warned = Warned()
    lines = [PYTHON.format(n, n) for n in (1, 2, 3)]
    assert [warned.passes(line) for line in lines] == [True, False, False]
    assert warned.repeated() == [f"2 more of: {lines[0]}"]
    other = "[rank0]:[W1126 10:00:00.000 ProcessGroup.cpp:10] Warning: hot"
    assert warned.passes(other) and not warned.passes(other)
    for line in ("step 1 took 2 s", "step 2 took 2 s", "densekit: x: there is no such file") * 2:
        assert warned.passes(line), "what is no warning is printed each time"


def test_the_line_of_code_below_a_warning_goes_with_it() -> None:
    warned = Warned()
    text = [PYTHON.format(1, 1), "  old()", PYTHON.format(2, 2), "  old()", "done", "  indented"]
    assert [line for line in text if warned.passes(line)] == [
        PYTHON.format(1, 1),
        *("  old()", "done", "  indented"),
    ]


def test_text_comes_in_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("stdout", Warned(), prefix="a: ")
    lines.write("é".encode()[:1])
    lines.write("é".encode()[1:] + b"1\n10%\r20%\rdone\nhalf")
    assert capsys.readouterr().out == "a: é1\na: done\n"
    lines.end()
    lines.end()
    assert capsys.readouterr().out == "a: half\n"


@pytest.mark.ranks
def test_the_streams_of_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    script = "import sys\nprint('out')\nfor n in 1, 2: print(f'x{n}Warning: y', file=sys.stderr)"
    with Output() as output:
        code = subprocess.call(
            [sys.executable, "-S", "-c", script], stdout=output.stdout, stderr=output.stderr
        )
    found = capsys.readouterr()
    assert (code, found.out) == (0, "out\n")
    assert found.err == "x1Warning: y\n1 more of: x1Warning: y\n"


@pytest.mark.ranks
def test_processes_go_on_where_the_driver_is_gone(tmp_path: Path) -> None:
    """A pipe without a reader would end them at the next word."""
    end = tmp_path / "end"
    child = f"[print('x' * 70000, flush=True) for _ in range(3)]; open({str(end)!r}, 'w')"
    script = f"""
import os, subprocess, sys
from densekit.launch.launchers.output import Output
output = Output()
subprocess.Popen([sys.executable, "-S", "-c", {child!r}], stdout=output.stdout)
os._exit(9)
"""
    assert subprocess.call([sys.executable, "-c", script]) == 9
    patience = time.monotonic() + 60
    while not end.exists():
        assert time.monotonic() < patience, "the process ended with its driver"
        time.sleep(0.02)


def test_a_reader_that_went_away_ends_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        Lines("stdout", Warned()).write(b"word\n")
        patch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), closed.fileno())
