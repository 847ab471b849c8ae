"""`densekit diff`, `verify` and `replay`: their output for people and for programs."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from densekit.launch.launchers import local
from tests.support.command_line import Cli
from tests.support.files import names
from tests.support.launching import trainer
from tests.support.runs import make_world
from tests.support.runs import train as made_run
from tests.support.screens import check_widths


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """A run, and one with another learning rate; by names that need no quoting."""
    world = make_world(tmp_path / "world")
    how = {"attention": "sdpa", "zero_stage": 0, "threads": 1}
    one, two = (
        made_run(
            world, tmp_path / "runs", recipe={"optimizer": {"learning_rate": rate}}, execution=how
        )
        for rate in (0.001, 0.002)
    )
    return one.relative_to(tmp_path), two.relative_to(tmp_path)


def test_diff(run_cli: Cli, two_runs: tuple[Path, Path]) -> None:
    one, two = two_runs
    same = run_cli("diff", one, one)
    assert (same.code, same.err) == (0, "")
    assert same.out.splitlines()[2:] == ["bitwise equal over 6 steps", "runs are identical"]
    result = run_cli("diff", one, two)
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert lines[0].startswith(f"a: {one} (run ") and lines[1].startswith(f"b: {two} (run ")
    assert lines[2] == "runs diverge at step 1: learning rate: 0.001 and 0.002"
    place = "math.json, recipe.optimizer.learning_rate"
    assert lines[-1] == f"1. learning rate differs: 0.001 and 0.002 ({place})"
    assert run_cli("diff", one, two, "--tolerance", "1e9").code == 1, (
        "the tolerance is for losses and gradient norms"
    )


def test_diff_on_a_terminal_fits_it(
    run_cli: Cli, two_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = run_cli("diff", *two_runs).out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    fitted = run_cli("diff", *two_runs).out
    check_widths(fitted, 60)
    assert fitted.split() == flat.split() and fitted.count("\n") > flat.count("\n")


def test_diff_for_programs(run_cli: Cli, two_runs: tuple[Path, Path]) -> None:
    result = run_cli("diff", *two_runs, "--json", "--tolerance", "0")
    found = json.loads(result.out)
    assert (result.code, result.err, found["equal"], found["tolerance"]) == (1, "", False, 0.0)
    assert (found["divergences"][0]["kind"], found["divergences"][0]["step"]) == ("lr", 1)
    assert [cause["topic"] for cause in found["explanations"]] == ["schedule"]
    assert json.loads(run_cli("diff", two_runs[0], two_runs[0], "--json").out)["equal"] is True


@pytest.mark.parametrize("name", ["mine.zip", "MINE.ZIP"])
def test_a_zip_file_is_verified_as_a_dossier(run_cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("no dossier")
    result = run_cli("verify", tmp_path / name)
    assert result.code == 1 and result.out.startswith("fail  archive: ")


def test_verify(run_cli: Cli, two_runs: tuple[Path, Path]) -> None:
    run, _ = two_runs
    result = run_cli("verify", run)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert len(lines) > 8 and all(re.match(r"ok    \w+: .", line) for line in lines[:-1])
    assert lines[-1] == f"ok: all of {len(lines) - 1} checks"
    shutil.move("world", "gone")
    result = run_cli("verify", run)
    assert result.code == 0 and re.search(
        r"^warn  annotations: not checked: \S+/train\.json is", result.out, re.MULTILINE
    )
    (run / "connector.safetensors").write_bytes(b"")
    result = run_cli("verify", run)
    assert result.code == 1 and re.search(
        r"^fail  outputs: \S+ was changed", result.out, re.MULTILINE
    )
    found = json.loads(run_cli("verify", run, "--json").out)
    assert found["ok"] is False
    assert [check["name"] for check in found["checks"] if check["state"] == "fail"] == ["outputs"]


@pytest.mark.ranks
def test_replay(run_cli: Cli, two_runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = two_runs
    copied = "import shutil; shutil.copytree({!r}, path, dirs_exist_ok=True)"
    monkeypatch.setattr(local, "command", trainer(copied.format(str(run.resolve()))))
    result = run_cli("replay", run, "--runs-dir", "again", "--tolerance", "1e-3", "--deterministic")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("the replay is bitwise equal to the run, trained weights included\n")
    assert [name for name in names(Path("again")) if name[0] != "."] == [f"{run.name}.replay1"]
    monkeypatch.setattr(local, "command", trainer("status('failed', 'why', 3); sys.exit(3)"))
    assert run_cli("replay", run).code == 3
    assert (run.parent / f"{run.name}.replay1").is_dir()
