"""Commands are called in an empty folder, without the site settings of whoever runs the tests."""

from pathlib import Path

import pytest

from densekit.cli.site import FILE_VARIABLE, variable
from densekit.spec.site import Site
from tests.support.command_line import Cli, caller


@pytest.fixture
def run_cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """`densekit ...` in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in (FILE_VARIABLE, *map(variable, Site.model_fields)):
        monkeypatch.delenv(name, raising=False)
    return caller(monkeypatch, capsys)
