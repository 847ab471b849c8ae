"""What the processes of a run, or of an evaluation, do around their work: one of them takes the
folder, signals ask them to stop, and whatever goes wrong is recorded once.
"""

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack

from filelock import FileLock, Timeout

from densekit.errors import DataError, DensekitError, UsageError
from densekit.ranks.collectives import end_process_group, gather_objects
from densekit.runs.layout import WorkDir
from densekit.runs.preemption import Interrupted, Preempted, RankLost, StopRequests

DYING_WORKER_S = 5.0
"""How long a folder's lock is waited for: a killed process holds it until its last thread is gone.
"""
PEER_ENDED = "another rank of this run ended"


def carry_out(work: WorkDir, body: Callable[[StopRequests], None], *, main: bool) -> None:
    """Call `body` as a rank of the latest attempt (`main`: as rank 0), with its requests to stop;
    the folder's status says how far it came.

    Raises UsageError when the attempt ran before, so that nothing measured is overwritten, and
    Preempted when it was asked to stop. Any other DensekitError is raised after it was recorded;
    the work is then `failed` and can be started again.
    """
    with ExitStack() as stack:
        _claim(work, main, stack)
        requests = StopRequests(work.stop_file if main else None)
        try:
            requests.install(_neighbours())
            body(requests)
        except Preempted as error:
            work.set_status("preempted", message=str(error), exit_code=error.exit_code)
            end_process_group()
            if "TORCHELASTIC_RUN_ID" in os.environ:
                # torchrun would report another code as a crash; the status tells.
                raise SystemExit(0) from None
            raise
        except Interrupted as error:
            lost = requests.lost_peer()
            raise _failed(work, RankLost(PEER_ENDED) if lost else error) from None
        except DensekitError as error:
            raise _failed(work, error) from None
        except BaseException as error:
            if requests.lost_peer():  # a broken collective's error, not what happened
                raise _failed(work, RankLost(PEER_ENDED)) from None
            if isinstance(error, OSError):  # no disk space, no permission, a folder that went away
                place = f"{error.filename}: " if error.filename else ""
                raise _failed(work, DataError(f"{place}{error.strerror or error}")) from None
            work.fail(f"{type(error).__name__}: {error}", 1)
            raise
        if main:
            work.set_status("complete")


def _neighbours() -> list[int]:
    """Process ids of the other ranks on this host."""
    here = socket.gethostname()
    everyone = gather_objects((os.getpid(), here))
    return [pid for pid, host in everyone if host == here and pid != os.getpid()]


def _failed(work: WorkDir, error: DensekitError) -> BaseException:
    """The error to raise: of several ranks that fail, the first one tells, and the others end
    without a word.
    """
    try:
        first = work.fail(str(error), error.exit_code)
    except OSError:  # the disk is full: the error is said all the same
        first = True
    return error if first else SystemExit(error.exit_code)


def _claim(work: WorkDir, main: bool, stack: ExitStack) -> None:
    """Rank 0 takes the folder, for all ranks: one worker each, also where the driver that started
    it is gone.

    Raises UsageError on rank 0 when it is taken or its attempt ran before; the other ranks end
    without a word.
    """
    problem = None
    if main:
        try:
            lock = work.path / f".{work.worker}.lock"
            stack.enter_context(FileLock(lock, timeout=DYING_WORKER_S))
            _check_fresh(work)
            work.set_status("running")
        except Timeout:
            problem = f"another process is {work.doing} {work.path}; wait for it or stop it"
        except UsageError as error:
            problem = str(error)
    (problem, *_) = gather_objects(problem)
    if problem is not None:
        raise UsageError(problem) if main else SystemExit(UsageError.exit_code)


def _check_fresh(work: WorkDir) -> None:
    status = work.status
    if status.state != "created":
        raise UsageError(
            f"{work.path}: attempt {status.attempt} ran before and is {status.state}; "
            f"{work.again} opens another one"
        )
