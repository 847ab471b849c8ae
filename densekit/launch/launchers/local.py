"""The local launcher: trainer processes on this host."""

import os
import shlex
import signal
import subprocess
import sys

from densekit.errors import UsageError
from densekit.launch.host_gpus import VISIBLE, find_gpus, pick
from densekit.launch.launchers.base import (
    settle,
    this_host,
    trainer_arguments,
    trainer_environment,
    wait_stoppable,
)
from densekit.runs.layout import RunDir
from densekit.runs.process_handle import Launched, write_launched
from densekit.runs.processes import die_with_parent
from densekit.spec.execution import Execution


def command(run: RunDir, execution: Execution) -> list[str]:
    """The command line that trains a run on this host, in this interpreter's environment."""
    return [sys.executable, *trainer_arguments(run.path.resolve(), execution)]


def environment(execution: Execution) -> dict[str, str]:
    """Variables of the trainer; among them the GPUs with the least memory in use, by nvidia-smi's
    numbers.
    """
    variables = trainer_environment(execution)
    if execution.device == "cuda" and (found := find_gpus()):
        numbers = ",".join(str(gpu.index) for gpu in pick(found, execution.world_size))
        variables |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: numbers}
    return variables


class Local:
    """Trainer processes of this host, several of them under torchrun."""

    name = "local"

    def check(self, execution: Execution) -> None:
        """Nothing is asked for beyond what the trainer itself checks."""
        self.check_options(execution)

    def check_options(self, execution: Execution) -> None:
        """UsageError for several nodes."""
        if execution.nodes > 1:
            raise UsageError(
                "--nodes: the local launcher knows this host only; use --launcher slurm"
            )

    def commands(self, run: RunDir, execution: Execution) -> list[str]:
        """The one command, with its variables."""
        variables = [f"{name}={value}" for name, value in environment(execution).items()]
        return [shlex.join(["env", *variables, *command(run, execution)])]

    def launch(self, run: RunDir, execution: Execution) -> int:
        """Start the trainer and wait for it; a trainer that signal n killed gives 128 + n.

        It has a session of its own, so that a terminal's Ctrl-C reaches the driver alone, and it
        ends when the driver is killed.
        """
        process = subprocess.Popen(
            command(run, execution),
            env={**os.environ, **environment(execution)},
            start_new_session=True,
            preexec_fn=_end_with_driver,
        )
        write_launched(run, Launched(launcher=self.name, host=this_host(), pid=process.pid))

        def end() -> None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

        return settle(run, wait_stoppable(run, wait=process.wait, end=end))


def _end_with_driver() -> None:
    die_with_parent(signal.SIGTERM)
