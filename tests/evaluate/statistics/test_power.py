"""Power: as drawn here from whole runs, as the closed form says, and of the paper's gains."""

import math

import numpy as np
import pytest

from densekit.errors import UsageError
from densekit.evaluate.power import plan_power
from densekit.evaluate.statistics.components import Component
from densekit.evaluate.statistics.difference import difference_of
from densekit.evaluate.statistics.power import (
    detectable,
    power,
    questions_needed,
    runs_needed,
)
from densekit.evaluate.statistics.student import t_quantile
from densekit.recipes.paper import load_paper


@pytest.mark.parametrize(("runs", "effect", "question"), [(2, 3.0, 0.44), (3, 1.5, 0.25)])
def test_power_is_that_of_the_rule(runs: int, effect: float, question: float) -> None:
    rng = np.random.default_rng(0)
    noise = Component(sd=question, df=math.inf)
    found = 0
    for _ in range(250):
        a = rng.normal(effect, 0.47, runs) + rng.normal(0, question)
        b = rng.normal(0, 0.47, runs)
        each = difference_of(list(a), list(b), question=noise, prior=None)
        found += each.low > 0
    expected = power(effect, runs, seed_sd=0.47, question_sd=question)
    assert found / 250 == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 250))
    assert power(-effect, runs, seed_sd=0.47, question_sd=question) == expected


def test_without_seed_noise_the_power_of_a_z_test() -> None:
    assert power(2.8, 2, seed_sd=0.0, question_sd=1.0) == pytest.approx(0.8, abs=0.01)
    assert power(0.0, 2, seed_sd=0.0, question_sd=1.0) == pytest.approx(0.025, abs=0.004)
    assert detectable(5, seed_sd=0.0, question_sd=1.0) == pytest.approx(2.8, abs=0.04)
    assert questions_needed(1.0, question_sd=1.0, questions=1000) == 7849


def test_detectable_is_the_inverse_of_power() -> None:
    effect = detectable(3, seed_sd=0.47, question_sd=0.44)
    assert power(effect, 3, seed_sd=0.47, question_sd=0.44) == pytest.approx(0.8, abs=1e-3)
    assert runs_needed(effect * 1.001, seed_sd=0.47, question_sd=0.44) == 3
    assert runs_needed(effect * 0.98, seed_sd=0.47, question_sd=0.44) == 4


@pytest.mark.parametrize(
    ("effect", "sd"), [(1.8, 0.47), (1, 0.2), (2.7, 1.5), (1, 0.4), (0.7, 0.4), (0.5, 1.0)]
)
def test_on_these_questions_about_as_the_closed_form(effect: float, sd: float) -> None:
    """evaluation.md 3.1: R = 2 ((t quantiles) s/delta)^2, with equal variances; Welch's test, which
    does not take them for equal, needs at most one run more.
    """

    def reach(runs: int) -> float:
        return t_quantile(0.975, 2 * runs - 2) + t_quantile(0.8, 2 * runs - 2)

    closed = next(r for r in range(2, 100) if 2 * (reach(r) * sd / effect) ** 2 <= r)
    found = runs_needed(effect, seed_sd=sd, question_sd=0.0)
    assert found is not None and closed <= found <= closed + 1


def test_too_few_questions_are_not_made_up_for_by_runs() -> None:
    assert runs_needed(0.7, seed_sd=0.4, question_sd=0.35) is None
    assert runs_needed(0.7, seed_sd=0.1, question_sd=0.2) == 3


def test_power_needs_two_runs() -> None:
    with pytest.raises(ValueError, match="at least 2 runs"):
        power(1.0, 1, seed_sd=0.47, question_sd=0.44)


def test_the_gains_of_a_recipe() -> None:
    paper = load_paper()
    rows = {row.benchmark: row for row in plan_power(["vicuna7b_clip_stage2"], paper)}
    assert "mmmu" not in rows, "its printed gain is negative"
    gqa = rows["gqa"]
    assert (gqa.effect, gqa.seed_sd, gqa.question_sd) == (1.8, 0.47, 0.44)
    assert (gqa.runs, gqa.runs_these_questions) == (4, 3)
    assert (gqa.baseline, gqa.questions) == ("vicuna7b_clip_none_stage2", 12_578)
    assert rows["pope"].runs is None and rows["pope"].questions_needed == 17_484
    (own,) = plan_power(["gqa"], paper, effect=3.0, seed_sd=0.1, question_sd=0.2)
    assert (own.runs, own.questions, own.questions_needed) == (2, None, None)
    (row,) = plan_power(["gqa"], paper)
    assert row.effect is None and row.runs is None and row.shown[3] > 1


@pytest.mark.parametrize(
    ("names", "options", "problem"),
    [
        (["nothing"], {}, "nothing is neither a benchmark"),
        (["vicuna7b_clip_none_stage2"], {}, "prints no gain of vicuna7b_clip_none_stage2"),
        (["vizwiz"], {}, "does not say how noisy vizwiz is: give --seed-sd and"),
        (["gqa"], {"effect": 0.0}, "--effect 0.0: give a number from 0.001 to 10,000"),
        (["gqa"], {"seed_sd": -1.0}, "--seed-sd -1.0: give a number"),
        (["gqa"], {"question_sd": math.inf}, "--question-sd inf: give a number"),
        (["gqa"], {"effect": math.nan}, "--effect nan: give a number"),
        (["gqa"], {"seed_sd": 1e300}, "--seed-sd 1e\\+300: give a number"),
    ],
)
def test_what_has_no_power(names: list[str], options: dict[str, float], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        plan_power(names, load_paper(), **options)


def test_a_tiny_effect_needs_any_number_of_questions() -> None:
    (row,) = plan_power(["gqa"], load_paper(), effect=0.001)
    assert row.runs is None and row.questions_needed is not None
    assert 10**10 < row.questions_needed < 10**11
    (row,) = plan_power(["gqa"], load_paper(), effect=10_000)
    assert (row.runs, row.questions_needed) == (2, 1)
