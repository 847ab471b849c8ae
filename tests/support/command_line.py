"""`densekit ...` as a test types it."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from densekit import cli


class Result(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs commands in this process, through the function that the installed script calls."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["densekit", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        code = caught.value.code
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)

    return call
