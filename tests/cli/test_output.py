"""Lines for people: on a terminal within its width, elsewhere whole."""

import sys

import pytest

from densekit.cli.output import coloured, print_lines, print_table, wrapped
from tests.support.command_line import Cli

NOTE = "note: the first words of a note and more of them"


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (NOTE, ["note: the first words of a", "      note and more of them"]),
        ("  disk    1.2 GiB: data, models", ["  disk    1.2 GiB: data,", "          models"]),
        ("  a: taken 64.4 (Table 4, zoo)", ["  a: taken 64.4 (Table 4,", "    zoo)"]),
        ("long_" * 9, ["long_" * 9]),
        ("", [""]),
    ],
)
def test_what_does_not_fit_hangs_below_the_text(line: str, parts: list[str]) -> None:
    assert wrapped(line, 27) == parts


@pytest.mark.parametrize(("terminal", "lines"), [(True, 2), (False, 1)])
def test_only_a_terminal_wraps(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
    lines: int,
) -> None:
    monkeypatch.setenv("COLUMNS", "27")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_lines([NOTE])
    assert len(capsys.readouterr().out.splitlines()) == lines


def test_a_plan_fits_a_terminal_of_80_columns(run_cli: Cli) -> None:
    lines = run_cli("plan", "tiny_stage2").out.splitlines()
    assert any(len(line) > 60 for line in lines)
    assert all(len(part) <= 60 for line in lines for part in wrapped(line, 60))


@pytest.mark.parametrize(
    ("terminal", "no_color", "colours"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colours_are_for_a_person_who_wants_them(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, no_color: str, colours: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert (coloured("fail") != "fail") is colours
    assert coloured("fail") in ("fail", "\x1b[31mfail\x1b[0m")
    assert coloured("another") == "another"
    monkeypatch.setenv("TERM", "dumb")
    assert coloured("fail") == "fail"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_ends_at_the_edge_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_table([["a", "failed", "m" * 50]], header=["run", "state", "message"])
    header, row = capsys.readouterr().out.splitlines()
    assert header == "run  state   message"
    assert row == ("a    failed  " + "m" * 14 + "..." if terminal else "a    failed  " + "m" * 50)
