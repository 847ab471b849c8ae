"""How far a run and an evaluation are, from their directories alone, and the bar that says so."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from densekit.files.json_files import write_json
from densekit.launch.far import FINISHING, STARTING, STOPPING, Far, how_far
from densekit.launch.screen import bar
from densekit.runs.evaluations import EVALUATION_FILE, EVALUATIONS, EvaluationFolder
from densekit.runs.layout import CERTIFICATE_FILE, EXECUTION_FILE, RunDir
from tests.support.evaluations import asked, evaluation
from tests.support.launching import stub_run


def add_steps(run: RunDir, count: int, *, seconds: float) -> None:
    """Steps that this attempt took, one after the other since it was opened."""
    line = {"loss": 2.0, "lr": 0.1, "samples": 16, "tokens": 512, "seconds": seconds}
    done = len(run.metrics.read_text().splitlines()) if run.metrics.exists() else 0
    with run.metrics.open("a") as file:
        for number in range(done + 1, done + count + 1):
            file.write(json.dumps({"step": number, **line}) + "\n")
    when = (run.attempt / EXECUTION_FILE).stat().st_mtime + count * seconds
    os.utime(run.metrics, (when, when))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return stub_run(tmp_path, "")[0]


def test_a_run_from_its_start_to_its_end(run: RunDir) -> None:
    far = how_far(run)
    assert far() == Far(phase=STARTING)
    write_json(run.path / CERTIFICATE_FILE, {"steps": 10})
    assert far() == Far(total=10, phase=STARTING)
    run.log.touch()
    add_steps(run, 4, seconds=30.0)
    found = far()
    assert (found.done, found.total, found.phase) == (4, 10, "")
    assert found.eta_seconds == pytest.approx(180.0) and found.words[3] == "30 s/step"
    run.stop_file.touch()
    assert far().phase == STOPPING
    run.stop_file.unlink()
    add_steps(run, 6, seconds=30.0)
    assert (far().done, far().phase, far().eta_seconds) == (10, FINISHING, None)


def test_a_resumed_run_has_the_speed_of_its_own_attempt(run: RunDir) -> None:
    write_json(run.path / CERTIFICATE_FILE, {"steps": 10})
    add_steps(run, 4, seconds=30.0)
    run.new_attempt(run.execution)
    far = how_far(run)
    assert (far().done, far().phase, far().words) == (4, STARTING, [])
    run.log.touch()
    add_steps(run, 2, seconds=3.0)
    found = far()
    assert found.eta_seconds == pytest.approx(12.0) and "3 s/step" in found.words


def test_a_file_that_is_damaged_is_asked_again(run: RunDir) -> None:
    far = how_far(run)
    (run.path / CERTIFICATE_FILE).write_text("{", encoding="utf-8")
    assert far() == Far(phase=STARTING)
    write_json(run.path / CERTIFICATE_FILE, {"steps": 10})
    assert far().total == 10


def test_an_evaluation_counts_its_answers_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("densekit.launch.far.time.monotonic", lambda: now[0])
    folder = EvaluationFolder(tmp_path / "made" / EVALUATIONS / "abc")
    made = evaluation(benchmarks=(asked(questions=10, available=10),))
    path = folder.answers("gqa")
    path.parent.mkdir(parents=True)
    write_json(folder.path / EVALUATION_FILE, made.as_json())
    path.write_text("{}\n{}\n", encoding="utf-8")
    far = how_far(folder)
    assert (far().done, far().total, far().phase) == (2, 10, STARTING)
    with path.open("a") as file:
        file.write("{}\n{}\n{")
    now[0] += 4.0
    assert (far().done, far().eta_seconds, far().words) == (4, 12.0, ["GQA", "0.5 answers/s"])
    path.write_text("{}\n{}\n{}\n", encoding="utf-8")
    assert far().done == 3, "a batch that was cut off"
    path.write_text("{}\n" * 10, encoding="utf-8")
    assert (far().done, far().phase) == (10, FINISHING)


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_a_bar_is_never_wider_than_its_terminal(width: int) -> None:
    words = ["loss 2.345", "mean 2.345", "lr 0.0001", "0.123 s/step", "12,345 tokens/s"]
    far = Far(done=120, total=5198, eta_seconds=12345.0, words=words)
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    console.print(bar("vicuna13b_clip_convnext_mgm_stage2 (2 of 3)", far, width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert ("120/5198  2%  eta 3:25:45" in lines[0]) is (width >= 40)
