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
PRECISION = 1e-14
STEPS = 200
"""Of Newton's method; it needs some five."""


def t_cdf(t: float, df: float) -> float:
    """The probability of a value up to `t`."""
    if math.isinf(df):
        return NORMAL.cdf(t)
    tail = two_sided_p(t, df) / 2
    return 1 - tail if t > 0 else tail


def two_sided_p(t: float, df: float) -> float:
    """The probability of a value at least as far from 0 as `t`."""
    if math.isinf(df):
        return 2 * NORMAL.cdf(-abs(t))
    whole = df + t * t
    return _incomplete_beta(df / 2, 0.5, df / whole, t * t / whole)


def t_quantile(probability: float, df: float) -> float:
    """The value that a share `probability` (between 0 and 1) lies below."""
    if probability < 0.5:
        return -t_upper(probability, df)
    return t_upper(1 - probability, df)


@lru_cache(maxsize=1 << 16)
def t_upper(tail: float, df: float) -> float:
    """The value that a share `tail` (up to 0.5) lies above.

    Newton's method for the logarithm of the tail over the logarithm of the value: both ends of that
    curve are straight, and it is concave, so that the steps end up right of the root and come down.
    """
    start = -NORMAL.inv_cdf(tail)
    if math.isinf(df) or tail == 0.5:
        return start
    value = start
    for _ in range(STEPS):
        above = two_sided_p(value, df) / 2
        step = math.log(above / tail) * above / (value * _density(value, df))
        value *= math.exp(step)
        if abs(step) < PRECISION:
            break
    return value


def _density(t: float, df: float) -> float:
    log_front = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - math.log(df * math.pi) / 2
    return math.exp(log_front - (df + 1) / 2 * math.log1p(t * t / df))


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """The regularised incomplete beta function at x, where y is 1 - x, by Lentz's continued
    fraction (DLMF 8.17.22).
    """
    if x <= 0 or y <= 0:
        return float(y <= 0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, y, x)
    log_front = a * math.log(x) + b * math.log(y)
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
