"""The local launcher: trainer processes on this host."""

import os
import signal
import subprocess
import sys
from types import FrameType

from densekit.run.layout import PREEMPTED_CODE, RunDir, checkpoints_in
from densekit.run.processes import die_with_parent


def command(run: RunDir, *, processes: int, distributed: bool) -> list[str]:
    """The command line that trains a run on `processes` processes of this host.

    `distributed`: through torchrun also where it is one process (ZeRO needs a process group).
    """
    trainer = ["-m", "densekit", "train", str(run.path)]
    if not distributed:
        return [sys.executable, *trainer]
    torchrun = ["-m", "densekit.train.torchrun", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *torchrun, *trainer]


def launch(run: RunDir, *, processes: int, threads: int, distributed: bool) -> int:
    """Run the trainer, `threads` threads to a process, and wait for it.

    Returns its exit code (that of the run's status when ranks were many). The first Ctrl-C or SIGTERM asks the
    trainer to stop at a checkpoint (75), the second ends it at once (130). A trainer that signal n killed gives
    128 + n. It has a session of its own, so that a terminal's Ctrl-C reaches the driver alone, and it ends when the
    driver is killed.
    """
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    terminated = signal.signal(signal.SIGTERM, _interrupt)
    process = subprocess.Popen(
        command(run, processes=processes, distributed=distributed),
        env=environment,
        start_new_session=True,
        preexec_fn=_end_with_driver,
    )
    try:
        code = _wait(process, run)
    finally:
        signal.signal(signal.SIGTERM, terminated)
    return _outcome(run, code)


def _wait(process: "subprocess.Popen[bytes]", run: RunDir) -> int:
    try:
        return process.wait()
    except KeyboardInterrupt:
        run.stop_file.touch()
        print("\nstopping after this step, at a checkpoint; once more ends it at once", file=sys.stderr, flush=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 130
    finally:
        run.stop_file.unlink(missing_ok=True)


def _outcome(run: RunDir, code: int) -> int:
    """The exit code of a trainer that ended with `code`, its status set where it could not do so itself."""
    code = code if code >= 0 else 128 - code
    status = run.status
    if code == 0 and status["state"] != "complete":
        code = 1
    if code != 0 and status["state"] in ("created", "running"):
        message = "interrupted" if code == 130 else f"the trainer ended with exit code {code}"
        run.set_status("failed", message=message, exit_code=code)
        _tell(run, message)
    elif code != 0 and status["exit_code"]:
        code = status["exit_code"]
    if code == PREEMPTED_CODE:
        _tell(run, run.status["message"])
    elif code != 0 and (saved := checkpoints_in(run.checkpoints)):
        _tell(run, f"started again, it goes on from {saved[-1].name}")
    return code


def _tell(run: RunDir, message: str) -> None:
    print(f"{run.math['recipe']['name']}: {message}", file=sys.stderr, flush=True)


def _end_with_driver() -> None:
    die_with_parent(signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
