"""Several recipes with one command: job arrays of a real Slurm, which end, fail, stop and start
again one by one.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from densekit.errors import UsageError
from densekit.launch.dry_run import show
from densekit.launch.launchers import local
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.slurm.jobs import job_state
from densekit.launch.launchers.slurm.launcher import Slurm
from densekit.launch.launchers.slurm.script import Batch
from densekit.launch.selection import Selection
from densekit.launch.sweep import select_for_all, sweep
from densekit.runs.layout import RunDir
from densekit.runs.process_handle import read_handle
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots
from tests.support.files import write_json
from tests.support.launching import STUB, trainer

PAIR = ["a_two.yaml", "b_two.yaml"]
"""Two stage-2 recipes, each with a stage 1 of its own."""
TRAIN = """
name = path.name.split("-")[0]
first = json.loads((path / "attempts" / "0001" / "execution.json").read_text())["starts_from"]
if first and json.loads((pathlib.Path(first) / "status.json").read_text())["state"] != "complete":
    status("failed", "began too early", 9); sys.exit(9)
print("trained by element", os.environ.get("SLURM_ARRAY_TASK_ID"), flush=True)
"""
COMPLETES = TRAIN + "status('complete')"
STUB_MAIN = """
import json, os, pathlib, sys
if sys.argv[1] == "attempt":  # of a job that was queued again
    path = pathlib.Path(sys.argv[2])
    value = json.loads((path / "status.json").read_text())
    (path / "attempts" / "0002").mkdir()
    part = path / "status.part"
    part.write_text(json.dumps({**value, "state": "created", "attempt": 2}))
    part.replace(path / "status.json")
    sys.exit()
sys.argv[1] = sys.argv[-1]
"""


@pytest.fixture(autouse=True)
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for letter, rate in (("a", "1.0e-3"), ("b", "2.0e-4")):
        first = f"extends: tiny_stage1\ntitle: {letter}\noptimizer: {{learning_rate: {rate}}}\n"
        write_json(tmp_path / f"{letter}_one.yaml", first)
        write_json(
            tmp_path / f"{letter}_two.yaml",
            f"extends: tiny_stage2\ntitle: {letter}\nneeds: {letter}_one\n",
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))


def stands_in(folder: Path, script: str) -> None:
    """What jobs run in place of the trainer."""
    write_json(folder / "stub" / "densekit" / "__init__.py", "")
    write_json(folder / "stub" / "densekit" / "__main__.py", STUB_MAIN + STUB + script)


def settings(folder: Path, launcher: Launcher) -> dict[str, Any]:
    roots = Roots(data=folder, models=folder, cache=folder / "cache")
    return {
        "overrides": (),
        "runs_dir": folder / "runs",
        "roots": roots,
        "request": ExecutionRequest(),
        "launcher": launcher,
    }


def go(
    folder: Path, names: Sequence[str] = PAIR, launcher: Launcher | None = None, **options: Any
) -> int:
    return sweep(names, **settings(folder, launcher or Slurm()), evaluation=False, **options)


def runs(folder: Path) -> dict[str, RunDir]:
    """Run directories by recipe name."""
    return {
        path.name.split("-")[0]: RunDir(path) for path in sorted((folder / "runs").glob("[a-z]*"))
    }


def job_of(run: RunDir) -> str:
    handle = read_handle(run)
    assert handle
    return handle.text("job")


def nothing_is_left(folder: Path) -> bool:
    listed = subprocess.run(
        ["squeue", "-h", "-o", "%Z"], capture_output=True, text=True, check=True
    )
    return str(folder) not in listed.stdout.split()


def when(condition: Callable[[], bool], *actions: Callable[[], object]) -> None:
    def work() -> None:
        while not condition():
            time.sleep(0.05)
        for action in actions:
            action()

    threading.Thread(target=work, daemon=True).start()


def scripts(folder: Path, *names: str, **batch: Any) -> str:
    return "\n".join(show(names, **settings(folder, Slurm(batch=Batch(**batch)))))


def test_stage_2_elements_wait_for_their_own_stage_1(tmp_path: Path) -> None:
    text = scripts(tmp_path, *PAIR)
    assert not (tmp_path / "runs").exists()
    first, second = (part.partition("END")[0] for part in text.split("sbatch <<'END'\n")[1:])
    assert "#SBATCH --array=0-1\n" in first and "--dependency" not in first
    assert (
        "#SBATCH --array=0-1\n" in second
        and "#SBATCH --dependency=aftercorr:ID-OF-THE-FIRST\n" in second
    )
    assert [first.index("runs/a_one-"), second.index("runs/a_two-")] < [
        first.index("runs/b_one-"),
        len(text),
    ]
    assert text.count("densekit train") == 4


def test_all_elements_wait_for_a_shared_stage_1(tmp_path: Path) -> None:
    text = scripts(tmp_path, "tiny_stage2", "tiny_stage2_lora", "tiny_stage2")
    first, second = text.split("sbatch <<'END'\n")[1:]
    assert "#SBATCH --array=0-0\n" in first
    assert "#SBATCH --array=0-1\n" in second and "#SBATCH --dependency=afterok:" in second


def test_recipes_with_different_selections_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def selected(*names: str) -> Selection:
        return select_for_all(names, (), ExecutionRequest(), launcher="slurm")

    with pytest.raises(
        UsageError,
        match=r"vicuna7b_clip_stage2 resolves to a different launcher or device than tiny_stage1",
    ):
        selected("tiny_stage1", "vicuna7b_clip_stage2")
    both = selected("vicuna7b_clip_stage1", "vicuna7b_clip_stage2")
    assert (both.launcher.name, both.request.world_size) == ("slurm", 8)


@pytest.mark.ranks
def test_local_sweep_is_sequential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "status('complete') if 'b_one' not in path.name else sys.exit(4)"
    monkeypatch.setattr(local, "command", trainer(script))
    assert go(tmp_path, ["b_two.yaml", "a_two.yaml"], Local()) == 4
    found = runs(tmp_path)
    assert sorted(found) == ["a_one", "a_two", "b_one"] and found["a_two"].complete
    monkeypatch.setattr(
        local, "command", trainer("status('preempted', 'stopped', 75); sys.exit(75)")
    )
    assert go(tmp_path, ["b_two.yaml", "a_two.yaml"], Local(), force=True) == 75
    assert "a_two.old1" not in "".join(path.name for path in (tmp_path / "runs").iterdir())


def test_unknown_recipe_makes_no_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe named 'nope'"):
        go(tmp_path, ["tiny_stage1", "nope"], Local())
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("with_slurm")
class TestArrays:
    def test_element_trains_in_its_own_run_directory(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        stands_in(tmp_path, COMPLETES)
        assert go(tmp_path) == 0
        found = runs(tmp_path)
        assert sorted(found) == ["a_one", "a_two", "b_one", "b_two"] and all(
            run.complete for run in found.values()
        )
        arrays = {name: job_of(run).split("_") for name, run in found.items()}
        assert [arrays[name][1] for name in sorted(arrays)] == ["0", "0", "1", "1"]
        assert arrays["a_one"][0] == arrays["b_one"][0] != arrays["a_two"][0] == arrays["b_two"][0]
        shown = capfd.readouterr().out
        for name, run in found.items():
            (output,) = run.attempt.glob("slurm-*_*.out")
            assert output.read_text() == f"trained by element {arrays[name][1]}\n"
            assert f"{name}: trained by element {arrays[name][1]}\n" in shown
            assert (run.path / "trained").read_text() == "x"
        assert go(tmp_path) == 0
        assert "a_two: already complete" in capfd.readouterr().out and nothing_is_left(tmp_path)

    @pytest.mark.slow
    def test_failed_element_blocks_only_its_own_stage_2(self, tmp_path: Path) -> None:
        stands_in(tmp_path, TRAIN + "sys.exit(7) if name == 'b_one' else status('complete')")
        assert go(tmp_path) == 7
        found = runs(tmp_path)
        assert found["a_two"].complete and not (found["b_two"].path / "trained").exists()
        assert found["b_two"].status.message == "b_one, which its job waits for, did not complete"
        assert nothing_is_left(tmp_path)
        stands_in(tmp_path, COMPLETES)
        assert go(tmp_path) == 0
        assert [
            (runs(tmp_path)[name].path / "trained").read_text() for name in ("a_one", "b_one")
        ] == ["x", "xx"]

    def test_ctrl_c_stops_running_and_cancels_waiting_elements(self, tmp_path: Path) -> None:
        stands_in(
            tmp_path,
            TRAIN
            + """
