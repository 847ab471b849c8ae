"""Is A better than B? The difference of two arms' mean figures, with both kinds of noise in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from densekit.evaluate.statistics.components import (
    SMALLEST_P,
    Component,
    half_width,
    p_value,
)
from densekit.evaluate.statistics.seeds import SeedNoise, seeds_of_difference
from densekit.evaluate.statistics.significance import holm
from densekit.evaluate.statistics.student import t_upper
from densekit.runs.verdicts import Claim

ALPHA = 0.05
"""Of every interval and verdict: two-sided for claims, after Holm over the benchmarks."""

ALIKE = 1e-9
"""A standard error of resamplings that differ by rounding alone, in percent."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A minus B on one benchmark."""

    difference: float
    question_sd: float
    """Of the difference, over the images that might have been drawn (paired)."""
    seeds: SeedNoise | None
    """None where nothing says how large seed noise is: then there is no claim."""
    low: float
    """Of the 95 % interval; of the questions' noise alone where `seeds` is None."""
    high: float
    p: float
    """Of no difference; 1 where `seeds` is None."""


def question_component(sd: float, clusters: int, difference: float) -> Component:
    """The noise of a paired difference over so many images, of which the bootstrap shows `sd`.

    None is shown where all images say the same (one arm has everything right, the other nothing).
    Then it is as large as makes the p-value that of the sign test on the images, 2 * 0.5^C.
    """
    df = clusters - 1
    if sd < ALIKE:
        sd = abs(difference) / t_upper(max(0.5**clusters, SMALLEST_P), df)
    return Component(sd=sd, df=df)


def difference_of(
    a: Sequence[float], b: Sequence[float], *, question: Component, prior: SeedNoise | None
) -> Difference:
    """From the figures of each arm's runs.

    `question` is the noise of the paired difference over images: as bootstrapped, it holds what
    single runs add to single questions too, so that the interval errs on the wide side.
    """
    difference = mean(a) - mean(b)
    seeds = seeds_of_difference(a, b, prior)
    components = [question] if seeds is None else [question, seeds[1]]
    half = half_width(components, ALPHA)
    return Difference(
        difference=difference,
        question_sd=question.sd,
        seeds=None if seeds is None else seeds[0],
        low=difference - half,
        high=difference + half,
        p=1.0 if seeds is None else p_value(difference, components),
    )


def claims(differences: Mapping[str, Difference]) -> dict[str, tuple[Claim, float]]:
    """The verdict on "A is better than B" and the p-value after Holm, by benchmark.

    A benchmark without a seed term has no claim, and does not count among the tests.
    """
    tested = {name: found for name, found in differences.items() if found.seeds is not None}
    adjusted = dict(zip(tested, holm([found.p for found in tested.values()]), strict=True))
    return {
        name: (_claim(found.difference, adjusted.get(name, 1.0)), adjusted.get(name, 1.0))
        for name, found in differences.items()
    }


def _claim(difference: float, p: float) -> Claim:
    if p > ALPHA:
        return "NOT SHOWN"
    return "SUPPORTED" if difference > 0 else "CONTRADICTED"
