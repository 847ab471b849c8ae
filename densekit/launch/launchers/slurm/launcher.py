"""The slurm launcher: jobs are submitted, followed until they end, and cancelled when the driver is
told to stop.
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from densekit.errors import UsageError
from densekit.launch.launchers.base import settle, this_host, wait_stoppable
from densekit.launch.launchers.slurm.jobs import Follower, cancel, follow_jobs
from densekit.launch.launchers.slurm.script import Batch, array_script, script
from densekit.runs.layout import RunDir
from densekit.runs.process_handle import Launched, write_launched
from densekit.spec.execution import Execution


@dataclass
class Slurm:
    """Jobs of the cluster that sbatch knows. `queue_minutes`: a job that did not start by then is
    given up.
    """

    batch: Batch = field(default_factory=Batch)
    queue_minutes: float | None = None
    name: str = field(default="slurm", init=False)

    def check(self, execution: Execution) -> None:
        """Slurm's commands, and an image where there is a container. Raises UsageError."""
        if missing := [
            tool for tool in ("sbatch", "scontrol", "scancel") if shutil.which(tool) is None
        ]:
            raise UsageError(
                f"{', '.join(missing)} not found: run this on a login node of the cluster"
            )
        self.check_options(execution)

    def check_options(self, execution: Execution) -> None:
        """UsageError for a container without an image, and for an image without one."""
        if self.batch.runtime != "none" and self.batch.image is None:
            raise UsageError(f"--container {self.batch.runtime}: say which image with --image")
        if self.batch.runtime == "none" and self.batch.image is not None:
            raise UsageError(
                f"--image {self.batch.image}: say what runs it: --container pyxis or apptainer"
            )

    def commands(self, run: RunDir, execution: Execution) -> list[str]:
        """The batch script, given to sbatch."""
        return [f"sbatch <<'END'\n{script(run, execution, self.batch)}END"]

    def launch(self, run: RunDir, execution: Execution) -> int:
        """Submit, show what the job writes, and wait. Raises UsageError when Slurm does not take
        the job.
        """
        job = self.submit(run, execution)
        print(f"Slurm job {job}; `densekit tail {run.path}` follows it too", flush=True)
        follower = Follower(run, job, self.queue_minutes)

        def wait() -> int:
            follow_jobs([follower])
            return follower.code or 0

        code = wait_stoppable(run, wait=wait, end=lambda: cancel(job))
        return settle(run, code, follower.reason)

    def submit(self, run: RunDir, execution: Execution) -> str:
        """Write the batch script into the attempt and submit it; returns the job's id."""
        job = _sbatch(str(self._write(run, execution)))
        self._note(run, job)
        return job

    def submit_array(
        self, members: Sequence[tuple[RunDir, Execution]], dependency: str | None = None
    ) -> list[str]:
        """Submit runs as the elements of one array; returns their ids. `dependency`: what it has to
        wait for.
        """
        for run, execution in members:
            self._write(run, execution)
        array = _sbatch(told=array_script(members, self.batch, dependency))
        jobs = [f"{array}_{index}" for index in range(len(members))]
        for (run, _), job in zip(members, jobs, strict=True):
            self._note(run, job)
        return jobs

    def _write(self, run: RunDir, execution: Execution) -> Path:
        """The batch script in the attempt, and the cache: containers mount it, and end where it is
        missing.
        """
        execution.roots.cache.mkdir(parents=True, exist_ok=True)
        path = run.attempt.resolve() / "job.sbatch"
        path.write_text(script(run, execution, self.batch), encoding="utf-8")
        return path

    def _note(self, run: RunDir, job: str) -> None:
        write_launched(run, Launched(launcher=self.name, host=this_host(), job=job))


def _sbatch(*arguments: str, told: str | None = None) -> str:
    """Submit a file, or a script that is told; returns the id."""
    command = ["sbatch", "--parsable", *arguments]
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UsageError(_refused(done.stderr))
    job = done.stdout.strip().split(";")[0]
    if not job.isdigit():
        raise UsageError(
            f"sbatch gives no job id but {done.stdout.strip()!r}: leave away the --sbatch option behind it"
        )
    return job


def _refused(told: str) -> str:
    line = next(
        (line for line in told.strip().splitlines() if "rror" in line),
        told.strip() or "no reason given",
    )
    line = (
        line.removeprefix("sbatch: ")
        .removeprefix("error: ")
        .removeprefix("Batch job submission failed: ")
    )
    if (
        "node configuration is not available" in line
        or "More processors requested" in line
        or "node count" in line
    ):
        return f"Slurm has no such nodes ({line}): fewer --nodes or --gpus, or another --sbatch partition=..."
    if "account" in line or "QOS" in line:
        return (
            f"Slurm does not take the job ({line}): name yours with --sbatch account=... or qos=..."
        )
    if "partition" in line:
        return f"Slurm does not take the job ({line}): `sinfo` lists the partitions, --sbatch partition=... names one"
    return f"Slurm does not take the job: {line.splitlines()[0]}"
