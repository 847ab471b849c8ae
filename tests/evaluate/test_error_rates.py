"""Simulated trainings: verdicts are wrong as rarely as they promise, and a rigged effect is found.

benchmarks/verdict_errors.py measures the same rates on thousands of cases (docs/verdicts.md).
"""

import math

import numpy as np
import pytest

from densekit.evaluate.statistics.bootstrap import replicates, standard_error
from densekit.evaluate.statistics.components import Component
from densekit.evaluate.statistics.difference import Difference, claims, difference_of
from densekit.evaluate.statistics.figures import FIGURES, Table
from densekit.evaluate.statistics.reproduction import Reported, reproduce, reproductions
from densekit.evaluate.statistics.seeds import SeedNoise

SEED_SD = 0.47
PRIOR = SeedNoise(sd=SEED_SD, df=math.inf, source="prior")
QUESTIONS, IMAGES = 12_578, 398
IMAGE = np.arange(QUESTIONS) % IMAGES


def ceiling(trials: int, rate: float = 0.05) -> float:
    """How often a rate can be met by chance in so many trials: three standard errors above."""
    return trials * rate + 3 * math.sqrt(trials * rate * (1 - rate))


@pytest.mark.parametrize(("runs", "trials"), [(1, 500), (3, 150)])
def test_the_papers_own_recipe_rarely_diverges(runs: int, trials: int) -> None:
    rng = np.random.default_rng(runs)
    wrong = 0
    for _ in range(trials):
        reported = Reported(value=float(rng.normal(0, SEED_SD)), unit=0.1, prior=PRIOR)
        found = reproduce([float(value) for value in rng.normal(0, SEED_SD, runs)], reported)
        assert found is not None
        wrong += reproductions({"gqa": found})["gqa"][0] == "DIVERGED"
    assert trials * 0.05 / 4 < wrong <= ceiling(trials)


def test_a_recipe_off_by_the_margin_is_rarely_called_reproduced() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(150):
        printed, values = float(rng.normal(0, SEED_SD)), rng.normal(2.0, SEED_SD, 5)
        reported = Reported(value=printed, unit=0.1, prior=PRIOR, margin=2.0)
        found = reproduce([float(value) for value in values], reported)
        wrong += found is not None and found.equivalent
    assert wrong <= ceiling(150)


def trained(rng: np.random.Generator, accuracy: float, difficulty: np.ndarray) -> Table:
    """A training whose accuracy is drawn with the seed sd; which questions are right follows their
    difficulty, and a part of it is this training's own.
    """
    drawn = accuracy + rng.normal(0, SEED_SD)
    order = np.argsort(difficulty + rng.normal(0, 0.3, QUESTIONS))
    right = np.zeros(QUESTIONS)
    right[order[: round(drawn * QUESTIONS / 100)]] = 1
    sums = np.stack([np.bincount(IMAGE, right), np.bincount(IMAGE)], axis=1)
    return Table(
        clusters=tuple(f"{image:03}" for image in range(IMAGES)),
        strata=np.zeros(IMAGES, dtype=np.int64),
        sums_CK=sums.astype(np.float64),
        figure=FIGURES["sqa", "image_accuracy"].of_sums,
    )


def compared(rng: np.random.Generator, effect: float, runs: int) -> Difference:
    """Two arms on GQA's numbers of questions and images; questions about an image are alike."""
    difficulty = rng.normal(0, 1, QUESTIONS) + 0.2 * rng.normal(0, 1, IMAGES)[IMAGE]
    arms = [trained(rng, 62 + effect, difficulty) for _ in range(runs)]
    arms += [trained(rng, 62, difficulty) for _ in range(runs)]
    values = [float(table.figure(table.sums_CK.sum(axis=0))) for table in arms]
    drawn = replicates(arms, name="simulated", count=400)
    difference = drawn[:, :runs].mean(axis=1) - drawn[:, runs:].mean(axis=1)
    question = Component(sd=standard_error(difference, arms[0]), df=IMAGES - 1)
    return difference_of(values[:runs], values[runs:], question=question, prior=PRIOR)


def test_a_rigged_effect_of_three_points_is_supported() -> None:
    rng = np.random.default_rng(0)
    found = [compared(rng, 3.0, 3) for _ in range(20)]
    verdicts = [claims({"gqa": each})["gqa"][0] for each in found]
    assert verdicts.count("SUPPORTED") >= 18 and "CONTRADICTED" not in verdicts
    assert np.mean([each.difference for each in found]) == pytest.approx(3.0, abs=0.3)
    back = [claims({"gqa": compared(rng, -3.0, 3)})["gqa"][0] for _ in range(5)]
    assert back.count("CONTRADICTED") >= 4


@pytest.mark.parametrize(("runs", "trials"), [(1, 60), (3, 60)])
def test_two_arms_of_one_recipe_rarely_have_a_claim(runs: int, trials: int) -> None:
    rng = np.random.default_rng(10 + runs)
    wrong = 0
    for _ in range(trials):
        wrong += claims({"gqa": compared(rng, 0.0, runs)})["gqa"][0] != "NOT SHOWN"
    assert wrong <= ceiling(trials)
