"""The training loop: one optimizer step is one global batch, on any ranks and micro-batches."""

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TextIO

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from densekit.errors import DataError, DensekitError
from densekit.model.init import named_seed
from densekit.model.preprocess import pixel_values
from densekit.runs.progress import Progress
from densekit.runs.recent import WINDOW, Recent
from densekit.runs.records import Records, StepMetrics
from densekit.runs.results import Summary
from densekit.spec.math import Optimizer
from densekit.spec.types import Semantics
from densekit.train.engines.base import Engine, OptimizerStep
from densekit.train.feed_check import SAVE, STOP, Feed, gather_feed
from densekit.train.optim import learning_rate_factor
from densekit.train.step_clock import Mark, StepClock
from densekit.train.step_dataset import StepBatch, StepDataset
from densekit.train.trackers import Trackers
from densekit.train.utilization import Utilization, take_peak_memory

MASKED_LIMIT = 0.1
MASKED_FROM_SAMPLES = 128
MASKED_ADVICE = (
    "If the notes say masked_mismatch, the official label counting does not fit this tokenizer: "
    "set `ledger: {L1: fixed}`; if truncated, raise data.max_length"
)
OVERFLOW_LIMIT = 12
"""Overflows in a row that end a run: from a loss scale of 65536 that is 32, and no gradient is that
large.
"""