status('running')
while not (path / 'stop').exists(): time.sleep(0.02)
status('preempted', 'stopped by the driver after step 3', 75); sys.exit(75)""",
        )
        when(
            lambda: len(list(tmp_path.glob("runs/*/trained"))) == 2,
            lambda: time.sleep(1),
            lambda: os.kill(os.getpid(), signal.SIGINT),
        )
        assert go(tmp_path) == 75
        found = runs(tmp_path)
        assert {run.status.state for run in found.values()} == {"preempted"}
        assert found["a_two"].status.message == "stopped while its job was queued"
        assert nothing_is_left(tmp_path) and not any(
            run.stop_file.exists() for run in found.values()
        )

    @pytest.mark.slow
    def test_preempted_element_is_requeued_alone(self, tmp_path: Path) -> None:
        stands_in(
            tmp_path,
            TRAIN
            + """
attempt = json.loads((path / "status.json").read_text())["attempt"]
if name == "b_one" and attempt == 1:
    status('running')
    while not (path / 'stop').exists(): time.sleep(0.02)
    status('preempted', 'stopped', 75); sys.exit(75)
status('complete')""",
        )
        trained = lambda: list(tmp_path.glob("runs/b_one-*/trained"))  # noqa: E731
        seen: list[str] = []

        def take_away() -> None:
            job = job_of(runs(tmp_path)["b_one"])
            time.sleep(1)
            subprocess.run(["scancel", "--batch", "--signal=USR1", job], check=True)
            while job_state(job).get("Restarts") != "1" or job_state(job)["JobState"] != "PENDING":
                time.sleep(0.2)
            seen.append(job_state(job_of(runs(tmp_path)["a_one"]))["Restarts"])
            subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], check=True)

        when(lambda: bool(trained()), take_away)
        assert go(tmp_path) == 0
        found = runs(tmp_path)
        assert seen == ["0"], "the other element goes on"
        assert {name: run.status.attempt for name, run in found.items()} == {
            "a_one": 1,
            "a_two": 1,
            "b_one": 2,
            "b_two": 1,
        }
        assert all(run.complete for run in found.values()) and nothing_is_left(tmp_path)
