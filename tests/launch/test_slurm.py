"""The slurm launcher: the batch script, and jobs of a real Slurm that end, stop, wait in vain and
start again.
"""

import itertools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import UsageError
from densekit.files.json_files import read_json
from densekit.launch.launchers.slurm.follower import Follower
from densekit.launch.launchers.slurm.jobs import job_state
from densekit.launch.launchers.slurm.launcher import Slurm
from densekit.launch.launchers.slurm.script import Batch, parse_options, script
from densekit.launch.launchers.slurm.submit import refusal
from densekit.launch.listing import follow, list_runs
from densekit.launch.running import still_running, stop
from densekit.runs.layout import RunDir, run_path
from densekit.runs.process_handle import read_handle
from tests.support.commands import prepare
from tests.support.files import write_json
from tests.support.launching import RUN_STUB, stub_math, stub_run
from tests.support.needs import needs
from tests.support.services import FOLDER


@pytest.fixture
def stub_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find a package densekit that runs stub.py of the run directory."""
    write_json(tmp_path / "stub" / "densekit" / "__init__.py", "")
    write_json(tmp_path / "stub" / "densekit" / "__main__.py", RUN_STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    monkeypatch.chdir(tmp_path)


real = pytest.mark.usefixtures("with_slurm", "stub_trainer")


def jobs(run: RunDir) -> list[str]:
    """Jobs that are queued or running under a run's name."""
    listed = subprocess.run(
        ["squeue", "-h", "-o", "%j"], capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split() if run.path.name in name]


def launch(
    folder: Path, text: str, *options: str, minutes: float | None = None, **changes: Any
) -> tuple[int, RunDir]:
    run, execution = stub_run(folder, text, **changes)
    slurm = Slurm(batch=Batch(options=parse_options(options)), queue_minutes=minutes)
    return slurm.launch(run, execution), run


def test_two_node_script_uses_c10d_rendezvous(tmp_path: Path) -> None:
    run, execution = stub_run(tmp_path, "", device="cuda", world_size=8, nodes=2)
    batch = Batch(
        options=parse_options(["partition=gpu", "--exclusive", "requeue=", "signal=B:USR1@60"])
    )
    lines = script(run, execution, batch).splitlines()
    options = {line.split()[1] for line in lines if line.startswith("#SBATCH")}
    assert options >= {
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=4",
        "--partition=gpu",
        "--exclusive",
    }
    assert "--signal=B:USR1@60" in options and "--signal=B:USR1@300" not in options
    (step,) = [line for line in lines if line.startswith("srun --kill")]
    assert step.startswith(
        f"srun --kill-on-bad-exit=1 {sys.executable} -m densekit.train.torchrun --nnodes 2 "
    )
    assert "--nproc-per-node 4" in step and '--rdzv-endpoint "$head:$port"' in step
    assert step.endswith('-m densekit train "$run" &')


@pytest.mark.parametrize("gpus", [1, 4])
def test_single_node_script_uses_standalone_rendezvous(tmp_path: Path, gpus: int) -> None:
    run, execution = stub_run(tmp_path, "", world_size=gpus)
    text = script(run, execution, Batch())
    assert "--rdzv-endpoint" not in text and ("--standalone" in text) == (gpus > 1)


def test_cluster_containers_mount_host_paths(tmp_path: Path) -> None:
    for name in ("data", "stage 1"):
        (tmp_path / name).mkdir()
    first = str(tmp_path / "stage 1")
    run, execution = stub_run(tmp_path, "", device="cuda", world_size=2, nodes=2, starts_from=first)
    text = script(run, execution, Batch(runtime="apptainer", image="a b.sif"))
    (step,) = [line for line in text.splitlines() if line.startswith("srun --kill")]
    assert "apptainer exec --cleanenv --no-privs" in step and "--nv" in step
    words = shlex.split(shlex.split(step)[4])  # srun --kill-on-bad-exit=1 sh -c '...'
    binds = [word for option, word in itertools.pairwise(words) if option == "--bind"]
    for path, only in (
        (run.path, ""),
        (tmp_path / "cache", ""),
        (tmp_path / "data", ":ro"),
        (first, ":ro"),
    ):
        assert f"{path}:{path}{only}" in binds
    assert words[-2:] == ["a b.sif", "$@"] and " sh python -m densekit.train.torchrun" in step
    text = script(run, execution, Batch(runtime="pyxis", image="densekit:a100"))
    (step,) = [line for line in text.splitlines() if line.startswith("srun --kill")]
    assert "--container-image=densekit:a100" in step and f"{run.path}:{run.path}," in step + ","
    assert "DENSEKIT_IMAGE_ID" in step and "python -m densekit attempt" in text


