"""Being asked to stop, and losing a neighbour."""

import ctypes
import os
import signal
import time
from pathlib import Path

import pytest

from densekit.runs.preemption import Interrupted, StopRequests
from tests.support.ranks import run_ranks

pytestmark = pytest.mark.ranks


def asked_by(number: signal.Signals) -> str | None:
    requests = StopRequests(None)
    requests.install([])
    requests.in_steps = True
    assert not requests.requested
    os.kill(os.getpid(), number)
    assert requests.requested
    return requests.by


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_does_not_end(number: signal.Signals) -> None:
    assert run_ranks(1, asked_by, number)[0].returned == number.name


def interrupted_by(number: signal.Signals) -> str:
    StopRequests(None).install([])
    try:
        os.kill(os.getpid(), number)
    except Interrupted as error:
        return str(error)
    return "goes on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_ends(number: signal.Signals) -> None:
    said = run_ranks(1, interrupted_by, number)[0].returned
    assert said == f"stopped by {number.name} before the first step: nothing was to save"


def test_the_stop_file_asks_rank_0(tmp_path: Path) -> None:
    requests = StopRequests(tmp_path / "stop")
    assert not requests.requested
    (tmp_path / "stop").touch()
    assert requests.requested and requests.by == "the driver"


def hang_beside(pids: Path) -> None:
    """Rank 0 hangs where no Python runs, as in a collective; rank 1 ends."""
    rank = int(os.environ["RANK"])
    (pids / f"{rank}.new").write_text(str(os.getpid()))
    (pids / f"{rank}.new").rename(pids / str(rank))
    while not (pids / str(1 - rank)).exists():
        time.sleep(0.01)
    requests = StopRequests(None)
    requests.install([int((pids / str(1 - rank)).read_text())])
    requests.in_steps = True
    if rank == 1:
        os._exit(3)
    _sleep_in_c(60)


def _sleep_in_c(seconds: int) -> None:
    deadline = time.monotonic() + seconds
    while (
        time.monotonic() < deadline
    ):  # a signal wakes sleep() early; the handler of a blocked rank would not run
        ctypes.PyDLL(None).sleep(1)


def test_a_rank_that_hangs_ends_soon_after_its_neighbour(tmp_path: Path) -> None:
    begun = time.monotonic()
    outcomes = run_ranks(2, hang_beside, tmp_path, may_fail=True)
    assert [outcome.exit_code for outcome in outcomes] == [1, 3]
    assert time.monotonic() - begun < 9, "ended by the supervisor after its grace, not by itself"
