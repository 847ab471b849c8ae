"""A small tiny run, trained once for every test that looks at runs."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SMALL = (
    "assets.stage1_samples=32",
    "assets.stage2_samples=48",
    "assets.held_out=16",
    "assets.language_model_steps=3",
)


@dataclass(frozen=True)
class Workplace:
    """Folders of a test's runs, and the command line in them."""

    root: Path

    def densekit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `densekit ...` as a user does."""
        command = [sys.executable, "-m", "densekit", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=self.root, timeout=300, check=False
        )

    def run(self, recipe: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`densekit run` of a tiny recipe with small assets."""
        sets = [part for value in SMALL for part in ("--set", value)]
        return self.densekit("run", recipe, "--set", "data.samples=null", *sets, *arguments)

    def run_dir(self, name: str) -> Path:
        """The only run directory of a recipe."""
        (found,) = (self.root / "runs").glob(f"{name}-*")
        return found


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    done = place.run("tiny_stage2")
    assert done.returncode == 0, done.stdout + done.stderr
    return place
