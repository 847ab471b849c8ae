"""The local launcher: trainer processes on this host."""

import os
import signal
import subprocess
import sys
from types import FrameType

from densekit.run.layout import RunDir


def command(run: RunDir, *, processes: int) -> list[str]:
    """The command line that trains a run on `processes` processes of this host."""
    trainer = ["-m", "densekit", "train", str(run.path)]
    if processes == 1:
        return [sys.executable, *trainer]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *torchrun, *trainer]


def launch(run: RunDir, *, processes: int, threads: int) -> int:
    """Run the trainer, `threads` threads to a process, and wait for it.

    Returns its exit code (that of the run's status when ranks were many). Ctrl-C and SIGTERM stop the trainer with
    the driver: 130. A trainer that signal n killed gives 128 + n.
    """
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    terminated = signal.signal(signal.SIGTERM, _interrupt)
    process = subprocess.Popen(command(run, processes=processes), env=environment)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        if not run.complete:
            run.set_status("failed", message="interrupted", exit_code=130)
        return 130
    finally:
        signal.signal(signal.SIGTERM, terminated)
    code = code if code >= 0 else 128 - code
    status = run.status
    if code == 0 and status["state"] != "complete":
        code = 1
    if code != 0 and status["state"] in ("created", "running"):
        run.set_status("failed", message=f"the trainer ended with exit code {code}", exit_code=code)
    elif code != 0 and status["exit_code"]:
        code = status["exit_code"]
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
