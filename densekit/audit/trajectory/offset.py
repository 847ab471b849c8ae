"""How far apart two records of the same steps lie: offset, drift, first step outside a band.

The difference is the file's loss less the run's.
What of it varies from step to step is how differently two models take the same samples; what stays
is an offset.
"""

import math
from dataclasses import dataclass

import numpy as np

from densekit.audit.trajectory.alignment import FEWEST, detrended, normal_scores
from densekit.audit.trajectory.pairs import Pairs, varying

EARLY = 10
"""Entries that the early and the late offset are means of."""
DEVIATIONS = 4.0
"""Standard errors that an offset must exceed besides the band."""


@dataclass(frozen=True, kw_only=True)
class Offset:
    """The differences (file less run) over the entries that both have."""

    mean: float
    error: float
    """Standard error of the mean, by what differs from one entry to the next."""
    early: float
    """Mean of the first EARLY entries."""
    early_error: float
    late: float
    """Mean of the last EARLY entries."""
    drift: float
    """Slope of the differences by 100 steps."""
    drift_error: float
    largest: float
    """Largest difference of one entry, without its sign."""
    early_loss: float
    """The file's mean loss over the first EARLY entries."""
    by_length: float | None
    """Correlation of the differences with the mean tokens of a step's samples, both detrended; None
    where lengths hardly vary, or too few entries are there.
    """
    first_outside: int | None
    """The first step at which the mean difference of the last EARLY entries leaves the band."""

    def systematic(self, band: float) -> bool:
        """Whether the early offset is outside the band, and no chance."""
        outside = abs(self.early) > band * self.early_loss
        return outside and abs(self.early) > DEVIATIONS * self.early_error


def measure_offset(pairs: Pairs, band: float) -> Offset | None:
    """The differences of pairs; None where there are none. `band` is a share of the file's loss."""
    count = len(pairs)
    if not count:
        return None
    differences = pairs.differences
    steps = pairs.steps.astype(float)
    noise = _step_noise(differences)
    early, late = differences[:EARLY], differences[-EARLY:]
    drift, drift_error = 0.0, math.inf
    if count > 2:
        centred = steps - steps.mean()
        squares = float((centred**2).sum())
        drift = 100 * float((centred * differences).sum()) / squares
        drift_error = 100 * noise / math.sqrt(squares)
    return Offset(
        mean=float(differences.mean()),
        error=noise / math.sqrt(count),
        early=float(early.mean()),
        early_error=noise / math.sqrt(len(early)),
        late=float(late.mean()),
        drift=drift,
        drift_error=drift_error,
        largest=float(np.abs(differences).max()),
        early_loss=float(pairs.file[:EARLY].mean()),
        by_length=_by_length(pairs),
        first_outside=_first_outside(pairs, band),
    )


def _step_noise(differences: np.ndarray) -> float:
    """Standard deviation of one difference, from those of neighbours."""
    if len(differences) < 2:
        return math.inf
    return float(np.sqrt(np.mean(np.diff(differences) ** 2) / 2))


def _by_length(pairs: Pairs) -> float | None:
    if len(pairs) < FEWEST or np.isnan(varying(pairs.tokens)).any():
        return None
    one, two = (
        normal_scores(detrended(pairs.steps, values))
        for values in (pairs.differences, pairs.tokens)
    )
    both = np.isfinite(one) & np.isfinite(two)
    one, two = one[both], two[both]
    squares = float((one**2).sum() * (two**2).sum())
    return float((one * two).sum()) / math.sqrt(squares) if squares > 0 else None


def _first_outside(pairs: Pairs, band: float) -> int | None:
    """EARLY entries are averaged, so that one hard step is not outside."""
    if len(pairs) < EARLY:
        return None
    kernel = np.full(EARLY, 1 / EARLY)
    differences = np.convolve(pairs.differences, kernel, mode="valid")
    losses = np.convolve(pairs.file, kernel, mode="valid")
    outside = np.flatnonzero(np.abs(differences) > band * np.abs(losses))
    return int(pairs.steps[outside[0] + EARLY - 1]) if len(outside) else None
