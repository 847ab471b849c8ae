"""What processes do around their work: one takes the folder, and how it ends is recorded."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from densekit.errors import DataError, UsageError
from densekit.ranks.work import carry_out
from densekit.runs.evaluations import EVALUATIONS, EvaluationFolder
from densekit.runs.layout import Status, write_status
from densekit.runs.preemption import Preempted, StopRequests
from densekit.spec.execution import Execution


@pytest.fixture
def folder(tmp_path: Path) -> EvaluationFolder:
    made = EvaluationFolder(tmp_path / "run" / EVALUATIONS / "0123456789")
    made.path.mkdir(parents=True)
    write_status(made.path, Status(state="created", attempt=0))
    made.new_attempt(Execution())
    return made


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What this process does with signals, put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


def failing(error: BaseException) -> object:
    def body(_: StopRequests) -> None:
        raise error

    return body


def test_what_ends_well_is_complete_and_is_not_carried_out_twice(folder: EvaluationFolder) -> None:
    carry_out(folder, lambda _: None, main=True)
    assert folder.complete
    with pytest.raises(UsageError, match=r"ran before and is complete; `densekit evaluate .*run`"):
        carry_out(folder, lambda _: None, main=True)


@pytest.mark.parametrize(
    ("error", "state", "code", "message"),
    [
        (DataError("it is damaged"), "failed", 3, "it is damaged"),
        (Preempted("after 3"), "preempted", 75, "after 3"),
        (OSError(28, "No space left", "/x"), "failed", 3, "/x: No space left"),
        (ZeroDivisionError("one"), "failed", 1, "ZeroDivisionError: one"),
    ],
)
def test_how_it_ends_is_recorded(
    folder: EvaluationFolder, error: BaseException, state: str, code: int, message: str
) -> None:
    with pytest.raises(BaseException, match=message.rpartition(": ")[2]):
        carry_out(folder, failing(error), main=True)  # type: ignore[arg-type]
    status = folder.status
    assert (status.state, status.exit_code, status.message) == (state, code, message)
