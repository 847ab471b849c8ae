"""The same run, whoever starts it: docker and slurm end in the hash chain of the local launcher."""

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from densekit.run.layout import RunDir, read_json
from densekit.run.records import read_jsonl
from tests.train.conftest import SMALL

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS = 60
SETS = [part for value in (*SMALL, "data.samples=null", f"optimizer.max_steps={STEPS}") for part in ("--set", value)]
TRAINER_IMAGE = "densekit-test:trainer"
DOCKERFILE = """
FROM densekit-test:base
COPY --from=python . /opt/python
COPY --from=packages . /opt/packages
COPY densekit /opt/densekit/densekit
COPY recipes /opt/densekit/recipes
RUN ln -s /opt/python/bin/python3 /usr/bin/python
ENV PATH=/usr/bin LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/densekit:/opt/packages HOME=/tmp USER=densekit
"""


def densekit(place: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": ":".join(paths), **variables}
    command = [sys.executable, "-m", "densekit", *arguments]
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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
    """A place where the local launcher trained stage 1 on two and, elsewhere, on four processes."""
    place = tmp_path_factory.mktemp("local")
    for gpus in ("2", "4"):
        (place / gpus).mkdir()
        finish(densekit(place / gpus, "run", "tiny_stage1", "--gpus", gpus, *SETS))
    return place


@pytest.fixture(scope="module")
def trainer_image(engine: dict[str, str], hostbase: Path) -> Iterator[str]:
    """An image with this interpreter, its packages and this checkout; made without a network."""
    environment = {**os.environ, **engine}
    subprocess.run(["docker", "import", str(hostbase), "densekit-test:base"], env=environment, check=True)
    contexts = {"python": sys.base_prefix, "packages": sysconfig.get_path("purelib")}
    options = [part for name, path in contexts.items() for part in ("--build-context", f"{name}={path}")]
    subprocess.run(
        ["docker", "build", "--network", "none", "-t", TRAINER_IMAGE, *options, "-f", "-", str(ROOT)],
        env=environment, input=DOCKERFILE, text=True, check=True,
    )  # fmt: skip
    yield TRAINER_IMAGE
    subprocess.run(["docker", "rmi", TRAINER_IMAGE, "densekit-test:base"], env=environment, check=False)


def test_docker_trains_the_same_run(tmp_path: Path, local: Path, engine: dict[str, str], trainer_image: str) -> None:
    chosen = ("--launcher", "docker", "--image", trainer_image)
    output = finish(densekit(tmp_path, "run", "tiny_stage1", "--gpus", "2", *SETS, *chosen, **engine))
    run = run_of(tmp_path, "tiny_stage1")
    assert evidence(run) == evidence(run_of(local / "2", "tiny_stage1")), output
    environment = read_json(run.path / "manifest.json")["environment"]
    assert environment["image"].startswith("sha256:")
    assert (run.path / "connector.safetensors").stat().st_uid == (os.getuid() or 1000)


def test_slurm_trains_the_same_run_on_two_nodes(tmp_path: Path, local: Path, slurm: dict[str, str]) -> None:
    nodes = ("--launcher", "slurm", "--gpus", "4", "--nodes", "2")
    output = finish(densekit(tmp_path, "run", "tiny_stage1", *SETS, *nodes, **slurm))
    run = run_of(tmp_path, "tiny_stage1")
    assert "on 4 CPU processes of 2 nodes by slurm" in output
    assert evidence(run) == evidence(run_of(local / "4", "tiny_stage1"))


@pytest.mark.parametrize("told", ["the script", "the steps"])
def test_a_preempted_job_queues_again_and_ends_in_the_same_run(
    tmp_path: Path, local: Path, slurm: dict[str, str], told: str
) -> None:
    # Two ranks: a sum over more is rounded in an order that DDP's buckets decide, and those begin anew with an attempt.
    nodes = ("--launcher", "slurm", "--gpus", "2", "--nodes", "2")
    process = densekit(tmp_path, "run", "tiny_stage1", *SETS, *nodes, **slurm)
    deadline = time.monotonic() + 120
    while not (found := [path for path in tmp_path.glob("runs/*/metrics.jsonl") if path.read_text().count("\n") > 3]):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    run = RunDir(found[0].parent)
    job = read_json(run.attempt / "launch.json")["job"]
    environment = {**os.environ, **slurm}
    signalled = ["--batch", "--signal=USR1"] if told == "the script" else ["--signal=TERM"]
    subprocess.run(["scancel", *signalled, job], env=environment, check=True)
    while "Restarts=1" not in (state := _scontrol(environment, job)) or "JobState=PENDING" not in state:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.5)
    assert run.status["state"] == "preempted"
    subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], env=environment, check=True)
    output = finish(process)
    assert "preempted: queued again" in output and "going on from the checkpoint of step" in output
    assert run.status["attempt"] == 2 and read_json(run.attempt / "launch.json")["job"] == job
    assert [line["step"] for line in read_jsonl(run.metrics)] == list(range(1, STEPS + 1))
    assert evidence(run) == evidence(run_of(local / "2", "tiny_stage1"))
    listed = finish(densekit(tmp_path, "ls", "--json", **slurm))
    assert [row["state"] for row in json.loads(listed)] == ["complete"]


def _scontrol(environment: dict[str, str], job: str) -> str:
    command = ["scontrol", "--oneliner", "show", "job", job]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
