"""Curves as inline SVG: paths, an axis with round numbers, gaps where there is no value.

Colours are classes of the page's style sheet, so that one drawing serves light, dark and print.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape

from densekit.audit.report.facts import Chart, Series

WIDTH, HEIGHT = 640, 230
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 30
MAX_POINTS = 600
"""Of a path; of more steps, the lowest and the highest of each stretch are drawn."""
LEAST_TICKS = 3
COLOURS = 8
SLACK = 1e-6
"""Of a tick, by which it may lie outside: the last bits of a division."""
LARGEST_EXPONENT = 308
"""Of a float."""


def draw(chart: Chart) -> str:
    """An <svg> element; a sentence in a <p> where no step has a value."""
    values = [value for series in chart.series for value in _finite(series.values)]
    if chart.log:
        values = [value for value in values if value > 0]
    if not values:
        return '<p class="empty">no step has a value</p>'
    first = min(series.steps[0] for series in chart.series if series.steps)
    last = max(series.steps[-1] for series in chart.series if series.steps)
    scale = _Scale(min(values), max(values), first, last, log=chart.log)
    parts = [*_grid(scale), *_marks(chart, scale)]
    for series in sorted(chart.series, key=lambda series: not series.faint):
        name = f"s{series.colour % COLOURS}" + (" faint" if series.faint else "")
        path = "".join(_path(series, scale))
        label = f"<title>{escape(series.label)}</title>"
        parts.append(f'<path class="{name}" d="{path}">{label}</path>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">'
        f"{''.join(parts)}</svg>"
    )


def smoothed(values: Sequence[float | None], weight: float = 0.95) -> tuple[float | None, ...]:
    """The exponential moving average, without its bias towards the first value; gaps stay gaps."""
    mean = total = 0.0
    found: list[float | None] = []
    for value in values:
        if value is None or not math.isfinite(value):
            found.append(None)
            continue
        mean = weight * mean + (1 - weight) * value
        total = weight * total + (1 - weight)
        found.append(mean / total)
    return tuple(found)


def thinned(series: Series, most: int = MAX_POINTS) -> list[tuple[int, float | None]]:
    """The points to draw: all, or the lowest and the highest of each stretch, and every gap's."""
    points = list(zip(series.steps, series.values, strict=True))
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    found: list[tuple[int, float | None]] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        known = [(value, step) for step, value in stretch if _is_finite(value)]
        if len(known) < len(stretch):
            found.append((next(step for step, value in stretch if not _is_finite(value)), None))
        if known:
            ends = {min(known), max(known)}
            found += [(step, value) for value, step in ends]
    return sorted(found, key=lambda point: point[0])


class _Scale:
    """Values and steps to the drawing's coordinates."""

    def __init__(self, low: float, high: float, first: int, last: int, *, log: bool) -> None:
        self.log, self.first, self.last = log, first, max(last, first + 1)
        if log:
            self.low, self.high = math.log10(low), math.log10(high)
        else:
            self.low, self.high = low, high
        if self.high - self.low <= 1e-12 * max(abs(self.high), abs(self.low)):
            margin = 0.5 if log else abs(self.high) * 0.1 or 1.0
            self.low, self.high = self.low - margin, self.high + margin

    def x(self, step: float) -> float:
        """Of a step."""
        return LEFT + (step - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Of a value."""
        place = math.log10(value) if self.log else value
        share = (place - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        """Round values within the scale."""
        places = round_numbers(self.low, self.high)
        return [10**p for p in places if p < LARGEST_EXPONENT] if self.log else places


def round_numbers(low: float, high: float) -> list[float]:
    """The fewest multiples of 1, 2 or 5 times a power of ten from `low` to `high` that are at least
    LEAST_TICKS.
    """
    size = 10.0 ** math.floor(math.log10((high - low) / LEAST_TICKS))
    ticks: list[float] = []
    for factor in (10, 5, 2, 1):
        step = factor * size
        first, last = math.ceil(low / step - SLACK), math.floor(high / step + SLACK)
        ticks = [number * step for number in range(first, last + 1)]
        if len(ticks) >= LEAST_TICKS:
            break
    return ticks


def _grid(scale: _Scale) -> Iterator[str]:
    for value in scale.ticks():
        y = scale.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    for value in round_numbers(scale.first, scale.last):
        if value == round(value):
            x = scale.x(value)
            yield f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{value:.0f}</text>'


def _marks(chart: Chart, scale: _Scale) -> Iterator[str]:
    """A tick at the foot of every step without a value, at most one a pixel."""
    gaps = {
        round(scale.x(step))
        for series in chart.series
        if not series.faint
        for step, value in zip(series.steps, series.values, strict=True)
        if not _is_finite(value)
    }
    foot = HEIGHT - BOTTOM
    for x in sorted(gaps):
        yield f'<line class="gap" x1="{x}" x2="{x}" y1="{foot}" y2="{foot + 6}"/>'


def _path(series: Series, scale: _Scale) -> Iterator[str]:
    command = "M"
    for step, value in thinned(series):
        if value is None or not math.isfinite(value) or (scale.log and value <= 0):
            command = "M"
            continue
        yield f"{command}{scale.x(step):.1f} {scale.y(value):.1f}"
        command = "L"


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _finite(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def sparkline(values: Sequence[float | None]) -> str:
    """A curve without axes, for a cell of a table; empty where fewer than two values are known."""
    known = _finite(values)
    if len(known) < 2:
        return ""
    steps = tuple(range(1, len(values) + 1))
    series = Series(label="", steps=steps, values=tuple(values))
    scale = _Scale(min(known), max(known), 1, len(values), log=False)
    path = "".join(_path(series, scale))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" height="24" '
        f'aria-hidden="true"><path class="s0" vector-effect="non-scaling-stroke" d="{path}"/></svg>'
    )
