"""`densekit run --print`: the commands of every stage, with nothing started and nothing made."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from densekit.errors import DataError
from densekit.launch.chain import as_typed, chain_math, execution_of, load_chain, plan_stage
from densekit.launch.launchers.base import Element, Launcher
from densekit.runs.layout import STATUS_FILE, RunDir, run_path
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import Hardware
from densekit.spec.math import RunMath
from densekit.spec.recipe import Recipe
from densekit.spec.roots import Roots

UNKNOWN_HASH = "HASH"
"""Stands in a run's name for its hash where data is missing that the hash covers."""


@dataclass(frozen=True)
class PlannedRun(RunDir):
    """A run directory that need not be there yet: it knows its math, and its next attempt."""

    planned_math: RunMath

    @property
    def math(self) -> RunMath:
        """What math.json will hold."""
        return self.planned_math

    @property
    def attempt(self) -> Path:
        """Folder of the attempt that is opened next."""
        is_there = (self.path / STATUS_FILE).is_file()
        return self.attempt_folder(self.status.attempt + 1 if is_there else 1)


def show(
    names: Sequence[str],
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    request: ExecutionRequest,
    hardware: Hardware | None = None,
    launcher: Launcher,
) -> list[str]:
    """Shell text, stage by stage, or the scripts of a launcher that trains several runs at once.

    Where data is missing the run's name is not known, and a note on stderr says so.
    """
    elements: dict[Path, Element] = {}
    lines: list[str] = []
    for name in dict.fromkeys(names):
        previous: Element | None = None
        for recipe, run in _planned_runs(name, overrides, runs_dir, roots, launcher):
            plan = plan_stage(recipe, request, hardware, roots)
            execution = execution_of(plan, roots, previous.run if previous else None)
            launcher.check_options(execution)
            launcher.check_paths(runs_dir, roots, [recipe.math()])
            element = Element(run=run, execution=execution, after=previous)
            previous = elements.setdefault(run.path, element)
            lines.append(f"# {recipe.name}, after {run.attempt / 'execution.json'} was written:")
            lines += launcher.commands(run, execution)
    if len(names) > 1 and (arrays := launcher.arrays()) is not None:
        return arrays.commands([*elements.values()])
    return lines


def _planned_runs(
    name: str, overrides: Sequence[str], runs_dir: Path, roots: Roots, launcher: Launcher
) -> Iterator[tuple[Recipe, PlannedRun]]:
    """Every recipe of a chain with its run."""
    chain = load_chain(name, overrides)
    try:
        maths = chain_math(chain, roots, asked=as_typed(name, overrides), launcher=launcher)
        paths = [run_path(runs_dir, math) for math in maths]
    except DataError as error:
        print(
            f"note: {error}; until then the run's hash is not known: {UNKNOWN_HASH} stands for it",
            file=sys.stderr,
        )
        maths = [RunMath(recipe=recipe.math(), starts_from=None) for recipe in chain]
        paths = [runs_dir / f"{recipe.name}-{UNKNOWN_HASH}" for recipe in chain]
    for recipe, path, math in zip(chain, paths, maths, strict=True):
        yield recipe, PlannedRun(path, math)
