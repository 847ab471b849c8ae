"""What `make gpu` computes from what it measured, and what it measures."""

from unittest import mock

import pytest
from gpu.__main__ import run_part
from gpu.made import RECIPES, workload_of
from gpu.profiled import gaps

from densekit.parity import report


def test_gaps_are_what_no_kernel_covers() -> None:
    ran = [(0.0, 100.0, "a"), (50.0, 120.0, "b"), (125.0, 200.0, "c"), (260.0, 300.0, "d")]
    found = gaps(ran[::-1])
    assert found["busy_share"] == round((120 + 75 + 40) / 300, 4)
    assert found["gaps"] == 1 and found["gap_ms"] == 0.06, "5 microseconds are no gap"
    assert found["longest_gaps"] == [{"ms": 0.06, "after": "c", "before": "d"}]


def test_every_size_has_its_recipes() -> None:
    for size, recipes in RECIPES.items():
        for what in recipes:
            assert workload_of(size, what)[0].trains == {"stage1": "connector"}.get(what, what)


def test_the_cases_that_fail_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded cases themselves have tests of their own."""
    found = report.Report(cases={"holds": {}, "nothing": {}}, unsupported=[], not_recorded=[])
    asked = mock.create_autospec(report.run_parity, return_value=found)
    monkeypatch.setattr(report, "run_parity", asked)
    assert run_part("parity", "cpu") == {"ok": found.ok, "cases": 2, "failed": found.failing}
