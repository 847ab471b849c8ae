"""Jobs of Slurm: in which state they are, their end, and a follower that shows what one writes
until it is over.

A job is named by its id, an element of a job array by `ARRAY_INDEX`.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from densekit.errors import DataError
from densekit.runs.layout import PREEMPTED_CODE, RunDir

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
    "PartitionConfig",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
}
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


class LostContactError(DataError):
    """Slurm does not answer any more; its jobs may well go on."""


State = Mapping[str, str]
"""What `scontrol show job` says of a job; empty where Slurm does not know it any more."""


def job_states(jobs: Sequence[str]) -> dict[str, State]:
    """The state of each job, asked once for all elements of an array. Raises DataError when Slurm
    does not answer.
    """
    found: dict[str, State] = {}
    for base in dict.fromkeys(job.partition("_")[0] for job in jobs):
        for line in _show(base):
            state = dict(re.findall(r"(\w+(?:/\w+)*(?::\w+)*)=(\S*)", line))
            found[base] = state
            found |= {f"{base}_{index}": state for index in _indices(state.get("ArrayTaskId", ""))}
    return {job: found.get(job, {}) for job in jobs}


def job_state(job: str) -> State:
    """The state of one job."""
    return job_states([job])[job]


def _show(job: str) -> list[str]:
    environment = {**os.environ, "SLURM_BITSTR_LEN": "0"}  # all indices of an array, however many
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(
            f"Slurm does not answer ({error}): `squeue` shows whether job {job} still runs"
        ) from None
    if done.returncode != 0:
        if "Invalid job id" in done.stderr:
            return []
        told = done.stderr.strip().splitlines() or ["no reason given"]
        raise DataError(
            f"Slurm does not answer ({told[-1]}): `squeue` shows whether job {job} still runs"
        )
    return done.stdout.splitlines()


def _indices(written: str) -> list[int]:
    """`0-2,5%4` -> [0, 1, 2, 5]: elements that wait are shown together."""
    found: list[int] = []
    for part in filter(None, written.partition("%")[0].split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def cancel(*jobs: str) -> None:
    """End jobs, their steps included, and wait until Slurm says so."""
    if not jobs:
        return
    subprocess.run(["scancel", *jobs], capture_output=True, check=False)
    deadline = time.monotonic() + LOST_AFTER_SECONDS
    while left := [job for job, state in job_states(jobs).items() if is_under_way(state)]:
        if time.monotonic() > deadline:
            raise DataError(
                f"Slurm did not end job {', '.join(left)}: `scancel {' '.join(left)}` tries again"
            )
        time.sleep(POLL_SECONDS)


def is_under_way(state: State) -> bool:
    """Whether a job runs or waits."""
    return state.get("JobState") not in (None, *ENDED)


class Follower:
    """Shows a job's output as it comes and notices its end, through every time it is queued again.

    `prefix` stands before what is shown where several are followed.
    """

    def __init__(
        self, run: RunDir, job: str, queue_minutes: float | None, prefix: str = ""
    ) -> None:
        self.run, self.job, self.prefix = run, job, prefix
        self.code: int | None = None
        """The exit code of a job that is over."""
        self.reason: str | None = None
        """Why it is over, where the trainer could not see it."""
        self.output = run.attempt / f"slurm-{job}.out"
        self.shown = 0
        self.waiting: str | None = None
        self.patience = None if queue_minutes is None else queue_minutes * 60
        self.queued_since: float | None = None

    def look(self, state: State) -> None:
        """Show what is new and judge the job's state."""
        self._show()
        # An element that is cancelled before it starts vanishes; one that is complete may be
        # forgotten soon.
        current = state.get("JobState", "COMPLETED" if self.run.complete else "CANCELLED")
        if current in ENDED:
            self._ended(current, state)
        elif current == "PENDING":
            self._pending(state.get("Reason", ""))
        elif current == "RUNNING":
            self.queued_since, self.waiting = None, None

    def give_up(self, reason: str) -> None:
        """Take the job back, for a reason."""
        cancel(self.job)
        self.code, self.reason = 1, reason

    def _ended(self, current: str, state: State) -> None:
        self._show(whole=True)
        code, _, signal = state.get("ExitCode", "0:0").partition(":")
        self.reason = REASONS.get(current)
        if current == "CANCELLED" and self.run.status.state in ("preempted", "complete"):
            self.reason = None
        if current == "OUT_OF_MEMORY":
            self.code = 137
            return
        self.code = (
            int(code)
            or (128 + int(signal) if signal.isdigit() and int(signal) else 0)
            or int(current != "COMPLETED")
        )

    def _pending(self, reason: str) -> None:
        now = time.monotonic()
        self.queued_since = None if reason == "Dependency" else self.queued_since or now
        if reason != self.waiting:
            self.waiting = reason
            print(f"{self.prefix}waiting in the queue ({reason})", file=sys.stderr, flush=True)
        if self.run.stop_file.exists():  # nothing runs that could see it
            cancel(self.job)
            self.run.set_status(
                "preempted", message="stopped while its job was queued", exit_code=PREEMPTED_CODE
            )
            self.code = PREEMPTED_CODE
        elif reason in HOPELESS:
            self.give_up(
                f"Slurm would never start the job ({reason}), so it was cancelled: `sinfo` shows what there is; fewer "
                "--nodes or --gpus, or another --sbatch partition=... or time=..."
            )
        elif (
            self.patience is not None
            and self.queued_since
            and now - self.queued_since > self.patience
        ):
            self.give_up(
                f"the job waited {self.patience / 60:g} minutes for its nodes ({reason}) and was cancelled: `sinfo` "
                "shows which nodes there are; ask for fewer, or wait longer with --queue-minutes"
            )

    def _show(self, *, whole: bool = False) -> None:
        """Write on what the job wrote; with a prefix, line by line."""
        if not self.output.is_file():
            return
        with self.output.open("rb") as file:
            file.seek(self.shown)
            data = file.read()
        if self.prefix and not whole:
            data = data[: data.rfind(b"\n") + 1]
        self.shown += len(data)
        text = data.decode("utf-8", errors="replace")
        sys.stdout.write("".join(f"{self.prefix}{line}" for line in text.splitlines(keepends=True)))
        sys.stdout.flush()


def follow_jobs(followers: Sequence[Follower], between: Callable[[], None] | None = None) -> None:
    """Look at all jobs until none is left; `between` is called after each round.

    Raises LostContactError when Slurm does not answer for two minutes.
    """
    lost_since: float | None = None
    while left := [follower for follower in followers if follower.code is None]:
        try:
            states = job_states([follower.job for follower in left])
            lost_since = None
        except DataError as error:
            lost_since = lost_since or time.monotonic()
            if time.monotonic() - lost_since > LOST_AFTER_SECONDS:
                raise LostContactError(
                    f"{error}; nothing was cancelled: `densekit tail` and `stop` find it"
                ) from None
            states = {}
        for follower in left:
            if follower.job in states:
                follower.look(states[follower.job])
        if between:
            between()
        if any(follower.code is None for follower in followers):
            time.sleep(POLL_SECONDS)