@pytest.mark.parametrize("word", ["", "=gpu", "a b", "x=1\n#SBATCH --y"])
def test_malformed_sbatch_options_arerefusal(word: str) -> None:
    with pytest.raises(UsageError, match="give a long option of sbatch"):
        parse_options([word])


@pytest.mark.parametrize("word", ["array=0-3", "output=x", "--wait", "clusters=other", "test-only"])
def test_reserved_sbatch_options_arerefusal(word: str) -> None:
    with pytest.raises(UsageError, match="omit it; densekit sets it itself, or could not follow"):
        parse_options([word])


@pytest.mark.parametrize(
    ("told", "advice"),
    [
        (
            "Invalid account or account/partition combination specified",
            "--sbatch account=... or --sbatch qos=...",
        ),
        ("Invalid qos specification", "Slurm refuses the job: Invalid qos"),
        ("Node count specification invalid", "Slurm refuses the job: Node count"),
        ("Requested node configuration is not available", "use fewer --nodes or --gpus"),
        ("invalid partition specified: gpu", "`sinfo` lists the partitions"),
    ],
)
def test_sbatch_errors_name_the_option_that_helps(told: str, advice: str) -> None:
    assert advice in refusal(f"sbatch: error: Batch job submission failed: {told}\n")


def test_gpu_job_requests_cpus_per_gpu(tmp_path: Path) -> None:
    run, execution = stub_run(tmp_path, "", device="cuda", world_size=8, nodes=2, threads=1)
    text = script(run, execution, Batch())
    assert "--cpus-per-task=16" in text and "export OMP_NUM_THREADS=4" in text
    asked = script(run, execution, Batch(options=parse_options(["cpus-per-task=64"])))
    assert "--cpus-per-task=64" in asked and "--cpus-per-task=16" not in asked


def test_missing_slurm_commands_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, execution = stub_run(tmp_path, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UsageError, match="sbatch, scontrol, scancel not found: run this on a login node"
    ):
        Slurm().check(execution)


@real
@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("print('hello from the node'); status('complete')", 0, ""),
        ("status('failed', 'no image', 3); sys.exit(3)", 3, "no image"),
        ("raise RuntimeError('injected')", 1, "the trainer ended with exit code 1"),
        (
            "status('running'); os.kill(os.getpid(), signal.SIGKILL)",
            137,
            "the trainer ended with exit code 137",
        ),
    ],
)
def test_exit_code_and_status_of_a_job(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, code: int, message: str
) -> None:
    found, run = launch(tmp_path, text)
    assert found == code and message in run.status.message
    assert run.status.state == ("failed" if code else "complete")
    assert ("hello from the node" in capfd.readouterr().out) == (code == 0)
    handle = read_handle(run)
    assert handle and handle.text("job") and not jobs(run) and still_running(run) is None


BEGIN = "status('running'); (path / 'began').touch()\n"
STOPS = (
    BEGIN
    + """
while not (path / 'stop').exists(): time.sleep(0.02)
status('preempted', 'stopped by the driver after step 3', 75); sys.exit(75)"""
)


def when(condition: Callable[[], bool], *actions: Callable[[], object]) -> None:
    def work() -> None:
        while not condition():
            time.sleep(0.05)
        for action in actions:
            action()
            time.sleep(1.5)

    threading.Thread(target=work, daemon=True).start()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@real
def test_first_signal_stops_at_a_checkpoint_without_requeue(tmp_path: Path) -> None:
    when(lambda: any(tmp_path.glob("runs/mine-*/began")), interrupt)
    code, run = launch(tmp_path, STOPS)
    assert code == 75 and run.status.state == "preempted" and not jobs(run)


@real
def test_second_signal_cancels_the_job(tmp_path: Path) -> None:
    when(lambda: any(tmp_path.glob("runs/mine-*/began")), interrupt, interrupt)
    code, run = launch(tmp_path, BEGIN + "time.sleep(300)")
    assert code == 130 and run.status.message == "killed by Ctrl-C" and not jobs(run)


STOPS_WHEN_TOLD = """
def stop(*_):
    status('preempted', 'stopped by SIGTERM after step 3', 75)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
"""


@real
def test_cancelled_job_is_not_requeued(tmp_path: Path) -> None:
    """It saves when Slurm ends it, as for a preemption, and is not queued again."""
    run, execution = stub_run(tmp_path, STOPS_WHEN_TOLD + BEGIN + "time.sleep(300)")

    def cancel_it() -> None:
        handle = read_handle(run)
        assert handle and handle.text("job")
        subprocess.run(["scancel", handle.text("job")], check=True)

    when((run.path / "began").exists, cancel_it)
    assert Slurm().launch(run, execution) == 75
    time.sleep(3)
    assert not jobs(run) and run.status.state == "preempted" and run.status.attempt == 1
    assert (run.path / "trained").read_text() == "x"


