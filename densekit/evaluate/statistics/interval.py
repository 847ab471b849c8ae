"""The interval of one score, over the images that might have been asked."""

import math

from densekit.evaluate.statistics.components import Component, half_width
from densekit.evaluate.statistics.difference import ALIKE, ALPHA
from densekit.evaluate.statistics.student import NORMAL


def accuracy_interval(percent: float, sd: float, clusters: int) -> tuple[float, float]:
    """Wilson's interval of an accuracy, or of an F1, in percent with the standard error `sd` over
    clusters: that of as many independent questions as would have this error, and of one question a
    cluster where all answers are right, or all wrong.
    """
    p = percent / 100
    size = clusters if sd < ALIKE else p * (1 - p) / (sd / 100) ** 2
    z = NORMAL.inv_cdf(1 - ALPHA / 2)
    centre = (p + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(p * (1 - p) / size + (z / (2 * size)) ** 2)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def symmetric_interval(value: float, sd: float, clusters: int) -> tuple[float, float]:
    """Of a figure that does not end at 100 (MME's); none is below 0."""
    half = half_width([Component(sd=sd, df=clusters - 1)], ALPHA)
    return max(0.0, value - half), value + half
