"""Where the latest attempt of a run is carried out: whether it still is, and how it is ended from
another terminal.
"""

import os
import signal
from pathlib import Path

from densekit.errors import DataError, DensekitError, UsageError
from densekit.launch.launchers.base import this_host
from densekit.launch.launchers.docker.client import connect
from densekit.launch.launchers.slurm.jobs import cancel, is_under_way, job_state
from densekit.runs.layout import PREEMPTED_CODE, RunDir
from densekit.runs.process_handle import Launched, read_launched
from densekit.runs.processes import alive


def still_running(run: RunDir) -> str | None:
    """Where an attempt that is not over runs or waits, in words; None when it is over or cannot be
    asked about.

    An engine or a cluster that does not answer is taken for one where nothing runs: the trainer's
    own lock is there for that case.
    """
    if run.status.attempt == 0 or (launched := read_launched(run)) is None:
        return None
    try:
        return launched.place if is_there(run, launched) else None
    except DensekitError:
        return None


def is_there(run: RunDir, launched: Launched) -> bool:
    """Whether the process, container or job exists. Raises UsageError or DataError where that
    cannot be found out.
    """
    if launched.job:
        return is_under_way(job_state(launched.job))
    if launched.host != this_host():
        raise UsageError(f"{run.path} runs as {launched.place}: ask there")
    if launched.container:
        return connect().find(launched.container) is not None
    return launched.pid is not None and alive(launched.pid) and _is_trainer(launched.pid, run)


def stop(run: RunDir, *, now: bool) -> str:
    """Ask a run to stop at a checkpoint, or end it at once; returns what was done, in words.

    Raises UsageError when nothing runs, or when it has to be ended from another machine.
    """
    launched = read_launched(run) if run.status.attempt else None
    state = run.status.state
    # A job that is queued again belongs to a run that is preempted, and one that was lost sight of
    # to a failed one.
    if launched is None or (state not in ("created", "running") and still_running(run) is None):
        raise UsageError(f"{run.path} is {state}: nothing runs that could be stopped")
    if launched.job is None and launched.host != this_host() and not now:
        run.stop_file.touch()  # its driver cannot be asked from here, the run directory can
        return f"asked {launched.place} to stop at a checkpoint"
    if not is_there(run, launched):
        run.set_status("failed", message=f"{launched.place} was gone", exit_code=1)
        return f"{launched.place} was gone; `densekit run` goes on with the run"
    if launched.job and job_state(launched.job).get("JobState") == "PENDING":
        cancel(launched.job)
        run.set_status(
            "preempted", message="stopped while its job was queued", exit_code=PREEMPTED_CODE
        )
        return f"took {launched.place} out of the queue"
    if not now:
        run.stop_file.touch()
        return f"asked {launched.place} to stop at a checkpoint"
    _end(launched)
    if run.status.state in ("created", "running"):
        run.set_status("failed", message="ended by `densekit stop --now`", exit_code=137)
    return f"ended {launched.place}"


def _end(launched: Launched) -> None:
    if launched.job:
        cancel(launched.job)
    elif launched.container:
        engine = connect()
        if (found := engine.find(launched.container)) is not None:
            engine.remove(found)
    elif launched.pid is not None:
        try:
            os.killpg(launched.pid, signal.SIGKILL)
        except ProcessLookupError:
            raise DataError(f"{launched.place} just ended") from None


def _is_trainer(pid: int, run: RunDir) -> bool:
    """Whether the process is still the one that was noted: numbers are used again."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(run.path).encode() in words or str(run.path.resolve()).encode() in words
