"""The registry: a launcher that is one file and one line runs, is listed and is stopped."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from densekit.launch.dry_run import show
from densekit.launch.launchers import local, registry
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.registry import launcher_class, launcher_names
from densekit.launch.listing import list_runs
from densekit.launch.running import stop
from densekit.launch.sweep import select_for_all, sweep
from densekit.runs.layout import RunDir
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots
from tests.support.launching import trainer

STOPS = """
status("running")
while not (path / "stop").exists(): time.sleep(0.01)
status("preempted", "stopped by the driver after step 3", 75); sys.exit(75)
"""


@pytest.fixture
def background(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    place = "tests.support.background_launcher:Background"
    monkeypatch.setitem(registry.LAUNCHERS, "background", place)
    selected = select_for_all(["tiny_stage1"], (), ExecutionRequest(), launcher="background")
    return selected.launcher


def run_tiny(folder: Path, launcher: Launcher) -> int:
    roots = Roots(data=folder, models=folder, cache=folder / "cache")
    return sweep(
        ["tiny_stage1"],
        overrides=(),
        runs_dir=folder / "runs",
        roots=roots,
        request=ExecutionRequest(),
        launcher=launcher,
    )


def when_running(folder: Path, action: Callable[[RunDir], None]) -> threading.Thread:
    """Do something, as another terminal would, once the run's trainer has begun."""

    def work() -> None:
        while [row.state for row in list_runs(folder / "runs")] != ["running"]:
            time.sleep(0.02)
        action(RunDir(next((folder / "runs").glob("tiny*"))))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("name", launcher_names())
def test_every_launcher_is_found_by_its_name(name: str) -> None:
    assert launcher_class(name).name == name == launcher_class(name)().name
    assert name in get_args(registry.LauncherName)


@pytest.mark.ranks
def test_new_launcher_trains_and_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: Launcher
) -> None:
    monkeypatch.setattr(local, "command", trainer("print('step 1'); status('complete')"))
    assert run_tiny(tmp_path, background) == 0
    (row,) = list_runs(tmp_path / "runs")
    assert (row.state, row.place) == ("complete", "")
    (log,) = tmp_path.glob("runs/*/attempts/0001/background.log")
    assert log.read_text(encoding="utf-8") == "step 1\n"


def test_new_launcher_prints_its_commands(tmp_path: Path, background: Launcher) -> None:
    lines = show(
        ["tiny_stage1"],
        overrides=(),
        runs_dir=tmp_path / "runs",
        roots=Roots(),
        request=ExecutionRequest(),
        launcher=background,
    )
    assert lines[-1].startswith(f"nohup {sys.executable} -m densekit train {tmp_path}/runs/tiny_")


@pytest.mark.ranks
@pytest.mark.parametrize(("now", "code"), [(False, 75), (True, 137)])
def test_run_of_a_new_launcher_is_stopped_from_elsewhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    background: Launcher,
    now: bool,
    code: int,
) -> None:
    monkeypatch.setattr(local, "command", trainer(STOPS))
    answers: list[str] = []
    other = when_running(tmp_path, lambda run: answers.append(stop(run, now=now)))
    assert run_tiny(tmp_path, background) == code
    other.join(timeout=10)
    (answer,) = answers
    assert ("killed" if now else "asked") in answer and "background process" in answer
    (row,) = list_runs(tmp_path / "runs")
    assert row.state == ("failed" if now else "preempted")
    monkeypatch.setattr(local, "command", trainer("status('complete')"))
    assert run_tiny(tmp_path, background) == 0, "the same command resumes it"


@pytest.mark.ranks
def test_command_line_imports_no_launcher_before_it_is_used() -> None:
    """`densekit plan` does not pay for docker's or Slurm's."""
    program = (
        "import sys, densekit.cli\n"
        "prefix = 'densekit.launch.launchers.'\n"
        "print(*sorted(name.removeprefix(prefix) for name in sys.modules if prefix in name))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= {"options", "registry"}
