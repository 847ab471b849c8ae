"""Following jobs of Slurm: what they write, and their end, through every time they are requeued."""

import sys
import time
from collections.abc import Callable, Sequence

from densekit.errors import KILLED_CODE, PREEMPTED_CODE, DataError
from densekit.launch.launchers.base import LostContactError
from densekit.launch.launchers.output import Lines, Warned, say_repeated
from densekit.launch.launchers.slurm.jobs import (
    ENDED,
    LOST_AFTER_SECONDS,
    POLL_SECONDS,
    State,
    cancel,
    job_states,
)
from densekit.runs.layout import WorkDir

HOPELESS = {
    "PartitionConfig",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
}
"""Reasons for waiting that never end."""
REASONS = {
    "OUT_OF_MEMORY": "Slurm killed the job because host RAM ran out: ask for more with "
    "--sbatch mem=..., or use a smaller --micro-batch",
    "TIMEOUT": "time limit reached before a checkpoint could be saved: ask for more with "
    "--sbatch time=..., or save earlier with --sbatch signal=B:USR1@SECONDS",
    "NODE_FAIL": "a node of the job failed",
    "BOOT_FAIL": "a node of the job did not boot: `sinfo -R` says why",
    "DEADLINE": "the job could not end before its deadline",
    "CANCELLED": "the job was cancelled",
    "PREEMPTED": "Slurm preempted the job before a checkpoint could be saved",
}
"""Why a job ended, by its state, where the trainer cannot know it."""
STOPPED_IN_QUEUE = "stopped while its job was queued"


class Follower:
    """Shows a job's output as it comes and notices its end, through every time it is queued again.

    `prefix` stands before what is shown where several are followed.
    """

    def __init__(
        self, run: WorkDir, job: str, queue_minutes: float | None, prefix: str = ""
    ) -> None:
        self.run, self.job, self.prefix = run, job, prefix
        self.code: int | None = None
        """The exit code of a job that is over."""
        self.reason: str | None = None
        """Why it is over, where the trainer could not see it."""
        self.output = run.attempt / f"slurm-{job}.out"
        self.shown = 0
        self.warned = Warned()
        self.lines = Lines("stdout", self.warned, prefix=prefix)
        self.waiting: str | None = None
        self.patience = None if queue_minutes is None else queue_minutes * 60
        self.queued_since: float | None = None

    @property
    def queued(self) -> bool:
        """Whether the job still waited for its nodes when it was last looked at."""
        return self.code is None and self.waiting is not None

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
        """Cancel the job, for a reason."""
        cancel(self.job)
        self.code, self.reason = 1, reason

    def _ended(self, current: str, state: State) -> None:
        self._show()
        self.lines.end()
        say_repeated(self.warned)
        code, _, signal = state.get("ExitCode", "0:0").partition(":")
        self.reason = REASONS.get(current)
        if current == "CANCELLED" and self.run.status.state in ("preempted", "complete"):
            self.reason = None
        if current == "OUT_OF_MEMORY":
            self.code = KILLED_CODE
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
            self.run.set_status("preempted", message=STOPPED_IN_QUEUE, exit_code=PREEMPTED_CODE)
            self.code = PREEMPTED_CODE
        elif reason in HOPELESS:
            self.give_up(
                f"Slurm would never start the job ({reason}), so it was cancelled: use fewer "
                "--nodes or --gpus, or another --sbatch partition=... or time=... (`sinfo` lists "
                "what there is)"
            )
        elif (
            self.patience is not None
            and self.queued_since
            and now - self.queued_since > self.patience
        ):
            self.give_up(
                f"the job waited {self.patience / 60:g} minutes for its nodes ({reason}) and was "
                "cancelled: ask for fewer nodes, or wait longer with --queue-minutes (`sinfo` "
                "lists the nodes)"
            )

    def _show(self) -> None:
        """Hand on what the job wrote."""
        if not self.output.is_file():
            return
        with self.output.open("rb") as file:
            file.seek(self.shown)
            data = file.read()
        self.shown += len(data)
        self.lines.write(data)


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
                    f"{error}; nothing was cancelled: `densekit tail` follows the run and "
                    "`densekit stop` ends it once Slurm answers"
                ) from None
            states = {}
        for follower in left:
            if follower.job in states:
                follower.look(states[follower.job])
        if between:
            between()
        if any(follower.code is None for follower in followers):
            time.sleep(POLL_SECONDS)
