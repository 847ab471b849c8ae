"""`densekit run --trajectory`: what is said while a run trains, and when it is stopped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.trajectory import CASES, Curves
from densekit.audit.trajectory.published import read_published
from densekit.launch import following
from densekit.launch.chain import reproduce
from densekit.launch.launchers import local
from densekit.runs.layout import RunDir
from densekit.runs.records import METRICS_FILE
from densekit.spec.execution import ExecutionRequest
from densekit.spec.roots import Roots
from tests.support.launching import trainer
from tests.support.trajectory import write_run, write_state


@contextmanager
def training(folder: Path, name: str, *, stop: bool) -> Iterator[tuple[RunDir, list[bytes]]]:
    """A run that is followed beside a case's file; the lines of its metrics, none written yet."""
    case = CASES[name](0, Curves())
    run = write_run(folder / "runs", case, steps=60)
    metrics = run.path / METRICS_FILE
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"")
    log = read_published(write_state(folder / "trainer_state.json", case.log))
    with following.following(log, stop=stop)(run):
        yield run, lines


def write(run: RunDir, lines: list[bytes]) -> None:
    with (run.path / METRICS_FILE).open("ab") as metrics:
        metrics.writelines(lines)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)


def until(capsys: pytest.CaptureFixture[str], text: str) -> str:
    """What was printed, once it has `text`."""
    printed = ""
    for _ in range(1000):
        printed += capsys.readouterr().out
        if text in printed:
            return printed
        time.sleep(0.01)
    raise AssertionError(printed)


@pytest.mark.parametrize("stop", [True, False])
def test_a_run_is_stopped_only_when_it_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stop: bool
) -> None:
    with training(tmp_path, "another order", stop=stop) as (run, lines):
        write(run, lines[:20])
        early = until(capsys, "trajectory at step 20")
        assert not run.stop_file.exists(), "20 entries stop nothing"
        write(run, lines[20:55])
        late = until(capsys, "stopping at a checkpoint" if stop else "at step 55")
        assert run.stop_file.exists() is stop
        assert "stopping" not in early
        write(run, lines[55:])
    last = capsys.readouterr().out
    assert "does not follow the file: other samples in these steps" in late
    assert last.count("trajectory at step 60") == 1, "what the end brought is said"


def test_a_run_that_follows_its_file_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with training(tmp_path, "another projector seed", stop=True) as (run, lines):
        write(run, lines[:55])
        printed = until(capsys, "trajectory at step 55")
        assert ": follows the file: the same samples in the same steps" in printed
        assert not run.stop_file.exists()
    assert capsys.readouterr().out == "", "nothing was added"


def test_reports_grow_rarer() -> None:
    steps = following.report_steps(1)
    assert [next(steps) for _ in range(8)] == [20, 50, 100, 200, 500, 1000, 2000, 5000]
    assert next(following.report_steps(10)) == 200


@pytest.mark.ranks
def test_only_the_recipe_itself_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "command", trainer("status('complete')"))
    watched = []

    @contextmanager
    def watch(run: RunDir) -> Iterator[None]:
        watched.append((run.name, run.status.state))
        yield
        watched.append((run.name, run.status.state))

    code = reproduce(
        "tiny_stage2",
        overrides=(),
        runs_dir=tmp_path / "runs",
        roots=Roots(data=tmp_path, models=tmp_path, cache=tmp_path / "cache"),
        request=ExecutionRequest(),
        watch=watch,
    )
    assert code == 0 and watched == [("tiny_stage2", "created"), ("tiny_stage2", "complete")]
