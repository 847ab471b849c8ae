"""What a run and a published log say of the same steps, entry by entry (lag 0)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densekit.audit.trajectory.published import PublishedLog
from densekit.runs.records import StepRecord

LITTLE = 0.05
"""Relative spread below which lengths of samples do not vary."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The entries that both have with a finite loss."""

    steps: np.ndarray
    """Step of the log's entry [P]."""
    run: np.ndarray
    """The run's mean loss over the steps of the entry [P]."""
    file: np.ndarray
    """The logged loss [P]."""
    tokens: np.ndarray
    """Mean tokens of a sample in those steps, of the run [P]."""

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def differences(self) -> np.ndarray:
        """File less run [P]."""
        differences: np.ndarray = self.file - self.run
        return differences


def run_losses(records: Sequence[StepRecord]) -> np.ndarray:
    """Losses of steps 1..R [R]; NaN where a step's was not finite."""
    return np.array([np.nan if step.loss is None else step.loss for step in records], dtype=float)


def sample_lengths(records: Sequence[StepRecord]) -> np.ndarray:
    """Mean tokens of a sample in steps 1..R [R]."""
    return np.array([step.tokens / max(1, step.samples) for step in records], dtype=float)


def varying(lengths: np.ndarray) -> np.ndarray:
    """The same lengths, NaN where they hardly differ: what is left of those says nothing."""
    differ = lengths.std() >= LITTLE * lengths.mean()
    return lengths if differ else np.full(len(lengths), np.nan)


def paired(log: PublishedLog, records: Sequence[StepRecord]) -> Pairs:
    """The log's entries beside the run's means over the same steps."""
    losses, tokens = run_losses(records), sample_lengths(records)
    rows = []
    for step, window, loss in zip(
        log.steps.tolist(), log.windows.tolist(), log.losses.tolist(), strict=True
    ):
        if step <= len(losses) and np.isfinite(loss):
            part = slice(step - window, step)
            mean = losses[part].mean()
            if np.isfinite(mean):
                rows.append((step, mean, loss, tokens[part].mean()))
    table = np.array(rows, dtype=float).reshape(-1, 4)
    return Pairs(
        steps=table[:, 0].astype(np.int64), run=table[:, 1], file=table[:, 2], tokens=table[:, 3]
    )
