"""A launcher as a newcomer would write one: a process of this host that outlives its driver."""

import os
import shlex
import signal
import subprocess

from densekit.launch.launchers import local
from densekit.launch.launchers.base import Launcher
from densekit.launch.launchers.waiting import settle, wait_stoppable
from densekit.runs.layout import RunDir
from densekit.runs.process_handle import ProcessHandle
from densekit.runs.processes import alive
from densekit.spec.execution import Execution


class Background(Launcher):
    """What it starts writes to a log of the attempt, not to the terminal."""

    name = "background"

    def commands(self, run: RunDir, execution: Execution) -> list[str]:
        return [f"nohup {shlex.join(local.command(run, execution))} &"]

    def launch(self, run: RunDir, execution: Execution) -> int:
        with (run.attempt / "background.log").open("wb") as log:
            process = subprocess.Popen(
                local.command(run, execution), stdout=log, stderr=log, start_new_session=True
            )
        self.note(run, number=process.pid)
        return settle(run, wait_stoppable(run, wait=process.wait, kill=process.kill))

    def where(self, handle: ProcessHandle) -> str:
        return f"background process {handle.number('number')}"

    def is_alive(self, handle: ProcessHandle) -> bool:
        return alive(handle.number("number"))

    def kill(self, handle: ProcessHandle) -> None:
        os.kill(handle.number("number"), signal.SIGKILL)
