"""The slurm launcher: jobs are submitted, followed until they end, and cancelled when the driver is
interrupted twice.
"""

import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Self

from densekit.errors import PREEMPTED_CODE, UsageError
from densekit.launch.host_gpus import Gpu
from densekit.launch.launchers.base import Arrays, Launcher
from densekit.launch.launchers.options import LauncherOptions
from densekit.launch.launchers.slurm.arrays import SlurmArrays
from densekit.launch.launchers.slurm.follower import STOPPED_IN_QUEUE, Follower, follow_jobs
from densekit.launch.launchers.slurm.jobs import cancel, is_under_way, job_state
from densekit.launch.launchers.slurm.script import (
    QUOTES,
    Batch,
    parse_options,
    piped,
    script,
    write_script,
)
from densekit.launch.launchers.slurm.submit import check_partition, sbatch
from densekit.launch.launchers.torch_code import check_torch_code
from densekit.launch.launchers.waiting import settle, wait_stoppable
from densekit.runs.layout import WorkDir
from densekit.runs.process_handle import ProcessHandle
from densekit.spec.check import Check
from densekit.spec.execution import Execution

COMMANDS = ("sbatch", "scontrol", "scancel")

MAX_MINUTES = 10**6


class Slurm(Launcher):
    """Jobs of the cluster that sbatch knows."""

    name = "slurm"
    takes = ("image", "container", "sbatch", "queue_minutes")
    remote = True

    def __init__(self, *, batch: Batch | None = None, queue_minutes: float | None = None) -> None:
        self.batch = batch or Batch()
        self.queue_minutes = queue_minutes
        """A job that did not start by then is cancelled."""

    @property
    def forbidden_in_paths(self) -> str:
        """What a line of the batch script cannot hold, nor a list of mounts."""
        return QUOTES + ("" if self.batch.runtime == "none" else ",:")

    @classmethod
    def from_options(cls, options: LauncherOptions) -> Self:
        """With all of them. Raises UsageError for an option that sbatch could not take."""
        batch = Batch(
            runtime=options.container or "none",
            image=options.image,
            options=parse_options(options.sbatch),
        )
        return cls(batch=batch, queue_minutes=options.queue_minutes)

    @property
    def contained(self) -> bool:  # type: ignore[override]
        """With --container pyxis or apptainer."""
        return self.batch.runtime != "none"

    def check_options(self, execution: Execution) -> None:
        """UsageError for a container runtime without an image, and for an image without one."""
        super().check_options(execution)
        if self.queue_minutes is not None and not 0 <= self.queue_minutes <= MAX_MINUTES:
            raise UsageError(
                f"--queue-minutes {self.queue_minutes}: give a number from 0 to {MAX_MINUTES}"
            )
        if self.batch.runtime != "none" and self.batch.image is None:
            raise UsageError(f"--container {self.batch.runtime}: name the image with --image")
        if self.batch.runtime == "none" and self.batch.image is not None:
            raise UsageError(
                f"--image {self.batch.image}: name what runs it with --container pyxis or "
                "--container apptainer"
            )

    def check(self, execution: Execution) -> None:
        """Slurm's commands, the partition, and torch's code for the GPUs where no container brings
        its own. Raises UsageError.
        """
        super().check(execution)
        if missing := [name for name in COMMANDS if shutil.which(name) is None]:
            raise UsageError(
                f"{', '.join(missing)} not found: run this on a login node of the cluster"
            )
        if asked := self.batch.options.get("partition"):
            check_partition(asked)
        if self.batch.runtime == "none" and execution.device == "cuda":
            check_torch_code(execution.gpu)
        if "time" not in self.batch.options:
            print(
                "no time limit is asked for: the partition's default holds (`sinfo -o '%P %L'`); "
                "--sbatch time=24:00:00 asks for one",
                file=sys.stderr,
            )

    def inspection_environment(self, execution: Execution) -> str | None:
        """That of this login node, where jobs train in it too."""
        if self.batch.runtime != "none":
            return None
        return super().inspection_environment(execution)

    def commands(self, run: WorkDir, execution: Execution) -> list[str]:
        """The batch script, given to sbatch."""
        return [piped(script(run, execution, self.batch))]

    def launch(self, run: WorkDir, execution: Execution) -> int:
        """Submit, show what the job writes, and wait. Raises UsageError when Slurm does not take
        the job.
        """
        job = self.submit(run, execution)
        print(
            f"Slurm job {job}; `densekit tail {shlex.quote(str(run.path))}` shows its log too",
            flush=True,
        )
        follower = Follower(run, job, self.queue_minutes)

        def wait() -> int:
            follow_jobs([follower])
            return follower.code or 0

        code = wait_stoppable(
            run, wait=wait, kill=lambda: cancel(job), queued=lambda: follower.queued
        )
        return settle(run, code, follower.reason)

    def submit(self, run: WorkDir, execution: Execution) -> str:
        """Write the batch script into the attempt and submit it; returns the job's id."""
        job = sbatch(str(write_script(run, execution, self.batch)))
        self.note(run, job=job)
        return job

    def arrays(self) -> Arrays:
        """Job arrays."""
        return SlurmArrays(batch=self.batch, queue_minutes=self.queue_minutes, note=self.note)

    def where(self, handle: ProcessHandle) -> str:
        """By job id."""
        return f"Slurm job {handle.text('job')}"

    def is_alive(self, handle: ProcessHandle) -> bool:
        """Whether Slurm says that the job runs or waits."""
        return is_under_way(job_state(handle.text("job")))

    def kill(self, handle: ProcessHandle) -> None:
        """Cancel the job and wait until Slurm says that it ended."""
        cancel(handle.text("job"))

    def stop(self, handle: ProcessHandle, *, now: bool) -> str:
        """Also takes a job out of the queue, where nothing runs that could see the stop file."""
        job = handle.text("job")
        if job_state(job).get("JobState") != "PENDING":
            return super().stop(handle, now=now)
        cancel(job)
        handle.run.set_status("preempted", message=STOPPED_IN_QUEUE, exit_code=PREEMPTED_CODE)
        return f"took {self.where(handle)} out of the queue"

    @classmethod
    def diagnose(cls, gpus: Sequence[Gpu], *, tiny: bool) -> list[Check]:
        """Whether Slurm's commands are here."""
        here = shutil.which("sbatch") is not None
        message = "sbatch is here: --launcher slurm" if here else "not installed, and not needed"
        return [Check(name="Slurm", state="ok", message=message)]
