"""When a run saves and stops: by steps, by minutes, or because it was asked to."""

import time

from densekit.runs.layout import RunDir
from densekit.runs.records import Position, Records
from densekit.spec.execution import SavePolicy
from densekit.train.checkpoints import prune, save_checkpoint
from densekit.train.collectives import gather_objects
from densekit.train.feed_check import SAVE, STOP
from densekit.train.preemption import Preempted, StopRequests
from densekit.train.trainer import Trainer


class RunSaver:
    """The Saver of a run: checkpoints under its directory, requests to stop from signals and its
    stop file.
    """

    def __init__(self, run: RunDir, policy: SavePolicy, requests: StopRequests) -> None:
        self.run, self.policy, self.requests = run, policy, requests
        self.sha256 = run.sha256
        self.saved_at = time.monotonic()

    def flags(self, step: int) -> int:
        policy = self.policy
        minutes = (time.monotonic() - self.saved_at) / 60
        due = policy.every_steps is not None and step > 0 and step % policy.every_steps == 0
        due = due or (policy.every_minutes is not None and minutes >= policy.every_minutes)
        return SAVE * due | STOP * self.requests.requested

    def save(self, trainer: Trainer, step: int, records: Records | None) -> None:
        (position, *_) = gather_objects(records.position() if records is not None else Position())
        save_checkpoint(
            trainer.engine,
            self.run.checkpoints,
            step=step,
            optimizer_steps=trainer.optimizer_steps,
            overflows_in_a_row=trainer.overflows_in_a_row,
            summary=trainer.summary,
            records=position,
            run_sha256=self.sha256,
        )
        if trainer.engine.rank == 0:
            prune(self.run.checkpoints, keep=self.policy.keep, keep_hours=self.policy.keep_hours)
        self.saved_at = time.monotonic()

    def stop(self, step: int) -> None:
        (by, *_) = [found for found in gather_objects(self.requests.by) if found]
        raise Preempted(
            f"stopped by {by} after step {step}, at a checkpoint; start the run again to resume"
        )
