"""Student's t against values of tables and closed forms."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.evaluate.statistics.student import t_cdf, t_quantile, two_sided_p

TABLE = {
    (0.975, 1): 12.7062047362,
    (0.975, 2): 4.3026527297,
    (0.975, 3): 3.1824463053,
    (0.975, 4): 2.7764451052,
    (0.975, 10): 2.2281388520,
    (0.95, 2): 2.9199855804,
    (0.95, 5): 2.0150483733,
    (0.995, 30): 2.7499956536,
}


@pytest.mark.parametrize(("at", "value"), TABLE.items())
def test_quantiles_of_the_tables(at: tuple[float, float], value: float) -> None:
    assert t_quantile(*at) == pytest.approx(value, abs=1e-9)
    assert t_quantile(1 - at[0], at[1]) == pytest.approx(-value, abs=1e-8)


def test_infinite_degrees_of_freedom_are_the_normal_distribution() -> None:
    assert t_quantile(0.975, math.inf) == pytest.approx(1.9599639845)
    assert t_cdf(1.5, math.inf) == NormalDist().cdf(1.5)
    assert two_sided_p(-1.5, math.inf) == pytest.approx(2 * NormalDist().cdf(-1.5))
    assert t_quantile(0.975, 1e7) == pytest.approx(1.9599639845, abs=1e-6)


@given(st.floats(-30, 30))
def test_closed_forms_of_one_and_two_degrees(t: float) -> None:
    assert t_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-13)
    assert t_cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-13)


@given(st.floats(0.3, 400), st.floats(0.01, 0.99))
def test_a_quantile_is_the_inverse_of_the_distribution(df: float, probability: float) -> None:
    quantile = t_quantile(probability, df)
    assert t_cdf(quantile, df) == pytest.approx(probability, abs=1e-11)
    assert two_sided_p(quantile, df) == pytest.approx(
        2 * min(probability, 1 - probability), abs=1e-11
    )


def test_half_is_zero() -> None:
    assert t_quantile(0.5, 3) == 0
    assert t_cdf(0, 3) == 0.5
