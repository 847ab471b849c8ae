"""At which lag two records of per-step losses tell of the same samples.

A step's loss is a trend, which every training of a model has, plus how hard that step's samples
are.
Two trends always correlate, whatever was fed; so the trend is taken out of either record first, by
a straight line in the logarithm of the step, fitted to 7 neighbouring entries.
Steps where that line falls by more than its residuals scatter are left out: there the bend of the
fall is as large as what is looked for (the first steps of stage 1).
Without that rule, or with 15 neighbours, trainings of other orders that fall steeply correlate at
lag 0 (docs/log.md).
What is left becomes normal scores, so that one spike decides nothing, and is correlated at every
lag.

The null distribution is measured, not assumed: the z values (Fisher's, by the pairs of each lag) of
all lags but the one in question and its neighbours.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from densekit.audit.trajectory.published import PublishedLog

NEIGHBOURS = 7
"""Entries that the local trend is fitted to."""
FEWEST = 20
"""Pairs below which a lag is not looked at."""
APART = NEIGHBOURS - 1
"""Lags (in entries) around one that share its local trends: they are not part of its null."""
NORMAL = NormalDist()
MAD_TO_SD = 1.4826
"""A normal distribution's standard deviation by its median absolute deviation."""


@dataclass(frozen=True, kw_only=True)
class Lag:
    """The correlation at one lag: the file's step is the run's step plus `lag`."""

    lag: int
    pairs: int
    """Entries that both records have there."""
    correlation: float
    """Of the detrended losses, in normal scores."""
    z: float
    """Fisher's z by its spread over the other lags: standard normal where nothing is shared."""

    @property
    def p(self) -> float:
        """Chance of such a correlation, or a larger one, at this one lag where nothing is
        shared.
        """
        return NORMAL.cdf(-self.z)

    @property
    def p_of_either_sign(self) -> float:
        """As `p`, where a negative correlation would say as much."""
        return 2 * NORMAL.cdf(-abs(self.z))


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """All lags of a run and a published log."""

    zero: Lag | None
    """Lag 0; None with fewer than FEWEST pairs."""
    best: Lag | None
    """The lag of the largest z."""
    lags: int
    """Lags looked at."""
    null_mean: float
    """Of the correlations at the other lags."""
    null_sd: float
    null_largest: float
    spread: float
    """Standard deviation of Fisher's z over the other lags, at least 1."""

    @property
    def best_p(self) -> float:
        """Chance that the best of all lags is as good where nothing is shared (Bonferroni)."""
        return 1.0 if self.best is None else min(1.0, self.lags * self.best.p)

    def upper_bound(self, z: float) -> float:
        """The largest correlation at lag 0 that its z is within `z` spreads of."""
        if self.zero is None:
            return 1.0
        spread = self.spread / math.sqrt(self.zero.pairs - 3)
        return math.tanh(math.atanh(_inside(self.zero.correlation)) + z * spread)


