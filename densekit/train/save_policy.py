"""When a run saves and stops: by steps, by minutes, or because it was asked to."""

import time

from densekit.ranks.collectives import gather_objects
from densekit.runs.layout import RunDir
from densekit.runs.preemption import Preempted, StopRequests
from densekit.runs.records import Position, Records
from densekit.spec.execution import SavePolicy
from densekit.train.engines.base import Engine
from densekit.train.feed_check import SAVE, STOP
from densekit.train.saves import Cursor, Saves
from densekit.train.trainer import Trainer


class RunSaver:
    """The Saver of a run: checkpoints under its directory, requests to stop from signals and its
    stop file.
    """

    def __init__(
        self, engine: Engine, run: RunDir, policy: SavePolicy, requests: StopRequests
    ) -> None:
        self.policy, self.requests = policy, requests
        self.saves = Saves(
            engine,
            run.checkpoints,
            run_sha256=run.sha256,
            keep=policy.keep,
            keep_hours=policy.keep_hours,
        )
        self.saved_at = time.monotonic()

    def flags(self, step: int) -> int:
        policy = self.policy
        minutes = (time.monotonic() - self.saved_at) / 60
        due = policy.every_steps is not None and step > 0 and step % policy.every_steps == 0
        due = due or (policy.every_minutes is not None and minutes >= policy.every_minutes)
        return SAVE * due | STOP * self.requests.requested | self.saves.flags

    def settle(self, flags: int) -> None:
        self.saves.settle(flags)

    def save(self, trainer: Trainer, step: int, records: Records | None) -> None:
        (position, *_) = gather_objects(records.position() if records is not None else Position())
        self.saves.begin(
            Cursor(
                step=step,
                optimizer_steps=trainer.optimizer_steps,
                overflows_in_a_row=trainer.overflows_in_a_row,
                summary=trainer.summary,
                records=position,
            )
        )
        self.saved_at = time.monotonic()

    def finish(self) -> None:
        """Wait until the newest checkpoint is visible; every rank calls it."""
        self.saves.finish()

    def close(self) -> None:
        """Give up a save on its way: the attempt ends with an error."""
        self.saves.close()

    def stop(self, step: int) -> None:
        self.finish()
        (by, *_) = [found for found in gather_objects(self.requests.by) if found]
        raise Preempted(
            f"stopped by {by} after step {step}, at a checkpoint; start the run again to resume"
        )
