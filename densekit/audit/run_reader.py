"""The one reader of a run directory: what a run recorded, and which of its files are damaged.

Reading never stops at a damaged file. A comparison refuses a run that has one (`intact`);
verification reports each as a failed check (`require`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from densekit.audit.dossier.listing import DOSSIER_FILE
from densekit.errors import DataError
from densekit.files.json_files import read_json
from densekit.runs.environment import ENVIRONMENT_FILE, Environment
from densekit.runs.layout import EXECUTION_FILE, MATH_FILE, STATUS_FILE, RunDir, Status
from densekit.runs.manifest import MANIFEST_FILE, Manifest, read_manifest
from densekit.runs.records import (
    FEED_FILE,
    METRICS_FILE,
    REMEDY,
    StepFeed,
    StepRecord,
    read_feed,
    read_steps,
)
from densekit.spec.execution import Execution
from densekit.spec.math import RunMath
from densekit.spec.part import read_part

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """One run directory, every file read once.

    What is behind a damaged file, or behind one that need not be there yet, is None or empty.
    """

    path: Path
    math: RunMath | None
    status: Status | None
    manifest: Manifest | None
    execution: Execution | None
    """Of the last attempt: the manifest's copy, else execution.json."""
    environment: Environment | None
    """Of the last attempt: the manifest's copy, else environment.json."""
    earlier: Mapping[int, Environment]
    """Of the attempts before it, by number."""
    steps: list[StepRecord]
    """`steps[i]` is step i + 1."""
    feed: list[StepFeed]
    damage: Mapping[str, DataError]
    """What is wrong with a file, by its path inside the run."""

    @property
    def complete(self) -> bool:
        """Whether the run says that it ended, in either of the two places that do."""
        return any(
            part is not None and part.state == "complete" for part in (self.status, self.manifest)
        )

    @property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of the files that belong to the run's identity; the annotations' also where
        densekit made them.
        """
        made = {"annotations": self.manifest.data.annotations_sha256} if self.manifest else {}
        return {**made, **(self.math.inputs if self.math else {})}

    def require(self, *names: str) -> None:
        """Raise the DataError of the first of these files that is damaged."""
        for name in names:
            if name in self.damage:
                raise self.damage[name]

    def intact(self) -> "RecordedRun":
        """The run; raises the first DataError where any file is damaged."""
        self.require(*self.damage)
        return self


def read_run(path: Path) -> RecordedRun:
    """Read a run directory. Raises DataError when `path` is none; damaged files are in `damage`."""
    if not any((path / name).is_file() for name in (MATH_FILE, STATUS_FILE, MANIFEST_FILE)):
        instead = "give a folder that `densekit run` made"
        if (path / DOSSIER_FILE).is_file():
            instead = "it is a dossier, unpacked: `densekit verify` takes its .zip as it was packed"
        raise DataError(f"{path} is not a run directory: it has no {MATH_FILE}; {instead}")
    run = RunDir(path)
    damage: dict[str, DataError] = {}

    def read(name: str, reader: Callable[[], T]) -> T | None:
        try:
            return reader()
        except DataError as error:
            damage[name] = error
            return None

    def if_there(name: str, reader: Callable[[Path], T]) -> T | None:
        place = path / name
        return read(name, lambda: reader(place)) if place.exists() else None

    status = read(STATUS_FILE, lambda: run.status)
    manifest = if_there(MANIFEST_FILE, lambda place: read_manifest(place.parent))
    attempts = _attempts(path)
    last = status.attempt if status is not None else max(attempts, default=0)
    attempt = attempts.get(last, Path("attempts") / f"{last:04d}")
    if manifest is not None:
        copy = manifest.execution
        source = f"{path / MANIFEST_FILE}: execution"
        execution = read(MANIFEST_FILE, lambda: Execution.from_json(copy, source=source))
        environment: Environment | None = manifest.environment
    else:
        execution = if_there(str(attempt / EXECUTION_FILE), _execution)
        environment = if_there(str(attempt / ENVIRONMENT_FILE), _environment)
    earlier = {
        number: if_there(str(folder / ENVIRONMENT_FILE), _environment)
        for number, folder in attempts.items()
        if number < last
    }
    return RecordedRun(
        path=path,
        math=read(MATH_FILE, lambda: run.math),
        status=status,
        manifest=manifest,
        execution=execution,
        environment=environment,
        earlier={number: found for number, found in earlier.items() if found is not None},
        steps=if_there(METRICS_FILE, read_steps) or [],
        feed=if_there(FEED_FILE, read_feed) or [],
        damage=damage,
    )


def _attempts(path: Path) -> dict[int, Path]:
    """The attempts' folders inside a run, by number."""
    folders = sorted((path / "attempts").glob("[0-9][0-9][0-9][0-9]"))
    return {int(folder.name): folder.relative_to(path) for folder in folders}


def _execution(path: Path) -> Execution:
    return Execution.from_json(read_json(path, remedy=REMEDY), source=str(path))


def _environment(path: Path) -> Environment:
    return read_part(Environment, read_json(path, remedy=REMEDY), source=path, remedy=REMEDY)
