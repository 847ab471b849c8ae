"""Student's t with any positive number of degrees of freedom, infinite ones included.

By hand because the driver has no scipy: two functions do not justify a dependency of that size.
"""

import math
from functools import lru_cache
from statistics import NormalDist

NORMAL = NormalDist()
TINY = 1e-300
"""Keeps the continued fraction from dividing by zero."""
TERMS = 500
"""Of the continued fraction; it converges in some tens."""
PRECISION = 1e-15


def t_cdf(t: float, df: float) -> float:
    """The probability of a value up to `t`."""
    if math.isinf(df):
        return NORMAL.cdf(t)
    tail = _incomplete_beta(df / 2, 0.5, df / (df + t * t)) / 2
    return 1 - tail if t > 0 else tail


def two_sided_p(t: float, df: float) -> float:
    """The probability of a value at least as far from 0 as `t`."""
    if math.isinf(df):
        return 2 * NORMAL.cdf(-abs(t))
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t))


@lru_cache(maxsize=4096)
def t_quantile(probability: float, df: float) -> float:
    """The value that a share `probability` (between 0 and 1) lies below, to 12 digits."""
    if math.isinf(df):
        return NORMAL.inv_cdf(probability)
    if probability == 0.5:
        return 0.0
    if probability < 0.5:
        return -t_quantile(1 - probability, df)
    high = 1.0
    while t_cdf(high, df) < probability:
        high *= 2
    low = 0.0
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < probability else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction
    (DLMF 8.17.22).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = a * math.log(x) + b * math.log1p(-x)
    log_front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < PRECISION:
            break
    return math.exp(log_front) * fraction / a


def _away(value: float) -> float:
    return value if abs(value) > TINY else TINY
