"""Measures the error rates of the verdict rules on simulated runs.

Each check draws trainings whose true scores are known (seed noise, and questions that two models
answer differently), stores nothing, and asks the rules that `densekit verdict` and `compare` ask.
Prints a line a check: how often the rule is wrong, and how often it is asked to be at most.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator

import numpy as np

from densekit.evaluate.statistics.bootstrap import named_generator
from densekit.evaluate.statistics.components import Component
from densekit.evaluate.statistics.difference import claims, difference_of
from densekit.evaluate.statistics.power import power
from densekit.evaluate.statistics.reproduction import Reported, reproduce, reproductions
from densekit.evaluate.statistics.seeds import SeedNoise
from densekit.evaluate.statistics.significance import mcnemar
from densekit.evaluate.statistics.student import t_quantile

Rng = np.random.Generator
SEED_SD, QUESTION_SD = 0.47, 0.44
"""Of GQA (recipes/paper.yaml)."""
PRIOR = SeedNoise(sd=SEED_SD, df=math.inf, source="prior")
SEED_SDS = {"gqa": 0.47, "sqa": 1.5, "textvqa": 0.4, "pope": 0.4, "mmb": 0.9, "mmmu": 1.0}
"""A row of the paper: the benchmarks that Holm's correction is over."""


def reproduction(rng: Rng, runs: int, *, true_sd: float, benchmarks: int = 1) -> bool:
    """Whether any of a row's values is called DIVERGED although the recipe is the paper's."""
    found = {}
    for number in range(benchmarks):
        printed, values = rng.normal(0, true_sd), rng.normal(0, true_sd, runs)
        reported = Reported(value=float(printed), unit=0.1, prior=PRIOR)
        each = reproduce([float(value) for value in values], reported)
        assert each is not None
        found[str(number)] = each
    return any(verdict == "DIVERGED" for verdict, _ in reproductions(found).values())


def equivalence(rng: Rng, runs: int, *, margin: float, off: float) -> bool:
    """Whether a recipe that is `off` from the paper's is called REPRODUCED."""
    printed = float(rng.normal(0, SEED_SD))
    values = [float(value) for value in rng.normal(off, SEED_SD, runs)]
    found = reproduce(values, Reported(value=printed, unit=0.1, prior=PRIOR, margin=margin))
    return found is not None and found.equivalent


def claim(
    rng: Rng, runs: int, *, effect: float = 0.0, sds: tuple[float, float] = (SEED_SD, SEED_SD)
) -> str:
    """The verdict on two arms whose true difference is `effect`."""
    a = rng.normal(effect, sds[0], runs) + rng.normal(0, QUESTION_SD)
    b = rng.normal(0, sds[1], runs)
    found = difference_of(
        [float(value) for value in a],
        [float(value) for value in b],
        question=Component(sd=QUESTION_SD, df=397),
        prior=PRIOR,
    )
    return claims({"gqa": found})["gqa"][0]


def claims_of_a_row(rng: Rng, runs: int) -> bool:
    """Whether any of a row's benchmarks has a claim although both arms are one recipe."""
    found = {}
    for name, sd in SEED_SDS.items():
        a, b = rng.normal(0, sd, runs) + rng.normal(0, sd), rng.normal(0, sd, runs)
        found[name] = difference_of(
            [float(value) for value in a],
            [float(value) for value in b],
            question=Component(sd=sd, df=397),
            prior=None,
        )
    return any(verdict != "NOT SHOWN" for verdict, _ in claims(found).values())


def satterthwaite(rng: Rng, runs: int) -> bool:
    """The claim with one common number of degrees of freedom, which the rules do not use."""
    a, b = rng.normal(0, SEED_SD, runs) + rng.normal(0, QUESTION_SD), rng.normal(0, SEED_SD, runs)
    parts = [(a.var(ddof=1) / runs, runs - 1), (b.var(ddof=1) / runs, runs - 1)]
    parts.append((QUESTION_SD**2, 397))
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / own for part, own in parts)
    reach = t_quantile(0.975, float(df)) * math.sqrt(variance)
    return bool(abs(a.mean() - b.mean()) > reach)


