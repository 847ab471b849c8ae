"""The docker launcher against a real engine: what a container sees, how it ends, and that nothing
of it stays.
"""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import DataError, UsageError
from densekit.files.json_files import read_json
from densekit.launch.launchers.docker.client import connect
from densekit.launch.launchers.docker.container import container_user
from densekit.launch.launchers.docker.launcher import Docker
from densekit.launch.launchers.mounts import mounts
from densekit.launch.launchers.trainer_command import job_name
from densekit.launch.running import stop
from densekit.runs.layout import RunDir, open_run
from densekit.runs.process_handle import read_handle
from densekit.spec.execution import Execution
from densekit.spec.roots import Roots
from tests.support.files import write_json
from tests.support.launching import (
    A100,
    OLD,
    T4,
    V100,
    cards,
    fake_gpus,
    stub_math,
    stub_run,
)
from tests.support.needs import needs

pytestmark = pytest.mark.usefixtures("with_engine")

LOOK = """
import socket
socket.gethostbyname(socket.gethostname())  # torchrun asks for it
seen = {"uid": os.getuid(), "env": dict(os.environ), "argv": sys.argv}
seen["network"] = os.listdir("/sys/class/net")
seen["capabilities"] = [
    line.split()[1] for line in open("/proc/self/status") if line[:4] == "CapE"
]
mounts = [line.split() for line in open("/proc/mounts")]
seen["root"] = next(words[3].split(",")[0] for words in mounts if words[1] == "/")
open(os.path.expanduser("~/made"), "w").write("x")
seen["cache"] = open(CACHE + "/made", "w").write("x")
try:
    seen["data"] = open(DATA + "/made", "w").write("x")
except OSError as error:
    seen["data"] = error.strerror
(path / "seen.json").write_text(json.dumps(seen))
status("complete")
print("seen from inside: été")
"""


def launch(folder: Path, script: str, **changes: Any) -> tuple[int, RunDir]:
    run, execution = stub_run(folder, script, **changes)
    return Docker(image="densekit-test:stub").launch(run, execution), run


