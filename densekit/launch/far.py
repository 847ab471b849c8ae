"""How far a run or an evaluation is while its processes are at work, from what they write into its
directory.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from densekit.errors import DensekitError
from densekit.files.regular import open_regular
from densekit.launch.speed import Reached, reached
from densekit.runs.evaluations import EvaluationFolder
from densekit.runs.layout import EXECUTION_FILE, RunDir, WorkDir

STARTING = "starting"
FINISHING = "writing results"
STOPPING = "stopping"


@dataclass(frozen=True, kw_only=True)
class Far:
    """What a bar shows."""

    done: int = 0
    total: int | None = None
    """None while it is not known."""
    eta_seconds: float | None = None
    words: list[str] = field(default_factory=list)
    """Of the latest steps, a phrase each."""
    phase: str = ""
    """What is done where it is not the steps themselves."""


def how_far(work: WorkDir) -> Callable[[], Far]:
    """What tells how far `work` is; it may be asked often."""
    if isinstance(work, RunDir):
        return _Run(work)
    if isinstance(work, EvaluationFolder):
        return _Evaluation(work)
    return Far


def opened(run: WorkDir, attempt: int) -> float | None:
    """When an attempt was opened, seconds since 1970: its execution is written once."""
    try:
        return (run.attempt_folder(attempt) / EXECUTION_FILE).stat().st_mtime
    except OSError:
        return None


class _Run:
    """The steps of a run; its metrics are read again only where they grew."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._total: int | None = None
        self._size = -1
        self._reached: Reached | None = None

    def __call__(self) -> Far:
        try:
            return self._far()
        except (DensekitError, OSError):  # a file that is being replaced; it is asked again soon
            return Far(phase=STARTING)

    def _far(self) -> Far:
        if self._total is None:
            self._total = self.run.total_steps
        at = self._newest()
        if at is None or not self.run.in_steps:
            done = at.steps if at else 0
            return Far(done=done, total=self._total, phase=STARTING)
        seconds, left = at.recent.step_seconds, max(0, (self._total or at.steps) - at.steps)
        phase = "" if left else FINISHING
        return Far(
            done=at.steps,
            total=self._total,
            eta_seconds=None if seconds is None or not left else seconds * left,
            words=at.recent.words(),
            phase=STOPPING if left and self.run.stop_file.exists() else phase,
        )

    def _newest(self) -> Reached | None:
        size = self.run.metrics.stat().st_size if self.run.metrics.exists() else 0
        if size != self._size:
            began = opened(self.run, self.run.status.attempt)
            self._reached, self._size = reached(self.run.metrics, began), size
        return self._reached


class _Evaluation:
    """The answers of an evaluation; each file is counted on from where it ended."""

    def __init__(self, folder: EvaluationFolder) -> None:
        self.folder = folder
        self._asked = {each.protocol.name: each for each in folder.evaluation.benchmarks}
        self._counted = dict.fromkeys(self._asked, (0, 0))
        self._first: tuple[float, int] | None = None

    def __call__(self) -> Far:
        now = time.monotonic()
        counts = {name: self._count(name) for name in self._asked}
        done, total = sum(counts.values()), sum(each.questions for each in self._asked.values())
        if self._first is None:
            self._first = now, done
        began, before = self._first
        if done == before:
            return Far(done=done, total=total, phase=STARTING)
        under_way = next(
            (each for name, each in self._asked.items() if counts[name] < each.questions), None
        )
        speed = (done - before) / max(now - began, 1e-3)
        return Far(
            done=done,
            total=total,
            eta_seconds=(total - done) / speed if done < total else None,
            words=[under_way.protocol.title, f"{speed:.3g} answers/s"] if under_way else [],
            phase="" if done < total else FINISHING,
        )

    def _count(self, name: str) -> int:
        place, count = self._counted[name]
        path: Path = self.folder.answers(name)
        with suppress(OSError), open_regular(path) as file:
            if file.seek(0, os.SEEK_END) < place:  # a batch that was being written was cut off
                place = count = 0
            file.seek(place)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._counted[name] = place + len(whole), count + whole.count(b"\n")
        return self._counted[name][1]
