"""The training loop: one optimiser step is one global batch, whatever ranks and micro-batches carry it out."""

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from densekit.errors import DataError, DensekitError
from densekit.run.progress import Progress
from densekit.train.optim import gradient_norm, learning_rate_factor, make_optimizer, set_learning_rate
from densekit.train.samples import StepBatch, StepDataset

MASKED_LIMIT = 0.1
MASKED_FROM_SAMPLES = 128


@dataclass(kw_only=True)
class Summary:
    """Totals of a run: nothing that was skipped, masked or cut stays unsaid."""

    steps: int = 0
    samples: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    masked_samples: int = 0
    empty_groups: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    first_loss: float | None = None
    last_loss: float | None = None
    seconds: float = 0.0


class Trainer:
    """Trains a model's trainable parameters over the steps of a StepDataset.

    `settings` is the recipe's `optimizer` section. Ranks and micro-batches sum: every row carries its own token
    weights, so gradients add up to the gradient of the reference loss (docs/architecture.md, "Why sums").
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: StepDataset,
        settings: dict[str, Any],
        accelerator: Accelerator,
        *,
        lookup_table: Tensor,
        workers: int = 0,
    ) -> None:
        self.model, self.dataset, self.settings, self.accelerator = model, dataset, settings, accelerator
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(model, settings)
        self.lookup_table = lookup_table.to(accelerator.device)
        self.workers = workers

    def batches(self) -> Iterator[StepBatch]:
        """This rank's batches, one per optimiser step; a data error of a worker is raised here."""
        loader = DataLoader(self.dataset, batch_size=None, shuffle=False, num_workers=self.workers)
        for batch in loader:
            if isinstance(batch, DensekitError):
                raise batch
            yield batch

    def train(self, metrics: Path, *, label: str, log: TextIO | None = None, quiet: bool = False) -> Summary:
        """Run every step; write one JSON line per step to `metrics` and progress to `log`.

        Raises DataError when a sample cannot be read or the loss stops being finite.
        """
        main = self.accelerator.is_main_process
        progress = Progress(label, len(self.dataset), log=log, enabled=main and not quiet)
        summary = Summary()
        started = time.monotonic()
        with (metrics if main else Path(os.devnull)).open("w", encoding="utf-8") as file:
            for batch in self.batches():
                begun = time.monotonic()
                record = self.step(batch)
                record["seconds"] = round(time.monotonic() - begun, 4)
                _account(summary, batch, record)
                file.write(json.dumps(record) + "\n")
                file.flush()
                progress.update(batch.index + 1, loss=record["loss"], lr=record["lr"])
                check_masked(summary)
        summary.seconds = round(time.monotonic() - started, 2)
        return summary

    def step(self, batch: StepBatch) -> dict[str, Any]:
        """One optimiser step; returns its metrics (`grad_norm` is the norm before clipping).

        Raises DataError, before any weight changes, when the loss is not a finite number.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.accumulate(batch)
        if not math.isfinite(loss.item()):
            raise DataError(
                f"loss is {loss.item()} at step {batch.index + 1}: training diverged; "
                "lower optimizer.learning_rate or set optimizer.max_grad_norm"
            )
        norm = gradient_norm(self.parameters)
        limit = self.settings["max_grad_norm"]
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, limit, norm)
        factor = learning_rate_factor(batch.index, steps=len(self.dataset), warmup_ratio=self.settings["warmup_ratio"])
        set_learning_rate(self.optimizer, factor)
        self.optimizer.step()
        return {
            "step": batch.index + 1,
            "loss": loss.item(),
            "lr": self.settings["learning_rate"] * factor,
            "grad_norm": norm.item(),
            "samples": batch.samples,
            "tokens": batch.tokens,
            "supervised_tokens": batch.supervised_tokens,
            "masked_samples": batch.masked_samples,
        }

    def accumulate(self, batch: StepBatch) -> Tensor:
        """Forward and backward over this rank's rows; gradients and loss summed over rows and ranks."""
        self.dataset.check_ids(batch)
        loss = torch.zeros((), device=self.accelerator.device)
        for row in batch.rows:
            output = self.model(**row.model_inputs(self.accelerator.device, self.lookup_table))
            self.accelerator.backward(output.loss)
            loss += output.loss.detach()
        if self.accelerator.num_processes > 1:
            for parameter in self.parameters:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(gradient, reduction="sum")
            loss = self.accelerator.reduce(loss, reduction="sum")
        return loss


def check_masked(summary: Summary) -> None:
    """Raise DataError in a run in which too many samples teach nothing."""
    if summary.samples >= MASKED_FROM_SAMPLES and summary.masked_samples > MASKED_LIMIT * summary.samples:
        raise DataError(
            f"{summary.masked_samples} of the first {summary.samples} samples have no supervised token "
            f"({summary.notes}); the limit is {MASKED_LIMIT:.0%}. If the notes say masked_mismatch, the official "
            "label counting does not fit this tokenizer: set `ledger: {L1: fixed}`; if truncated, raise data.max_length"
        )


def _account(summary: Summary, batch: StepBatch, record: dict[str, Any]) -> None:
    summary.steps += 1
    summary.samples += batch.samples
    summary.tokens += batch.tokens
    summary.supervised_tokens += batch.supervised_tokens
    summary.masked_samples += batch.masked_samples
    summary.empty_groups += batch.empty_groups
    for note, count in batch.notes.items():
        summary.notes[note] = summary.notes.get(note, 0) + count
    summary.first_loss = record["loss"] if summary.first_loss is None else summary.first_loss
    summary.last_loss = record["loss"]
