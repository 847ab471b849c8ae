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
PRECISION = 1e-6
"""Of a p-value, relative."""


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
    low, high = math.log(SMALLEST_P), 0.0
    while high - low > PRECISION:
        middle = (low + high) / 2
        too_wide = half_width(components, math.exp(middle)) > distance
        low, high = (middle, high) if too_wide else (low, middle)
    return math.exp(high)
