"""Each comparison is judged by its own tolerance, and what cannot be compared has failed."""

from math import inf

import numpy as np
import pytest

from densekit.errors import DataError, UsageError
from densekit.parity.compare import Quantities, run_case


def test_another_shape_and_nan_fail() -> None:
    quantities = Quantities()
    quantities.close("shape", np.zeros(3), np.zeros(4), 1.0)
    quantities.close("nan", float("nan"), 1.0, 1.0)
    quantities.close("fine", 1.0, 1.5, 1.0)
    quantities.exact("list", [1, 2], [1, 3])
    values = quantities.values
    assert {name: value.ok for name, value in values.items()} == {
        "shape": False,
        "nan": False,
        "fine": True,
        "list": False,
    }
    assert (values["fine"].max_abs_diff, values["fine"].worst_ratio) == (0.5, 0.5)
    assert values["shape"].max_abs_diff is None and values["list"].worst_ratio == inf
    assert values["list"].as_json()["worst_ratio"] is None


@pytest.mark.parametrize("order", [1, -1])
def test_large_difference_within_tolerance_does_not_hide_a_small_one(order: int) -> None:
    quantities = Quantities()
    for ours, recorded, tolerance in [(1.0, 1.5, 1.0), (1e-3, 1.1e-3, 1e-12)][::order]:
        quantities.close("log", ours, recorded, tolerance)
    log = quantities.values["log"]
    assert not log.ok and log.max_abs_diff == 0.5 and log.worst_ratio == pytest.approx(1e8)


@pytest.mark.parametrize("refusal", [DataError, UsageError])
def test_refusal_has_to_agree_with_the_recorded_error(refusal: type[Exception]) -> None:
    def refuse() -> int:
        raise refusal("sample 3 has length 0")

    def ok(error: str | None, compute: object) -> tuple[object, object]:
        quantities = Quantities()
        result = quantities.refused("case", error, compute)  # type: ignore[arg-type]
        value = quantities.values.get("refused")
        return result, value and (value.ok, value.error)

    assert ok(None, lambda: 7) == (7, None)
    assert ok("AssertionError", refuse) == (None, (True, None))
    result, (good, error) = ok("AssertionError: zero", lambda: 7)  # type: ignore[misc]
    assert (result, good) == (None, False)
    assert error == "case: accepted; the official code raised AssertionError: zero"
    result, (good, error) = ok(None, refuse)  # type: ignore[misc]
    assert (result, good) == (None, False) and error.endswith("sample 3 has length 0")


def test_other_errors_are_no_refusal() -> None:
    def crash() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Quantities().refused("case", "ZeroDivisionError", crash)


def test_case_that_compares_nothing_fails() -> None:
    assert not run_case(lambda _: None)["case"].ok