def containers(run: RunDir) -> list[str]:
    """Containers of a run, dead ones included."""
    command = ["docker", "ps", "-aq", "--filter", f"name={job_name(run)}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def look(tmp_path: Path) -> str:
    (tmp_path / "data").mkdir()
    return f"CACHE, DATA = {str(tmp_path / 'cache')!r}, {str(tmp_path / 'data')!r}\n" + LOOK


def test_container_environment_user_and_mounts(
    tmp_path: Path,
    look: str,
    stub_image: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    monkeypatch.setenv("HF_TOKEN", "secret")
    code, run = launch(tmp_path, look, threads=3)
    assert code == 0 and run.complete
    assert "seen from inside: été" in capfd.readouterr().out
    seen = read_json(run.path / "seen.json")
    assert seen["uid"] == (os.getuid() or 1000), "a container runs as a normal user"
    assert (seen["capabilities"], seen["root"]) == (["0000000000000000"], "ro")
    assert seen["argv"][-2:] == ["train", str(run.path)]
    assert (seen["cache"], seen["data"]) == (1, "Read-only file system")
    assert {name for name in seen["network"] if name != "lo"} <= {
        "tunl0",
        "sit0",
        "ip6tnl0",
        "gre0",
        "gretap0",
    }
    assert seen["env"].items() >= {"OMP_NUM_THREADS": "3", "NCCL_DEBUG": "WARN"}.items()
    assert "HF_TOKEN" not in seen["env"] and "NVIDIA_VISIBLE_DEVICES" not in seen["env"]
    handle = read_handle(run)
    assert handle and handle.text("image") == seen["env"][
        "DENSEKIT_IMAGE_ID"
    ] == connect().image_id(stub_image)
    assert not containers(run)


def test_container_sees_only_the_picked_gpus(
    tmp_path: Path, look: str, stub_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fake_gpus(tmp_path, *cards(A100, 4, used={0: 70000, 2: 5}))
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    script = look.replace("sys.argv", "'-'")
    run, execution = stub_run(tmp_path, script, device="cuda", world_size=1)
    try:
        code = Docker(image=stub_image).launch(run, execution)
    except DataError as error:
        if "cannot give GPUs to containers" in str(error):
            needs("pretend-gpu", "this machine's engine has no NVIDIA toolkit")
        raise
    assert code == 0
    assert read_json(run.path / "seen.json")["env"]["NVIDIA_VISIBLE_DEVICES"] == "1", (
        "the first one that is idle"
    )


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("status('failed', 'no image', 3); sys.exit(1)", 3, "no image"),
        ("sys.exit(7)", 7, "the trainer ended with exit code 7"),
        ("status('running'); sys.exit(139)", 139, "the trainer ended with exit code 139"),
        ("raise RuntimeError('injected')", 1, "the trainer ended with exit code 1"),
    ],
)
@pytest.mark.usefixtures("stub_image")
def test_exit_code_is_kept_and_the_container_removed(
    tmp_path: Path, script: str, code: int, message: str
) -> None:
    found, run = launch(tmp_path, script)
    assert found == code and run.status.state == "failed" and message in run.status.message
    assert not containers(run)


WAITS = """status('running'); (path / 'began').touch()
while not (path / 'stop').exists(): time.sleep(0.02)
"""
STOPS = WAITS + "status('preempted', 'stopped by the driver after step 3', 75); sys.exit(75)"


def when_begun(run: RunDir, *actions: Any) -> None:
    def work() -> None:
        while not (run.path / "began").exists():
            time.sleep(0.02)
        for action in actions:
            action()
            time.sleep(1.0)

    threading.Thread(target=work, daemon=True).start()


def interrupt(number: signal.Signals = signal.SIGINT) -> Any:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_requests_a_checkpoint(
    tmp_path: Path, stub_image: str, number: signal.Signals
) -> None:
    run, execution = stub_run(tmp_path, STOPS)
    when_begun(run, interrupt(number))
    assert Docker(image=stub_image).launch(run, execution) == 75
    assert run.status.state == "preempted" and not containers(run) and not run.stop_file.exists()


def test_second_signal_kills_the_container(tmp_path: Path, stub_image: str) -> None:
    run, execution = stub_run(
        tmp_path, "status('running'); (path / 'began').touch(); time.sleep(300)"
    )
    when_begun(run, interrupt(), interrupt())
    begun = time.monotonic()
    assert Docker(image=stub_image).launch(run, execution) == 130
    assert time.monotonic() - begun < 30 and not containers(run)
    assert run.status.message == "killed by Ctrl-C"


def test_out_of_memory_kill_is_named(tmp_path: Path, stub_image: str) -> None:
    script = WAITS + "held = [bytearray(b'x' * 2**20) for _ in range(400)]; time.sleep(60)"
    run, execution = stub_run(tmp_path, script)
    limit = ["docker", "update", "--memory", "64m", "--memory-swap", "64m", job_name(run)]
    when_begun(
        run, lambda: subprocess.run(limit, check=True, capture_output=True), run.stop_file.touch
    )
    assert Docker(image=stub_image).launch(run, execution) == 137
    assert (
        "killed because host RAM ran out: use fewer --workers" in run.status.message
        and not containers(run)
    )


@pytest.mark.parametrize(("now", "code"), [(False, 75), (True, 137)])
def test_container_is_stopped_from_another_terminal(
    tmp_path: Path, stub_image: str, now: bool, code: int
) -> None:
    run, execution = stub_run(tmp_path, STOPS)
    told: list[str] = []
    when_begun(run, lambda: told.append(stop(run, now=now)))
    assert Docker(image=stub_image).launch(run, execution) == code and not containers(run)
    assert told and f"container {job_name(run)}" in told[0]
    with pytest.raises(UsageError, match="nothing is running that could be stopped"):
        stop(run, now=False)


def test_second_container_of_a_run_is_refused(tmp_path: Path, stub_image: str) -> None:
    run, execution = stub_run(tmp_path, STOPS)
    seen: list[str] = []

    def second() -> None:
        try:
            Docker(image=stub_image).launch(run, execution)
        except DataError as error:
            seen.append(str(error))

    when_begun(run, second, run.stop_file.touch)
    assert Docker(image=stub_image).launch(run, execution) == 75
    assert seen and seen[0].startswith("a container of this run exists already")


def test_missing_container_image_is_named(tmp_path: Path) -> None:
    run, execution = stub_run(tmp_path, "")
    with pytest.raises(
        UsageError,
        match=r"the container engine has no image nope:1: build or load it, or name another",
    ):
        Docker(image="nope:1").launch(run, execution)
    with pytest.raises(
        UsageError, match=r"no image densekit:none: run `densekit containers build none`, or"
    ):
        Docker(image="densekit:none").check(execution)
    assert not containers(run)


def test_container_image_without_densekit_is_named(tmp_path: Path, stub_image: str) -> None:
    run, execution = stub_run(tmp_path, "")
    dockerfile = f"FROM {stub_image}\nENV PATH=/nowhere\n"
    subprocess.run(
        ["docker", "build", "-q", "-t", "densekit-test:empty", "-"],
        input=dockerfile,
        text=True,
        check=True,
    )
    with pytest.raises(DataError, match="the container image has no densekit"):
        Docker(image="densekit-test:empty").launch(run, execution)
    assert not containers(run)


@pytest.mark.parametrize(
    ("told", "gpus", "image", "message"),
    [
        (
            cards(A100, 2),
            4,
            None,
            r"--gpus 4: this host has 2; try --gpus 2 \(same result, slower\)",
        ),
        ([], 1, None, r"--gpus 1: nvidia-smi finds no GPU on this host; use --device cpu"),
        (
            cards(T4, 1),
            1,
            None,
            r"no container image has kernels for Tesla T4, compute capability 7.5",
        ),
        (
            cards(V100, 1),
            1,
            "densekit:a100",
            r"--image densekit:a100 has kernels for A100, .*: use --image densekit:v100",
        ),
        (
            cards(OLD, 1),
            1,
            None,
            r"driver 470.82.01 is too old for CUDA 12 .*: update it to 525.60.13",
        ),
        (
            [cards(A100, 1)[0], cards(V100, 2)[1]],
            2,
            None,
            r"mixed GPU models .*CUDA_VISIBLE_DEVICES",
        ),
        (
            cards(A100, 1),
            1,
            None,
            r"no image densekit:a100: run `densekit containers build a100`, or name",
        ),
        (["garbage"], 1, None, r"nvidia-smi printed `garbage` where index, name, "),
    ],
)
def test_unusable_gpus_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    told: list[str],
    gpus: int,
    image: str | None,
    message: str,
) -> None:
    monkeypatch.setenv("PATH", f"{fake_gpus(tmp_path, *told)}:{os.environ['PATH']}")
    run, execution = stub_run(tmp_path, "", device="cuda", world_size=gpus)
    with pytest.raises(UsageError, match=message) as caught:
        Docker(image=image).check(execution)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        Docker(image=image).launch(run, execution)
    assert not containers(run)


