"""Progress: plain lines in a log, one live line on a terminal."""

import io

import pytest

from densekit.runs import progress
from densekit.runs.progress import Progress, clock, is_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_log_gets_the_first_the_last_and_one_a_minute(now: list[float]) -> None:
    stream = io.StringIO()
    shown = Progress("train", 100, stream=stream)
    asked = []
    for done in range(1, 101):
        now[0] += 6.0
        shown.update(done, lambda: asked.append(1) or ["loss 1.235"])
    lines = stream.getvalue().splitlines()
    assert lines[0] == "train  1/100  1%  eta 9:54  loss 1.235"
    assert lines[-1] == "train  100/100  100%  eta 0:00  loss 1.235"
    assert [line.split()[1] for line in lines] == [f"{n}/100" for n in (*range(1, 100, 10), 100)]
    assert len(asked) == len(lines), "words are made where a line is due, not in every step"
    assert all(is_progress(line) for line in lines)


def test_a_terminal_gets_one_line_that_ends_once(now: list[float]) -> None:
    stream = Terminal()
    shown = Progress("train", 3, stream=stream)
    for done in (1, 2, 3):
        now[0] += 1.0
        shown.update(done)
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("eta 0:00\n")
    assert stream.getvalue().count("\r\x1b[K") == 3


def test_a_line_on_a_terminal_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    Progress("train", 3, stream=stream).update(1, lambda: ["a word"] * 9)
    assert len(stream.getvalue()) == len("\r\x1b[K") + 39


def test_the_eta_of_a_resumed_run_follows_its_own_speed(now: list[float]) -> None:
    """Ninety steps of earlier attempts took none of these seconds."""
    stream = io.StringIO()
    shown = Progress("train", 100, start=90, stream=stream)
    for done in range(91, 101):
        now[0] += 60.0
        shown.update(done)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "train  91/100  91%  eta 9:00"
    assert lines[4] == "train  95/100  95%  eta 5:00"


def test_a_silent_rank_writes_nothing() -> None:
    stream = io.StringIO()
    Progress("train", 1, stream=stream, enabled=False).update(1)
    assert stream.getvalue() == ""


def test_other_lines_are_no_progress() -> None:
    for line in ("24 steps, 48 samples", "saved 1/2", "a  1/2  50%", ""):
        assert not is_progress(line)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
