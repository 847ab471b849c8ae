"""`densekit ls`: what it says of a run, which runs, in which order, how fast."""

import json
import os
import time
from pathlib import Path

import pytest

from densekit.audit.report.index import folder_rows
from densekit.errors import UsageError
from densekit.launch import listing
from densekit.launch.listing import list_runs
from densekit.launch.speed import TAIL_BYTES, reached
from densekit.runs.layout import RunDir
from tests.support.audit import edit_metrics
from tests.support.runs import make_world, train

RUNS = 50
SECONDS = 0.5
"""A quarter of what 200 runs may take."""
BEGAN = 1_800_000_000.0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of which one is not complete; no test changes them."""
    world = make_world(tmp_path_factory.mktemp("world"))
    folder = tmp_path_factory.mktemp("runs")
    train(world, folder)
    train(world, folder, recipe={"name": "other", "seed": 7})
    train(world, folder, recipe={"name": "stopped"}, stop_after=2)
    return folder


def names(folder: Path, **asked: object) -> list[str]:
    """The recipes that are listed, in order."""
    return [row.run.partition("-")[0] for row in list_runs(folder, **asked)]  # type: ignore[arg-type]


def test_a_row_says_how_far_a_run_came(runs: Path) -> None:
    made, _, stopped = list_runs(runs)
    assert (made.state, made.steps, stopped.state, stopped.steps) == (
        *("complete", "6/6"),
        *("preempted", "2/6"),
    )
    assert made.loss is not None and 2 <= made.loss <= 2.2
    assert made.started is not None and abs(time.time() - made.started) < 600
    assert made.duration_seconds is not None and made.eta_seconds is None


def test_runs_are_chosen_by_name_and_state(runs: Path) -> None:
    assert names(runs) == ["made", "other", "stopped"]
    assert names(runs, names=["oth", "st*"]) == ["other", "stopped"]
    assert names(runs, names=["*e*"], states=["complete"]) == ["made", "other"]
    assert names(runs, names=["nothing"]) == []
    assert names(runs, states=["gone"]) == []
    with pytest.raises(UsageError, match=r"--state done: give one of created, running, .*, gone"):
        names(runs, states=["done"])


def test_metrics_that_are_no_file_keep_nobody_waiting(tmp_path: Path) -> None:
    path = train(make_world(tmp_path / "world"), tmp_path / "runs")
    (path / "metrics.jsonl").unlink()
    os.mkfifo(path / "metrics.jsonl")
    (path / "certificate.json").write_text('{"steps": -3}', encoding="utf-8")
    (row,) = list_runs(tmp_path / "runs")
    assert (row.steps, row.loss) == ("0", None)
    (indexed,) = folder_rows(tmp_path / "runs")
    assert (indexed.steps, indexed.loss) == ("0", "")


@pytest.mark.parametrize("step", ["true", "0", "-1", "1e9", str(10**30)])
def test_a_line_that_is_no_step_is_passed_over(tmp_path: Path, step: str) -> None:
    path = train(make_world(tmp_path / "world"), tmp_path / "runs")
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(f'{{"step": {step}, "loss": 1.0}}\n')
    (row,) = list_runs(tmp_path / "runs")
    assert row.steps == "6/6" and row.loss != 1.0


def test_runs_are_sorted(runs: Path) -> None:
    losses = [row.loss for row in list_runs(runs, sort="loss")]
    assert losses == sorted(losses, key=lambda loss: loss or 0)
    assert names(runs, sort="state")[-1] == "stopped"
    with pytest.raises(UsageError, match="--sort colour: give one of name, state"):
        list_runs(runs, sort="colour")


def test_eta_is_of_this_attempts_speed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    (stopped,) = runs.glob("stopped-*")
    copy = Path(shutil.copytree(stopped, tmp_path / stopped.name))
    edit_metrics(copy, 1, seconds=5000.0)
    edit_metrics(copy, 2, seconds=4.0)
    run = RunDir(copy)
    run.new_attempt(run.execution)
    run.set_status("running")
    monkeypatch.setattr(listing, "_state", lambda status, handle: status.state)
    for path, at in ((run.attempt / "execution.json", BEGAN - 4.5), (run.metrics, BEGAN)):
        os.utime(path, (at, at))
    (row,) = list_runs(tmp_path)
    assert row.eta_seconds == pytest.approx(4 * 4.0)


def test_many_long_runs_are_listed_quickly(runs: Path, tmp_path: Path) -> None:
    (made,) = runs.glob("made-*")
    long = (made / "metrics.jsonl").read_bytes() * 500
    for number in range(RUNS):
        run = tmp_path / f"made-{number:010x}"
        (run / "attempts/0001").mkdir(parents=True)
        for name in (
            "math.json",
            "status.json",
            "certificate.json",
            "attempts/0001/execution.json",
        ):
            (run / name).symlink_to(made / name)
        (run / "metrics.jsonl").write_bytes(long)
    started = time.process_time()
    assert len(list_runs(tmp_path)) == RUNS
    assert time.process_time() - started < SECONDS


def test_only_the_end_of_long_records_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": n, "loss": float(n), "seconds": 2.0}) for n in range(1, 5001)]
    path.write_text("\n".join(lines) + '\n{"step": 5001, "lo', encoding="utf-8")
    assert path.stat().st_size > TAIL_BYTES
    found = reached(path, None)
    assert found is not None
    assert (found.steps, found.recent.loss, found.recent.step_seconds) == (5000, 5000.0, 2.0)


@pytest.mark.parametrize("data", [b"", b"{", b"[]\n", b"nothing\n", b'{"step": "1"}\n', b"\xff\n"])
def test_records_that_say_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    assert reached(path, None) is None
    path.write_bytes(data)
    assert reached(path, None) is None


def test_a_loss_that_is_not_finite_and_times_that_nobody_measured(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": NaN}\n', encoding="utf-8")
    found = reached(path, None)
    assert found is not None and found.steps == 1
    assert (found.recent.loss, found.recent.step_seconds) == (None, None)
