"""The local launcher: which command it starts, and what it makes of the way the trainer ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from densekit.errors import UsageError
from densekit.launch.host_gpus import find_gpus
from densekit.launch.launchers import local, waiting
from densekit.launch.launchers.local import Local
from densekit.runs.layout import RunDir, Status
from densekit.runs.processes import alive
from densekit.spec.execution import Execution
from densekit.spec.kernels import KernelPackage
from tests.support.launching import A100, cards, fake_gpus, stub_run, trainer

pytestmark = pytest.mark.ranks


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return stub_run(tmp_path, "")[0]


def test_single_process_command(run: RunDir) -> None:
    assert local.command(run, Execution()) == [
        sys.executable,
        "-m",
        "densekit",
        "train",
        str(run.path),
    ]


def test_distributed_command_uses_torchrun(run: RunDir) -> None:
    trainer_command = ["-m", "densekit", "train", str(run.path)]
    for processes in (1, 3):
        torchrun = [
            "-m",
            "densekit.train.torchrun",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
        found = local.command(run, Execution(world_size=processes, zero_stage=2))
        assert found == [sys.executable, *torchrun, *trainer_command]


def test_a_kernel_that_is_not_installed_is_refused_before_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    execution = Execution(device="cuda", dtype="bf16", attention="flash")
    monkeypatch.setattr(KernelPackage, "installed", False)
    with pytest.raises(UsageError, match=r"flash_attn is not installed here; install .* sdpa"):
        Local().check(execution)
    Local().check(execution.model_copy(update={"attention": "sdpa"}))
    monkeypatch.setattr(KernelPackage, "installed", True)
    Local().check(execution)


def test_command_holds_the_absolute_run_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`densekit stop` knows the trainer by it, from any folder."""
    monkeypatch.chdir(tmp_path)
    assert local.command(RunDir(Path("runs/mine")), Execution())[-1] == str(tmp_path / "runs/mine")


def test_idle_gpus_become_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    folder = fake_gpus(tmp_path, *cards(A100, 3, used={0: 70000}))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = local.environment(Execution(device="cuda", world_size=2))
    assert (found["CUDA_VISIBLE_DEVICES"], found["CUDA_DEVICE_ORDER"]) == ("1,2", "PCI_BUS_ID")
    assert "CUDA_VISIBLE_DEVICES" not in local.environment(Execution())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert find_gpus() == []


def test_several_nodes_are_refused(run: RunDir) -> None:
    with pytest.raises(UsageError, match="--nodes 2: the local launcher trains on this host only"):
        local.Local().check(Execution(world_size=4, nodes=2))


FAILED = {"state": "failed", "attempt": 1}


@pytest.mark.parametrize(
    ("script", "code", "status"),
    [
        ("status('complete')", 0, {"state": "complete", "message": "", "exit_code": 0}),
        (
            "status('failed', 'no image', 3); sys.exit(3)",
            3,
            {**FAILED, "message": "no image", "exit_code": 3},
        ),
        # torchrun ends with 1 whatever its ranks end with
        (
            "status('failed', 'no image', 3); sys.exit(1)",
            3,
            {**FAILED, "message": "no image", "exit_code": 3},
        ),
        (
            "sys.exit(7)",
            7,
            {**FAILED, "message": "the trainer ended with exit code 7", "exit_code": 7},
        ),
        ("status('running'); sys.exit(1)", 1, {**FAILED, "exit_code": 1}),
        ("pass", 1, {**FAILED, "message": "the trainer ended with exit code 1", "exit_code": 1}),
        ("status('running')", 1, FAILED),
        (
            "status('running'); os.kill(os.getpid(), signal.SIGKILL)",
            137,
            {**FAILED, "exit_code": 137},
        ),
        ("status('complete'); sys.exit(4)", 0, {"state": "complete", "exit_code": 0}),
        ("status('complete'); os.abort()", 0, {"state": "complete", "exit_code": 0}),
    ],
)
def test_exit_code_and_status_of_a_trainer(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, script: str, code: int, status: dict[str, object]
) -> None:
    monkeypatch.setattr(local, "command", trainer(script))
    assert local.Local().launch(run, Execution()) == code
    assert run.status.model_dump().items() >= status.items()


