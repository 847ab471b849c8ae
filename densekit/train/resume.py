"""Where an attempt starts: step 0, the newest checkpoint that is whole, or the one that was asked
for. Every rank decides the same, and whatever is passed over is said and kept.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DataError
from densekit.files import durable
from densekit.model.weights import read_weights
from densekit.ranks.collectives import gather_objects
from densekit.runs.checkpoint import ASIDE, CheckpointState, read_checkpoint, step_of, with_step
from densekit.runs.layout import INIT_FILE, RunDir, checkpoint_name, checkpoints_in
from densekit.runs.record_check import check_up_to
from densekit.runs.records import Position
from densekit.train.checkpoints import damaged_files, fill_masters, load_checkpoint
from densekit.train.engines.base import Engine
from densekit.train.initial_state import init_by_parameter
from densekit.train.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an attempt goes on, and what its log says about that."""

    position: Position
    lines: list[str]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The checkpoint to resume from, and why newer ones were passed over."""

    folder: Path
    state: CheckpointState
    problems: list[str]
    newer: list[Path]


def resume(run: RunDir, trainer: Trainer, wanted: int | None) -> Start:
    """Load a checkpoint into a fresh trainer; every rank calls this. `wanted` is the step of the
    one that was asked for.

    A newest checkpoint that is damaged, or whose records are, is passed over for the one before it.
    Newer checkpoints than the one resumed from are moved aside: they belong to steps that are
    trained again. Raises DataError when there are checkpoints and none is whole, or not the one
    that was asked for; UsageError when there is none of that step.
    """
    engine = trainer.engine
    (saved, *_) = gather_objects(checkpoints_in(run.checkpoints))
    if not saved and wanted is None:
        if engine.execution.dtype != "fp32":
            fill_masters(engine, init_by_parameter(read_weights(run.path / INIT_FILE)))
        return Start(position=Position(chain=run.sha256), lines=[])
    choice = choose(run, engine, saved, wanted)
    state = choice.state
    load_checkpoint(engine, choice.folder, state)
    trainer.optimizer_steps = state.optimizer_steps
    trainer.overflows_in_a_row = state.overflows_in_a_row
    trainer.summary = state.summary
    lines = []
    if engine.rank == 0:
        lines = [*choice.problems, *(_moved_aside(path) for path in choice.newer)]
        for line in lines:
            print(f"{run.name}: {line}", file=sys.stderr, flush=True)
        lines.append(f"resuming from checkpoint step {state.step}")
        print(f"{run.name}: {lines[-1]}", flush=True)
    return Start(position=state.records, lines=lines)


def choose(run: RunDir, engine: Engine, saved: list[Path], wanted: int | None) -> Choice:
    """The newest of the checkpoints `saved` (oldest first) that is whole, or the `wanted` one; the
    same on every rank. Raises as `resume`.
    """
    tried = saved if wanted is None else [with_step(saved, wanted, run=run.path)]
    problems: list[str] = []
    for path in reversed(tried):
        state, problem = _examined(run, engine, path)
        if state is not None and problem is None:
            newer = saved[saved.index(path) + 1 :]
            notes = [f"{each}: passed over for an earlier checkpoint" for each in problems]
            return Choice(folder=path, state=state, problems=notes, newer=newer)
        problems.append(problem or "")
    what = f"checkpoint step {wanted}" if wanted is not None else "no checkpoint"
    can = "cannot be resumed from" if wanted is not None else "can be resumed from"
    raise DataError(
        f"{run.path}: {what} {can}: {'; '.join(problems)}. Put back a copy of what is damaged, or "
        f"retrain from step 0 with `densekit run {run.name} --force`"
    )


def _examined(run: RunDir, engine: Engine, path: Path) -> tuple[CheckpointState | None, str | None]:
    """A checkpoint's state, or what is wrong with it, its files or its records; the same on every
    rank.
    """
    state: CheckpointState | None = None
    problem: str | None = None
    if engine.rank == 0:
        try:
            state = read_checkpoint(path, run_sha256=run.sha256)
            check_up_to(state.records, run=run.path, run_sha256=run.sha256)
        except DataError as error:
            problem = str(error)
    ((state, problem), *_) = gather_objects((state, problem))
    if state is None or problem is not None:
        return None, problem
    damaged = damaged_files(engine, path, state)
    return state, damaged[0] if damaged else None


def _moved_aside(path: Path) -> str:
    """Move a checkpoint out of the way of the steps that are trained again; says where."""
    folder = path.parent / ASIDE
    folder.mkdir(exist_ok=True)
    target, number = folder / path.name, 2
    while target.exists():
        target, number = folder / f"{path.name}.{number}", number + 1
    durable.rename(path, target)
    return f"{checkpoint_name(step_of(path))} was moved to {target}: its steps are trained again"
