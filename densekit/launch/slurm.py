"""The slurm launcher: a job is submitted, followed until it ends, and cancelled when the driver is told to stop."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from densekit.errors import DataError, UsageError
from densekit.launch.base import settle, this_host, wait_stoppable
from densekit.launch.batch import Batch, script
from densekit.run.launched import Launched, write_launched
from densekit.run.layout import PREEMPTED_CODE, RunDir

POLL_SECONDS = 1.0
ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
}
LOST_AFTER_SECONDS = 120.0
"""How long Slurm may not answer before the job is given up."""
HOPELESS = {
    "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS",
}  # fmt: skip
"""Why a job is queued that will never start."""
REASONS = {
    "OUT_OF_MEMORY": "Slurm killed the job because memory ran out: ask for more with --sbatch mem=..., or a smaller "
    "--micro-batch",
    "TIMEOUT": "the job's time is over and it did not stop in time: `--sbatch time=...`, and the run goes on from its "
    "newest checkpoint",
    "NODE_FAIL": "a node of the job failed",
    "BOOT_FAIL": "a node of the job did not start: `sinfo -R` says why",
    "DEADLINE": "the job could not end before its deadline",
    "CANCELLED": "the job was cancelled",
    "PREEMPTED": "the job was preempted before it could save",
}


@dataclass
class Slurm:
    """Jobs of the cluster that sbatch knows. `queue_minutes`: a job that did not start by then is given up."""

    batch: Batch = field(default_factory=Batch)
    queue_minutes: float | None = None
    name: str = field(default="slurm", init=False)

    def check(self, execution: Mapping[str, Any]) -> None:
        """Slurm's commands, and an image where there is a container. Raises UsageError."""
        if missing := [tool for tool in ("sbatch", "scontrol", "scancel") if shutil.which(tool) is None]:
            raise UsageError(f"{', '.join(missing)} not found: run this on a login node of the cluster")
        if self.batch.runtime != "none" and self.batch.image is None:
            raise UsageError(f"--container {self.batch.runtime}: say which image with --image")
        if self.batch.runtime == "none" and self.batch.image is not None:
            raise UsageError(f"--image {self.batch.image}: say what runs it: --container pyxis or apptainer")

    def commands(self, run: RunDir, execution: Mapping[str, Any]) -> list[str]:
        """The batch script, given to sbatch."""
        return [f"sbatch <<'END'\n{script(run, execution, self.batch)}END"]

    def launch(self, run: RunDir, execution: Mapping[str, Any]) -> int:
        """Submit, show what the job writes, and wait. Raises UsageError when Slurm does not take the job."""
        job = self.submit(run, execution)
        print(f"Slurm job {job}; `densekit tail {run.path}` follows it too", flush=True)
        follower = _Follower(run, job, self.queue_minutes)
        code = wait_stoppable(run, wait=follower.wait, end=lambda: cancel(job))
        return settle(run, code, follower.reason)

    def submit(self, run: RunDir, execution: Mapping[str, Any]) -> str:
        """Write the batch script into the attempt and submit it; returns the job's id."""
        path = run.attempt.resolve() / "job.sbatch"
        path.write_text(script(run, execution, self.batch), encoding="utf-8")
        done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UsageError(_refused(done.stderr))
        job = done.stdout.strip().split(";")[0]
        write_launched(run, Launched(launcher=self.name, host=this_host(), job=job))
        return job


def cancel(job: str) -> None:
    """End a job, its steps included, and wait until Slurm says so."""
    subprocess.run(["scancel", job], capture_output=True, check=False)
    deadline = time.monotonic() + LOST_AFTER_SECONDS
    while time.monotonic() < deadline and job_state(job).get("JobState") not in (None, *ENDED):
        time.sleep(POLL_SECONDS)


