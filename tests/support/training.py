"""Run directories trained by forked ranks, and ways to end them in the middle."""

import errno
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from densekit.files import durable
from densekit.files.json_files import read_jsonl
from densekit.launch.chain import chain_math, execution_of, plan_stage
from densekit.model.weights import read_weights
from densekit.recipes.load import load_recipe
from densekit.runs.layout import RunDir, open_run
from densekit.runs.records import FEED_FILE, METRICS_FILE
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.roots import Roots
from densekit.train.task import train
from tests.support.ranks import Outcome, Watch, run_ranks
from tests.support.workplace import SMALL, Workplace

TIMES = (
    *("seconds", "data_seconds", "compute_seconds", "tokens_per_second"),
    *("mfu", "peak_memory_gib"),
)
"""Of a step's record: what no other run of the same math repeats."""
Victim = Literal["rank", "ranks", "parent", "disk"]
"""Who is killed: the rank itself, all ranks, or what started them; `disk`: nobody, the operation
fails.
"""


@dataclass(frozen=True)
class Kill:
    """SIGKILL in rank `rank`, right after its `operation`-th operation (from 0) on files of
    checkpoints.
    """

    rank: int
    operation: int
    victim: Victim = "rank"


@dataclass(frozen=True)
class Started:
    """One run with the execution its attempts use."""

    run: RunDir
    execution: Execution

    def attempt(
        self,
        kill: Kill | None = None,
        *,
        watch: Watch | None = None,
        **changes: Any,
    ) -> list[Outcome]:
        """Open the next attempt and train it on forked ranks; `changes` go into execution.json."""
        execution = self.execution.model_copy(update=changes)
        self.run.new_attempt(execution)
        return run_ranks(
            execution.world_size, train_rank, self.run.path, kill, may_fail=True, watch=watch
        )

    def finish(self, **changes: Any) -> None:
        """An attempt that has to end well."""
        outcomes = self.attempt(**changes)
        assert all(outcome.exit_code == 0 for outcome in outcomes), [
            outcome.error for outcome in outcomes
        ]
        assert self.run.complete
        assert all(outcome.returned for outcome in outcomes), "a rank did not leave its group"

    def weights(self) -> dict[str, torch.Tensor]:
        """Everything that was trained."""
        names = (
            "connector.safetensors",
            "newline.safetensors",
            "model/model.safetensors",
            "lora/adapter_model.safetensors",
        )
        found: dict[str, torch.Tensor] = {}
        for name in names:
            if (self.run.path / name).is_file():
                found |= {
                    f"{name}:{key}": value
                    for key, value in read_weights(self.run.path / name).items()
                }
        return found


def start_run(
    workplace: Workplace,
    folder: Path,
    *overrides: str,
    recipe: str = "tiny_stage2",
    **request: Any,
) -> Started:
    """A run of a tiny stage-2 recipe that starts from the workplace's stage 1 and asks no questions
    at the end.
    """
    roots = Roots(
        data=workplace.root, models=workplace.root, cache=workplace.root / ".cache/densekit"
    )
    connector = workplace.run_dir("tiny_stage1") / "connector.safetensors"
    fixed = (
        "data.samples=null",
        "needs=null",
        f"models.connector={connector}",
        "probe=null",
        "optimizer.max_steps=6",
    )
    loaded = load_recipe(recipe, [*SMALL, *fixed, *overrides])
    asked = {"world_size": 2, "save_steps": 1, "save_minutes": 0, "micro_batch_size": 4, **request}
    (math,) = chain_math([loaded], roots)
    plan = plan_stage(loaded, ExecutionRequest(**asked), None, roots)
    return Started(open_run(folder, math), execution_of(plan, roots, None))


def train_rank(path: Path, kill: Kill | None) -> bool:
    """What a rank runs: the trainer, ended by `kill`. Returns whether it left its process group."""
    torch.set_num_threads(1)
    if kill is not None and kill.rank == int(os.environ["RANK"]):
        durable.observer = _Counter(kill)
    train(path)
    return not torch.distributed.is_initialized()


class _Counter:
    def __init__(self, kill: Kill) -> None:
        self.kill, self.seen = kill, 0

    def __call__(self, operation: str, path: Path) -> None:
        if self.seen == self.kill.operation:
            end(self.kill.victim)
        self.seen += 1


def end(victim: Victim) -> None:
    """SIGKILL this rank, all ranks of its supervisor, or the supervisor."""
    if victim == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if victim == "parent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(30)  # the kernel ends this rank as well
    others = siblings(os.getppid()) if victim == "ranks" else []
    for pid in [*(pid for pid in others if pid != os.getpid()), os.getpid()]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def siblings(parent: int) -> Sequence[int]:
    """Processes that `parent` started."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def assert_equal(one: Started, other: Started) -> None:
    """The same weights to the last bit, and the same records but for the times."""
    ours, theirs = one.weights(), other.weights()
    assert ours.keys() == theirs.keys() and len(ours) > 4
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]
    for name in (METRICS_FILE, FEED_FILE):
        lines = [read_jsonl(started.run.path / name) for started in (one, other)]
        for line in [*lines[0], *lines[1]]:
            for time_field in TIMES:
                line.pop(time_field, None)
        assert lines[0] == lines[1]
