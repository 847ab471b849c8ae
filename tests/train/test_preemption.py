"""The real launcher: a driver that is told to stop, a rank that dies under torchrun, two drivers on
one run.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densekit.files.json_files import read_jsonl
from densekit.runs.layout import RunDir, checkpoints_in
from densekit.runs.processes import alive
from tests.support.workplace import SMALL, Workplace

pytestmark = pytest.mark.ranks

STEPS = 60
SETS = [
    part
    for value in (*SMALL, "data.samples=null", f"optimizer.max_steps={STEPS}")
    for part in ("--set", value)
]


def command(runs: Path, *arguments: str) -> list[str]:
    """`densekit run` of stage 1 over 60 steps on two ranks."""
    run = ["run", "tiny_stage1", "--gpus", "2", "--runs-dir", str(runs), *SETS, *arguments]
    return [sys.executable, "-m", "densekit", *run]


def begin(
    workplace: Workplace, runs: Path, *arguments: str
) -> tuple["subprocess.Popen[str]", RunDir]:
    """Start it and wait until a few steps are done."""
    process = subprocess.Popen(
        command(runs, *arguments),
        cwd=workplace.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (
        found := [path for path in runs.glob("*/metrics.jsonl") if path.read_text().count("\n") > 3]
    ):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    return process, RunDir(found[0].parent)


def ranks_of(run: RunDir) -> list[int]:
    """Trainer processes of a run, torchrun left out."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if (
            b"train" in words
            and str(run.path).encode() in words
            and b"densekit.train.torchrun" not in words
        ):
            found.append(int(place.parent.name))
    return found


@pytest.mark.slow
def test_a_driver_that_is_told_to_stop_leaves_a_run_that_goes_on(
    workplace: Workplace, tmp_path: Path
) -> None:
    process, run = begin(workplace, tmp_path, "--zero-stage", "2")
    second = subprocess.run(
        command(tmp_path), cwd=workplace.root, capture_output=True, text=True, check=False
    )
    assert second.returncode == 2 and "another densekit is training" in second.stderr
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 75, output
    status = run.status
    assert status.state == "preempted" and status.exit_code == 75
    stopped = re.search(r"stopped by the driver after step (\d+), at a checkpoint", output)
    assert stopped and int(stopped[1]) < STEPS
    assert [int(path.name[5:]) for path in checkpoints_in(run.checkpoints)] == [int(stopped[1])]
    assert not ranks_of(run)

    done = subprocess.run(
        command(tmp_path), cwd=workplace.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resuming from checkpoint step {stopped[1]}" in done.stdout
    assert [line["step"] for line in read_jsonl(run.metrics)] == list(range(1, STEPS + 1))
    verified = workplace.densekit("verify", str(run.path))
    assert verified.returncode == 0, verified.stdout


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.0, 4.0])
def test_one_ctrl_c_before_the_first_step_ends_the_run(
    workplace: Workplace, tmp_path: Path, wait: float
) -> None:
    """While torch is imported, and while the model is loaded."""
    process = subprocess.Popen(
        command(tmp_path), cwd=workplace.root, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (found := [*tmp_path.glob("*/attempts/0001/launch.json")]):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(wait)
    run = RunDir(found[0].parents[2])
    assert not run.in_steps
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and time.monotonic() - begun < 5, stderr
    assert run.status.state == "failed" and "before the first step" in run.status.message
    assert not ranks_of(run) and "Traceback" not in stderr


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_within_seconds(workplace: Workplace, tmp_path: Path) -> None:
    process, run = begin(workplace, tmp_path, "--save-steps", "2")
    os.kill(ranks_of(run)[0], signal.SIGKILL)
    begun = time.monotonic()
    output = process.communicate(timeout=60)[0]
    assert process.returncode not in (0, 75) and time.monotonic() - begun < 20, output
    assert not ranks_of(run) and run.status.state == "failed"
    assert checkpoints_in(run.checkpoints)
    assert "resumes from" in output + run.status.message


@pytest.mark.slow
def test_a_killed_driver_takes_its_ranks_along_and_the_run_goes_on(
    workplace: Workplace, tmp_path: Path
) -> None:
    process, run = begin(workplace, tmp_path, "--save-steps", "2")
    ranks = ranks_of(run)
    assert len(ranks) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 40
    while any(alive(pid) for pid in ranks):
        assert time.monotonic() < deadline, "ranks outlive their driver"
        time.sleep(0.1)
    done = subprocess.run(
        command(tmp_path), cwd=workplace.root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "resuming from checkpoint step" in done.stdout, (
        done.stdout + done.stderr
    )