def job_state(job: str) -> dict[str, str]:
    """What `scontrol show job` says; empty when Slurm does not know the job any more.

    Raises DataError when Slurm does not answer.
    """
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"Slurm does not answer ({error}): `squeue` shows whether job {job} still runs") from None
    if done.returncode != 0:
        if "Invalid job id" in done.stderr:
            return {}
        told = done.stderr.strip().splitlines() or ["no reason given"]
        raise DataError(f"Slurm does not answer ({told[-1]}): `squeue` shows whether job {job} still runs")
    return dict(re.findall(r"(\w+(?:/\w+)*(?::\w+)*)=(\S*)", done.stdout.splitlines()[0]))


def _refused(told: str) -> str:
    line = next((line for line in told.strip().splitlines() if "rror" in line), told.strip() or "no reason given")
    line = line.removeprefix("sbatch: ").removeprefix("error: ").removeprefix("Batch job submission failed: ")
    if "node configuration is not available" in line or "More processors requested" in line or "count" in line:
        return f"Slurm has no such nodes ({line}): fewer --nodes or --gpus, or another --sbatch partition=..."
    if "partition" in line:
        return f"Slurm does not take the job ({line}): `sinfo` lists the partitions, --sbatch partition=... names one"
    return f"Slurm does not take the job: {line.splitlines()[0]}"


class _Follower:
    """Shows a job's output as it comes and notices its end, through every time it is queued again."""

    def __init__(self, run: RunDir, job: str, queue_minutes: float | None) -> None:
        self.run, self.job = run, job
        self.reason: str | None = None
        self.output = run.attempt / f"slurm-{job}.out"
        self.shown = 0
        self.waiting: str | None = None
        self.patience = None if queue_minutes is None else queue_minutes * 60
        self.queued_since: float | None = None

    def wait(self) -> int:
        """The job's exit code; the reason of an end that the trainer could not see is kept in `reason`."""
        lost_since: float | None = None
        while True:
            try:
                state = job_state(self.job)
                lost_since = None
            except DataError:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > LOST_AFTER_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            self._show()
            current = state.get("JobState")
            if current is None or current in ENDED:
                return self._ended(current, state)
            if current == "PENDING" and (code := self._pending(state.get("Reason", ""))) is not None:
                return code
            if current == "RUNNING":
                self.queued_since, self.waiting = None, None
            time.sleep(POLL_SECONDS)

    def _ended(self, current: str | None, state: Mapping[str, str]) -> int:
        self._show()
        code, _, signal = state.get("ExitCode", "1:0").partition(":")
        self.reason = REASONS.get(current or "")
        if self.reason and current == "CANCELLED" and self.run.status["state"] == "preempted":
            self.reason = None
        return int(code) or (128 + int(signal) if signal.isdigit() and int(signal) else 0) or (current != "COMPLETED")

    def _pending(self, reason: str) -> int | None:
        """None to go on waiting; an exit code once the driver was told to stop or waited long enough."""
        now = time.monotonic()
        self.queued_since = self.queued_since or now
        if reason != self.waiting:
            self.waiting = reason
            print(f"waiting in the queue ({reason})", file=sys.stderr, flush=True)
        if self.run.stop_file.exists():  # nothing runs that could see it
            cancel(self.job)
            self.run.set_status("preempted", message="stopped while its job was queued", exit_code=PREEMPTED_CODE)
            return PREEMPTED_CODE
        if reason in HOPELESS:
            cancel(self.job)
            self.reason = (
                f"Slurm would never start the job ({reason}), so it was cancelled: `sinfo` shows what there is; fewer "
                "--nodes or --gpus, or another --sbatch partition=... or time=..."
            )
            return 1
        if self.patience is not None and now - self.queued_since > self.patience:
            cancel(self.job)
            minutes = f"{self.patience / 60:g}"
            self.reason = (
                f"the job waited {minutes} minutes for its nodes ({reason}) and was cancelled: `sinfo` shows which "
                "nodes there are; ask for fewer, or wait longer with --queue-minutes"
            )
            return 1
        return None

    def _show(self) -> None:
        if not self.output.is_file():
            return
        with self.output.open("rb") as file:
            file.seek(self.shown)
            data = file.read()
        self.shown += len(data)
        sys.stdout.write(data.decode("utf-8", errors="replace"))
        sys.stdout.flush()
