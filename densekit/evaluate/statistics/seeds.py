"""Seed noise: how far runs of one recipe lie apart, from own runs where there are several."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from densekit.evaluate.statistics.components import Component


@dataclass(frozen=True, kw_only=True)
class SeedNoise:
    """The standard deviation of a figure over trainings that differ only in their seed."""

    sd: float
    df: float
    """Infinite for a prior: it is taken as known, and printed."""
    source: str


def own_seeds(values: Sequence[float], whose: str) -> SeedNoise | None:
    """From the figures of several runs; None for one run, which says nothing about it."""
    if len(values) < 2:
        return None
    source = f"{len(values)} seeds of {whose}"
    return SeedNoise(sd=statistics.stdev(values), df=len(values) - 1, source=source)


def seeds_of_difference(
    a: Sequence[float], b: Sequence[float], prior: SeedNoise | None
) -> tuple[SeedNoise, Component] | None:
    """Seed noise, and what it adds to the difference of the means of two arms; None where neither
    an arm with several runs nor a prior says how large it is.

    Each arm has its own (Welch 1947); an arm of one run has the other's, and two such arms the
    prior's.
    """
    own_a, own_b = own_seeds(a, "A"), own_seeds(b, "B")
    if own_a and own_b:
        parts = (own_a.sd**2 / len(a), own_b.sd**2 / len(b))
        variance = sum(parts)
        spread = parts[0] ** 2 / own_a.df + parts[1] ** 2 / own_b.df
        df = variance**2 / spread if spread else own_a.df + own_b.df
        pooled = math.sqrt(
            (own_a.df * own_a.sd**2 + own_b.df * own_b.sd**2) / (own_a.df + own_b.df)
        )
        both = SeedNoise(sd=pooled, df=df, source=f"{own_a.source}, {own_b.source}")
        return both, Component(sd=math.sqrt(variance), df=df)
    noise = own_a or own_b or prior
    if noise is None:
        return None
    return noise, Component(sd=noise.sd * math.sqrt(1 / len(a) + 1 / len(b)), df=noise.df)
