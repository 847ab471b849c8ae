"""A measurement: the first steps of a recipe, timed on the hardware at hand (`densekit plan
--measure`). Its folder lies in the cache and is removed with what it found: it is no run.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from densekit.files.json_files import read_object, write_json
from densekit.runs.layout import RunDir, open_run, run_path
from densekit.spec.math import RunMath
from densekit.spec.part import Part, PositiveInt, read_part
from densekit.spec.roots import Roots

MEASURE_FILE = "measure.json"
REMEDY = "`densekit plan RECIPE --measure N` makes one"


class Asked(Part):
    """measure.json: what is measured."""

    steps: PositiveInt
    """Optimizer steps to take, of those that the run has."""


@dataclass(frozen=True)
class MeasureDir(RunDir):
    """The folder of a measurement: laid out as a run's, and never resumed."""

    verb = "measure"
    doing = "measuring"
    noun = "measurement"
    stops = "ending after this step"

    @property
    def again(self) -> str:
        """The command that makes another."""
        return f"`densekit plan {self.name} --measure N`"

    @property
    def total_steps(self) -> int:
        """Those that were asked for. Raises DataError for a folder that is no measurement's."""
        path = self.path / MEASURE_FILE
        value = read_object(path, remedy=REMEDY)
        return read_part(Asked, value, source=path, remedy=REMEDY).steps


def measure_dir(math: RunMath, roots: Roots) -> MeasureDir:
    """Where a recipe is measured; the folder above it is made."""
    folder = roots.cache / "measure"
    folder.mkdir(parents=True, exist_ok=True)
    return MeasureDir(run_path(folder, math))


@contextmanager
def opened(run: MeasureDir, math: RunMath, steps: int) -> Iterator[None]:
    """An empty folder for a measurement of so many steps; it is removed at the end."""
    shutil.rmtree(run.path, ignore_errors=True)  # of a command that was killed
    try:
        open_run(run.path.parent, math)
        write_json(run.path / MEASURE_FILE, Asked(steps=steps).model_dump())
        yield
    finally:
        shutil.rmtree(run.path, ignore_errors=True)
