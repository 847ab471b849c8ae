"""The local launcher: trainer processes of this host, several of them under torchrun."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from densekit.errors import DataError
from densekit.launch.host_gpus import Gpu, gpu_variables
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.output import Output
from densekit.launch.launchers.trainer_command import (
    SHM_BYTES,
    missing_packages,
    trainer_arguments,
    trainer_environment,
)
from densekit.launch.launchers.waiting import settle, wait_stoppable
from densekit.runs.launch_variables import clear_inherited
from densekit.runs.layout import WorkDir
from densekit.runs.process_handle import ProcessHandle
from densekit.runs.processes import alive, die_with_parent
from densekit.spec.check import Check
from densekit.spec.execution import Execution
from densekit.spec.hardware import GIB
from densekit.spec.kernels import require_installed

SHM = Path("/dev/shm")


def command(run: WorkDir, execution: Execution) -> list[str]:
    """The command line that trains a run on this host, in this interpreter's environment."""
    return [sys.executable, *trainer_arguments(run, execution)]


def environment(execution: Execution) -> dict[str, str]:
    """Variables of the trainer; among them the GPUs with the least memory in use, by nvidia-smi's
    numbers.
    """
    variables = trainer_environment(execution)
    return variables | gpu_variables(execution)


class Local(Launcher):
    """A process group on this host, led by the trainer or by torchrun."""

    name = "local"

    def check(self, execution: Execution) -> None:
        """The attention kernel's package is in this environment."""
        super().check(execution)
        require_installed(execution.attention)

    def commands(self, run: WorkDir, execution: Execution) -> list[str]:
        """The one command, with its variables."""
        variables = [f"{name}={value}" for name, value in environment(execution).items()]
        return [shlex.join(["env", *variables, *command(run, execution)])]

    def launch(self, run: WorkDir, execution: Execution) -> int:
        """Start the trainer and wait for it; a trainer that signal n killed gives 128 + n.

        It has a session of its own, so that a terminal's Ctrl-C reaches the driver alone, and it
        ends when the driver is killed.
        """
        inherited = {**os.environ}
        clear_inherited(inherited, keep_ranks=False)
        with Output() as output:
            process = subprocess.Popen(
                command(run, execution),
                env={**inherited, **environment(execution)},
                stdout=output.stdout,
                stderr=output.stderr,
                start_new_session=True,
                preexec_fn=_end_with_driver,
            )
            self.note(run, pid=process.pid)

            def kill() -> None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

            code = wait_stoppable(run, wait=process.wait, kill=kill)
        return settle(run, code)

    def where(self, handle: ProcessHandle) -> str:
        """By process id and host."""
        return f"process {handle.number('pid')} on {handle.host}"

    def is_alive(self, handle: ProcessHandle) -> bool:
        """Whether the process runs and trains this run: process ids are used again."""
        pid = handle.number("pid")
        return alive(pid) and _trains(pid, handle.run)

    def kill(self, handle: ProcessHandle) -> None:
        """SIGKILL to the whole process group."""
        try:
            os.killpg(handle.number("pid"), signal.SIGKILL)
        except ProcessLookupError:
            raise DataError(f"{self.where(handle)} has just ended by itself") from None

    @classmethod
    def diagnose(cls, gpus: Sequence[Gpu], *, tiny: bool) -> list[Check]:
        """The packages that train, and shared memory for data workers and NCCL."""
        return [_packages(), _shared_memory(gpus)]


def _end_with_driver() -> None:
    die_with_parent(signal.SIGTERM)


def _trains(pid: int, run: WorkDir) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return str(run.path).encode() in words or str(run.path.resolve()).encode() in words


def _packages() -> Check:
    if missing := missing_packages():
        message = (
            f"{', '.join(missing)} not installed: run `make setup` for --launcher local "
            "(containers do not need them here)"
        )
        return Check(name="packages", state="warn", message=message)
    return Check(name="packages", state="ok", message="everything that --launcher local needs")


def _shared_memory(gpus: Sequence[Gpu]) -> Check:
    if not SHM.is_dir():
        message = f"{SHM} is missing: processes cannot share memory; mount a tmpfs there"
        return Check(name="shm", state="warn", message=message)
    state = os.statvfs(SHM)
    free = state.f_bavail * state.f_frsize
    wanted = SHM_BYTES["cuda" if gpus else "cpu"]
    message = f"{free / GIB:.1f} GiB free in {SHM}"
    if free >= wanted:
        return Check(name="shm", state="ok", message=message)
    message += (
        f"; --launcher local should have {wanted / GIB:.0f}: mount a larger tmpfs "
        "(containers get their own)"
    )
    return Check(name="shm", state="warn", message=message)
