"""Which situations hold between a run and a published log, and which of them speak against the run.

Several may hold at once: a log of every tenth step of a training with another learning rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from densekit.audit.trajectory.alignment import FEWEST, Alignment
from densekit.audit.trajectory.offset import EARLY, Offset
from densekit.audit.trajectory.pairs import Pairs
from densekit.audit.trajectory.published import ROUNDING, PublishedLog
from densekit.audit.trajectory.rates import CONSTANT, Rates
from densekit.audit.wording import count_of
from densekit.spec.types import Positions

Order = Literal["same", "shifted", "other", "undecided"]
Kind = Literal[
    "same",
    "same_order",
    "other_projector_seed",
    "other_order",
    "shifted_order",
    "other_learning_rate",
    "coarse_positions",
    "offset",
    "sparse_log",
    "repeated_steps",
    "not_finite",
    "other_length",
    "undecided",
]
AGAINST: tuple[Kind, ...] = (
    "other_order",
    "shifted_order",
    "other_learning_rate",
    "coarse_positions",
    "offset",
)
"""What a reproduction of the published training does not show."""
CHANCE = 1e-3
"""Probability below which a correlation is no chance, at lag 0 or at the best of all lags."""
CLEARLY = 0.2
"""By how much another lag must correlate better than a lag 0 that is no chance."""
SHARED = 0.7
"""Correlation at lag 0 that the same samples reach at least; every training that was measured
stayed above (docs/how-to/trajectory.md). Another order is named where it is ruled out.
"""
RULED_OUT = 3.1
"""Spreads of z within which a correlation is not ruled out (one in a thousand)."""
EQUAL = 1e-3
"""Relative difference of losses that other kernels and dtypes bring at equal weights."""
BY_LENGTH = 0.3
"""Correlation of an offset with the length of samples from which it grows with it."""
FIRST_EQUAL = 5
"""Entries that must be equal to the last digit to name the same training before FEWEST are
there.
"""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One thing that holds."""

    kind: Kind
    against: bool
    """Whether it speaks against the run as a reproduction of the published training."""
    message: str


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run's recipe says of what is compared."""

    stage: int
    positions: Positions
    learning_rate: float
    length: int | None
    """Steps of the whole run; None where its certificate is not there yet."""
    steps: int
    """Steps on record."""
    not_finite: tuple[int, ...]
    """Of them, those whose loss is not finite."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that was measured of one run and one log."""

    log: PublishedLog
    run: RunFacts
    pairs: Pairs
    alignment: Alignment
    """Of the run's losses with the file's."""
    lengths: Alignment
    """Of the lengths of the run's samples with the file's losses: another trace of the order, which
    is left where positions differ.
    """
    rates: Rates
    offset: Offset | None
    band: float
    """Share of the file's loss that an offset may be."""


def order_of(found: Alignment, lengths: Alignment, interval: int) -> Order:
    """What the correlations say about the order of samples."""
    zero, best = found.zero, found.best
    at_zero = -1.0 if zero is None or zero.p >= CHANCE else zero.correlation + CLEARLY
    if (
        best is not None
        and found.best_p < CHANCE
        and abs(best.lag) >= interval
        and best.correlation > at_zero
    ):
        return "shifted"
    if zero is None:
        return "undecided"
    if zero.p < CHANCE or (lengths.zero is not None and lengths.zero.p_of_either_sign < CHANCE):
        return "same"
    return "other" if found.upper_bound(RULED_OUT) < SHARED else "undecided"


def situations(evidence: Evidence) -> tuple[Situation, ...]:
    """Everything that holds: first what the losses say, then the learning rates, then the file."""
    order = order_of(evidence.alignment, evidence.lengths, evidence.log.interval)
    by_rate = list(_of_rates(evidence))
    found = [*_of_losses(evidence, order, rates_differ=bool(by_rate)), *by_rate]
    return (*found, *_of_file(evidence))


def _of_losses(evidence: Evidence, order: Order, *, rates_differ: bool) -> Iterator[Situation]:
    alignment, pairs = evidence.alignment, evidence.pairs
    equal = np.abs(pairs.differences) <= ROUNDING * 1.01
    if len(pairs) >= FIRST_EQUAL and equal[:FEWEST].all():
        yield _situation("same", "the same training: losses are equal to the last logged digit")
    elif order == "shifted":
        assert alignment.best is not None
        yield _situation(
            "shifted_order",
            f"the same samples {abs(alignment.best.lag)} steps "
            f"{'later' if alignment.best.lag > 0 else 'earlier'} in the file: one of the two began "
            "elsewhere in the order, or lost steps",
        )
    elif order == "other":
        yield _situation(
            "other_order",
            "other samples in these steps: no lag correlates, and at lag 0 a correlation above "
            f"{alignment.upper_bound(RULED_OUT):.2f} is ruled out",
        )
    elif order == "undecided":
        needed = FEWEST * evidence.log.interval
        wait = (
            f"wait until the run has {count_of(needed, 'step')}"
            if len(pairs) < FEWEST and evidence.log.last >= needed
            else f"it takes {FEWEST} entries that both have, and more where they say little"
        )
        yield _situation(
            "undecided", f"not decidable from {count_of(len(pairs), 'entry', 'entries')}: {wait}"
        )
    else:
        yield _of_offset(evidence, rates_differ=rates_differ)


