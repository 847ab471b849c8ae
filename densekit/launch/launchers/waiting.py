"""Waiting for a trainer: what Ctrl-C does, and which exit code and status its end means."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from densekit.errors import INTERRUPTED_CODE, PREEMPTED_CODE, DataError, UsageError
from densekit.launch.launchers.base import UNDER_WAY
from densekit.runs.checkpoint import newest_whole
from densekit.runs.layout import RunDir, WorkDir, checkpoints_in

STOPPING = "Stopping: {stops}. Press Ctrl-C again to kill {what}."
BEFORE_STEP_1 = "stopped by Ctrl-C before the first step of this attempt: nothing was to save"


def wait_stoppable(
    *runs: WorkDir,
    wait: Callable[[], int],
    kill: Callable[[], None],
    queued: Callable[[], bool] = lambda: False,
) -> int:
    """`wait()`, which returns the trainer's exit code, with Ctrl-C and SIGTERM: the first asks the
    runs to stop at a checkpoint, the second calls `kill()`. Where no run has come to its steps
    there is nothing to save, and the first calls `kill()` too, unless one is still `queued()`:
    whoever waits takes it out of the queue.
    """
    with _sigterm_interrupts():
        try:
            return wait()
        except KeyboardInterrupt:
            if not queued() and not any(run.in_steps for run in runs):
                kill()
                for run in runs:
                    if run.status.state in UNDER_WAY:
                        _failed(run, BEFORE_STEP_1, INTERRUPTED_CODE)
                return INTERRUPTED_CODE
            for run in runs:
                run.stop_file.touch()
            what = f"the {runs[0].noun}" if len(runs) == 1 else f"the {len(runs)} runs"
            line = STOPPING.format(stops=runs[0].stops, what=what)
            after_echo = "\n" if sys.stderr.isatty() else ""  # the terminal shows ^C
            print(f"{after_echo}{line}", file=sys.stderr, flush=True)
        try:
            return wait()
        except KeyboardInterrupt:
            kill()
            return INTERRUPTED_CODE
        finally:
            for run in runs:
                run.stop_file.unlink(missing_ok=True)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def settle(run: WorkDir, code: int, reason: str | None = None) -> int:
    """The exit code of a trainer that ended with `code`; sets the run's status where the trainer
    could not.

    A run whose status says that it is complete is, however its trainer ended after that. `reason`
    is what the launcher knows about the end and the trainer does not: out of memory, a node that
    failed.
    """
    code = code if code >= 0 else 128 - code
    status = run.status
    if status.state == "complete":
        if code != 0:
            _report(
                run, f"complete; the {run.worker} then ended with exit code {code}, nothing is lost"
            )
        return 0
    code = code or 1
    if reason or status.state in UNDER_WAY:
        killed = code == INTERRUPTED_CODE
        ended = "killed by Ctrl-C" if killed else f"the {run.worker} ended with exit code {code}"
        _failed(run, reason or ended, code)
    elif status.exit_code:
        code = status.exit_code
    if code == PREEMPTED_CODE:
        _report(run, run.status.message)
    elif (kept := _kept(run)) is not None:
        refused = code in (UsageError.exit_code, DataError.exit_code)
        until = "once that is mended, " if refused else ""
        _report(run, f"{until}the same command resumes from {kept}")
    elif isinstance(run, RunDir) and checkpoints_in(run.checkpoints):
        _report(run, "no checkpoint is whole: the same command is refused until one is put back")
    return code


def _kept(run: WorkDir) -> str | None:
    """What an interrupted attempt left to go on from, in words."""
    if not isinstance(run, RunDir):
        return "the answers that are there"
    saved = newest_whole(run.checkpoints)
    return f"checkpoint {saved.name}" if saved else None


def _failed(run: WorkDir, message: str, code: int) -> None:
    run.set_status("failed", message=message, exit_code=code)
    _report(run, message)


def _report(run: WorkDir, message: str) -> None:
    print(f"{run.name}: {message}", file=sys.stderr, flush=True)
