"""`densekit ls` and `tail`: what the runs of a folder are doing, under any launcher."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DensekitError
from densekit.files.json_files import optional_object
from densekit.launch.launchers.base import UNDER_WAY
from densekit.launch.running import is_alive, launcher_of
from densekit.runs.complete import tidy
from densekit.runs.layout import CERTIFICATE_FILE, LOG_FILE, RunDir, Status
from densekit.runs.process_handle import ProcessHandle, read_handle

POLL_SECONDS = 0.5


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


def list_runs(runs_dir: Path) -> list[ListedRun]:
    """The runs directly in a folder, by name. A folder that is no run is passed over."""
    found = sorted(path for path in runs_dir.glob("*") if (path / "math.json").is_file())
    return [_listed(RunDir(path)) for path in found]


def _listed(run: RunDir) -> ListedRun:
    name = run.path.name
    try:
        status = run.status
        if status.state == "complete":
            tidy(run)
        handle = read_handle(run)
        steps = _steps(run)
    except DensekitError as error:
        return ListedRun(
            run=name, state="damaged", steps="", attempt=0, place="", message=str(error)
        )
    state = _state(status, handle)
    return ListedRun(
        run=name,
        state=state,
        steps=steps,
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
            time.sleep(POLL_SECONDS)


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