def _of_offset(evidence: Evidence, *, rates_differ: bool) -> Situation:
    """The same samples: what the offset says."""
    offset, pairs = evidence.offset, evidence.pairs
    assert offset is not None, "an order was found among pairs"
    if rates_differ:
        return _situation("same_order", "the same samples in the same steps")
    tolerance = ROUNDING + EQUAL * np.abs(pairs.file)
    if (np.abs(pairs.differences) <= tolerance)[:EARLY].all():
        return _situation("same", "the same training, within the rounding of other kernels")
    if offset.systematic(evidence.band):
        sign = -1 if evidence.run.positions == "bf16" else 1
        grows = offset.by_length is None or sign * offset.by_length >= BY_LENGTH
        if evidence.run.stage > 1 and sign * offset.early > 0 and grows:
            return _situation("coarse_positions", _coarse(evidence.run.positions, offset))
        return _situation(
            "offset",
            "the same samples in the same steps, and an offset from the first steps on that "
            "neither a projector seed nor coarse positions explain: other initial weights (another "
            "model, or no stage 1), another template or other masking",
        )
    return _situation(
        "other_projector_seed",
        "the same samples in the same steps, and no offset at first: what is left is another "
        "projector seed",
    )


def _coarse(positions: Positions, offset: Offset) -> str:
    what = f"an offset of {offset.early:+.3f} in the first entries"
    if offset.by_length is not None:
        what += f", which grows with the length of samples (r {offset.by_length:+.2f})"
    if positions == "bf16":
        return (
            f"exact positions in the file: {what}; this run has coarse ones: omit "
            "`--set positions=bf16`"
        )
    return (
        f"coarse positions in the file: {what}; train 50 steps with `--set positions=bf16`, and "
        "the offset is gone if that is so (docs/upstream.md, U12)"
    )


def _of_rates(evidence: Evidence) -> Iterator[Situation]:
    rates = evidence.rates
    if not rates.compared or rates.equal:
        return
    logged = evidence.log.learning_rates
    peak = float(np.nanmax(logged)) / evidence.run.learning_rate
    if _lengths_differ(evidence) and abs(peak - 1) <= CONSTANT:
        return  # a schedule of another length, which `_of_file` says
    how = f"{rates.factor:.4g} times the run's" if rates.factor is not None else "another schedule"
    yield _situation(
        "other_learning_rate",
        f"another learning rate: the file's is {how}, from step {rates.first} on",
    )


def _lengths_differ(evidence: Evidence) -> bool:
    lengths = evidence.log.length, evidence.run.length
    return None not in lengths and lengths[0] != lengths[1]


def _of_file(evidence: Evidence) -> Iterator[Situation]:
    log, run = evidence.log, evidence.run
    if log.interval > 1:
        yield _situation(
            "sparse_log",
            f"logged every {log.interval} steps: each entry is compared with the mean of the run's "
            "steps",
        )
    if log.repeated:
        differ = (
            f"{count_of(len(log.contradicted), 'of them differs', 'of them differ')}, "
            if log.contradicted
            else "none differs, "
        )
        yield _situation(
            "repeated_steps",
            f"{count_of(len(log.repeated), 'step')} logged more than once "
            f"({_range(log.repeated)}): the training was resumed; {differ}the last entry counts",
        )
    if log.not_finite or run.not_finite or log.zero:
        parts = [
            f"{count_of(len(steps), 'step')} of the {whose} without a finite loss ({_range(steps)})"
            for whose, steps in (("file", log.not_finite), ("run", run.not_finite))
            if steps
        ]
        if log.zero:
            parts.append(f"{count_of(len(log.zero), 'loss', 'losses')} of exactly 0 in the file")
        yield _situation("not_finite", f"{', '.join(parts)}: left out of every comparison")
    if _lengths_differ(evidence):
        against = not evidence.rates.equal
        rates = "learning rates differ with it" if against else "learning rates agree so far"
        yield _situation(
            "other_length",
            f"another length: {log.length} steps in the file, {run.length} in the run (other data, "
            f"epochs or global batch size); {rates}",
            against=against,
        )


def _range(steps: tuple[int, ...]) -> str:
    return f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"


def _situation(kind: Kind, message: str, *, against: bool | None = None) -> Situation:
    return Situation(
        kind=kind, against=kind in AGAINST if against is None else against, message=message
    )