def align(run: np.ndarray, log: PublishedLog) -> Alignment:
    """Correlate what a run has step by step with a log's losses, at every lag of FEWEST pairs.

    `run` [R] has a value for each of the steps 1..R (NaN: none). A log of every tenth step is
    compared at every lag of one step all the same: the run's means are made for each.
    """
    steps, interval = log.steps, log.interval
    phase = int(steps[-1]) % interval
    regular = (steps % interval == phase) & (log.windows == interval)
    rows = int(steps[-1] - phase) // interval + 1
    logged = np.full(rows, np.nan)
    logged[(steps[regular] - phase) // interval] = log.losses[regular]
    ends = phase + interval * np.arange(rows)
    target = normal_scores(detrended(ends, logged))
    found: list[tuple[int, int, float]] = []
    for shift in range(interval):
        means, first = _means(run, interval, phase - shift)
        if len(means) < FEWEST:
            continue
        scores = normal_scores(detrended(first + interval * np.arange(len(means)), means))
        # Row i of the means ends at step `first + i * interval`, row j of the log at `ends[j]`.
        base = phase - first
        found += [(base + interval * at, n, r) for at, n, r in _correlations(scores, target)]
    return _summarised(found, interval)


def detrended(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values [N] less their local line in log(step), each residual by its leverage; NaN stays NaN,
    and becomes what falls or rises steeply.
    """
    kept = np.flatnonzero(np.isfinite(values))
    left = np.full(len(values), np.nan)
    if len(kept) < FEWEST:
        return left
    x, y = np.log(np.maximum(steps[kept], 1).astype(np.float64)), values[kept]
    start = np.clip(np.arange(len(kept)) - NEIGHBOURS // 2, 0, len(kept) - NEIGHBOURS)
    near_x = sliding_window_view(x, NEIGHBOURS)[start]
    near_y = sliding_window_view(y, NEIGHBOURS)[start]
    from_mean = near_x - near_x.mean(axis=1, keepdims=True)
    squares = (from_mean**2).sum(axis=1)
    slope = (from_mean * near_y).sum(axis=1) / squares
    away = x - near_x.mean(axis=1)
    leverage = 1 / NEIGHBOURS + away**2 / squares
    residuals = (y - near_y.mean(axis=1) - slope * away) / np.sqrt(1 - leverage)
    scatter = MAD_TO_SD * np.median(np.abs(residuals))
    by_step = np.abs(np.gradient(x)) * np.abs(slope)
    left[kept] = np.where(by_step <= scatter, residuals, np.nan)
    return left


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Values [N] by the standard normal's quantile of their rank; NaN stays NaN."""
    kept = np.flatnonzero(np.isfinite(values))
    scores = np.full(len(values), np.nan)
    ranks = np.empty(len(kept), dtype=np.int64)
    ranks[np.argsort(values[kept], kind="stable")] = np.arange(len(kept))
    quantiles = [NORMAL.inv_cdf((rank + 0.5) / len(kept)) for rank in range(len(kept))]
    scores[kept] = np.array(quantiles)[ranks] if len(kept) else []
    return scores


def _means(run: np.ndarray, interval: int, phase: int) -> tuple[np.ndarray, int]:
    """Means of `interval` steps that end at steps congruent to `phase`, and the first such step."""
    first = interval + (phase - interval) % interval
    count = max(0, (len(run) - first) // interval + 1) if len(run) >= first else 0
    offset = first - interval
    return run[offset : offset + count * interval].reshape(count, interval).mean(axis=1), first


def _correlations(run: np.ndarray, log: np.ndarray) -> list[tuple[int, int, float]]:
    """(rows that the log is behind, pairs, correlation) of every such number with FEWEST pairs."""
    size = 1 << (len(run) + len(log)).bit_length()

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """sum over i of a[i] b[i + k], for k = -(len(run) - 1) .. len(log) - 1."""
        spectrum = np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size)
        whole = np.fft.irfft(spectrum, size)
        return np.concatenate([whole[size - len(run) + 1 :], whole[: len(log)]])

    mask_a, mask_b = np.isfinite(run).astype(float), np.isfinite(log).astype(float)
    a, b = np.nan_to_num(run), np.nan_to_num(log)
    pairs = np.rint(product(mask_a, mask_b)).astype(np.int64)
    squares = product(a * a, mask_b) * product(mask_a, b * b)
    kept = np.flatnonzero((pairs >= FEWEST) & (squares > 1e-12))
    values = product(a, b)[kept] / np.sqrt(squares[kept])
    lags = kept - (len(run) - 1)
    return list(zip(lags.tolist(), pairs[kept].tolist(), values.tolist(), strict=True))


def _summarised(found: list[tuple[int, int, float]], interval: int) -> Alignment:
    lags = np.array([lag for lag, _, _ in found], dtype=np.int64)
    pairs = np.array([count for _, count, _ in found], dtype=np.int64)
    values = np.array([value for _, _, value in found], dtype=np.float64)
    z = np.arctanh(np.clip(values, -0.999999, 0.999999)) * np.sqrt(np.maximum(pairs - 3, 1))
    if not found:
        return Alignment(
            zero=None, best=None, lags=0, null_mean=0, null_sd=0, null_largest=0, spread=1
        )
    best = int(np.argmax(z))
    far = np.abs(lags - lags[best]) > APART * interval
    far &= np.abs(lags) > APART * interval
    spread = max(1.0, float(np.sqrt(np.mean(z[far] ** 2)))) if far.any() else 1.0
    others = values[far] if far.any() else np.zeros(1)

    def lag(at: int) -> Lag:
        return Lag(
            lag=int(lags[at]),
            pairs=int(pairs[at]),
            correlation=float(values[at]),
            z=float(z[at]) / spread,
        )

    at_zero = np.flatnonzero(lags == 0)
    return Alignment(
        zero=lag(int(at_zero[0])) if len(at_zero) else None,
        best=lag(best),
        lags=len(found),
        null_mean=float(others.mean()),
        null_sd=float(others.std()),
        null_largest=float(others.max()),
        spread=spread,
    )


def _inside(correlation: float) -> float:
    return max(-0.999999, min(0.999999, correlation))
