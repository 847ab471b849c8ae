"""What every launcher is: a way to show the commands of an attempt, and to carry it out to an exit
code.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from densekit.runs.layout import PREEMPTED_CODE, RunDir, checkpoints_in
from densekit.spec.execution import Execution

INTERRUPTED_CODE = 130
"""Exit code of a run that was ended at once, by a second Ctrl-C."""


class Launcher(Protocol):
    """Starts trainer processes for an attempt whose execution.json is written; what they compute is
    no matter.
    """

    name: str

    def check(self, execution: Execution) -> None:
        """Refuse what cannot work here, before a run directory is made: UsageError or DataError
        with the next step.
        """

    def check_options(self, execution: Execution) -> None:
        """Refuse what cannot work on any machine, for `--print` too; part of `check`. UsageError."""

    def commands(self, run: RunDir, execution: Execution) -> list[str]:
        """What `launch` does, as shell commands that can be read and run by hand. Nothing is
        started.
        """

    def launch(self, run: RunDir, execution: Execution) -> int:
        """Train the run's latest attempt and wait for it; returns an exit code. Nothing is left
        running.

        The first Ctrl-C or SIGTERM asks the trainer to stop at a checkpoint (75), the second ends
        it at once (130).
        """


def trainer_arguments(path: Path, execution: Execution) -> list[str]:
    """What follows the interpreter to train the run at `path` on the processes of one host."""
    trainer = ["-m", "densekit", "train", str(path)]
    if not execution.is_distributed:
        return trainer
    processes = str(execution.world_size)
    return [
        "-m",
        "densekit.train.torchrun",
        "--standalone",
        "--nproc-per-node",
        processes,
        *trainer,
    ]


def trainer_environment(execution: Execution) -> dict[str, str]:
    """Variables that the plan decides, whatever the caller's are."""
    return {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(execution.threads)}


def this_host() -> str:
    """The name under which launch.json knows this machine."""
    return socket.gethostname()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def wait_stoppable(*runs: RunDir, wait: Callable[[], int], end: Callable[[], None]) -> int:
    """`wait()`, which gives the trainer's exit code, with what Ctrl-C means: stop at a checkpoint,
    then `end()`.
    """
    with _sigterm_interrupts():
        try:
            return wait()
        except KeyboardInterrupt:
            for run in runs:
                run.stop_file.touch()
            print(
                "\nstopping after this step, at a checkpoint; once more ends it at once",
                file=sys.stderr,
                flush=True,
            )
        try:
            return wait()
        except KeyboardInterrupt:
            end()
            return INTERRUPTED_CODE
        finally:
            for run in runs:
                run.stop_file.unlink(missing_ok=True)


def settle(run: RunDir, code: int, reason: str | None = None) -> int:
    """The exit code of a trainer that ended with `code`, its status set where it could not do so
    itself.

    `reason` is what the launcher knows about the end (out of memory, a node that failed) and the
    trainer does not.
    """
    code = code if code >= 0 else 128 - code
    status = run.status
    if code == 0 and status.state != "complete":
        code = 1
    if (
        code != 0
        and status.state != "complete"
        and (reason or status.state in ("created", "running"))
    ):
        ended = (
            "interrupted"
            if code == INTERRUPTED_CODE
            else f"the trainer ended with exit code {code}"
        )
        message = reason or ended
        run.set_status("failed", message=message, exit_code=code)
        _tell(run, message)
    elif code != 0 and status.exit_code:
        code = status.exit_code
    if code == PREEMPTED_CODE:
        _tell(run, run.status.message)
    elif code != 0 and (saved := checkpoints_in(run.checkpoints)):
        _tell(run, f"started again, it goes on from {saved[-1].name}")
    return code


def _tell(run: RunDir, message: str) -> None:
    print(f"{run.name}: {message}", file=sys.stderr, flush=True)


def passed_on() -> dict[str, str]:
    """Variables of this shell that a container gets: how libraries talk and log, never what is
    computed, no secrets.
    """
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(PASSED_PREFIXES)
    }


PASSED_PREFIXES = (
    "NCCL_",
    "TORCH_NCCL_",
    "TORCH_DISTRIBUTED_",
    "GLOO_",
    "CUDA_LAUNCH_BLOCKING",
    "DENSEKIT_SELFTEST",
)
