"""`densekit run --print`: the commands of every stage, with nothing started and nothing made."""

import sys
from collections.abc import Sequence
from pathlib import Path

from densekit.errors import DataError
from densekit.launch.chain import chain_math, execution_of, load_chain, plan_stage
from densekit.launch.launchers.base import Launcher
from densekit.runs.layout import RunDir, run_path
from densekit.spec.execution import ExecutionRequest
from densekit.spec.hardware import Hardware
from densekit.spec.math import RunMath
from densekit.spec.roots import Roots


class Planned(RunDir):
    """A run directory that is not there yet, with the math that it will have and its first attempt."""

    def __init__(self, path: Path, math: RunMath) -> None:
        super().__init__(path)
        object.__setattr__(self, "_math", math)

    @property
    def math(self) -> RunMath:
        """What math.json will hold."""
        math: RunMath = self.__dict__["_math"]
        return math

    @property
    def attempt(self) -> Path:
        """Folder of the attempt that is opened next."""
        status = self.path / "status.json"
        return self.attempt_folder(self.status.attempt + 1 if status.is_file() else 1)


def show(
    name: str,
    *,
    overrides: Sequence[str],
    runs_dir: Path,
    roots: Roots,
    request: ExecutionRequest,
    hardware: Hardware | None = None,
    launcher: Launcher,
) -> list[str]:
    """Shell text, stage by stage. Where data is missing the run's name is not known, and a note on
    stderr says so.
    """
    chain = load_chain(name, overrides)
    try:
        maths = chain_math(chain, roots)
        paths = [run_path(runs_dir, math) for math in maths]
    except DataError as error:
        print(
            f"note: {error}; until then a run's hash is not known: HASH stands for it",
            file=sys.stderr,
        )
        maths = [RunMath(recipe=recipe.math(), starts_from=None) for recipe in chain]
        paths = [runs_dir / f"{recipe.name}-HASH" for recipe in chain]
    lines: list[str] = []
    previous: RunDir | None = None
    for recipe, path, math in zip(chain, paths, maths, strict=True):
        run = Planned(path, math)
        execution = execution_of(plan_stage(recipe, request, hardware, roots), roots, previous)
        launcher.check_options(execution)
        lines.append(f"# {recipe.name}, after {run.attempt / 'execution.json'} was written:")
        lines += launcher.commands(run, execution)
        previous = run
    return lines
