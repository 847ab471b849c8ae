"""Several independent sources of noise around one difference, each known as well as it is.

The half width of an interval adds the sources in quadrature, each at its own quantile of Student's
t: h(alpha)^2 = sum of (t(1 - alpha/2, df_i) * sd_i)^2. With one common number of degrees of
freedom (Satterthwaite) two runs an arm are called different too often; this rule keeps its error
rate (benchmarks/verdict_errors.py measures both).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from densekit.evaluate.statistics.student import t_upper

SMALLEST_P = 1e-12
"""p-values below it are this one."""
PRECISION = 1e-9
"""Of the width whose alpha is the p-value, relative."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """One source of noise."""

    sd: float
    """Of the difference, in its unit."""
    df: float
    """Degrees of freedom that `sd` was estimated with; infinite: it is taken as known."""


def half_width(components: Sequence[Component], alpha: float) -> float:
    """Of the two-sided interval that misses with probability `alpha`."""
    return math.hypot(*(t_upper(alpha / 2, part.df) * part.sd for part in components))


def p_value(difference: float, components: Sequence[Component]) -> float:
    """The smallest alpha whose interval around the difference excludes 0."""
    distance = abs(difference)
    if distance == 0:
        return 1.0
    if half_width(components, SMALLEST_P) <= distance:
        return SMALLEST_P

    def excess(log_alpha: float) -> float:
        """Above 0 where the interval at alpha is too wide: it holds 0."""
        return half_width(components, math.exp(log_alpha)) - distance

    low, high = math.log(SMALLEST_P), 0.0
    at_low, at_high = excess(low), -distance
    side = 0
    while True:  # regula falsi, in its Illinois form
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at_middle = excess(middle)
        if abs(at_middle) <= PRECISION * distance:
            return math.exp(middle)
        if at_middle > 0:
            low, at_low = middle, at_middle
            at_high /= 2 if side > 0 else 1
            side = 1
        else:
            high, at_high = middle, at_middle
            at_low /= 2 if side < 0 else 1
            side = -1
