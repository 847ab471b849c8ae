"""`densekit run` on a terminal: the bar, Ctrl-C, and a run that resumes, on two sizes of screen."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from densekit.cli.site import FILE_VARIABLE
from densekit.launch.screen import packed
from tests.support.paths import ROOT
from tests.support.screens import SIZES, check_screen
from tests.support.terminal import Terminal

sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
COMMAND = ("-m", "tests.support.stand_in", "run", "tiny_stage2", "--no-evaluation")
ENVIRONMENT = {"PYTHONPATH": str(ROOT), FILE_VARIABLE: os.devnull, "NO_COLOR": ""}


def terminal(folder: Path, size: tuple[int, int], **environment: str) -> Terminal:
    columns, lines = size
    settled = {**ENVIRONMENT, **environment}
    return Terminal(COMMAND, folder=folder, columns=columns, lines=lines, environment=settled)


@pytest.mark.ranks
@sizes
def test_run_interrupted_and_resumed(tmp_path: Path, size: tuple[int, int]) -> None:
    with terminal(tmp_path, size) as first:
        first.until("old()")
        shown = first.until("61.2 GiB")
        check_screen("run", shown, size, tmp_path)
        first.press("\x03")
        assert first.end() == 75
        check_screen("interrupted", first.text(), size, tmp_path)
    with terminal(tmp_path, size) as second:
        second.until("resumed from step 10")
        shown = second.until("3 s/step")
        check_screen("resumed", shown, size, tmp_path)
        bar = next(line for line in shown if "16/24" in line)
        assert "eta 0:24" in bar, "8 steps of the 3 s that this attempt takes, not of 30"
        (run,) = tmp_path.glob("runs/tiny_stage1-*")
        (run / "go").touch()
        second.until("tiny_stage2 (2 of 2)")
        assert "\x1b[?25l" in second.raw.decode() and second.text()


@pytest.mark.ranks
def test_a_pipe_gets_plain_lines_and_warnings_once(tmp_path: Path) -> None:
    done = subprocess.Popen(
        [sys.executable, *COMMAND],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stdout is not None
    for line in done.stdout:
        if line.startswith("mine  1/24"):
            done.terminate()
            break
    out, err = done.communicate(timeout=120)
    assert done.returncode == 75
    assert "\x1b" not in line + out + err
    assert err.count("FutureWarning") == 2, err
    assert "2 more of: /lib/some.py:1: FutureWarning" in err and err.count("  old()") == 1


@pytest.mark.ranks
def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    with terminal(tmp_path, (80, 24), TERM="dumb") as shown:
        shown.until("mine  1/24")
        shown.press("\x03")
        assert shown.end() == 75
        assert not re.search(rb"\x1b", shown.raw)


def test_phrases_are_not_broken() -> None:
    assert packed(["loss 1", "0.2 s/step", "3 samples/s"], 18) == [
        "loss 1  0.2 s/step",
        "3 samples/s",
    ]
    assert packed([], 80) == []
