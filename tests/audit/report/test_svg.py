"""Curves: round axes, gaps, few points of many steps, no text that is markup."""

import math
import re

import pytest

from densekit.audit.report.facts import Chart, Series
from densekit.audit.report.svg import (
    HEIGHT,
    MAX_POINTS,
    WIDTH,
    draw,
    round_numbers,
    smoothed,
    sparkline,
    thinned,
)


def chart(values: list[float | None], *, log: bool = False, label: str = "loss") -> Chart:
    """A chart of one curve."""
    steps = tuple(range(1, len(values) + 1))
    series = Series(label=label, steps=steps, values=tuple(values))
    return Chart(title="Loss", series=(series,), file="metrics.jsonl", log=log)


def path_of(drawing: str) -> str:
    """The curve's path."""
    (found,) = re.findall(r'<path class="s0" d="([^"]*)"', drawing)
    return str(found)


@pytest.mark.parametrize("low", [-3.0, 0.0, 1e-9, 0.2, 7.0, 12345.0])
@pytest.mark.parametrize("width", [1e-6, 0.03, 1.0, 4.2, 999.0, 1e9])
def test_axes_have_a_few_round_numbers(low: float, width: float) -> None:
    ticks = round_numbers(low, low + width)
    assert 2 <= len(ticks) <= 9
    assert all(low - width * 1e-3 <= tick <= low + width * 1.001 for tick in ticks)


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0, 0.0],
        [1e300, -1e300],
        [1e-300, 2e-300],
        [5.0, None, math.nan, math.inf, -math.inf, 3.0],
        [-1.0, -2.0],
    ],
)
@pytest.mark.parametrize("log", [False, True])
def test_every_point_is_inside_the_drawing(values: list[float | None], log: bool) -> None:
    drawing = draw(chart(values, log=log))
    numbers = [float(number) for number in re.findall(r"[ML]([-\d.e+]+) ", drawing)]
    heights = [float(number) for number in re.findall(r"[ML][-\d.e+]+ ([-\d.e+]+)", drawing)]
    assert all(0 <= number <= WIDTH for number in numbers)
    assert all(0 <= height <= HEIGHT for height in heights)
    assert "nan" not in drawing and "inf" not in drawing


def test_a_step_without_a_value_is_a_gap_and_a_mark() -> None:
    drawing = draw(chart([1.0, None, 2.0, math.nan, 3.0]))
    assert path_of(drawing).count("M") == 3
    assert drawing.count('class="gap"') == 2


def test_no_value_at_all_is_said() -> None:
    assert "no step has a value" in draw(chart([None, math.nan]))
    assert "no step has a value" in draw(chart([-1.0, 0.0], log=True))


def test_many_steps_keep_their_extremes() -> None:
    values: list[float | None] = [1.0] * 50_000
    values[31_234], values[7], values[40_001] = 99.0, -5.0, None
    points = thinned(chart(values).series[0])
    assert len(points) <= 1.5 * MAX_POINTS
    assert (31_235, 99.0) in points and (8, -5.0) in points and (40_002, None) in points
    assert [step for step, _ in points] == sorted(step for step, _ in points)
    assert len(draw(chart(values))) < 20_000


def test_labels_are_escaped() -> None:
    assert "<script" not in draw(chart([1.0, 2.0], label="<script>"))


def test_smoothing_starts_at_the_first_value_and_follows() -> None:
    assert smoothed([4.0, None, 4.0]) == pytest.approx((4.0, None, 4.0))
    values = smoothed([*[0.0] * 5, *[1.0] * 200])
    assert values[5] is not None and 0 < values[5] < 0.3
    assert values[-1] == pytest.approx(1.0, abs=1e-3)


def test_a_sparkline_needs_two_values() -> None:
    assert sparkline([1.0, None]) == ""
    assert "M" in sparkline([1.0, 2.0])
