"""How many runs an arm a difference needs, and which difference some runs can show: asked before
any run is paid for.

The rule whose power it is: densekit.evaluate.statistics.difference, with as many own runs in both
arms (at least 2: with one the seed term would be a prior's). Power is counted over drawn runs from
a named seed, so that it is that of the rule itself and no approximation of it.
"""

import math

import numpy as np

from densekit.evaluate.statistics.bootstrap import named_generator
from densekit.evaluate.statistics.difference import ALPHA
from densekit.evaluate.statistics.figures import Floats
from densekit.evaluate.statistics.student import NORMAL, t_upper

POWER = 0.8
DRAWS = 20_000
"""Pairs of arms that are drawn: power to about 0.3 %."""
MOST_RUNS = 1000
"""More runs an arm than these are no answer."""
GRID = 17
"""Points of 1/df between which the quantile is interpolated."""


def power(effect: float, runs: int, *, seed_sd: float, question_sd: float) -> float:
    """The share of pairs of arms with `runs` runs each in which the difference `effect` is found,
    with its sign.
    """
    return float(np.mean(_needed(runs, seed_sd, question_sd) < abs(effect)))


def runs_needed(effect: float, *, seed_sd: float, question_sd: float) -> int | None:
    """The fewest runs an arm that find `effect` in four of five cases; None where a thousand do
    not: then the questions alone hide it, or nearly so.
    """

    def enough(runs: int) -> bool:
        return power(effect, runs, seed_sd=seed_sd, question_sd=question_sd) >= POWER

    low, high = 1, 2
    while not enough(high):
        if high >= MOST_RUNS:
            return None
        low, high = high, min(2 * high, MOST_RUNS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable(runs: int, *, seed_sd: float, question_sd: float) -> float:
    """The smallest difference that `runs` runs an arm find in four of five cases."""
    return float(np.quantile(_needed(runs, seed_sd, question_sd), POWER))


def questions_needed(effect: float, *, question_sd: float, questions: int) -> int:
    """How many questions of this kind would show `effect` in four of five cases if there were no
    seed noise, from the noise that `questions` of them have.
    """
    reach = NORMAL.inv_cdf(1 - ALPHA / 2) + NORMAL.inv_cdf(POWER)
    return math.ceil(questions * (reach * question_sd / effect) ** 2)


def _needed(runs: int, seed_sd: float, question_sd: float) -> Floats:
    """The difference that each drawn pair of arms would have to have to be found, (DRAWS,).

    Raises ValueError for fewer than 2 runs.
    """
    if runs < 2:
        raise ValueError("power is that of own seeds: at least 2 runs an arm")
    generator = named_generator(f"power:{runs}")
    normal = generator.standard_normal(DRAWS)
    chi2 = generator.chisquare(runs - 1, size=(2, DRAWS)) / (runs - 1)
    total = chi2.sum(axis=0)
    df = (runs - 1) * total**2 / (chi2**2).sum(axis=0)
    seeds = seed_sd**2 / runs
    grid = np.linspace(1 / (2 * runs - 2), 1 / (runs - 1), GRID)
    quantiles = np.interp(1 / df, grid, [t_upper(ALPHA / 2, 1 / each) for each in grid])
    fixed = NORMAL.inv_cdf(1 - ALPHA / 2) * question_sd
    half = np.sqrt(quantiles**2 * seeds * total + fixed**2)
    return np.asarray(half - math.sqrt(2 * seeds + question_sd**2) * normal)
