"""A published training's log: the trainer_state.json that HF's Trainer leaves in its folder.

`log_history` has one entry each `logging_steps`: the mean loss of the steps since the entry before,
rounded to 4 digits, and a learning rate.
With DeepSpeed a loss is the mean over ranks of the mean over micro-batches, which is what a
faithful run of densekit records.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from densekit.errors import DataError
from densekit.files.json_files import parse_json, read_file

FILE_NAME = "trainer_state.json"
REMEDY = f"give the {FILE_NAME} that HF's Trainer wrote beside the published weights"
MOST_STEPS = 10**7
"""Of a training; curves are held step by step."""
LARGEST = 1e30
"""A loss or rate of this size is as good as infinite."""
ROUNDING = 5e-5
"""Half a unit of the last digit that HF's Trainer logs of a loss."""


@dataclass(frozen=True, kw_only=True)
class PublishedLog:
    """What a trainer_state.json says of its training, one value per logged step.

    A step that the file has twice (a training that was resumed) counts as it was logged last.
    """

    path: Path
    steps: np.ndarray
    """Steps logged, ascending [N], int64, counted from 1."""
    losses: np.ndarray
    """Mean loss of the `interval` steps that end there [N]; NaN where the file has no finite
    one.
    """
    learning_rates: np.ndarray
    """[N]; NaN where the file has none."""
    interval: int
    """Steps between two entries (`logging_steps`)."""
    length: int | None
    """Steps of the whole training (`max_steps`); None where the file does not say."""
    repeated: tuple[int, ...]
    """Steps that the file has more than once."""
    contradicted: tuple[int, ...]
    """Of them, those whose losses differ."""
    not_finite: tuple[int, ...]
    """Steps whose loss is NaN or infinite."""
    zero: tuple[int, ...]
    """Steps whose loss is exactly 0: how overflowed or lost gradients show in such a log."""

    @property
    def last(self) -> int:
        """The last step logged."""
        return int(self.steps[-1])

    @property
    def windows(self) -> np.ndarray:
        """Steps that each entry is the mean of [N]: `interval`, fewer where an entry came
        sooner.
        """
        gaps = np.diff(self.steps, prepend=0)
        return np.minimum(gaps, self.interval)


def read_published(path: Path) -> PublishedLog:
    """Read a trainer_state.json, or the one in the folder `path`.

    Raises DataError when it is no such file, has no `log_history`, or no loss in it.
    """
    if path.is_dir():
        path = path / FILE_NAME
    try:
        value = parse_json(read_file(path, remedy=REMEDY), non_finite=True)
    except ValueError as error:
        raise DataError(f"{path} is not a {FILE_NAME}: {error}; {REMEDY}") from None
    if not isinstance(value, dict) or "log_history" not in value:
        raise DataError(f"{path} is not a {FILE_NAME}: it has no `log_history`; {REMEDY}")
    history = value["log_history"]
    if not isinstance(history, list):
        raise DataError(f"{path}: `log_history` is no list; {REMEDY}")
    kept: dict[int, tuple[float, float]] = {}
    seen: dict[int, set[float]] = {}
    times: Counter[int] = Counter()
    for step, loss, rate in _entries(path, history):
        kept[step] = (loss, rate)
        seen.setdefault(step, set()).add(loss)
        times[step] += 1
    if not kept:
        raise DataError(
            f"{path}: no entry of `log_history` has a `loss`: the training logged none, or only "
            f"its summary was kept; {REMEDY}"
        )
    steps = np.array(sorted(kept), dtype=np.int64)
    losses, rates = (
        np.array([kept[step][at] for step in steps.tolist()], dtype=np.float64) for at in (0, 1)
    )
    finite = np.isfinite(losses)
    if not finite.any():
        raise DataError(f"{path}: no loss of `log_history` is finite: that training diverged")
    gaps = Counter(later - earlier for earlier, later in pairwise(steps.tolist()))
    return PublishedLog(
        path=path,
        steps=steps,
        losses=np.where(finite, losses, np.nan),
        learning_rates=np.where(np.isfinite(rates), rates, np.nan),
        interval=gaps.most_common(1)[0][0] if gaps else int(steps[0]),
        length=_length(value, int(steps[-1])),
        repeated=tuple(step for step in sorted(times) if times[step] > 1),
        contradicted=tuple(step for step in sorted(seen) if len(seen[step]) > 1),
        not_finite=tuple(steps[~finite].tolist()),
        zero=tuple(steps[losses == 0].tolist()),
    )


def _entries(path: Path, history: list[Any]) -> Iterator[tuple[int, float, float]]:
    """(step, loss, learning rate) of every entry with a loss; entries of evaluations and the
    summary have none.
    """
    for number, entry in enumerate(history):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: `log_history`, entry {number} is no object; {REMEDY}")
        if "loss" not in entry:
            continue
        step = entry.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= MOST_STEPS:
            raise DataError(
                f"{path}: `log_history`, entry {number}: `step` is {str(step)[:40]}, not a step "
                f"from 1 to {MOST_STEPS:,}; {REMEDY}"
            )
        yield step, _number(path, number, entry, "loss"), _number(path, number, entry, RATE)


RATE = "learning_rate"


def _number(path: Path, number: int, entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(
            f"{path}: `log_history`, entry {number}: `{key}` is {value!r}, not a number; {REMEDY}"
        )
    return float(value) if abs(value) < LARGEST else math.inf


def _length(value: Mapping[str, Any], last: int) -> int | None:
    """`max_steps`; `global_step` where a file has none: a training that ended there."""
    for key in ("max_steps", "global_step"):
        steps = value.get(key)
        if isinstance(steps, int) and not isinstance(steps, bool) and last <= steps <= MOST_STEPS:
            return steps
    return None