@real
def test_stopped_job_exits_nonzero(tmp_path: Path) -> None:
    """Under torchrun a stopped trainer ends with 0; what depends on the job must not start."""
    code, run = launch(
        tmp_path, BEGIN + "(path / 'stop').touch(); status('preempted', 'stopped', 75); sys.exit(0)"
    )
    handle = read_handle(run)
    assert code == 75 and handle and handle.text("job")
    state = job_state(handle.text("job"))
    assert (state["JobState"], state["ExitCode"]) == ("FAILED", "75:0")


@real
def test_job_is_cancelled_after_queue_minutes(tmp_path: Path) -> None:
    code, run = launch(tmp_path, "", "hold", minutes=0.02)
    assert code == 1 and not jobs(run)
    assert (
        "waited 0.02 minutes for its nodes (JobHeldUser) and was cancelled: ask for fewer nodes"
        in run.status.message
    )


def test_dependency_wait_does_not_count_as_queue_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_back: list[str] = []
    monkeypatch.setattr("densekit.launch.launchers.slurm.follower.cancel", taken_back.append)
    follower = Follower(stub_run(tmp_path, "")[0], "1_0", queue_minutes=0.001)
    for reason, over in (
        ("Dependency", False),
        ("Dependency", False),
        ("Priority", False),
        ("Priority", True),
    ):
        follower.look({"JobState": "PENDING", "Reason": reason})
        assert (follower.code is not None) == over
        time.sleep(0.1)
    assert taken_back == ["1_0"] and "waited 0.001 minutes for its nodes (Priority)" in str(
        follower.reason
    )


@pytest.mark.parametrize(("complete", "code"), [(True, 0), (False, 1)])
def test_forgotten_job_is_judged_by_the_run(tmp_path: Path, complete: bool, code: int) -> None:
    run, _ = stub_run(tmp_path, "")
    if complete:
        run.set_status("complete")
    follower = Follower(run, "1", None)
    follower.look({})
    assert (follower.code, follower.reason) == (code, None if complete else "the job was cancelled")


@real
def test_job_that_can_never_start_is_cancelled(tmp_path: Path) -> None:
    code, run = launch(tmp_path, "", world_size=50, nodes=50)
    assert code == 1 and not jobs(run)
    assert (
        "would never start the job (PartitionConfig), so it was cancelled: use fewer"
        in run.status.message
    )


@real
def test_ctrl_c_cancels_a_queued_job(tmp_path: Path) -> None:
    threading.Timer(2.0, interrupt).start()
    code, run = launch(tmp_path, "", "hold")
    assert code == 75 and run.status.message == "stopped while its job was queued" and not jobs(run)


@real
def test_job_is_listed_followed_and_stopped_from_elsewhere(tmp_path: Path) -> None:
    text = BEGIN + "(path / 'attempts/0001/log.txt').write_text('step 1\\n')\n" + STOPS
    run, execution = stub_run(tmp_path, text)
    job = Slurm().submit(run, execution)
    while not (run.path / "attempts/0001/log.txt").is_file():
        time.sleep(0.05)
    (row,) = list_runs(tmp_path / "runs")
    assert (row.state, row.place) == ("running", f"Slurm job {job}")
    assert still_running(run) == f"Slurm job {job}"
    assert stop(run, now=False) == f"asked Slurm job {job} to stop at a checkpoint"
    assert "".join(follow(run)) == "step 1\n"
    assert run.status.state == "preempted"


