"""Jobs of Slurm: which state they are in, and how they are cancelled.

A job is named by its id, an element of a job array by `ARRAY_INDEX`.
"""

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence

from densekit.errors import DataError

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
"""After so long without an answer from Slurm the driver stops following its jobs."""

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
        raise _no_answer(job, str(error)) from None
    if done.returncode != 0:
        if "Invalid job id" in done.stderr:
            return []
        raise _no_answer(job, (done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return done.stdout.splitlines()


def _no_answer(job: str, why: str) -> DataError:
    return DataError(f"Slurm does not answer ({why}): `squeue` shows whether job {job} still runs")


def _indices(written: str) -> list[int]:
    """`0-2,5%4` -> [0, 1, 2, 5]: Slurm shows elements that wait together."""
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
                f"Slurm has not ended job {', '.join(left)}: try `scancel {' '.join(left)}` again"
            )
        time.sleep(POLL_SECONDS)


def is_under_way(state: State) -> bool:
    """Whether a job runs or waits."""
    return state.get("JobState") not in (None, *ENDED)
