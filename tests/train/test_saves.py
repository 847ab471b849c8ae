"""Saving in the background, one rank without an engine: what is saved is the state of its step,
whatever training does meanwhile, and a save that fails is an error at the next step.
"""

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from densekit.errors import DataError
from densekit.files import durable
from densekit.files.hashing import file_sha256
from densekit.runs.checkpoint import read_checkpoint
from densekit.runs.layout import checkpoints_in
from densekit.runs.preemption import Preempted, StopRequests
from densekit.runs.records import Position
from densekit.spec.execution import Execution, SavePolicy
from densekit.train import saves as module
from densekit.train.checkpoints import load_checkpoint
from densekit.train.feed_check import SAVE, SAVE_FAILED, SAVING, STOP
from densekit.train.save_policy import RunSaver
from densekit.train.saves import Saves
from tests.train.test_checkpoints import OneRank, cursor_at


def position(step: int) -> Position:
    return Position(steps=step, metrics_bytes=99, feed_bytes=99, chain="c")


class Gate:
    """Holds every file operation of a save back until it is opened; may then fail one."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.fails: str | None = None
        self.seen: list[str] = []

    def __call__(self, operation: str, path: Path) -> None:
        assert self.open.wait(20)
        self.seen.append(f"{operation} {path.name}")
        if self.fails is not None and self.seen[-1].startswith(self.fails):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(durable, "observer", made)
    yield made
    made.open.set()


@pytest.fixture
def engine() -> Any:
    return OneRank(1.0, 2.0)


@pytest.fixture
def saves(engine: Any, tmp_path: Path) -> Saves:
    return Saves(engine, tmp_path / "checkpoints", run_sha256="0" * 64, keep=1, keep_hours=0)


def settle(saves: Saves) -> None:
    """Steps go by until the save is visible."""
    for _ in range(2):
        worker = saves._save and saves._save.worker
        if worker is not None:
            worker.join()
        saves.settle(saves.flags)


def test_training_goes_on_and_what_was_copied_is_saved(
    engine: Any, saves: Saves, gate: Gate
) -> None:
    cursor = cursor_at(position(3))
    saves.begin(cursor)
    engine.weight.fill_(7.0)  # the next steps
    engine.states[0].fill_(7.0)
    cursor.summary.notes["truncated"] = 5
    assert saves.flags == SAVING
    saves.settle(SAVING)
    assert not checkpoints_in(saves.folder), "nothing is visible before it is on disk"
    gate.open.set()
    settle(saves)
    assert saves.flags == 0
    (saved,) = checkpoints_in(saves.folder)
    state = read_checkpoint(saved)
    assert state.step == 3 and state.summary.notes == {}
    recorded = state.files["rank-0000.safetensors"]
    assert recorded.sha256 == file_sha256(saved / "rank-0000.safetensors")
    fresh: Any = OneRank(0.0, 0.0)
    load_checkpoint(fresh, saved, state)
    assert fresh.weight.tolist() == [1.0, 2.0] and fresh.states[0].tolist() == [3.0, 4.0]


def test_under_cpu_offload_the_states_themselves_are_written(engine: Any, tmp_path: Path) -> None:
    engine.execution = Execution(zero_stage=3, cpu_offload=True)
    saves = Saves(engine, tmp_path / "checkpoints", run_sha256="0" * 64, keep=1, keep_hours=0)
    saves.begin(cursor_at(position(3)))
    (saved,) = checkpoints_in(saves.folder)
    assert saves.flags == 0 and not saves._host_copy, "training waited"
    fresh: Any = OneRank(0.0, 0.0)
    load_checkpoint(fresh, saved, read_checkpoint(saved))
    assert fresh.weight.tolist() == [1.0, 2.0]


def test_a_second_save_takes_the_new_state_in_the_same_memory(
    engine: Any, saves: Saves, gate: Gate
) -> None:
    gate.open.set()
    saves.begin(cursor_at(position(1)))
    saves.finish()
    places = {name: value.data_ptr() for name, value in saves._host_copy.items()}
    engine.weight.fill_(9.0)
    saves.begin(cursor_at(position(2)))
    saves.finish()
    assert {name: value.data_ptr() for name, value in saves._host_copy.items()} == places
    (saved,) = checkpoints_in(saves.folder)
    assert saved.name == "step-00000002", "the older one is gone: keep is 1"
    fresh: Any = OneRank(0.0, 0.0)
    load_checkpoint(fresh, saved, read_checkpoint(saved))
    assert fresh.weight.tolist() == [9.0, 9.0]


@pytest.mark.parametrize("operation", ["write rank", "fsync rank", "write checkpoint", "rename"])
def test_a_save_that_fails_is_an_error_at_the_next_step(
    saves: Saves, gate: Gate, operation: str
) -> None:
    gate.open.set()
    saves.begin(cursor_at(position(1)))
    saves.finish()
    gate.fails = operation
    saves.begin(cursor_at(position(2)))
    with pytest.raises(
        DataError,
        match="checkpoint of step 2 cannot be written to .*: No space left on device; the run can "
        r"be resumed from step (1|2): free disk space, then",
    ):
        settle(saves)
    assert not [path for path in saves.folder.iterdir() if path.name.endswith(".saving")]
    kept = checkpoints_in(saves.folder)
    assert [path.name for path in kept][:1] == ["step-00000001"]
    assert all(read_checkpoint(path).step for path in kept), "and it is whole"
    saves.settle(0)
    assert saves.flags == 0, "said once"


def test_a_failed_rank_is_told_to_the_others(
    saves: Saves, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves.begin(cursor_at(position(1)))
    theirs = module._Outcome(problem="Permission denied")
    monkeypatch.setattr(module, "gather_objects", lambda mine: [mine, theirs])
    gate.open.set()
    with pytest.raises(DataError, match=r"of step 1 .*: Permission denied; there is no earlier"):
        saves.settle(SAVING | SAVE_FAILED)
    assert not checkpoints_in(saves.folder)


def test_a_save_that_outlasts_the_next_one_is_waited_for_and_said(
    saves: Saves, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    saves.begin(cursor_at(position(1)))
    threading.Timer(0.1, gate.open.set).start()
    saves.begin(cursor_at(position(2)))
    assert "step 1 was still being written when that of step 2 was due" in capsys.readouterr().err
    saves.begin(cursor_at(position(3)))
    saves.finish()
    assert capsys.readouterr().err == "", "short waits are said once"
    assert [path.name for path in checkpoints_in(saves.folder)] == ["step-00000003"]


def test_without_room_nothing_begins(
    saves: Saves, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5))
    with pytest.raises(DataError, match=r"of step 1 .*No space left on device \(0.0 GiB needed"):
        saves.begin(cursor_at(position(1)))
    assert saves.flags == 0 and not list(saves.folder.iterdir())
    monkeypatch.undo()

    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "empty_like", refused)
    with pytest.raises(DataError, match=r"no host RAM for a copy .*: ask for more memory"):
        saves.begin(cursor_at(position(1)))


def test_an_attempt_that_ends_gives_up_its_save(saves: Saves, gate: Gate) -> None:
    saves.begin(cursor_at(position(1)))
    worker = saves._save and saves._save.worker
    assert worker is not None and worker.daemon
    gate.open.set()
    saves.close()
    assert not worker.is_alive() and not checkpoints_in(saves.folder)


def test_a_request_to_stop_waits_for_the_checkpoint(
    engine: Any, gate: Gate, tmp_path: Path
) -> None:
    run: Any = SimpleNamespace(checkpoints=tmp_path / "checkpoints", sha256="0" * 64)
    requests = StopRequests(None)
    saver = RunSaver(engine, run, SavePolicy(every_steps=2, every_minutes=None), requests)
    trainer: Any = SimpleNamespace(
        engine=engine,
        optimizer_steps=4,
        overflows_in_a_row=0,
        summary=cursor_at(position(4)).summary,
    )
    assert saver.flags(3) == 0 and saver.flags(4) == SAVE
    requests.by = "SIGTERM"
    assert saver.flags(3) == STOP
    records: Any = SimpleNamespace(position=lambda: position(4))
    saver.save(trainer, 4, records)
    assert saver.flags(5) == STOP | SAVING
    threading.Timer(0.1, gate.open.set).start()
    with pytest.raises(Preempted, match="stopped by SIGTERM after step 4"):
        saver.stop(4)
    assert [path.name for path in checkpoints_in(run.checkpoints)] == ["step-00000004"]
