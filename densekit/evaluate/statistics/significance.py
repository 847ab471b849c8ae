"""Holm's correction for several tests, and McNemar's test of two models on the same questions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from densekit.evaluate.statistics.student import NORMAL

EXACT_BELOW = 25
"""Discordant questions below which McNemar's test is the exact binomial one."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order: one at most `alpha` rejects while the chance of any
    false rejection stays at most `alpha` (Holm 1979).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Two models on the same questions, each right or wrong."""

    only_a: int
    """Questions that A alone has right."""
    only_b: int
    p: float
    exact: bool
    """By the binomial distribution; else by the normal one."""


def mcnemar(only_a: int, only_b: int) -> McNemar:
    """Two-sided test of equal accuracy: z = (b - c)/sqrt(b + c), exact for fewer than 25 discordant
    questions.
    """
    total = only_a + only_b
    if total < EXACT_BELOW:
        tail = sum(math.comb(total, k) for k in range(min(only_a, only_b) + 1)) / 2**total
        p, exact = min(1.0, 2 * tail), True
    else:
        p, exact = 2 * NORMAL.cdf(-abs(only_a - only_b) / math.sqrt(total)), False
    return McNemar(only_a=only_a, only_b=only_b, p=p, exact=exact)