def resampled(rng: Rng, runs: int) -> bool:
    """The claim from runs drawn with replacement, which the rules do not use."""
    a, b = rng.normal(0, SEED_SD, runs) + rng.normal(0, QUESTION_SD), rng.normal(0, SEED_SD, runs)
    drawn = rng.integers(runs, size=(2, 1000, runs))
    means = a[drawn[0]].mean(axis=1) - b[drawn[1]].mean(axis=1)
    low, high = np.quantile(means + rng.normal(0, QUESTION_SD, 1000), (0.025, 0.975))
    return bool(low > 0 or high < 0)


def questions_alone(rng: Rng, questions: int, seed_sd: float = 0.0, share: float = 0.15) -> bool:
    """McNemar's test between two trainings of one recipe that differ on a `share` of questions."""
    discordant = int(rng.binomial(questions, share))
    shift = rng.normal(0, seed_sd * math.sqrt(2)) / 100 * questions / max(discordant, 1)
    only_a = int(rng.binomial(discordant, min(1.0, max(0.0, (1 + shift) / 2))))
    return mcnemar(only_a, discordant - only_a).p <= 0.05


def checks() -> Iterator[tuple[str, str, Callable[[Rng], bool]]]:
    """(what is simulated, the rate that is promised, one trial)."""
    for runs in (1, 3):
        name = f"DIVERGED, same recipe, {runs} run(s), "
        yield name + "true seed sd", "<= 5 %", lambda r, n=runs: reproduction(r, n, true_sd=SEED_SD)
        yield (
            name + "row of 6",
            "<= 5 %",
            lambda r, n=runs: reproduction(r, n, true_sd=SEED_SD, benchmarks=6),
        )
    yield "the same, seed sd twice the prior's", "", lambda r: reproduction(r, 1, true_sd=0.94)
    yield "the same, with 3 own seeds", "<= 5 %", lambda r: reproduction(r, 3, true_sd=0.94)
    for runs in (3, 5):
        yield (
            f"REPRODUCED, recipe off by the margin (2.0), {runs} runs",
            "<= 5 %",
            lambda r, n=runs: equivalence(r, n, margin=2.0, off=2.0),
        )
    for runs in (1, 2, 3, 5):
        yield (
            f"claim, no difference, {runs} run(s) an arm",
            "<= 5 %",
            lambda r, n=runs: claim(r, n) != "NOT SHOWN",
        )
    yield (
        "claim, no difference, 3 runs, seed sds 0.1 and 0.8",
        "<= 5 %",
        lambda r: claim(r, 3, sds=(0.1, 0.8)) != "NOT SHOWN",
    )
    yield "claim, no difference, 3 runs, row of 6", "<= 5 %", lambda r: claims_of_a_row(r, 3)
    yield (
        "CONTRADICTED, true difference 1.8, 3 runs",
        "<= 2.5 %",
        lambda r: claim(r, 3, effect=1.8) == "CONTRADICTED",
    )
    for effect in (1.8, 3.0):
        expected = power(effect, 3, seed_sd=SEED_SD, question_sd=QUESTION_SD)
        yield (
            f"SUPPORTED, true difference {effect}, 3 runs",
            f"{100 * expected:.1f} %",
            lambda r, size=effect: claim(r, 3, effect=size) == "SUPPORTED",
        )
    for runs in (2, 3):
        yield f"not used: Satterthwaite, {runs} runs", "", lambda r, n=runs: satterthwaite(r, n)
        yield f"not used: runs drawn again, {runs} runs", "", lambda r, n=runs: resampled(r, n)
    for questions in (218, 12_578):
        yield (
            f"McNemar, no difference, no seed noise, {questions:,} questions",
            "5 %",
            lambda r, n=questions: questions_alone(r, n),
        )
    yield (
        "McNemar between two seeds of one recipe (GQA)",
        "",
        lambda r: questions_alone(r, 12_578, SEED_SD),
    )


def main() -> None:
    """Run every check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000, help="simulated cases a check")
    trials = parser.parse_args().trials
    began = time.process_time()
    for name, promised, trial in checks():
        rng = named_generator(f"verdict errors:{name}")
        share = sum(trial(rng) for _ in range(trials)) / trials
        error = 100 * math.sqrt(share * (1 - share) / trials)
        print(f"{name:62} {100 * share:5.1f} +- {error:.1f} %  {promised}", flush=True)
    print(f"{trials:,} cases a check; {time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()
