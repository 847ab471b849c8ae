"""Holm's correction and McNemar's test."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densekit.evaluate.statistics.significance import holm, mcnemar

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def test_holm_of_a_textbook_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([0.3]) == [0.3]
    assert holm([]) == []


@given(P_VALUES)
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """A hypothesis is rejected where Bonferroni rejects every set that holds it (Marcus 1976)."""
    adjusted = holm(p_values)
    for index, p in enumerate(adjusted):
        sets = [
            chosen
            for size in range(1, len(p_values) + 1)
            for chosen in itertools.combinations(range(len(p_values)), size)
            if index in chosen
        ]
        worst = max(min(1, len(s) * min(p_values[i] for i in s)) for s in sets)
        assert p == pytest.approx(worst)


@given(st.integers(0, 12), st.integers(0, 12))
def test_few_discordant_questions_are_counted_exactly(b: int, c: int) -> None:
    found = mcnemar(b, c)
    assert found.exact
    total = b + c
    as_far = [k for k in range(total + 1) if abs(2 * k - total) >= abs(b - c)]
    assert found.p == pytest.approx(min(1, sum(math.comb(total, k) for k in as_far) / 2**total))


def test_many_discordant_questions_by_the_normal_distribution() -> None:
    assert mcnemar(12, 12).exact and not mcnemar(13, 12).exact
    found = mcnemar(60, 40)
    assert not found.exact and found.p == pytest.approx(0.0455003, abs=1e-7)
    assert mcnemar(40, 60).p == found.p
    assert (found.only_a, found.only_b) == (60, 40)
    assert mcnemar(0, 0).p == 1
    assert mcnemar(0, 6).p == 2 / 64
