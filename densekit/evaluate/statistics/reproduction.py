"""Does a run reproduce a printed value? The questions are the same ones, so that only training and
decoding differ: sigma^2 = s^2 (1 + 1/R) + e^2, with R own runs and one of the paper's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from densekit.evaluate.statistics.components import Component, half_width, p_value
from densekit.evaluate.statistics.difference import ALPHA
from densekit.evaluate.statistics.seeds import SeedNoise, own_seeds
from densekit.evaluate.statistics.significance import holm
from densekit.runs.verdicts import Reproduction


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A printed value, and what is known of its noise."""

    value: float
    unit: float
    """Of its last printed digit: 0.1 for 63.8."""
    prior: SeedNoise | None
    decoding_sd: float = 0.0
    """Of evaluating one checkpoint twice, in other environments."""
    margin: float | None = None
    """Within which a value counts as the same; None: equivalence is not claimed."""


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """Own runs against a printed value."""

    ours: float
    """The mean of the runs."""
    seeds: SeedNoise
    reach: float
    """Half of the 95 % range that one rerun's (or the mean of these runs') value lies in."""
    p: float
    equivalent: bool
    """Whether both one-sided tests (5 % each) place the value within the margin."""
    smallest_margin: float
    """The margin that even an exact hit would need."""


def reproduce(values: Sequence[float], reported: Reported) -> Reproduced | None:
    """None where neither several runs nor a prior says how large seed noise is."""
    seeds = own_seeds(values, "this recipe") or reported.prior
    if seeds is None:
        return None
    ours = mean(values)
    components = [
        Component(sd=seeds.sd * math.sqrt(1 + 1 / len(values)), df=seeds.df),
        Component(sd=reported.decoding_sd, df=math.inf),
        Component(sd=reported.unit / math.sqrt(12), df=math.inf),
    ]
    difference = ours - reported.value
    smallest = half_width(components, 2 * ALPHA)
    return Reproduced(
        ours=ours,
        seeds=seeds,
        reach=half_width(components, ALPHA),
        p=p_value(difference, components),
        equivalent=reported.margin is not None and abs(difference) + smallest < reported.margin,
        smallest_margin=smallest,
    )


def reproductions(found: Mapping[str, Reproduced]) -> dict[str, tuple[Reproduction, float]]:
    """The verdict and the p-value after Holm over the benchmarks of a row."""
    adjusted = holm([each.p for each in found.values()])
    return {
        name: (_verdict(each, p), p)
        for (name, each), p in zip(found.items(), adjusted, strict=True)
    }


def _verdict(found: Reproduced, p: float) -> Reproduction:
    if found.equivalent:
        return "REPRODUCED"
    return "DIVERGED" if p <= ALPHA else "COMPATIBLE"
