"""calibration.json of a folder of runs: what scorers and evaluator showed on models whose numbers
are known. Without it a verdict would judge the measuring as much as the run.
"""

import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field

from densekit.files.json_files import read_object, write_json
from densekit.recipes.noise import Step
from densekit.spec.part import Number, Part, PositiveInt, read_part

CALIBRATION_FILE = "calibration.json"
SCHEMA: Literal[1] = 1
REMEDY = "remove it and calibrate again (docs/verdicts.md)"


class Calibration(Part):
    """One number that was measured where it is known."""

    step: Step
    model: str
    benchmark: str
    value: Number
    expected: Number
    tolerance: Number
    questions: PositiveInt
    environment: str
    """Identifies what was calibrated: the scorer's code, or packages, device, kernel and dtype."""
    evidence: str
    """SHA-256 of the answers."""
    on: date

    @property
    def passed(self) -> bool:
        """Whether the value is the known one, within the tolerance."""
        return abs(self.value - self.expected) <= self.tolerance + 1e-9

    @property
    def key(self) -> tuple[str, ...]:
        """A newer record replaces that of the same key."""
        return (self.step, self.model, self.benchmark, self.environment)


class Calibrations(Part):
    """calibration.json."""

    schema_: Literal[1] = Field(default=SCHEMA, alias="schema")
    records: tuple[Calibration, ...] = ()

    def of(self, step: Step, environment: str, benchmark: str | None = None) -> list[Calibration]:
        """The records of a step in one environment, of one benchmark or of all."""
        return [
            record
            for record in self.records
            if (record.step, record.environment) == (step, environment)
            and benchmark in (None, record.benchmark)
        ]


def read_calibrations(runs_dir: Path) -> Calibrations:
    """What is recorded in a folder of runs; nothing where there is no file.

    Raises DataError for a calibration.json that densekit did not write.
    """
    path = runs_dir / CALIBRATION_FILE
    if not os.path.lexists(path):
        return Calibrations()
    return read_part(Calibrations, read_object(path, remedy=REMEDY), source=path, remedy=REMEDY)


def add_calibrations(runs_dir: Path, new: Iterable[Calibration]) -> Path:
    """Record measurements; returns the file's path."""
    records = {record.key: record for record in read_calibrations(runs_dir).records}
    records.update((record.key, record) for record in new)
    path = runs_dir / CALIBRATION_FILE
    runs_dir.mkdir(parents=True, exist_ok=True)
    whole = Calibrations(records=tuple(records[key] for key in sorted(records)))
    write_json(path, whole.model_dump(mode="json", by_alias=True))
    return path