def test_unwritable_cache_is_refused(tmp_path: Path, stub_image: str) -> None:
    if os.getuid() != 0:
        needs("root", "only root's containers run as somebody else")
    (tmp_path / "cache").mkdir(mode=0o755)
    run, execution = stub_run(tmp_path, "")
    with pytest.raises(
        UsageError,
        match=r"container runs as 1000:1000, which may not write to the cache .*: run `chown -R",
    ):
        Docker(image=stub_image).launch(run, execution)
    assert not containers(run)


def test_printed_command_equals_the_handle_container(
    tmp_path: Path, look: str, stub_image: str
) -> None:
    run, execution = stub_run(tmp_path, look)
    (command,) = Docker(image=stub_image).commands(run, execution)
    (tmp_path / "cache").mkdir()
    for path in (tmp_path / "cache", *run.path.rglob("*"), run.path):
        path.chmod(0o777)
    subprocess.run(["sh", "-c", command], check=True)
    printed = json.loads((run.path / "seen.json").read_text())
    write_json(
        run.path / "status.json", {"state": "created", "message": "", "exit_code": 0, "attempt": 1}
    )
    assert Docker(image=stub_image).launch(run, execution) == 0
    called = read_json(run.path / "seen.json")
    for seen in (printed, called):
        seen["env"].pop("HOSTNAME", None)
    assert printed == called


def test_symbolic_link_and_its_target_are_mounted(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    math = stub_math(language_model=str(tmp_path / "link"))
    run = open_run(tmp_path / "runs", math)
    first = tmp_path / "runs" / "not there yet"
    roots = Roots(**{name: tmp_path / name for name in ("data", "models", "cache")})
    execution = Execution(roots=roots, starts_from=str(first))
    found = {mount.path: mount.read_only for mount in mounts(run, execution)}
    assert found[tmp_path / "link"] and found[tmp_path / "disk"] and found[first]


@pytest.mark.parametrize("asked", ["1000", "me:users", "1000:"])
def test_container_user_must_be_numeric(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("DENSEKIT_USER", asked)
    with pytest.raises(
        UsageError, match="give the numbers of user and group, as in DENSEKIT_USER=1000:1000"
    ):
        container_user(rootless=False)
