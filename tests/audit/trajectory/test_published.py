"""Reading a trainer_state.json: what its log says, and what is wrong with files that have none."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from densekit.audit.trajectory.published import read_published
from densekit.errors import DataError
from tests.support.paths import ROOT
from tests.support.trajectory import write_state


def entries(*steps: int, loss: float = 1.0) -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss + step / 100, "learning_rate": 1e-5} for step in steps]


def test_what_the_official_code_left() -> None:
    """Recorded: 20 steps, and the summary, which has no loss of a step."""
    folder = ROOT / "tests" / "golden_exchange" / "given" / "clip_dci" / "stage2"
    log = read_published(folder)
    assert log.steps.tolist() == list(range(1, 21)) and log.interval == 1 and log.length == 20
    assert log.losses[0] == pytest.approx(
        json.loads(log.path.read_text())["log_history"][0]["loss"]
    )
    assert not (log.repeated or log.not_finite or log.zero)


@pytest.mark.parametrize(
    "steps, interval, windows",
    [
        (range(10, 51, 10), 10, [10, 10, 10, 10, 10]),
        ((1, 10, 20, 30), 10, [1, 9, 10, 10]),  # logging_first_step
        ((21, 22, 23), 1, [1, 1, 1]),  # a log whose first part was lost
        ((60, 70, 80), 10, [10, 10, 10]),
        ((5,), 5, [5]),
    ],
)
def test_each_entry_is_a_mean_of_the_steps_since_the_one_before(
    tmp_path: Path, steps: Any, interval: int, windows: list[int]
) -> None:
    log = read_published(write_state(tmp_path / "t.json", entries(*steps)))
    assert log.interval == interval and log.windows.tolist() == windows


def test_a_step_that_is_there_twice_counts_as_logged_last(tmp_path: Path) -> None:
    history = [*entries(1, 2, 3), *entries(3), *entries(2, 4, loss=2.0)]
    log = read_published(write_state(tmp_path / "t.json", history, max_steps=9))
    assert log.steps.tolist() == [1, 2, 3, 4] and log.losses[1] == pytest.approx(2.02)
    assert (log.repeated, log.contradicted, log.length) == ((2, 3), (2,), 9)


def test_losses_that_say_nothing_are_counted(tmp_path: Path) -> None:
    history = entries(1, 2, 3, 4)
    history[1]["loss"], history[2]["loss"], history[3]["loss"] = math.nan, math.inf, 0.0
    log = read_published(write_state(tmp_path / "t.json", history))
    assert (log.not_finite, log.zero) == ((2, 3), (4,)) and log.length is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is not a trainer_state.json"),
        ("[1]", "has no `log_history`"),
        ('{"epoch": 1}', "has no `log_history`"),
        ('{"log_history": {}}', "`log_history` is no list"),
        ('{"log_history": [3]}', "entry 0 is no object"),
        ('{"log_history": []}', "no entry of `log_history` has a `loss`"),
        ('{"log_history": [{"train_loss": 1.0, "step": 5}]}', "has a `loss`"),
        ('{"log_history": [{"loss": "1", "step": 5}]}', "entry 0: `loss` is '1', not a number"),
        ('{"log_history": [{"loss": 1.0}]}', "entry 0: `step` is None, not a step from 1 to 10"),
        ('{"log_history": [{"loss": 1, "step": 9e99}]}', "`step` is 9e\\+99, not a step from 1"),
        (f'{{"log_history": [{{"loss": 1, "step": {10**19}}}]}}', f"`step` is {10**19}, not a st"),
        ('{"log_history": [{"loss": 1e300, "step": 1}]}', "no loss of `log_history` is finite"),
        ('{"log_history": [{"loss": 1.0, "step": 0}]}', "`step` is 0"),
        ('{"log_history": [{"loss": NaN, "step": 1}]}', "no loss of `log_history` is finite"),
    ],
)
def test_what_is_no_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=f"trainer_state.json.*{message}"):
        read_published(tmp_path)


def test_a_folder_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trainer_state\.json is missing; give the trainer_state"):
        read_published(tmp_path)
