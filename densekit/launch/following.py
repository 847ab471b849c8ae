"""`densekit run --trajectory`: while a run trains, how its steps lie beside a published log.

A thread of the driver reads the run's metrics, so it works with every launcher that the driver
waits for.
It says what it found at 20, 50, 100, 200, 500, ... steps and at the end, and stops the run only
when it was asked to.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count

from densekit.audit.trajectory.alignment import FEWEST
from densekit.audit.trajectory.compare import Trajectory, compare, steps_so_far
from densekit.audit.trajectory.published import PublishedLog
from densekit.errors import DensekitError
from densekit.runs.layout import RunDir

Watch = Callable[[RunDir], AbstractContextManager[None]]
"""What is done while a run trains."""
POLL_SECONDS = 2.0
STOPS_FROM = 50
"""Entries of the log from which a finding may stop a run."""


def unwatched(run: RunDir) -> AbstractContextManager[None]:
    """Nothing is done while it trains."""
    del run
    return nullcontext()


def following(log: PublishedLog, *, stop: bool) -> Watch:
    """Report on a run beside `log` while it trains; `stop` it at a checkpoint where a finding
    speaks against it.
    """

    @contextmanager
    def watch(run: RunDir) -> Iterator[None]:
        ended = threading.Event()
        follower = _Follower(run, log, stop=stop)
        thread = threading.Thread(target=follower.until, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            follower.last()

    return watch


def report_steps(interval: int) -> Iterator[int]:
    """Steps at which a run is reported: FEWEST entries of the log, then 50, 100, 200, 500, ..."""
    yield FEWEST * interval
    for power in count():
        yield from (times * 10**power * interval for times in (50, 100, 200))


class _Follower:
    """What has been reported of one run."""

    def __init__(self, run: RunDir, log: PublishedLog, *, stop: bool) -> None:
        self.run, self.log, self.stop = run, log, stop
        self._next = report_steps(log.interval)
        self._due = next(self._next)
        self._reported = self._steps()
        self._pass(self._reported)

    def until(self, ended: threading.Event) -> None:
        """Report what becomes due, until `ended` is set."""
        while not ended.wait(POLL_SECONDS):
            steps = self._steps()
            if steps >= self._due:
                self._pass(steps)
                self._report(steps, may_stop=True)

    def last(self) -> None:
        """Report where the run ended, if that is news."""
        steps = self._steps()
        if steps > self._reported:
            self._report(steps, may_stop=False)

    def _pass(self, steps: int) -> None:
        while self._due <= steps:
            self._due = next(self._next)

    def _steps(self) -> int:
        try:
            return len(steps_so_far(self.run.path))
        except DensekitError:
            return 0  # a resumed trainer may just be cutting the file where its checkpoint ends

    def _report(self, steps: int, *, may_stop: bool) -> None:
        try:
            found = compare(self.run.path, self.log)
        except DensekitError as error:
            _say(f"{self.run.name}: trajectory: {error}")
            return
        self._reported = steps
        verdict = "follows the file" if found.consistent else "does not follow the file"
        _say(f"{self.run.name}: trajectory at step {steps}: {verdict}: {found.headline}")
        if may_stop and self.stop and _is_told(found):
            self.run.stop_file.touch()
            _say(
                f"{self.run.name}: stopping at a checkpoint, as --trajectory-stop asks; the same "
                "command without it resumes the run"
            )


def _is_told(found: Trajectory) -> bool:
    return not found.consistent and len(found.evidence.pairs) >= STOPS_FROM


def _say(line: str) -> None:
    print(line, flush=True)
