"""Layout of a run directory, its states, and how one comes into being."""

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from densekit.errors import UsageError
from densekit.files.json_files import optional_object, read_json, read_object, write_json
from densekit.files.permissions import follow_umask
from densekit.runs.records import METRICS_FILE
from densekit.runs.versioned import read_versioned
from densekit.spec.execution import Execution
from densekit.spec.math import SCHEMA, Math, RunMath
from densekit.spec.part import Part, read_part

MATH_FILE = "math.json"
STATUS_FILE = "status.json"
EXECUTION_FILE = "execution.json"
LOG_FILE = "log.txt"
CONNECTOR_FILE = "connector.safetensors"
NEWLINE_FILE = "newline.safetensors"
"""The newline vector of AnyRes: a vector of the language model's, which no next stage starts from.
"""
INIT_FILE = "init.safetensors"
CERTIFICATE_FILE = "certificate.json"
MISSING_FILE = "missing.json"
"""The entries that were dropped or replaced, where the recipe admits that."""
RunState = Literal["created", "running", "failed", "preempted", "complete"]
REMEDY = "give a run directory that `densekit run` made, or put back a copy of the file"


class Status(Part):
    """status.json: what state a run or an evaluation is in."""

    state: RunState
    message: str = ""
    """Why it failed or stopped."""
    exit_code: int = 0
    attempt: Annotated[int, Field(ge=0, strict=True)]
    """Number of the latest attempt; 0 before the first."""


@dataclass(frozen=True)
class WorkDir:
    """A folder that a launcher's processes carry out: a run that is trained, or an evaluation that
    is answered. Attempts say how.
    """

    path: Path

    verb: ClassVar[str]
    """The command that launchers start on it."""
    doing: ClassVar[str]
    """What that does, in a word."""
    worker: ClassVar[str]
    """Who does it."""
    noun: ClassVar[str]
    """What it is."""
    stops: ClassVar[str]
    """What it does when it is asked to stop."""

    @property
    def name(self) -> str:
        """What messages call it."""
        raise NotImplementedError

    @property
    def again(self) -> str:
        """The command that opens its next attempt."""
        raise NotImplementedError

    @property
    def recipes(self) -> tuple[Math, ...]:
        """Whose files it reads."""
        raise NotImplementedError

    @property
    def reads(self) -> tuple[Path, ...]:
        """Folders that it reads besides."""
        return ()

    @property
    def execution(self) -> Execution:
        """How the latest attempt is carried out. Raises DataError for an execution.json that is
        missing or not what densekit wrote.
        """
        path = self.attempt / EXECUTION_FILE
        return Execution.from_json(read_json(path), source=str(path))

    @property
    def status(self) -> Status:
        """What state it is in. Raises DataError for a status.json that is missing or not what
        densekit wrote.
        """
        path = self.path / STATUS_FILE
        value = read_object(path, remedy=REMEDY)
        return read_part(Status, value, source=path, remedy=REMEDY)

    @property
    def complete(self) -> bool:
        """Whether it came to its end and wrote what it found."""
        return (self.path / STATUS_FILE).is_file() and self.status.state == "complete"

    @property
    def stop_file(self) -> Path:
        """Its presence asks the processes to stop at the next step, with everything kept."""
        return self.path / "stop"

    @property
    def log(self) -> Path:
        """What the latest attempt printed of its steps; made right before the first of them."""
        return self.attempt / LOG_FILE

    @property
    def in_steps(self) -> bool:
        """Whether the latest attempt came to its steps: until then there is nothing to save."""
        return self.log.exists()

    @property
    def attempt(self) -> Path:
        """Folder of the latest attempt."""
        return self.attempt_folder(self.status.attempt)

    def attempt_folder(self, number: int) -> Path:
        """Folder of an attempt, counted from 1."""
        return self.path / "attempts" / f"{number:04d}"

    def set_status(self, state: RunState, *, message: str = "", exit_code: int = 0) -> None:
        """Record a state; the attempt number stays."""
        write_status(
            self.path,
            Status(state=state, message=message, exit_code=exit_code, attempt=self.status.attempt),
        )

    def fail(self, message: str, exit_code: int) -> bool:
        """Record why the attempt failed, unless another process of it did so first; returns whether
        this one did.

        The first is the cause: what its neighbours meet afterwards is that it is gone.
        """
        try:
            (self.attempt / "failure").open("x").close()
        except FileExistsError:
            return False
        self.set_status("failed", message=message, exit_code=exit_code)
        return True

    def new_attempt(self, execution: Execution) -> Path:
        """Open the next attempt; a request to stop an earlier one no longer holds."""
        number = self.status.attempt + 1
        folder = self.attempt_folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / EXECUTION_FILE, execution.as_json())
        self.stop_file.unlink(missing_ok=True)
        write_status(self.path, Status(state="created", attempt=number))
        return folder


