"""How far a run came and how fast its latest attempt is, from the end of its metrics.jsonl alone:
a folder of hundreds of long runs is listed in a second.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densekit.files.regular import open_regular
from densekit.runs.recent import Recent
from densekit.spec.part import MAX_COUNT

TAIL_BYTES = 1 << 16
"""Of metrics.jsonl that are read: some ninety steps."""
CLOCK_SECONDS = 1.0
"""That the times of two files may be apart on a shared file system."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What the last lines of metrics.jsonl say."""

    steps: int
    recent: Recent
    """Of the latest steps; its speed is that of this attempt."""
    written: float
    """When the last step was written, seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A step as far as it can be read: other versions measured less."""

    step: int
    loss: float | None
    lr: float
    samples: int
    tokens: int
    seconds: float
    mfu: float | None
    peak_memory_gib: float | None


def reached(metrics: Path, attempt_began: float | None) -> Reached | None:
    """Where a run is; None where no step is on record or the last lines cannot be read.

    `attempt_began` (seconds since 1970) leaves steps of earlier attempts, on other hardware, out of
    the speed.
    """
    try:
        with open_regular(metrics) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
            written = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    if size > TAIL_BYTES:
        lines = lines[1:]  # cut in the middle
    steps = [step for line in lines if (step := _step(line)) is not None]
    if not steps:
        return None
    return Reached(
        steps=steps[-1].step,
        recent=Recent.of(steps, timed=_taken(steps, written, attempt_began)),
        written=written,
    )


def _taken(steps: Sequence[_Line], written: float, attempt_began: float | None) -> int:
    """How many of the latest steps this attempt took."""
    count, ended = 0, written
    for step in reversed(steps):
        if not 0 < step.seconds < math.inf:
            break  # of a version that measured none
        if attempt_began is not None and ended - step.seconds < attempt_began - CLOCK_SECONDS:
            break
        count, ended = count + 1, ended - step.seconds
    return count


def _step(line: bytes) -> _Line | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        return None
    if not 0 < value["step"] <= MAX_COUNT or value["step"] is True:
        return None
    return _Line(
        step=value["step"],
        loss=_number(value.get("loss")),
        lr=_number(value.get("lr")) or 0.0,
        samples=int(_number(value.get("samples")) or 0),
        tokens=int(_number(value.get("tokens")) or 0),
        seconds=_number(value.get("seconds")) or 0.0,
        mfu=_number(value.get("mfu")),
        peak_memory_gib=_number(value.get("peak_memory_gib")),
    )


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None
