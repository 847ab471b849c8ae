"""`densekit ls` and `tail`: what the runs of a folder are doing, whichever launcher started them."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DensekitError
from densekit.files.json_files import optional_object
from densekit.launch.launchers.in_flight import is_there
from densekit.runs.layout import CERTIFICATE_FILE, RunDir, Status
from densekit.runs.process_handle import Launched, read_launched

POLL_SECONDS = 0.5
UNDER_WAY = ("created", "running")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run."""

    run: str
    state: str
    """As in status.json; `queued` and `gone` are what its launcher adds."""
    steps: str
    attempt: int
    place: str
    message: str


def list_runs(runs_dir: Path) -> list[Row]:
    """The runs directly in a folder, by name. A folder that is no run is passed over."""
    found = sorted(path for path in runs_dir.glob("*") if (path / "math.json").is_file())
    return [_row(RunDir(path)) for path in found]


def _row(run: RunDir) -> Row:
    try:
        status = run.status
        launched = read_launched(run) if status.attempt else None
    except DensekitError as error:
        return Row(
            run=run.path.name, state="damaged", steps="", attempt=0, place="", message=str(error)
        )
    return Row(
        run=run.path.name,
        state=_state(run, status, launched),
        steps=_steps(run),
        attempt=status.attempt,
        place=launched.place if launched else "",
        message=status.message,
    )


def _state(run: RunDir, status: Status, launched: Launched | None) -> str:
    state = status.state
    if state not in UNDER_WAY or launched is None:
        return state
    try:
        there = is_there(run, launched)
    except DensekitError:
        return f"{state}?"  # its engine, cluster or machine cannot be asked from here
    if not there:
        return "gone"
    return "queued" if launched.job and state == "created" else state


def _steps(run: RunDir) -> str:
    done = run.metrics.read_bytes().count(b"\n") if run.metrics.is_file() else 0
    total = optional_object(run.path / CERTIFICATE_FILE).get("steps")
    return f"{done}/{total}" if total is not None else str(done)


def follow(run: RunDir) -> Iterator[str]:
    """The log of a run's latest attempt as it is written, until the run is over; raises DataError
    for no run.

    A further attempt that a requeued job opens is followed too.
    """
    attempt, shown = -1, 0
    while True:
        status = run.status
        if status.attempt != attempt:
            attempt, shown = status.attempt, 0
        log = run.attempt_folder(attempt) / "log.txt"
        text = log.read_bytes() if log.is_file() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) > shown:
            yield whole[shown:].decode("utf-8", errors="replace")
            shown = len(whole)
        elif status.state not in UNDER_WAY:
            if not _queued_again(run):
                return
            time.sleep(POLL_SECONDS)
        elif _is_gone(run, status):
            print(
                f"{run.path}: what trained it is gone; `densekit run` goes on with it",
                file=sys.stderr,
            )
            return
        else:
            time.sleep(POLL_SECONDS)


def _is_gone(run: RunDir, status: Status) -> bool:
    launched = read_launched(run) if status.attempt else None
    return launched is None or (_state(run, status, launched) == "gone" and run.status == status)


def _queued_again(run: RunDir) -> bool:
    """Whether a preempted run's job is still there, to start again."""
    launched = read_launched(run) if run.status.attempt else None
    if run.status.state != "preempted" or launched is None or launched.job is None:
        return False
    try:
        return is_there(run, launched)
    except DensekitError:
        return False