@dataclass(frozen=True)
class RunDir(WorkDir):
    """One run: `math.json` says what is computed and never changes; attempts say how it was carried
    out.
    """

    verb = "train"
    doing = "training"
    worker = "trainer"
    noun = "run"
    stops = "saving a checkpoint after this step"

    @property
    def math(self) -> RunMath:
        """What the run computes. Raises DataError for a math.json that densekit did not write."""
        path = self.path / MATH_FILE
        return read_versioned(RunMath, path, schema=SCHEMA, what="the run", remedy=REMEDY)

    @property
    def sha256(self) -> str:
        """The hash that is the run's identity."""
        return self.math.sha256

    @property
    def name(self) -> str:
        """Of the recipe."""
        return self.math.recipe.name

    @property
    def again(self) -> str:
        """By the recipe's name."""
        return f"`densekit run {self.name}` (--force when it is complete)"

    @property
    def recipes(self) -> tuple[Math, ...]:
        """The one that it trains."""
        return (self.math.recipe,)

    @property
    def metrics(self) -> Path:
        """JSON lines, one object per optimizer step."""
        return self.path / METRICS_FILE

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps that its attempts take; None until its certificate is written."""
        steps = optional_object(self.path / CERTIFICATE_FILE).get("steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint taken after `step` optimizer steps."""
    return f"step-{step:08d}"


def checkpoints_in(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first: a save is visible only once it is whole."""
    named = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name)]
    return sorted((path for path in named if path.is_dir()), key=lambda path: int(path.name[5:]))


def run_path(runs_dir: Path, math: RunMath) -> Path:
    """Where a run lives: its recipe's name and the first ten digits of its hash."""
    return runs_dir / f"{math.recipe.name}-{math.sha256[:10]}"


def open_run(runs_dir: Path, math: RunMath) -> RunDir:
    """The run with this math, made if it does not exist.

    Raises UsageError when something else lies at its place or the folder cannot be written.
    """
    path = run_path(runs_dir, math)
    there = path.exists() or not _create(path, math)  # or another densekit made the same run first
    if there and not _is_run_of(path, math):
        raise UsageError(
            f"{path} exists but is not this run: move it away or choose another --runs-dir"
        )
    return RunDir(path)


def open_replay(runs_dir: Path, name: str, math: RunMath) -> RunDir:
    """A repetition of the run whose folder is called `name`, at `<name>.replayN`: the first one
    that is not complete, else a new one at the first number that is free.

    Raises UsageError when the folder cannot be written.
    """
    number = 1
    while True:
        path = runs_dir / f"{name}.replay{number}"
        if not path.exists() and _create(path, math):
            return RunDir(path)
        if _is_run_of(path, math) and not RunDir(path).complete:
            return RunDir(path)
        number += 1


def write_status(folder: Path, status: Status) -> None:
    write_json(folder / STATUS_FILE, status.model_dump())


def _is_run_of(path: Path, math: RunMath) -> bool:
    return (path / MATH_FILE).is_file() and RunDir(path).sha256 == math.sha256


def _create(path: Path, math: RunMath) -> bool:
    """Make a run directory: it appears whole, by one rename. False when another process was first
    at `path`.

    Raises UsageError when it cannot be written.
    """
    runs_dir = path.parent
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=runs_dir))
    except OSError as error:
        file = isinstance(error, FileExistsError | NotADirectoryError)
        problem = "is not a folder" if file else f"cannot be written: {error.strerror}"
        raise UsageError(f"--runs-dir {runs_dir}: {problem}") from None
    try:
        follow_umask(temporary)
        write_json(temporary / MATH_FILE, math.as_json())
        write_status(temporary, Status(state="created", attempt=0))
        temporary.rename(path)
    except OSError as error:
        if path.exists():
            return False
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(
            temporary, ignore_errors=True
        )  # nothing is left of it where the rename succeeded
    return True


def move_aside(run: RunDir) -> Path:
    """Rename a run so that it can be retrained; nothing is deleted. Returns the new place."""
    number = 1
    while (aside := run.path.with_name(f"{run.path.name}.old{number}")).exists():
        number += 1
    shutil.move(run.path, aside)
    return aside
