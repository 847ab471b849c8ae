"""`densekit ls` and `tail`: what the runs of a folder are doing, under any launcher."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, get_args

from densekit.errors import DensekitError, UsageError
from densekit.launch.far import opened
from densekit.launch.launchers.base import UNDER_WAY
from densekit.launch.running import is_alive, launcher_of
from densekit.launch.speed import reached
from densekit.runs.complete import tidy
from densekit.runs.layout import LOG_FILE, MATH_FILE, RunDir, RunState, Status
from densekit.runs.process_handle import ProcessHandle, read_handle
from densekit.runs.verdicts import word_of

POLL_SECONDS = 0.5
STATES = (*get_args(RunState), "queued", "gone", "damaged")
"""What a run may be: what its status says, or what was found out about it."""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """One line of `densekit ls`."""

    run: str
    state: str
    """As in status.json; `queued`, `gone` and a question mark are what its launcher adds."""
    steps: str
    attempt: int
    place: str
    """Empty for a run that no process trains."""
    message: str
    loss: float | None = None
    """Of the last step on record."""
    eta_seconds: float | None = None
    """Until the last step, at the speed of this attempt; None unless it trains."""
    started: float | None = None
    """When the first attempt was opened, seconds since 1970."""
    duration_seconds: float | None = None
    """From then to the last step on record."""
    verdict: str = ""
    """In one word (`densekit verdict`)."""


SORTED_BY: Mapping[str, Callable[[ListedRun], Any]] = {
    "name": lambda row: row.run,
    "state": lambda row: row.state,
    "loss": lambda row: math.inf if row.loss is None else row.loss,
    "started": lambda row: row.started or 0.0,
    "duration": lambda row: row.duration_seconds or 0.0,
    "verdict": lambda row: row.verdict,
}
"""What `densekit ls --sort` takes."""


def list_runs(
    runs_dir: Path, *, names: Sequence[str] = (), states: Sequence[str] = (), sort: str = "name"
) -> list[ListedRun]:
    """The runs directly in a folder. A folder that is no run is passed over.

    `names`: beginnings of names, or patterns with `*`; `states`: those listed. Raises UsageError
    for another one than in STATES, and for another `sort` than one of SORTED_BY.
    """
    for state in states:
        if state not in STATES:
            raise UsageError(f"--state {state}: give one of {', '.join(STATES)}")
    if sort not in SORTED_BY:
        raise UsageError(f"--sort {sort}: give one of {', '.join(SORTED_BY)}")
    found = sorted(path for path in runs_dir.glob("*") if (path / MATH_FILE).is_file())
    rows = [_listed(RunDir(path)) for path in found if _is_named(path.name, names)]
    rows = [row for row in rows if not states or row.state.rstrip("?") in states]
    return sorted(rows, key=SORTED_BY[sort])


def _is_named(name: str, names: Sequence[str]) -> bool:
    return not names or any(
        fnmatch(name, each if "*" in each or "?" in each else f"{each}*") for each in names
    )


def _listed(run: RunDir) -> ListedRun:
    name = run.path.name
    try:
        status = run.status
        if status.state == "complete":
            tidy(run)
        handle = read_handle(run)
        total = run.total_steps
        verdict = word_of(run.path)
    except DensekitError as error:
        return ListedRun(
            run=name, state="damaged", steps="", attempt=0, place="", message=str(error)
        )
    state = _state(status, handle)
    started, began = (opened(run, number) for number in (1, status.attempt))
    at = reached(run.metrics, began)
    done = at.steps if at else 0
    eta = None
    seconds = at.recent.step_seconds if at else None
    if seconds and total is not None and state == "running":
        eta = max(0, total - done) * seconds
    return ListedRun(
        run=name,
        state=state,
        steps=f"{done}/{total}" if total is not None else str(done),
        loss=at.recent.loss if at else None,
        eta_seconds=eta,
        started=started,
        duration_seconds=max(0.0, at.written - started) if at and started else None,
        verdict=verdict,
        attempt=status.attempt,
        place=_place(handle) if handle and status.state in UNDER_WAY and state != "gone" else "",
        message=status.message,
    )


def _place(handle: ProcessHandle) -> str:
    try:
        return launcher_of(handle).where(handle)
    except DensekitError:  # of a launcher that this version does not have
        return f"{handle.launcher} on {handle.host}"


def _state(status: Status, handle: ProcessHandle | None) -> str:
    state = status.state
    if state not in UNDER_WAY or handle is None:
        return state
    try:
        if not is_alive(handle):
            return "gone"
    except DensekitError:
        return f"{state}?"  # its engine, cluster or machine cannot be asked from here
    return "queued" if launcher_of(handle).remote and state == "created" else state


def follow(run: RunDir) -> Iterator[str]:
    """The log of a run's latest attempt as it is written, until the run is over; raises DataError
    for no run.

    A further attempt that a requeued job opens is followed too. Where nobody here knows whether it
    still runs, that is said once, on the terminal.
    """
    attempt, shown = -1, 0
    asked = False
    while True:
        status = run.status
        if status.attempt != attempt:
            attempt, shown = status.attempt, 0
        log = run.attempt_folder(attempt) / LOG_FILE
        text = log.read_bytes() if log.is_file() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) > shown:
            yield whole[shown:].decode("utf-8", errors="replace")
            shown = len(whole)
        elif status.state not in UNDER_WAY:
            if status.state != "preempted" or not _is_there(run):
                return
            time.sleep(POLL_SECONDS)
        elif _is_gone(run, status):
            print(
                f"{run.path}: its trainer no longer runs; `densekit run` resumes the run",
                file=sys.stderr,
            )
            return
        else:
            if not asked:
                asked = True
                _say_if_unknown(run)
            time.sleep(POLL_SECONDS)


def _say_if_unknown(run: RunDir) -> None:
    """Say that a log is followed of which nobody here knows whether it goes on."""
    handle = read_handle(run)
    try:
        if handle is not None:
            is_alive(handle)
    except DensekitError as error:
        print(
            f"{run.path}: whether it still runs is not known here ({error}); its log is followed "
            "until Ctrl-C",
            file=sys.stderr,
        )


def _is_gone(run: RunDir, status: Status) -> bool:
    handle = read_handle(run)
    return handle is None or (_state(status, handle) == "gone" and run.status == status)


def _is_there(run: RunDir) -> bool:
    """Whether a preempted run's job is still there, to start again."""
    handle = read_handle(run)
    try:
        return handle is not None and is_alive(handle)
    except DensekitError:
        return False
