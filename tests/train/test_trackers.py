"""Figures for TensorBoard and W&B: titles, what is left out, and a tracker that fails."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densekit.train import trackers
from densekit.train.trackers import Trackers, flat
from tests.support.launching import stub_run
from tests.support.steps import STEP

THIRD = replace(STEP, step=3, loss=None, peak_memory_gib=61.0)


class Recorder:
    """A tracker of accelerate's that keeps what it is told."""

    made: list["Recorder"]
    fails_at = 0

    def __init__(self, run_name: str, **settings: Any) -> None:
        self.name, self.settings = run_name, settings
        self.told: list[tuple[int, dict[str, float]]] = []
        self.finished = False
        self.made.append(self)

    def start(self) -> None:
        pass

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings["config"] = values

    def log(self, values: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise OSError("no space left")
        self.told.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    Recorder.made, Recorder.fails_at = [], 0
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for name in ("TensorBoardTracker", "WandBTracker"):
        monkeypatch.setattr(trackers, name, Recorder)
    monkeypatch.setattr(trackers.os, "environ", {})
    return Recorder.made


def test_every_step_goes_to_each_under_titles(tmp_path: Path, recorders: list[Recorder]) -> None:
    run, _ = stub_run(tmp_path, "")
    with Trackers(("tensorboard", "wandb"), run) as told:
        told.log(THIRD)
        told.log(replace(THIRD, step=4, loss=2.0))
    board, wandb = recorders
    assert board.settings == {"logging_dir": run.attempt} and board.name == "tensorboard"
    assert wandb.settings["mode"] == "offline" and wandb.settings["name"] == run.path.name
    assert wandb.settings["config"]["optimizer.learning_rate"] == 0.002
    for recorder in recorders:
        assert [step for step, _ in recorder.told] == [3, 4] and recorder.finished
        first, second = (values for _, values in recorder.told)
        assert "train/loss" not in first and second["train/loss"] == 2.0
        assert first["memory/GiB of a GPU"] == 61.0 and "speed/MFU" not in first


def test_one_that_fails_is_left_out_and_the_run_goes_on(
    tmp_path: Path, recorders: list[Recorder], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = stub_run(tmp_path, "")
    Recorder.fails_at = 4
    with Trackers(("tensorboard",), run) as told:
        for step in (3, 4, 5):
            told.log(replace(THIRD, step=step))
    (board,) = recorders
    assert [step for step, _ in board.told] == [3]
    said = capsys.readouterr().err
    assert said == "mine: tensorboard gets no more figures (OSError: no space left)\n"


def test_settings_are_flat() -> None:
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": 1, "a.c": "[1, 2]", "d": None}
