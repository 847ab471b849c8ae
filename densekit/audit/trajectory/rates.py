"""Whether a published log has the learning rates of a run.

HF's Trainer logs the rate after the scheduler has stepped, that of the next step; newer versions
log the one that was used.
Both are tried, and the one that fits better counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densekit.audit.trajectory.published import PublishedLog
from densekit.runs.records import StepRecord

TOLERANCE = 1e-3
"""Of the run's largest rate so far: a schedule one step longer stays below it."""
CONSTANT = 0.02
"""Relative spread below which a ratio of rates is one factor."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Learning rates of a log beside a run's, at the same steps."""

    compared: int
    """Entries that both have a rate for."""
    logged_ahead: bool
    """Whether the log has the next step's rate at each entry."""
    largest: float
    """Largest difference by the run's largest rate."""
    factor: float | None
    """The log's rates by the run's, where that is one number; None where it is not, or nothing is
    compared.
    """
    first: int | None
    """First step that differs by more than TOLERANCE."""

    @property
    def equal(self) -> bool:
        """Whether nothing that was compared differs."""
        return self.first is None


def compare_rates(log: PublishedLog, records: Sequence[StepRecord]) -> Rates:
    """The rates of the log's entries beside the run's."""
    rates = np.array([step.lr for step in records], dtype=float)
    tried = [_compared(log, rates, ahead=ahead) for ahead in (True, False)]
    return min(tried, key=lambda found: (found.compared == 0, found.largest))


def _compared(log: PublishedLog, rates: np.ndarray, *, ahead: bool) -> Rates:
    at = log.steps - 1 + ahead
    both = (at < len(rates)) & np.isfinite(log.learning_rates)
    steps, logged = log.steps[both], log.learning_rates[both]
    ours = rates[at[both]]
    if not len(steps) or ours.max() <= 0:
        return Rates(compared=0, logged_ahead=ahead, largest=0.0, factor=None, first=None)
    off = np.abs(logged - ours) / ours.max()
    wrong = np.flatnonzero(off > TOLERANCE)
    # A rate near 0 says nothing about a factor.
    told = ours > 0.05 * ours.max()
    ratios = logged[told] / ours[told]
    middle = float(np.median(ratios))
    constant = bool(np.all(np.abs(ratios - middle) <= CONSTANT * max(abs(middle), TOLERANCE)))
    return Rates(
        compared=len(steps),
        logged_ahead=ahead,
        largest=float(off.max()),
        factor=middle if constant else None,
        first=int(steps[wrong[0]]) if len(wrong) else None,
    )
