"""How far a run came and how fast its latest attempt is, from the end of its metrics.jsonl alone:
a folder of hundreds of long runs is listed in a second.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TAIL_BYTES = 1 << 16
"""Of metrics.jsonl that are read: some ninety steps."""
CLOCK_SECONDS = 1.0
"""That the times of two files may be apart on a shared file system."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What the last lines of metrics.jsonl say."""

    steps: int
    loss: float | None
    """Of the last step; None where it is not finite."""
    step_seconds: float | None
    """Mean of the latest steps that this attempt took; None where it took none yet."""
    written: float
    """When the last step was written, seconds since 1970."""


def reached(metrics: Path, attempt_began: float | None) -> Reached | None:
    """Where a run is; None where no step is on record or the last lines cannot be read.

    `attempt_began` (seconds since 1970) leaves steps of earlier attempts, on other hardware, out of
    the speed.
    """
    try:
        with metrics.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
            written = os.fstat(file.fileno()).st_mtime
    except OSError:
        return None
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    if size > TAIL_BYTES:
        lines = lines[1:]  # cut in the middle
    records = [record for line in lines if (record := _record(line)) is not None]
    if not records:
        return None
    loss = records[-1].get("loss")
    return Reached(
        steps=records[-1]["step"],
        loss=loss if isinstance(loss, float) and math.isfinite(loss) else None,
        step_seconds=_mean(records, written, attempt_began),
        written=written,
    )


def _mean(
    records: list[dict[str, Any]], written: float, attempt_began: float | None
) -> float | None:
    """Seconds of a step, over those that this attempt took."""
    taken: list[float] = []
    ended = written
    for record in reversed(records):
        seconds = record.get("seconds")
        if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            break  # of a version that measured none
        if attempt_began is not None and ended - seconds < attempt_began - CLOCK_SECONDS:
            break
        taken.append(seconds)
        ended -= seconds
    return sum(taken) / len(taken) if taken else None


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_step = isinstance(value, dict) and isinstance(value.get("step"), int)
    return value if is_step else None
