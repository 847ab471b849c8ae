"""`densekit ls`, `tail` and `stop`, and runs by name in every command that takes one."""

import json
import sys
from pathlib import Path

import pytest

from densekit.launch.launchers import local
from densekit.runs.layout import RunDir
from tests.support.command_line import Cli
from tests.support.launching import trainer
from tests.support.runs import make_world, train

pytestmark = pytest.mark.ranks


@pytest.fixture
def trained(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete run of tiny_stage1 in runs/, by a trainer that takes no time."""
    script = "(path / 'attempts/0001/log.txt').write_text('step 1\\n'); status('complete')"
    monkeypatch.setattr(local, "command", trainer(script))
    assert run_cli("run", "tiny_stage1").code == 0
    (run,) = Path("runs").glob("tiny_stage1-*")
    return run


def test_ls_prints_a_table(run_cli: Cli, trained: Path) -> None:
    header, row = run_cli("ls").out.splitlines()
    assert header.split() == ["run", "state", "steps", "attempt", "started"]
    assert row.startswith(f"{trained.name}  complete")
    assert header.index("state") == row.index("complete")


def test_ls_keeps_its_keys_for_programs(run_cli: Cli, trained: Path) -> None:
    (row,) = json.loads(run_cli("ls", "--json").out)
    assert list(row)[:6] == ["run", "state", "steps", "attempt", "place", "message"]
    assert json.loads(run_cli("ls", "--runs-dir", "none", "--json").out) == []
    assert run_cli("ls", "--runs-dir", "none") == (0, "no run in none\n", "")


@pytest.mark.parametrize("name", ["path", "whole name", "recipe", "start"])
def test_tail_finds_a_run_by(run_cli: Cli, trained: Path, name: str) -> None:
    words = {
        "path": str(trained),
        "whole name": trained.name,
        "recipe": "tiny_stage1",
        "start": trained.name[:-3],
    }
    result = run_cli("tail", words[name])
    assert (result.code, result.out) == (0, "step 1\n")
    assert result.err == f"{trained} is complete\n"


def test_runs_dir_says_where_names_are_looked_up(run_cli: Cli, trained: Path) -> None:
    trained.parent.rename("elsewhere")
    assert run_cli("tail", "tiny_stage1").code == 3
    assert run_cli("tail", "tiny_stage1", "--runs-dir", "elsewhere").code == 0
    Path("densekit.yaml").write_text("runs_dir: elsewhere\n", encoding="utf-8")
    assert run_cli("tail", "tiny_stage1").code == 0


def test_stop_refuses_a_run_that_is_over(run_cli: Cli, trained: Path) -> None:
    result = run_cli("stop", "tiny_stage1")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"densekit: {trained} is complete")


@pytest.mark.parametrize(
    "words", ["tail NAME", "stop NAME", "verify NAME", "replay NAME", "diff NAME NAME"]
)
def test_ambiguous_name_lists_the_runs(run_cli: Cli, trained: Path, words: str) -> None:
    assert run_cli("run", "tiny_stage1", "--set", "seed=7").code == 0
    result = run_cli(*words.replace("NAME", "tiny_stage1").split())
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("densekit: tiny_stage1 means 2 runs in runs")
    assert trained.name in result.err


@pytest.mark.parametrize("words", ["verify NAME", "replay NAME", "diff NAME NAME"])
def test_evidence_verbs_find_a_run_by_its_recipe(run_cli: Cli, trained: Path, words: str) -> None:
    """The stub leaves no evidence behind, so each says what is missing in the run it found."""
    result = run_cli(*words.replace("NAME", "tiny_stage1").split())
    assert "means" not in result.err and "no run" not in result.err
    assert str(trained) in result.err + result.out


def test_tail_draws_a_bar_on_a_terminal(
    run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(train(make_world(tmp_path / "world"), tmp_path / "runs"))
    run.log.write_text("made  1/6  16%  eta 0:01  loss 2\na word\n", encoding="utf-8")
    plain = run_cli("tail", "made").out
    assert plain == run.log.read_text(encoding="utf-8")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    drawn = run_cli("tail", "made").out
    assert "a word" in drawn and "made  1/6" not in drawn
    assert "6/6  100%" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l"), "the cursor is back"