def test_planned_threads_replace_omp_num_threads(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    script = "(path / 'env').write_text(os.environ.get('OMP_NUM_THREADS', '-')); status('complete')"
    monkeypatch.setattr(local, "command", trainer(script))
    assert local.Local().launch(run, Execution(threads=3)) == 0
    assert (run.path / "env").read_text(encoding="utf-8") == "3"


def launch_and_signal(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, script: str, *numbers: signal.Signals
) -> int:
    """Launch a stub trainer and send signals to this driver, half a second apart."""
    monkeypatch.setattr(local, "command", trainer(script))
    for place, number in enumerate(numbers, start=1):
        threading.Timer(0.5 * place, os.kill, (os.getpid(), number)).start()
    return local.Local().launch(run, Execution())


WAITS = """
status('running')
while not (path / "stop").exists():
    time.sleep(0.01)
status('preempted', 'stopped by the driver after step 3', 75)
sys.exit(75)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_requests_a_checkpoint(
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    assert launch_and_signal(run, monkeypatch, WAITS, number) == 75
    assert run.status.state == "preempted" and not run.stop_file.exists()
    assert "stopped by the driver after step 3" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is not waiting._interrupt


def test_second_signal_kills_the_trainer(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        launch_and_signal(
            run, monkeypatch, "status('running'); time.sleep(60)", signal.SIGINT, signal.SIGINT
        )
        == 130
    )
    assert run.status == Status(
        state="failed", message="killed by Ctrl-C", exit_code=130, attempt=1
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_before_the_first_step_ends_the_trainer(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """As during the import of torch, where no stop file is looked for."""
    begun = time.monotonic()
    assert launch_and_signal(run, monkeypatch, "time.sleep(60)", number) == 130
    assert time.monotonic() - begun < 10
    message = "stopped by Ctrl-C before the first step of this attempt: nothing was to save"
    assert run.status == Status(state="failed", message=message, exit_code=130, attempt=1)
    assert not run.stop_file.exists()


def test_variables_of_other_launchers_do_not_reach_the_trainer(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    script = "(path / 'env').write_text(' '.join(sorted(os.environ))); status('complete')"
    monkeypatch.setattr(local, "command", trainer(script))
    assert local.Local().launch(run, Execution()) == 0
    reached = (run.path / "env").read_text(encoding="utf-8").split()
    assert "SLURM_JOB_ID" in reached and not {"RANK", "WORLD_SIZE", "PMI_SIZE"} & {*reached}
    said = "MASTER_ADDR, OMPI_COMM_WORLD_SIZE, PMI_SIZE, RANK, WORLD_SIZE"
    assert f"ignored environment variables: {said}" in capsys.readouterr().err
    assert os.environ["RANK"] == "2", "the driver's own stay"


def test_trainer_ends_when_its_driver_is_killed(run: RunDir, tmp_path: Path) -> None:
    script = "(path / 'pid').write_text(str(os.getpid())); time.sleep(60)"
    driver = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from densekit.launch.launchers import local
from densekit.runs.layout import RunDir, Status
from densekit.spec.execution import Execution
from densekit.spec.kernels import KernelPackage
from tests.support.launching import trainer
local.command = trainer({script!r})
local.Local().launch(RunDir(Path({str(run.path)!r})), Execution())
"""
    process = subprocess.Popen([sys.executable, "-c", driver])
    place = run.path / "pid"
    wait_for(lambda: place.exists() and place.read_text() != "")
    assert alive(int(place.read_text()))
    process.kill()
    process.wait()
    wait_for(lambda: not alive(int(place.read_text())))


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