@real
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gpus-per-node=50"], r"Slurm has no such nodes \(.*\): use fewer --nodes or --gpus"),
        (
            ["partition=nope"],
            r"Slurm refuses the job \(.*partition.*`sinfo` lists the partitions",
        ),
        (["nonsense=1"], r"Slurm refuses the job: .*nonsense"),
    ],
)
def test_refused_job_is_one_line_with_advice(
    tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        launch(tmp_path, "", *options)
    assert "\n" not in str(caught.value)


@real
def test_cancelled_job_is_named(tmp_path: Path) -> None:
    name = f"densekit-{run_path(tmp_path, stub_math()).name}"
    when(
        lambda: any(tmp_path.glob("runs/mine-*/began")),
        lambda: subprocess.run(["scancel", "--name", name], check=True),
    )
    code, run = launch(tmp_path, BEGIN + "time.sleep(300)")
    assert code != 0 and run.status.message == "the job was cancelled" and not jobs(run)
    assert job_state("999999") == {}


SEES = """
wanted = ("FAKE_PYXIS_", "CUDA_VISIBLE", "DENSEKIT_", "NCCL_", "OMP_NUM", "SECRET", "SEEN_")
seen = {name: value for name, value in os.environ.items() if name.startswith(wanted)}
(path / "seen.json").write_text(json.dumps({**seen, "pwd": os.getcwd()}))
status("complete")
"""
APPTAINER = """#!{python}
'''What `apptainer exec --cleanenv` means for variables and folders, without a container.'''
import argparse, os, sys
parser = argparse.ArgumentParser()
parser.add_argument("verb", choices=["exec"])
parser.add_argument("--cleanenv", action="store_true", required=True)
parser.add_argument("--no-privs", action="store_true", required=True)
parser.add_argument("--nv", action="store_true")
parser.add_argument("--pwd", required=True)
parser.add_argument("--bind", action="append")
parser.add_argument("image")
parser.add_argument("command", nargs=argparse.REMAINDER)
asked = parser.parse_args()
prefix = "APPTAINERENV_"
named = [name for name in os.environ if name.startswith(prefix)]
inside = {{name.removeprefix(prefix): os.environ[name] for name in named}}
inside |= {{"SEEN_" + name: str(value) for name, value in vars(asked).items()}}
os.chdir(asked.pwd)
inside["PYTHONPATH"] = {stub!r}
os.execve(sys.executable, [sys.executable, *asked.command[1:]], inside)
"""


@pytest.fixture
def inside(with_slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a container would have: `python`, and outside of it a secret."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    program = write_json(
        tmp_path / "bin" / "apptainer",
        APPTAINER.format(python=sys.executable, stub=f"{tmp_path}/stub"),
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0,ib1")
    monkeypatch.setenv("SECRET", "x")


@real
@pytest.mark.usefixtures("inside")
def test_apptainer_job_gets_only_the_named_variables(tmp_path: Path) -> None:
    run, execution = stub_run(tmp_path, SEES, device="cuda")
    options = parse_options(["gpus-per-node=2", "cpus-per-task=1"])
    batch = Batch(runtime="apptainer", image=f"{tmp_path}/a b.sif", options=options)
    assert Slurm(batch=batch).launch(run, execution) == 0
    seen = read_json(run.path / "seen.json")
    assert (
        seen.items()
        >= {
            "CUDA_VISIBLE_DEVICES": "0,1",
            "NCCL_SOCKET_IFNAME": "ib0,ib1",
            "OMP_NUM_THREADS": "4",
            "SEEN_nv": "True",
            "DENSEKIT_IMAGE_ID": f"{tmp_path}/a b.sif",
            "SEEN_image": f"{tmp_path}/a b.sif",
            "pwd": str(run.path),
        }.items()
    )
    assert f"'{run.path}:{run.path}'" in seen["SEEN_bind"] and "SECRET" not in seen


@pytest.fixture
def pyxis(with_slurm: None, slurm: dict[str, str], tmp_path: Path) -> Iterator[None]:
    """The options of pyxis, from a plugin that takes them and tells the job what it was given."""
    if not slurm:
        needs("private-slurm", "the stand-in for pyxis goes into a private Slurm only")
    headers = tmp_path / "headers"
    headers.mkdir()
    packages = ["slurm-wlm-basic-plugins-dev", "libslurm-dev"]
    apt = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root")
    prepare("slurm", *apt, "download", *packages, folder=headers)
    for package in headers.glob("*.deb"):
        prepare("slurm", "dpkg", "-x", package, headers)
    plugin = tmp_path / "fake_pyxis.so"
    source = FOLDER / "fake_pyxis.c"
    prepare("slurm", "gcc", "-shared", "-fPIC", f"-I{headers}/usr/include", "-o", plugin, source)
    settings = Path(slurm["SLURM_CONF"]).parent / "plugstack.conf"
    before = settings.read_text(encoding="utf-8")
    settings.write_text(f"{before}required {plugin}\n", encoding="utf-8")
    yield
    settings.write_text(before, encoding="utf-8")


@real
@pytest.mark.usefixtures("pyxis", "inside")
def test_pyxis_options_are_accepted(tmp_path: Path) -> None:
    run, execution = stub_run(tmp_path, SEES)
    assert (
        Slurm(batch=Batch(runtime="pyxis", image="registry#densekit:a100")).launch(run, execution)
        == 0
    )
    seen = read_json(run.path / "seen.json")
    assert seen["FAKE_PYXIS_image"] == seen["DENSEKIT_IMAGE_ID"] == "registry#densekit:a100"
    assert f"{run.path}:{run.path}" in seen["FAKE_PYXIS_mounts"].split(",")
    assert seen["FAKE_PYXIS_workdir"] == str(run.path)
    assert set(seen["FAKE_PYXIS_env"].split(",")) >= {
        "OMP_NUM_THREADS",
        "NCCL_SOCKET_IFNAME",
        "DENSEKIT_IMAGE_ID",
    }