class Saver(Protocol):
    """What decides about checkpoints and stopping, and writes them."""

    def flags(self, step: int) -> int:
        """The bits of this rank (feed_check) before optimizer step `step` (from 0)."""
        ...

    def settle(self, flags: int) -> None:
        """Go on with a save on its way, by the flags of all ranks; every rank calls it."""
        ...

    def save(self, trainer: "Trainer", step: int, records: Records | None) -> None:
        """Begin a checkpoint of the state after `step` steps; every rank calls it."""
        ...

    def stop(self, step: int) -> None:
        """Wait for the checkpoint, then raise what ends a run that was asked to stop."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunningStep:
    """A step that was asked of the device and may still be at work there."""

    batch: StepBatch
    loss: Tensor
    done: OptimizerStep
    overflows: int
    lr: float
    begin: Mark
    end: Mark


@dataclass(frozen=True, kw_only=True)
class PendingStep:
    """A running step that is not recorded yet, and what the record will say of its feed."""

    running: RunningStep
    feed: Feed
    waited: float
    """Seconds until the loader had its batch."""


class Trainer:
    """Trains over the steps of a StepDataset.

    Ranks and micro-batches sum: every micro-batch carries its own token weights, so gradients add
    up to the gradient of the reference loss (docs/architecture.md, "Why sums"). `seed` names the
    draws of dropout. `overflow`: what an fp16 overflow does to its batch (docs/upstream.md, L2).
    `utilization`: where the GPUs' peak is known.
    """

    def __init__(
        self,
        engine: Engine,
        dataset: StepDataset,
        optimizer_config: Optimizer,
        *,
        seed: int,
        overflow: Semantics = "faithful",
        workers: int = 0,
        utilization: Utilization | None = None,
    ) -> None:
        self.engine, self.dataset, self.optimizer_config = engine, dataset, optimizer_config
        table = dataset.reader.processor.lookup_table()
        self.lookup_table = torch.from_numpy(table).to(engine.device)
        self.seed, self.overflow, self.workers = seed, overflow, workers
        self.utilization = utilization
        self.clock = StepClock(engine.device)
        self.summary = Summary()
        self.optimizer_steps = 0
        self.overflows_in_a_row = 0
        self.recent: deque[StepMetrics] = deque(maxlen=WINDOW)
        self.trackers: Trackers | None = None

    def batches(self, start: int = 0) -> Iterator[StepBatch]:
        """This rank's batches from step `start` on; a data error of a worker is raised here."""
        rest = Subset(self.dataset, range(start, len(self.dataset)))
        loader = DataLoader(
            rest,
            batch_size=None,
            shuffle=False,
            num_workers=self.workers,
            pin_memory=self.engine.device.type == "cuda",
        )
        for batch in loader:
            if isinstance(batch, DensekitError):
                raise batch
            yield batch

    def train(
        self,
        records: Records | None = None,
        *,
        label: str,
        start: int = 0,
        saver: Saver | None = None,
        log: TextIO | None = None,
        trackers: Trackers | None = None,
        quiet: bool = False,
    ) -> Summary:
        """Run every step from `start` on; write one line per step to `records` (rank 0), the same
        figures to `trackers`, and progress to `log`.

        Raises DataError when a sample cannot be read or the loss stops being finite, RuntimeError
        when the ranks fed other samples than the order lists.
        """
        progress = Progress(
            label,
            len(self.dataset),
            start=start,
            log=log,
            enabled=self.engine.rank == 0 and not quiet,
        )
        self.trackers = trackers
        before, started = self.summary.seconds, time.monotonic()
        ended = self.clock.mark()
        pending: PendingStep | None = None
        batches = self.batches(start)
        while True:
            asked = time.monotonic()
            try:
                batch = next(batches, None)
            except DensekitError:
                self._record(pending, ended, records, progress)  # what was computed is recorded
                raise
            waited = time.monotonic() - asked
            if batch is None:
                break
            # The one wait for the device in a step: here the step before comes to its end.
            feed = self.check_feed(batch, saver.flags(batch.index) if saver else 0)
            ended = self._record(pending, ended, records, progress)
            if saver:
                saver.settle(feed.flags)
            if saver and feed.flags & (SAVE | STOP):
                self.summary.seconds = round(before + time.monotonic() - started, 2)
                saver.save(self, batch.index, records)
                if feed.flags & STOP:
                    saver.stop(batch.index)
            pending = PendingStep(running=self.begin(batch), feed=feed, waited=waited)
        self._record(pending, ended, records, progress)
        self.summary.seconds = round(before + time.monotonic() - started, 2)
        return self.summary

    def _record(
        self, pending: PendingStep | None, ended: Mark, records: Records | None, progress: Progress
    ) -> Mark:
        """Wait for the device, and record the step that is through (None: there is none). `ended`:
        when the one before it was; returns when this one was.
        """
        if pending is None:
            return ended
        running, feed = pending.running, pending.feed
        record = self.finish(running)
        seconds = self.clock.between(ended, running.end)
        # What the loop waited while a GPU still computed cost nothing.
        idle = self.clock.between(ended, running.begin)
        known = self.utilization
        record = replace(
            record,
            seconds=round(seconds, 4),
            data_seconds=round(min(pending.waited, idle), 4),
            compute_seconds=round(seconds - idle, 4),
            tokens_per_second=round(record.tokens / max(seconds, 1e-4), 1),
            mfu=None if known is None else round(known.of(running.batch, seconds), 4),
            peak_memory_gib=take_peak_memory(self.engine.device),
        )
        self.recent.append(record)
        self._account(running.batch, record)
        if records is not None:
            records.append(record, feed.samples, feed.images)
        if self.trackers is not None:
            self.trackers.log(record)
        progress.update(running.batch.index + 1, lambda: Recent.of([*self.recent]).words())
        check_masked(self.summary)
        return running.end

    def check_feed(self, batch: StepBatch, flags: int = 0) -> Feed:
        """Gather what all ranks are about to feed and compare it with the order; RuntimeError if
        they differ.
        """
        feed = gather_feed(
            batch.micro_batches,
            flags=flags,
            world_size=self.engine.world_size,
            device=self.engine.device,
            step_size=batch.samples,
        )
        wanted = self.dataset.sample_ids(batch.index)
        if feed.samples != wanted:
            raise RuntimeError(
                f"step {batch.index + 1} fed samples {feed.samples}, the order asks for {wanted}"
            )
        return feed

    def step(self, batch: StepBatch) -> StepMetrics:
        """One optimizer step; returns its metrics, the times it took not among them. Raises as
        `begin` and `finish`.
        """
        return self.finish(self.begin(batch))

    def begin(self, batch: StepBatch) -> RunningStep:
        """Ask the device for one optimizer step, and wait for it only where fp16 has to know
        whether gradients overflowed.

        Raises DataError when they overflow too often in a row, and on a CPU, before any weight
        changes, when the loss is not a finite number.
        """
        overflows = 0
        factor = learning_rate_factor(
            self.optimizer_steps,
            steps=len(self.dataset),
            warmup_ratio=self.optimizer_config.warmup_ratio,
        )
        begin = self.clock.mark()
        while True:
            loss = self.accumulate(batch)
            if self.engine.device.type == "cpu":  # nobody waits for a device
                self._check_finite(loss.item(), batch)
            done = self.engine.optimizer_step(factor)
            overflows += done.overflow
            self.overflows_in_a_row = self.overflows_in_a_row + 1 if done.overflow else 0
            if self.overflows_in_a_row >= OVERFLOW_LIMIT:
                raise DataError(
                    f"fp16 gradients overflowed {self.overflows_in_a_row} times in a row at step "
                    f"{batch.index + 1}: training diverged, or this model needs bf16 or fp32 "
                    "(--dtype)"
                )
            if not done.overflow or self.overflow == "faithful":
                break
        self.optimizer_steps += not done.overflow
        return RunningStep(
            batch=batch,
            loss=loss,
            done=done,
            overflows=overflows,
            lr=self.optimizer_config.learning_rate * factor,
            begin=begin,
            end=self.clock.mark(),
        )

    def finish(self, running: RunningStep) -> StepMetrics:
        """What a step measured, once the device is through with it.

        Raises DataError when the loss is not a finite number (which fp16 recovers from): a GPU's
        weights are not either then, but no checkpoint was written since.
        """
        batch, done = running.batch, running.done
        loss = running.loss.item()
        self._check_finite(loss, batch)
        return StepMetrics(
            step=batch.index + 1,
            loss=loss if math.isfinite(loss) else None,
            lr=running.lr,
            grad_norm=None if done.grad_norm is None else float(done.grad_norm),
            updated=not done.overflow,
            overflows=running.overflows,
            samples=batch.samples,
            tokens=batch.tokens,
            supervised_tokens=batch.label_positions,
            masked_samples=batch.masked_samples,
            part_lrs=self._part_lrs(running.lr),
        )

    def _part_lrs(self, lr: float) -> dict[str, float] | None:
        """Rates of the parts where a tower is trained, while the base rate is `lr`."""
        config = self.optimizer_config
        if config.tower_learning_rate is None:
            return None
        rates = {
            "language_model": config.learning_rate,
            "connector": config.connector_learning_rate or config.learning_rate,
            "tower": config.tower_learning_rate,
        }
        return {part: rate * (lr / config.learning_rate) for part, rate in rates.items()}

    def _check_finite(self, loss: float, batch: StepBatch) -> None:
        if not math.isfinite(loss) and self.engine.execution.dtype != "fp16":
            raise DataError(
                f"loss is {loss} at step {batch.index + 1}: training diverged; "
                "lower optimizer.learning_rate or set optimizer.max_grad_norm"
            )

    def accumulate(self, batch: StepBatch) -> Tensor:
        """Forward and backward over this rank's micro-batches; gradients and the returned loss are
        summed over micro-batches and ranks.
        """
        loss = torch.zeros((), device=self.engine.device)
        for number, micro_batch in enumerate(batch.micro_batches):
            # Named after the step and the first sample, so that a resumed run draws the same masks.
            place = micro_batch.positions[0] if micro_batch.positions else "idle"
            torch.manual_seed(named_seed(self.seed, f"dropout:{batch.index}:{place}"))
            on_device = micro_batch.to(self.engine.device)
            images = pixel_values(on_device.pixels, self.lookup_table)
            last = number == len(batch.micro_batches) - 1
            loss += self.engine.forward_backward(on_device, images, last=last)
        total: Tensor = self.engine.accelerator.reduce(loss, reduction="sum")
        return total

    def _account(self, batch: StepBatch, record: StepMetrics) -> None:
        total = self.summary
        total.steps += 1
        for name in ("samples", "tokens", "masked_samples", "empty_groups"):
            setattr(total, name, getattr(total, name) + getattr(batch, name))
        for name in ("data_seconds", "compute_seconds"):
            setattr(total, name, round(getattr(total, name) + getattr(record, name), 4))
        total.peak_seconds = round(total.peak_seconds + (record.mfu or 0.0) * record.seconds, 4)
        total.supervised_tokens += batch.label_positions
        total.overflows += record.overflows
        total.skipped_steps += not record.updated
        for note, count in batch.notes.items():
            total.notes[note] = total.notes.get(note, 0) + count
        total.first_loss = record.loss if total.steps == 1 else total.first_loss
        total.last_loss = record.loss


def check_masked(summary: Summary) -> None:
    """Raise DataError in a run in which too many samples teach nothing."""
    if (
        summary.samples >= MASKED_FROM_SAMPLES
        and summary.masked_samples > MASKED_LIMIT * summary.samples
    ):
        raise DataError(
            f"{summary.masked_samples} of the first {summary.samples} samples have no label "
            f"({counted(summary.notes)}); the limit is {MASKED_LIMIT:.0%}. {MASKED_ADVICE}"
        )


def counted(notes: Mapping[str, int]) -> str:
    """What happened to samples on the way to tokens, in words."""
    return ", ".join(f"{name} {count}" for name, count in sorted(notes.items())) or "no notes"
