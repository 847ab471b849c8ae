"""The local launcher: which command it starts, and what it makes of the way the trainer ends."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from densekit.launch import local
from densekit.run.layout import RunDir, open_run, run_math

from .helpers import trainer


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    opened = open_run(tmp_path, run_math({"name": "mine"}, None))
    opened.new_attempt({})
    return opened


def test_the_command_of_one_process(run: RunDir) -> None:
    assert local.command(run, processes=1) == [sys.executable, "-m", "densekit", "train", str(run.path)]


def test_the_command_of_several_processes(run: RunDir) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    trainer_command = ["-m", "densekit", "train", str(run.path)]
    assert local.command(run, processes=3) == [sys.executable, *torchrun, *trainer_command]


FAILED = {"state": "failed", "attempt": 1}


@pytest.mark.parametrize(
    ("script", "code", "status"),
    [
        ("status('complete')", 0, {"state": "complete", "message": "", "exit_code": 0}),
        ("status('failed', 'no image', 3); sys.exit(3)", 3, {**FAILED, "message": "no image", "exit_code": 3}),
        # torchrun ends with 1 whatever its ranks end with
        ("status('failed', 'no image', 3); sys.exit(1)", 3, {**FAILED, "message": "no image", "exit_code": 3}),
        ("sys.exit(7)", 7, {**FAILED, "message": "the trainer ended with exit code 7", "exit_code": 7}),
        ("status('running'); sys.exit(1)", 1, {**FAILED, "exit_code": 1}),
        ("pass", 1, {**FAILED, "message": "the trainer ended with exit code 1", "exit_code": 1}),
        ("status('running')", 1, FAILED),
        ("status('running'); os.kill(os.getpid(), signal.SIGKILL)", 137, {**FAILED, "exit_code": 137}),
        ("status('complete'); sys.exit(4)", 4, {"state": "complete"}),
    ],
)
def test_how_a_trainer_ends(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, script: str, code: int, status: dict[str, object]
) -> None:
    monkeypatch.setattr(local, "command", trainer(script))
    assert local.launch(run, processes=1, threads=1) == code
    assert run.status.items() >= status.items()


def test_the_plan_decides_the_threads(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    script = "(path / 'env').write_text(os.environ.get('OMP_NUM_THREADS', '-')); status('complete')"
    monkeypatch.setattr(local, "command", trainer(script))
    assert local.launch(run, processes=1, threads=3) == 0
    assert (run.path / "env").read_text(encoding="utf-8") == "3"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_driver_stops_its_trainer(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            started.append(self)
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

    monkeypatch.setattr(local.subprocess, "Popen", Watched)
    monkeypatch.setattr(local, "command", trainer("time.sleep(60)"))
    assert local.launch(run, processes=1, threads=1) == 130
    assert started[0].returncode == -signal.SIGTERM
    assert run.status == {"state": "failed", "message": "interrupted", "exit_code": 130, "attempt": 1}
    assert signal.getsignal(signal.SIGTERM) is not local._interrupt
