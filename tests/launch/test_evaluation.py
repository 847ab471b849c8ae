"""`densekit evaluate`: planned, launched, scored; what a run's end makes of it."""

from pathlib import Path

import pytest

from densekit.errors import DataError, UsageError
from densekit.evaluate.runner.task import answer
from densekit.launch.evaluation import evaluate, evaluate_here, evaluation_execution, report
from densekit.launch.evaluation_selection import select_for_evaluation
from densekit.launch.launchers.local import Local
from densekit.launch.launchers.mounts import mounts
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.launchers.slurm.script import Batch, script
from densekit.launch.launchers.trainer_command import trainer_arguments
from densekit.launch.launchers.waiting import settle
from densekit.runs.evaluations import (
    EVALUATIONS,
    EvaluationFolder,
    FlipRate,
    evaluations,
    newest_results,
)
from densekit.runs.layout import RunDir, Status, WorkDir, write_status
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.roots import Roots
from densekit.spec.site import Site
from tests.support.evaluating import copy_of
from tests.support.evaluations import result
from tests.support.launching import A100, cards, put_gpus_on_path
from tests.support.ranks import run_ranks
from tests.support.workplace import Workplace


class Forked(Local):
    """The local launcher with evaluators that the fork server starts."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def launch(self, run: WorkDir, execution: Execution) -> int:
        self.launched.append(run.path.name)
        run_ranks(execution.world_size, answer, run.path)
        return settle(run, 0)


@pytest.fixture
def run(workplace: Workplace, tmp_path: Path) -> Path:
    return copy_of(workplace.run_dir("tiny_stage2"), tmp_path / "run")


def on_cpu(run: Path, **changed: object) -> Execution:
    trained = RunDir(run).execution.model_copy(update=changed)
    return evaluation_execution(trained, dtype=None)


@pytest.mark.ranks
def test_the_end_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Forked()
    assert evaluate_here(run, RunDir(run).execution, launcher) == 0
    printed = capsys.readouterr().out
    assert "held-out questions, images in place: " in printed
    assert "/16 right; wilson_lower " in printed and "majority_class 25" in printed
    assert evaluate_here(run, RunDir(run).execution, launcher) == 0
    assert len(launcher.launched) == 1  # what is answered is not asked again
    found = newest_results(run)
    assert set(found) == {"held_out", "held_out_shuffled"}
    folder, stored = found["held_out"]
    assert stored.complete and stored.flip_rate is None and stored.batch_size == 32
    assert folder.answers("held_out").is_file()


@pytest.mark.ranks
def test_a_larger_batch_is_first_compared(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Forked()
    found = evaluate(
        run,
        benchmarks=["held_out"],
        batch_size=64,
        execution=on_cpu(run, world_size=2),
        launcher=launcher,
    )
    assert len(launcher.launched) == 3 and len(evaluations(run)) == 3
    assert "0 of 16 answers differ between batches of 32 and of 64" in capsys.readouterr().out
    assert found.results[0].flip_rate == FlipRate(questions=16, flips=0)
    assert "batch 64, 0 of 16 flipped" in report(found.results)[0]


@pytest.mark.ranks
def test_a_container_sees_the_run_and_writes_its_evaluation(
    workplace: Workplace, tmp_path: Path
) -> None:
    run = workplace.run_dir("tiny_stage2")
    folder = EvaluationFolder(run / EVALUATIONS / "0123456789")
    execution = on_cpu(run)
    found = {mount.path: mount.read_only for mount in mounts(folder, execution)}
    assert found[run.resolve()] is True and found[folder.path.resolve()] is False
    assert found[execution.roots.cache.resolve()] is False
    assert trainer_arguments(folder, execution)[-2:] == ["answer", str(folder.path.resolve())]
    opened = EvaluationFolder(tmp_path)
    write_status(tmp_path, Status(state="created", attempt=1))
    several = execution.model_copy(update={"world_size": 4, "nodes": 2})
    assert '-m densekit answer "$run"' in script(opened, several, Batch())


def test_without_data_one_line_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execution = Execution(roots=Roots(data=tmp_path, models=tmp_path, cache=tmp_path))
    assert evaluate_here(tmp_path / "imported", execution, Local()) == 0
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("not evaluated: no benchmark's questions")
    assert "`densekit fetch POPE`" in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize("option", ["limit", "batch_size"])
def test_numbers_that_cannot_work(tmp_path: Path, option: str) -> None:
    with pytest.raises(UsageError, match=r"give a number of at least 1"):
        evaluate(tmp_path, execution=Execution(), launcher=Local(), **{option: 0})  # type: ignore[arg-type]


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run directory nor a folder that `densekit imp"):
        evaluate(tmp_path, execution=Execution(), launcher=Local())
    (tmp_path / "import.json").write_text("{}")
    with pytest.raises(DataError, match=r"import.json: its own hash does not fit"):
        evaluate(tmp_path, execution=Execution(), launcher=Local())


def select(folder: Path, launcher: str | None = None, **request: object) -> tuple[str, Execution]:
    chosen = select_for_evaluation(
        folder,
        ExecutionRequest(**request),  # type: ignore[arg-type]
        launcher=launcher,
        options=LauncherOptions(),
        site=Site(),
    )
    return chosen.launcher.name, chosen.execution


def test_a_host_without_gpus_asks_on_its_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    name, execution = select(tmp_path)
    assert (name, execution.device, execution.world_size) == ("local", "cpu", 1)
    assert (execution.dtype, execution.threads) == ("fp32", 1)
    assert select(tmp_path, world_size=3)[1].world_size == 3
    with pytest.raises(UsageError, match="--gpus 0: give a number from 1"):
        select(tmp_path, world_size=0)


@pytest.mark.ranks
def test_a_gpu_host_asks_on_all_gpus_in_fp16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gpus_on_path(monkeypatch, tmp_path, *cards(A100, 4))
    name, execution = select(tmp_path)
    assert (name, execution.device, execution.world_size) == ("docker", "cuda", 4)
    assert (execution.dtype, execution.gpu) == ("fp16", "a100-80g")
    assert select(tmp_path, dtype="bf16", device="cuda", world_size=2)[1].dtype == "bf16"
    assert select(tmp_path, device="cpu")[0] == "local"
    assert select(tmp_path, launcher="slurm")[1].world_size == 1


def test_lines_say_what_marks_a_figure() -> None:
    (line,) = report([result(questions=1, available=2, notes={"unparsed": 1})])
    assert line == (
        "GQA, made up: 50.00 (1 question; 1 unparsed; INCOMPLETE: of 2; fp32, officially fp16)"
    )
    both = report([result(), result(semantics="fixed", value=60.0)])
    assert both[1].startswith("GQA, made up: 60.00 (fixed; 2 questions;")
    assert len(report([result(), result(semantics="fixed")])) == 1
    (line,) = report([result(value=None, problem="a judge's", other_protocol="no judge")])
    assert "no value: a judge's" in line and line.endswith("OTHER PROTOCOL: no judge)")
