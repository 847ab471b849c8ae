"""The rules of verdicts: intervals, p-values, claims and reproductions, on chosen values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.evaluate.statistics.components import SMALLEST_P, Component, half_width, p_value
from densekit.evaluate.statistics.difference import Difference, claims, difference_of
from densekit.evaluate.statistics.interval import accuracy_interval, symmetric_interval
from densekit.evaluate.statistics.reproduction import (
    Reported,
    Reproduced,
    reproduce,
    reproductions,
)
from densekit.evaluate.statistics.seeds import SeedNoise, own_seeds, seeds_of_difference
from densekit.evaluate.statistics.student import t_quantile

GQA = SeedNoise(sd=0.47, df=math.inf, source="two pairs")
NO_QUESTIONS = Component(sd=0.0, df=397)
Z = 1.9599639845


def test_sources_add_in_quadrature_each_at_its_own_quantile() -> None:
    parts = [Component(sd=3.0, df=math.inf), Component(sd=4.0, df=math.inf)]
    assert half_width(parts, 0.05) == pytest.approx(5 * Z)
    parts = [Component(sd=1.0, df=2), Component(sd=1.0, df=math.inf)]
    assert half_width(parts, 0.05) == pytest.approx(math.hypot(4.30265273, Z))
    assert half_width(parts, 0.1) == pytest.approx(math.hypot(2.91998558, 1.64485363))


@given(st.floats(0.01, 5), st.sampled_from([1, 2, 4.5, math.inf]), st.floats(0.001, 0.9))
def test_the_p_value_is_the_alpha_whose_interval_ends_at_0(
    sd: float, df: float, alpha: float
) -> None:
    parts = [Component(sd=sd, df=df), Component(sd=0.3, df=math.inf)]
    half = half_width(parts, alpha)
    assert p_value(half, parts) == pytest.approx(alpha, rel=1e-5)
    assert p_value(-half, parts) == pytest.approx(alpha, rel=1e-5)


def test_p_values_have_ends() -> None:
    sure = [Component(sd=0.0, df=2)]
    assert p_value(0.0, sure) == 1
    assert p_value(0.1, sure) == SMALLEST_P
    assert p_value(1e9, [GQA_ONCE]) == SMALLEST_P


GQA_ONCE = Component(sd=0.47, df=math.inf)


def test_seeds_of_one_run_are_not_known() -> None:
    assert own_seeds([63.0], "A") is None
    found = own_seeds([63.0, 64.0, 65.0], "A")
    assert found == SeedNoise(sd=1.0, df=2, source="3 seeds of A")
    assert seeds_of_difference([63.0], [62.0], None) is None


def test_single_runs_take_the_prior_twice() -> None:
    found = seeds_of_difference([63.8], [62.0], GQA)
    assert found is not None
    assert found[0] == GQA and found[1].sd == pytest.approx(0.47 * math.sqrt(2))
    assert found[1].df == math.inf


def test_own_seeds_replace_the_prior_and_serve_an_arm_of_one_run() -> None:
    for a, b in (([63.0, 64.0, 65.0], [62.0]), ([62.0], [63.0, 64.0, 65.0])):
        found = seeds_of_difference(a, b, GQA)
        assert found is not None
        assert (found[0].sd, found[1].df) == (1.0, 2)
        assert found[1].sd == pytest.approx(math.sqrt(1 + 1 / 3))


def test_two_arms_of_seeds_by_welch() -> None:
    a, b = [1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 4.0]
    found = seeds_of_difference(a, b, GQA)
    assert found is not None
    of_a, of_b = 1 / 3, 4 / 4
    assert found[1].sd == pytest.approx(math.sqrt(of_a + of_b))
    assert found[1].df == pytest.approx((of_a + of_b) ** 2 / (of_a**2 / 2 + of_b**2 / 3))
    assert found[0].sd == pytest.approx(math.sqrt((2 * 1 + 3 * 4) / 5))
    assert found[0].source == "3 seeds of A, 4 seeds of B"


def test_equal_seeds_have_no_noise_and_all_degrees_of_freedom() -> None:
    found = seeds_of_difference([1.0, 1.0], [2.0, 2.0, 2.0], GQA)
    assert found is not None
    assert (found[1].sd, found[1].df) == (0.0, 3)


def test_the_papers_gqa_gain_with_one_run_an_arm() -> None:
    """evaluation.md 3.3: z 2.3, p .024, on seeds .47 and questions .44."""
    found = difference_of([63.8], [62.0], question=Component(sd=0.44, df=math.inf), prior=GQA)
    assert found.difference == pytest.approx(1.8) and found.seeds is GQA
    half = Z * math.hypot(0.47 * math.sqrt(2), 0.44)
    assert (found.low, found.high) == pytest.approx((1.8 - half, 1.8 + half))
    assert found.p == pytest.approx(0.024, abs=5e-4)
    assert claims({"gqa": found})["gqa"] == ("SUPPORTED", pytest.approx(found.p))


def test_without_a_seed_term_there_is_an_interval_of_questions_and_no_claim() -> None:
    question = Component(sd=1.0, df=math.inf)
    found = difference_of([90.0], [10.0], question=question, prior=None)
    assert (found.p, found.seeds) == (1.0, None)
    assert found.high - found.low == pytest.approx(2 * Z)
    known = difference_of([63.8], [62.0], question=question, prior=GQA)
    assert claims({"own": found, "gqa": known}) == {
        "own": ("NOT SHOWN", 1.0),
        "gqa": ("NOT SHOWN", pytest.approx(known.p)),
    }


def of_p(p: float, difference: float = 1.0) -> Difference:
    return Difference(difference=difference, question_sd=1, seeds=GQA, low=0, high=2, p=p)


def test_claims_hold_after_holm_with_their_sign() -> None:
    found = claims({"a": of_p(0.01), "b": of_p(0.02, -1.0), "c": of_p(0.2), "d": of_p(0.5)})
    assert found == {
        "a": ("SUPPORTED", pytest.approx(0.04)),
        "b": ("NOT SHOWN", pytest.approx(0.06)),
        "c": ("NOT SHOWN", pytest.approx(0.4)),
        "d": ("NOT SHOWN", pytest.approx(0.5)),
    }
    assert claims({"a": of_p(0.05, -1.0)})["a"][0] == "CONTRADICTED"
    assert claims({"a": of_p(0.0501, -1.0)})["a"][0] == "NOT SHOWN"


REPORTED = Reported(value=63.8, unit=0.1, prior=GQA, decoding_sd=0.14, margin=0.9)
SIGMA = math.sqrt(2 * 0.47**2 + 0.14**2 + 0.1**2 / 12)


def test_the_range_of_one_rerun_of_gqa() -> None:
    """evaluation.md 3.3: 1.3 around the printed value."""
    found = reproduce([63.1], REPORTED)
    assert found is not None
    assert found.reach == pytest.approx(Z * SIGMA) and round(found.reach, 1) == 1.3
    assert found.p == pytest.approx(0.3039, abs=1e-3)
    assert found.seeds is GQA and found.ours == 63.1
    assert reproduce([63.1], Reported(value=63.8, unit=0.1, prior=None)) is None


def test_a_run_at_the_end_of_the_range_diverged() -> None:
    inside = reproduce([63.8 - Z * SIGMA + 1e-4], REPORTED)
    outside = reproduce([63.8 + Z * SIGMA + 1e-4], REPORTED)
    assert inside is not None and outside is not None
    assert reproductions({"gqa": inside})["gqa"][0] == "COMPATIBLE"
    assert reproductions({"gqa": outside})["gqa"][0] == "DIVERGED"
    assert reproductions({"gqa": outside, "sqa": inside})["gqa"][0] == "COMPATIBLE", "after Holm"


def test_own_seeds_replace_the_prior_of_a_reported_value() -> None:
    values = [63.0, 63.5, 64.0]
    found = reproduce(values, Reported(value=63.8, unit=0.1, prior=GQA))
    assert found is not None
    assert found.seeds == SeedNoise(sd=0.5, df=2, source="3 seeds of this recipe")
    seeds = t_quantile(0.975, 2) * 0.5 * math.sqrt(1 + 1 / 3)
    assert found.reach == pytest.approx(math.hypot(seeds, Z * 0.1 / math.sqrt(12)))
    assert found.ours == 63.5 and not found.equivalent


@pytest.mark.parametrize(("margin", "equivalent"), [(1.2, True), (1.09, False), (None, False)])
def test_equivalence_needs_both_one_sided_tests(margin: float | None, equivalent: bool) -> None:
    """One run cannot meet a margin below 1.645 sqrt(2) s = 1.09, whatever it scores."""
    reported = Reported(value=63.8, unit=0.1, prior=GQA, margin=margin)
    found = reproduce([63.8], reported)
    assert found is not None and found.equivalent is equivalent
    assert found.smallest_margin == pytest.approx(1.64485363 * math.sqrt(2 * 0.47**2 + 0.01 / 12))
    assert reproductions({"gqa": found})["gqa"][0] == ("REPRODUCED" if equivalent else "COMPATIBLE")
    off = reproduce([63.8 - 0.2], reported)
    assert off is not None and not off.equivalent


def test_an_equivalent_value_is_reproduced_even_where_its_distance_is_significant() -> None:
    found = Reproduced(ours=1, seeds=GQA, reach=1, p=0.001, equivalent=True, smallest_margin=0.1)
    assert reproductions({"a": found}) == {"a": ("REPRODUCED", 0.001)}
    assert reproductions({}) == {}


def test_intervals_of_one_score() -> None:
    """Wilson's for 8 of 10 is 0.490 to 0.943; for 10 of 10 it begins at 0.722."""
    low, high = accuracy_interval(80, 100 * math.sqrt(0.8 * 0.2 / 10), 10)
    assert (low, high) == pytest.approx((49.02, 94.33), abs=0.01)
    assert accuracy_interval(100, 0.0, 10) == pytest.approx((72.25, 100), abs=0.01)
    assert accuracy_interval(100, 1e-14, 10) == accuracy_interval(100, 0.0, 10)
    assert accuracy_interval(0, 0.0, 10) == pytest.approx((0, 27.75), abs=0.01)
    assert symmetric_interval(1500, 35, 3) == pytest.approx(
        (1500 - 35 * 4.3026527, 1650.59), abs=0.01
    )
    assert symmetric_interval(1, 35, 3)[0] == 0
