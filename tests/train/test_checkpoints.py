"""Checkpoints of one rank without an engine: what a save sends to disk, and which one is chosen."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from densekit.errors import DataError, UsageError
from densekit.files import durable
from densekit.runs.checkpoint import read_checkpoint
from densekit.runs.layout import RunDir, checkpoint_name
from densekit.runs.records import Position
from densekit.runs.results import Summary
from densekit.spec.execution import Execution
from densekit.train.checkpoints import load_checkpoint
from densekit.train.resume import choose, resume
from densekit.train.saves import Cursor, Saves
from densekit.train.shards import Shard
from tests.support.audit import edit_line
from tests.support.runs import flip_byte, make_world, position_after, train

NAME = "projector.0.weight"


class OneRank:
    """One parameter of two weights, as an engine shows it."""

    rank, world_size, replicated = 0, 1, True
    execution = Execution()

    def __init__(self, *values: float, name: str = NAME) -> None:
        self.weight = torch.tensor(values)
        self.states = (torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0]))
        self.shapes = {name: (2,)}
        self.optimizer_steps = 0

    def shards(self) -> list[Shard]:
        (name,) = self.shapes
        first, second = self.states
        parts = {"weight": self.weight, "exp_avg": first, "exp_avg_sq": second}
        return [Shard(name=name, numel=2, start=0, **parts)]

    def scaler_state(self) -> None:
        return None

    def sync_params_from_masters(self) -> None:
        pass


def save(engine: Any, folder: Path, position: Position, run_sha256: str) -> Path:
    saves = Saves(engine, folder, run_sha256=run_sha256, keep=9, keep_hours=0)
    saves.begin(cursor_at(position))
    saves.finish()
    return folder / checkpoint_name(position.steps)


def cursor_at(position: Position) -> Cursor:
    return Cursor(
        step=position.steps,
        optimizer_steps=position.steps,
        overflows_in_a_row=0,
        summary=Summary(steps=position.steps),
        records=position,
    )


def test_a_checkpoint_is_on_disk_before_it_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        done.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        real(descriptor)

    def observe(operation: str, path: Path) -> None:
        if operation != "fsync":
            done.append(f"{operation} {path.name}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(durable, "observer", observe)
    position = Position(steps=3, metrics_bytes=9, feed_bytes=9, chain="c")
    saved = save(OneRank(1.0, 2.0), tmp_path / "checkpoints", position, "0" * 64)
    assert done == [
        "write rank-0000.safetensors",
        "fsync rank-0000.safetensors",
        "write checkpoint.json",
        "fsync checkpoint.json",
        "fsync .step-00000003.saving",
        "rename step-00000003",
        "fsync checkpoints",
    ]
    fresh: Any = OneRank(0.0, 0.0)
    load_checkpoint(fresh, saved, read_checkpoint(saved))
    assert fresh.weight.tolist() == [1.0, 2.0] and fresh.optimizer_steps == 3
    other: Any = OneRank(0.0, 0.0, name="projector.2.weight")
    with pytest.raises(DataError, match=r"holds other parameters.*projector.0"):
        load_checkpoint(other, saved, read_checkpoint(saved))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of six steps, with checkpoints of steps 2, 4 and 6."""
    stopped = RunDir(train(make_world(tmp_path / "world"), tmp_path / "runs", stop_after=6))
    (newest,) = stopped.checkpoints.iterdir()
    for path in newest.iterdir():
        path.unlink()
    newest.rmdir()
    for step in (2, 4, 6):
        position = position_after(stopped.path, step)
        save(OneRank(1.0, float(step)), stopped.checkpoints, position, stopped.sha256)
    return stopped


def resumed(run: RunDir, wanted: int | None = None) -> tuple[Any, Any]:
    trainer: Any = SimpleNamespace(engine=OneRank(0.0, 0.0))
    return trainer, resume(run, trainer, wanted)


def test_the_newest_checkpoint_is_taken(run: RunDir) -> None:
    trainer, start = resumed(run)
    assert start.lines == ["resuming from checkpoint step 6"] and start.position.steps == 6
    assert trainer.engine.weight.tolist() == [1.0, 6.0] and trainer.optimizer_steps == 6
    assert trainer.summary.steps == 6 and len(list(run.checkpoints.iterdir())) == 3


def test_a_damaged_one_is_passed_over_and_kept(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_byte(run.checkpoints / "step-00000006" / "rank-0000.safetensors", -1)
    (run.checkpoints / "step-00000004" / "checkpoint.json").write_text("[]")
    trainer, start = resumed(run)
    assert trainer.engine.weight.tolist() == [1.0, 2.0] and start.position.steps == 2
    said = capsys.readouterr().err
    assert "step-00000006/rank-0000.safetensors is damaged" in said
    assert "step-00000004/checkpoint.json must hold a JSON object" in said
    assert start.lines[-1] == "resuming from checkpoint step 2" and len(start.lines) == 5
    aside = run.checkpoints / "aside"
    assert sorted(path.name for path in aside.iterdir()) == ["step-00000004", "step-00000006"]
    save(trainer.engine, run.checkpoints, position_after(run.path, 4), run.sha256)
    assert resumed(run)[1].position.steps == 4, "the step is saved again, and taken"


def test_damaged_records_pass_over_the_checkpoints_after_them(run: RunDir) -> None:
    edit_line(run.path / "metrics.jsonl", 3, lr=7.0)
    assert resumed(run)[1].position.steps == 2


def test_one_that_is_chosen_moves_the_newer_ones_aside(run: RunDir) -> None:
    assert resumed(run, 4)[1].position.steps == 4
    assert (run.checkpoints / "aside" / "step-00000006").is_dir()
    assert (run.checkpoints / "step-00000002").is_dir()
    with pytest.raises(UsageError, match=r"--from-checkpoint 6: .* it has 2, 4"):
        resumed(run, 6)


def test_a_chosen_one_that_is_damaged_is_not_replaced_by_another(run: RunDir) -> None:
    flip_byte(run.checkpoints / "step-00000004" / "rank-0000.safetensors", -1)
    with pytest.raises(DataError, match=r"checkpoint step 4 cannot be resumed from: .*is damaged"):
        resumed(run, 4)
    assert not (run.checkpoints / "aside").exists()


def test_without_a_whole_one_the_run_is_refused(run: RunDir) -> None:
    edit_line(run.path / "feed.jsonl", 1, images=[])
    with pytest.raises(DataError, match=r"no checkpoint can be resumed from: .*--force`$"):
        resumed(run)
    saved = sorted(run.checkpoints.iterdir())
    with pytest.raises(DataError):
        choose(run, OneRank(0.0, 0.0), saved, None)  # type: ignore[arg-type]
    assert len(saved) == 3 and sorted(run.checkpoints.iterdir()) == saved
