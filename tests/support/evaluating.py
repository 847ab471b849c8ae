"""Evaluations of a small tiny run, answered by forked ranks."""

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
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
from densekit.runs.evaluations import Evaluation, EvaluationFolder
from densekit.runs.layout import RunDir
from densekit.runs.processes import alive
from densekit.spec.execution import Execution
from tests.support.ranks import Outcome, run_ranks

WORLDS = (1, 2, 3)


@dataclass(frozen=True)
class Asked:
    """A copy of a run, with an evaluation of its held-out questions, one a batch."""

    folder: EvaluationFolder
    execution: Execution

    def attempt(
        self, world_size: int, *, kill_after: int | None = None, may_fail: bool = False
    ) -> list[Outcome]:
        """Answer on forked ranks; `kill_after`: SIGKILL to all of them once so many answers are on
        disk.
        """
        self.folder.new_attempt(self.execution.model_copy(update={"world_size": world_size}))

        def kill(supervisor: int, ranks: Sequence[int]) -> None:
            assert kill_after is not None
            while self.answered() < kill_after and any(map(alive, ranks)):
                time.sleep(0.002)
            for pid in ranks:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        return run_ranks(
            world_size,
            answer,
            self.folder.path,
            may_fail=may_fail or kill_after is not None,
            watch=None if kill_after is None else kill,
        )

    def answered(self) -> int:
        """Lines on disk, the last half one included."""
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
    roots = changed.pop("roots", RunDir(run).execution.roots)
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
    """Attempts on 1, 2 and 3 processes in turn, each killed a little later, then one to the end."""
    rng = random.Random(seed)
    for number in range(kills):
        world_size = WORLDS[number % len(WORLDS)]
        before = asked.answered()
        after = min(before + rng.randrange(1, 5), 31)
        asked.attempt(world_size, kill_after=after)
        assert not asked.folder.complete and asked.answered() >= before
    asked.attempt(WORLDS[kills % len(WORLDS)])
