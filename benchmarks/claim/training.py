"""The trainings of the claim, two at a time, each on a core of its own: `densekit run` with one
seed through both stages and the evaluation. What is complete is used, what was stopped is resumed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import INTERRUPTED_CODE, UsageError
from densekit.launch.chain import chain_math, load_chain
from densekit.runs.layout import run_path
from densekit.spec.roots import Roots

POLL_SECONDS = 0.2
GOES_ON = "the same command goes on from where it was"


@dataclass(frozen=True, kw_only=True)
class Training:
    """One seed of one arm."""

    recipe: str
    seed: int
    more: tuple[str, ...] = ()
    """Further overrides, the same in both arms."""

    @property
    def label(self) -> str:
        """For messages, and the name of its log."""
        return f"{self.recipe} seed {self.seed}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """What is --set."""
        return (f"seed={self.seed}", *self.more)

    def run(self, runs_dir: Path, roots: Roots) -> Path:
        """Its run directory, whether it is there or not. Raises DataError where data is missing."""
        *_, last = chain_math(load_chain(self.recipe, self.overrides), roots)
        return run_path(runs_dir, last)


@dataclass(frozen=True, kw_only=True)
class Started:
    """A training that is under way."""

    training: Training
    process: subprocess.Popen[bytes]
    core: int
    log: Path
    since: float


def train_all(trainings: Sequence[Training], runs_dir: Path, roots: Roots, *, at_once: int) -> int:
    """Run them; returns 0, or the exit code of the first that failed, after which none is started.

    Each says on stdout when it begins and ends, and writes its own output to a log.
    """
    free = sorted(os.sched_getaffinity(0))
    if not 1 <= at_once <= len(free):
        raise UsageError(
            f"--at-once {at_once}: each training has a core of its own, and this process may use "
            f"{len(free)}: give `make claim` ARGS='--at-once {len(free)}'"
        )
    cores = free[:at_once]
    waiting, busy, code = [*trainings], list[Started](), 0
    logs = runs_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with _stopping(busy):
        while busy or (waiting and not code):
            idle = [core for core in cores if core not in {each.core for each in busy}]
            while idle and waiting and not code:
                busy.append(_start(waiting.pop(0), idle.pop(), logs, runs_dir, roots))
            time.sleep(POLL_SECONDS)
            for each in [started for started in busy if started.process.poll() is not None]:
                busy.remove(each)
                code = code or _ended(each)
    return code


def command_of(training: Training, runs_dir: Path, roots: Roots) -> list[str]:
    """The words that train, and then ask."""
    command = [sys.executable, "-m", "densekit", "run", training.recipe]
    for override in training.overrides:
        command += ["--set", override]
    command += [
        "--launcher",
        "local",
        "--device",
        "cpu",
        "--save-minutes",
        "2",
        "--runs-dir",
        str(runs_dir),
    ]
    command += ["--data-dir", str(roots.data), "--models-dir", str(roots.models)]
    return [*command, "--cache-dir", str(roots.cache)]


def _start(training: Training, core: int, logs: Path, runs_dir: Path, roots: Roots) -> Started:
    """Start one on a core: what it plans, and what it starts, then has one thread."""
    command = command_of(training, runs_dir, roots)
    log = logs / f"{training.label.replace(' ', '_')}.txt"
    before = os.sched_getaffinity(0)
    with log.open("ab") as file:
        os.sched_setaffinity(0, {core})
        try:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        finally:
            os.sched_setaffinity(0, before)
    _say(f"{training.label}: started on core {core}, output in {log}")
    return Started(training=training, process=process, core=core, log=log, since=time.monotonic())


def _ended(started: Started) -> int:
    code = started.process.returncode
    minutes = (time.monotonic() - started.since) / 60
    if code == 0:
        _say(f"{started.training.label}: complete ({minutes:.1f} minutes)")
        return 0
    last = started.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    _say("\n".join([f"{started.training.label}: exit code {code}, {started.log} ends:", *last]))
    return code if code > 0 else 128 - code


@contextmanager
def _stopping(busy: Sequence[Started]) -> Iterator[None]:
    """SIGINT and SIGTERM stop the trainings, which save themselves, and are waited for."""

    def stop(_: int, __: object) -> None:
        raise KeyboardInterrupt

    earlier = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        for number in earlier:
            signal.signal(number, signal.SIG_IGN)
        for started in busy:
            started.process.send_signal(signal.SIGTERM)
        for started in busy:
            started.process.wait()
        _say(f"stopped; {GOES_ON}")
        raise SystemExit(INTERRUPTED_CODE) from None
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
