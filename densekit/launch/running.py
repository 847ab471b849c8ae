"""Whether the latest attempt of a run still runs, whichever launcher started it, and how it is
stopped from another terminal.
"""

from densekit.errors import DensekitError, UsageError
from densekit.launch.launchers.base import UNDER_WAY, Launcher, this_host
from densekit.launch.launchers.registry import launcher_class
from densekit.runs.layout import WorkDir
from densekit.runs.process_handle import ProcessHandle, read_handle


def launcher_of(handle: ProcessHandle) -> Launcher:
    """The launcher that finds what a handle names; UsageError where the registry lacks it."""
    return launcher_class(handle.launcher)()


def is_alive(handle: ProcessHandle) -> bool:
    """Whether what a handle names runs or waits to run. Raises UsageError or DataError where that
    cannot be found out.
    """
    launcher = launcher_of(handle)
    if _is_elsewhere(handle, launcher):
        raise UsageError(
            f"{handle.run.path} runs as {launcher.where(handle)}: run this command on {handle.host}"
        )
    return launcher.is_alive(handle)


def still_running(run: WorkDir) -> str | None:
    """Where an attempt that is not over runs or waits, in words; None when it is over or cannot be
    asked about.

    An engine or a cluster that does not answer is taken for one where nothing runs: the trainer's
    own lock is there for that case.
    """
    if (handle := read_handle(run)) is None:
        return None
    try:
        return launcher_of(handle).where(handle) if is_alive(handle) else None
    except DensekitError:
        return None


def stop(run: WorkDir, *, now: bool) -> str:
    """Ask a run to stop at a checkpoint, or kill it `now`; returns what was done, in words.

    Raises UsageError when nothing runs, or when it has to be killed from another machine.
    """
    handle, state = read_handle(run), run.status.state
    if handle is None and state in UNDER_WAY:
        raise UsageError(
            f"{run.path} is {state} by its status.json, and nothing says where: end its processes "
            "by hand, if there are any; `densekit run` resumes the run"
        )
    # A job that was requeued belongs to a run that is preempted, and one that the driver lost
    # contact with to a failed one.
    if handle is None or (state not in UNDER_WAY and still_running(run) is None):
        raise UsageError(f"{run.path} is {state}: nothing is running that could be stopped")
    launcher = launcher_of(handle)
    where = launcher.where(handle)
    if not now and _is_elsewhere(handle, launcher):
        run.stop_file.touch()  # the other machine cannot be asked, but its trainer sees the file
        return f"asked {where} to stop at a checkpoint"
    if not is_alive(handle):
        run.set_status("failed", message=f"{where} no longer exists", exit_code=1)
        return f"{where} no longer exists; `densekit run` resumes the run"
    return launcher.stop(handle, now=now)


def _is_elsewhere(handle: ProcessHandle, launcher: Launcher) -> bool:
    return not launcher.remote and handle.host != this_host()
