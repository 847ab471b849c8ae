"""Evaluations of a small tiny run, answered by forked ranks."""

import os
import random
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from densekit.evaluate.data import HELD_OUT, read_data
from densekit.evaluate.model_files import model_of
from densekit.evaluate.planning import plan_benchmark
from densekit.evaluate.runner.task import answer
from densekit.evaluate.store import open_evaluation
from densekit.launch.evaluation import KERNEL, SEED, evaluation_execution, math_of
from densekit.runs.answers import AnswerFile
from densekit.runs.evaluations import Evaluation, EvaluationFolder
from densekit.runs.layout import RunDir
from densekit.spec.execution import Execution
from tests.support.ranks import Outcome, run_ranks
from tests.support.training import siblings

WORLDS = (1, 2, 3)


@dataclass(frozen=True)
class Kill:
    """SIGKILL to all ranks in the write of the `appends`-th batch of an attempt, of which so much
    reaches the disk; `stops`: the driver asks them to stop instead.
    """

    appends: int
    share: float = 1.0
    stops: bool = False


def answer_until(path: Path, kill: Kill | None) -> None:
    """What a rank runs: the evaluator, ended by `kill`."""
    if kill is not None:
        AnswerFile._write = _Counter(kill, path)  # type: ignore[method-assign, assignment]
    answer(path)


class _Counter:
    """Stands for the writing of a batch; only rank 0 writes."""

    def __init__(self, kill: Kill, path: Path) -> None:
        self.kill, self.path, self.left = kill, path, kill.appends

    def __get__(self, file: AnswerFile, _: type) -> Callable[[bytes], None]:
        return lambda data: self.write(file, data)

    def write(self, file: AnswerFile, data: bytes) -> None:
        self.left -= 1
        ends = self.left == 0
        share = self.kill.share if ends else 1.0
        file._file.write(data[: round(len(data) * share)])
        file._file.flush()
        if ends and self.kill.stops:
            EvaluationFolder(self.path).stop_file.touch()
        elif ends:
            others = [pid for pid in siblings(os.getppid()) if pid != os.getpid()]
            for pid in (*others, os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Asked:
    """A copy of a run, with an evaluation of its held-out questions, one a batch."""

    folder: EvaluationFolder
    execution: Execution

    def attempt(
        self, world_size: int, *, kill: "Kill | None" = None, may_fail: bool = False
    ) -> list[Outcome]:
        """Answer on forked ranks, which `kill` ends."""
        self.folder.new_attempt(self.execution.model_copy(update={"world_size": world_size}))
        return run_ranks(
            world_size,
            answer_until,
            self.folder.path,
            kill,
            may_fail=may_fail or kill is not None,
        )

    def whole(self) -> int:
        """Whole lines on disk."""
        return sum(data.count(b"\n") for data in self.answers().values())

    def answers(self) -> dict[str, bytes]:
        """The files of answers."""
        files = (self.folder.path / "answers").glob("*.jsonl")
        return {path.name: path.read_bytes() for path in files}


def copy_of(run: Path, to: Path) -> Path:
    """A run directory that a test may change."""
    shutil.copytree(run, to)
    return to


def ask(run: Path, benchmarks: Sequence[str] = HELD_OUT, **changed: Any) -> Asked:
    """Plan an evaluation of a run as `densekit evaluate --batch-size 1` would; `protocol` changes
    fields of the benchmarks', other names fields of the evaluation.
    """
    roots = changed.pop("roots", None) or RunDir(run).execution.roots
    execution = evaluation_execution(Execution(roots=roots), dtype=None)
    limit = changed.pop("limit", None)
    protocol = changed.pop("protocol", {})
    data = [read_data(name, math_of(run), roots) for name in benchmarks]
    planned = [
        plan_benchmark(
            replace(each, protocol=each.protocol.model_copy(update=protocol)),
            roots,
            limit=limit,
            batch_size=1,
        )
        for each in data
    ]
    values: dict[str, Any] = {
        "model": model_of(run, roots.cache),
        "benchmarks": tuple(asked for asked, _ in planned),
        "limit": limit,
        "seed": SEED,
        "dtype": "fp32",
        "device": "cpu",
        "kernel": KERNEL,
        "environment": None,
    }
    evaluation = Evaluation(**{**values, **changed})
    plans = {asked.protocol.name: plan for asked, plan in planned}
    return Asked(open_evaluation(run, evaluation, plans), execution)


def kill_again_and_again(asked: Asked, kills: int, seed: int) -> None:
    """Attempts on 1, 2 and 3 processes in turn, each killed in a write, then one to the end."""
    rng = random.Random(seed)
    for number in range(kills):
        world_size = WORLDS[number % len(WORLDS)]
        left = 32 - asked.whole()
        appends = rng.randint(1, max(1, 2 * left // (kills - number + 1)))
        asked.attempt(world_size, kill=Kill(appends, share=rng.choice((0.0, rng.random(), 1.0))))
        assert not asked.folder.complete
    asked.attempt(WORLDS[kills % len(WORLDS)])
