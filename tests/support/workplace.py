"""A folder with small tiny runs in it, trained once for every test that looks at runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from densekit.launch.chain import reproduce
from densekit.launch.launchers.local import Local
from densekit.runs.layout import RunDir
from densekit.spec.execution import Execution, ExecutionRequest
from densekit.spec.roots import Roots
from tests.support.ranks import run_ranks

SMALL = (
    "assets.stage1_samples=64",
    "assets.stage2_samples=48",
    "assets.held_out=16",
    "assets.language_model_steps=3",
)
RECIPES = ("tiny_stage1", "tiny_stage2", "tiny_stage2_lora")


@dataclass(frozen=True)
class Workplace:
    """Folders of a test's runs, and the command line in them."""

    root: Path

    def densekit(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `densekit ...` as a user does."""
        command = [sys.executable, "-m", "densekit", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.root, timeout=timeout, check=False
        )

    def run(self, recipe: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`densekit run` of a tiny recipe with small assets."""
        sets = [part for value in SMALL for part in ("--set", value)]
        return self.densekit("run", recipe, "--set", "data.samples=null", *sets, *arguments)

    def run_dir(self, name: str) -> Path:
        """The only run directory of a recipe."""
        (found,) = (self.root / "runs").glob(f"{name}-*")
        return found


class Forked(Local):
    """The local launcher with trainers that the fork server starts: no import is waited for."""

    def launch(self, run: RunDir, execution: Execution) -> int:
        from densekit.train.task import train

        run_ranks(execution.world_size, train, run.path)
        return 0


def train_workplace(folder: Path) -> None:
    """Train the tiny recipes in a folder."""
    for recipe in RECIPES[1:]:  # the first is trained for the second
        code = reproduce(
            recipe,
            overrides=("data.samples=null", *SMALL),
            runs_dir=folder / "runs",
            roots=Roots(data=folder, models=folder, cache=folder / ".cache" / "densekit"),
            request=ExecutionRequest(),
            launcher=Forked(),
        )
        assert code == 0


def once_per_session(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """A folder that `make` fills once for all workers of a test run; nobody may change it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a folder of its own in that of the run
    folder, done = base / name, base / f"{name}.made"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
