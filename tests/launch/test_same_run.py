"""Both stages with one command, whoever starts them: docker and slurm end in the hash chains of the
local launcher.

Also when they are interrupted, when a rank dies and when Slurm takes the nodes away: nothing is
left running, and the run goes on to the same end.
"""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from densekit.files.json_files import read_json, read_jsonl
from densekit.runs.layout import RunDir
from tests.support.workplace import SMALL

pytestmark = [pytest.mark.system, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
STEPS = 100
"""Of stage 2; stage 1 has two."""
STAGES = ("tiny_stage1", "tiny_stage2")
NODES = ("--launcher", "slurm", "--gpus", "4", "--nodes", "2")
SETS = [
    part
    for value in (*SMALL, "data.samples=null", f"optimizer.max_steps={STEPS}")
    for part in ("--set", value)
]
TRAINER_IMAGE = "densekit-test:trainer"
DOCKERFILE = """
FROM densekit-test:base
COPY --from=python . /opt/python
COPY --from=packages . /opt/packages
COPY densekit /opt/densekit/densekit
COPY recipes /opt/densekit/recipes
RUN ln -s /opt/python/bin/python3 /usr/bin/python
ENV PATH=/usr/bin LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/densekit:/opt/packages
ENV HOME=/tmp USER=densekit
"""


def densekit(place: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": ":".join(paths), **variables}
    command = [sys.executable, "-m", "densekit", *arguments]
    return subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 0, output
    return output


def run_of(place: Path, name: str) -> RunDir:
    (found,) = (place / "runs").glob(f"{name}-*")
    return RunDir(found)


def evidence(run: RunDir) -> Any:
    """What is the same when a run is the same."""
    manifest = read_json(run.path / "manifest.json")
    return run.sha256, manifest["chain"], manifest["outputs"]["connector.safetensors"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where the local launcher trained both stages on two and, elsewhere, on four
    processes.
    """
    place = tmp_path_factory.mktemp("local")
    for gpus in ("2", "4"):
        (place / gpus).mkdir()
        finish(
            densekit(place / gpus, "run", "tiny_stage2", "--no-evaluation", "--gpus", gpus, *SETS)
        )
    return place


def assert_same(here: Path, there: Path) -> None:
    """Both stages are what the other place has; neither left a process."""
    for name in STAGES:
        assert evidence(run_of(here, name)) == evidence(run_of(there, name)), name
    second = run_of(here, "tiny_stage2")
    assert second.math["starts_from"] == run_of(here, "tiny_stage1").sha256
    assert [line["step"] for line in read_jsonl(second.metrics)] == list(range(1, STEPS + 1))
    assert not processes(here)


def processes(place: Path) -> dict[int, list[str]]:
    """Processes of this machine, in containers and jobs too, that train a run of `place`: id and
    words.
    """
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except OSError:
            continue
        if "train" in words and any(word.startswith(f"{place}/runs/") for word in words):
            found[int(folder.name)] = words
    return found


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def steps_of_stage_2(place: Path) -> int:
    """How many steps are recorded."""
    return sum(
        path.read_text(encoding="utf-8").count("\n")
        for path in place.glob("runs/tiny_stage2-*/metrics.jsonl")
    )


@pytest.fixture(scope="module")
def trainer_image(engine: dict[str, str], hostbase: Path) -> Iterator[str]:
    """An image with this interpreter, its packages and this checkout; made without a network."""
    environment = {**os.environ, **engine}
    subprocess.run(
        ["docker", "import", str(hostbase), "densekit-test:base"], env=environment, check=True
    )
    contexts = {"python": sys.base_prefix, "packages": sysconfig.get_path("purelib")}
    options = [
        part for name, path in contexts.items() for part in ("--build-context", f"{name}={path}")
    ]
    subprocess.run(
        [
            "docker",
            "build",
            "--network",
            "none",
            "-t",
            TRAINER_IMAGE,
            *options,
            "-f",
            "-",
            str(ROOT),
        ],
        env=environment,
        input=DOCKERFILE,
        text=True,
        check=True,
    )
    yield TRAINER_IMAGE
    subprocess.run(
        ["docker", "rmi", TRAINER_IMAGE, "densekit-test:base"], env=environment, check=False
    )


def test_docker_run_equals_the_local_run(
    tmp_path: Path, local: Path, engine: dict[str, str], trainer_image: str
) -> None:
    chosen = ("--launcher", "docker", "--image", trainer_image)
    finish(
        densekit(
            tmp_path,
            "run",
            "tiny_stage2",
            "--no-evaluation",
            "--gpus",
            "2",
            *SETS,
            *chosen,
            **engine,
        )
    )
    assert_same(tmp_path, local / "2")
    for name in STAGES:
        run = run_of(tmp_path, name)
        assert read_json(run.path / "manifest.json")["environment"]["image"].startswith("sha256:")
        assert (run.path / "connector.safetensors").stat().st_uid == (os.getuid() or 1000)


def test_two_node_slurm_run_equals_the_local_run(
    tmp_path: Path, local: Path, slurm: dict[str, str]
) -> None:
    output = finish(
        densekit(tmp_path, "run", "tiny_stage2", "--no-evaluation", *SETS, *NODES, **slurm)
    )
    assert output.count("on 4 CPU processes of 2 nodes by slurm") == 2
    assert_same(tmp_path, local / "4")


@pytest.mark.parametrize("launcher", ["docker", "slurm"])
def test_interrupted_and_killed_run_resumes_to_the_same_end(
    tmp_path: Path, local: Path, launcher: str, request: pytest.FixtureRequest
) -> None:
    if launcher == "docker":
        variables = request.getfixturevalue("engine")
        chosen = (
            "--launcher",
            "docker",
            "--gpus",
            "2",
            "--image",
            request.getfixturevalue("trainer_image"),
        )
    else:
        variables, chosen = request.getfixturevalue("slurm"), NODES
    command = ("run", "tiny_stage2", "--no-evaluation", *SETS, *chosen, "--save-steps", "10")

    process = densekit(tmp_path, *command, **variables)
    wait_until(lambda: steps_of_stage_2(tmp_path) > 3, process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=200)[0]
    run = run_of(tmp_path, "tiny_stage2")
    assert (process.returncode, run.status.state) == (75, "preempted"), output
    assert not processes(tmp_path)

    before = steps_of_stage_2(tmp_path)
    process = densekit(tmp_path, *command, **variables)
    wait_until(lambda: steps_of_stage_2(tmp_path) > before + 3, process)
    os.kill(
        max(
            pid
            for pid, words in processes(tmp_path).items()
            if not any("torchrun" in word for word in words)
        ),
        9,
    )
    output = process.communicate(timeout=200)[0]
    assert process.returncode not in (0, 75) and run.status.state == "failed", output
    assert not processes(tmp_path)

    assert "resuming from checkpoint step" in finish(densekit(tmp_path, *command, **variables))
    assert run.status.attempt == 3
    assert_same(tmp_path, local / ("2" if launcher == "docker" else "4"))


@pytest.mark.parametrize("told", ["the script", "the steps"])
def test_preempted_job_requeues_to_the_same_end(
    tmp_path: Path, local: Path, slurm: dict[str, str], told: str
) -> None:
    process = densekit(tmp_path, "run", "tiny_stage2", "--no-evaluation", *SETS, *NODES, **slurm)
    wait_until(lambda: steps_of_stage_2(tmp_path) > 3, process)
    run = run_of(tmp_path, "tiny_stage2")
    job = read_json(run.attempt / "launch.json")["job"]
    environment = {**os.environ, **slurm}
    signalled = ["--batch", "--signal=USR1"] if told == "the script" else ["--signal=TERM"]
    subprocess.run(["scancel", *signalled, job], env=environment, check=True)
    wait_until(
        lambda: all(
            word in _scontrol(environment, job) for word in ("Restarts=1", "JobState=PENDING")
        ),
        process,
    )
    assert run.status.state == "preempted" and not processes(tmp_path)
    subprocess.run(
        ["scontrol", "update", f"jobid={job}", "starttime=now"], env=environment, check=True
    )
    output = finish(process)
    assert "preempted: requeued" in output and "resuming from checkpoint step" in output
    assert run.status.attempt == 2 and read_json(run.attempt / "launch.json")["job"] == job
    assert_same(tmp_path, local / "4")
    listed = finish(densekit(tmp_path, "ls", "--json", **slurm))
    assert [row["state"] for row in json.loads(listed)] == ["complete", "complete"]


def _scontrol(environment: dict[str, str], job: str) -> str:
    command = ["scontrol", "--oneliner", "show", "job", job]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout
