"""checkpoint.json: what a checkpoint says of itself, sealed with its own hash, and the checks that
need no tensor.

The trainer writes it (`train/checkpoints.py`); the trainer that resumes, `verify` and the driver
read it here, so that all three call the same checkpoints whole.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from densekit.errors import DataError, UsageError
from densekit.files.hashing import canonical_json, check_seal, file_sha256, sealed
from densekit.files.json_files import read_object
from densekit.runs.layout import checkpoint_name, checkpoints_in
from densekit.runs.records import Position
from densekit.runs.results import Summary
from densekit.spec.part import Part, PositiveInt
from densekit.spec.saved_file import Count, SavedFile, Sha256
from densekit.spec.types import Dtype, ZeroStage

STATE_FILE = "checkpoint.json"
SCHEMA: Literal[2] = 2
"""Schema 1 had no seal, and `updates` for `optimizer_steps`."""
ASIDE = "aside"
"""Folder, among the checkpoints, of newer ones than that which a run resumed from."""
REMEDY = "put back a copy of the checkpoint, or move its folder away to resume from another one"


class CheckpointState(Part):
    """checkpoint.json: everything beside weights and AdamW states that the next step depends on."""

    schema_: Literal[2] = Field(default=SCHEMA, alias="schema")
    run: Sha256
    """Hash of math.json."""
    step: Count
    """Steps fed so far: the data cursor."""
    optimizer_steps: Count
    """Steps that changed weights: the position in the schedule, and AdamW's own count."""
    overflows_in_a_row: Count
    summary: Summary
    records: Position
    scaler: dict[str, Any] | None
    """The dynamic loss scale; None without one."""
    parameters: dict[str, list[Count]]
    """Shape of every trained parameter."""
    world_size: PositiveInt
    zero_stage: ZeroStage
    dtype: Dtype
    files: Annotated[dict[str, SavedFile], Field(min_length=1)]
    """By name, one per rank that saved."""
    sha256: str = ""
    """The seal."""

    @model_validator(mode="after")
    def _counts(self) -> "CheckpointState":
        """The counts of one checkpoint follow from each other."""
        skipped = self.summary.skipped_steps
        for what, found, expected in (
            ("records.steps", self.records.steps, self.step),
            ("summary.steps", self.summary.steps, self.step),
            ("optimizer_steps", self.optimizer_steps, self.step - skipped),
        ):
            if found != expected:
                raise ValueError(f"{what} is {found}, after step {self.step} it is {expected}")
        if not self.overflows_in_a_row <= self.summary.overflows:
            raise ValueError("overflows_in_a_row is more than summary.overflows")
        if min(self.records.metrics_bytes, self.records.feed_bytes) < self.step:
            raise ValueError("records.metrics_bytes and feed_bytes are too few for so many steps")
        ranks = {f"rank-{rank:04d}.safetensors" for rank in range(self.world_size)}
        if self.files.keys() != ranks:
            raise ValueError(f"files must be one per rank, of {self.world_size}")
        return self

    def as_json(self) -> dict[str, Any]:
        """What checkpoint.json holds: the same, sealed."""
        return sealed(self.model_dump(mode="json", by_alias=True))


def read_checkpoint(folder: Path, *, run_sha256: str | None = None) -> CheckpointState:
    """checkpoint.json of a checkpoint's folder.

    Raises DataError when it is missing or unreadable, of another schema, edited, of another step
    than the folder's name says, or (where `run_sha256` is given) of another run.
    """
    path = folder / STATE_FILE
    value = read_object(path, remedy=REMEDY)
    if value.get("schema") != SCHEMA:
        raise DataError(
            f"{path} has schema {str(value.get('schema'))[:20]}, this version reads {SCHEMA}: "
            "resume with the version of densekit that saved it, or move the checkpoint away"
        )
    if not check_seal(value):
        raise DataError(f"{path}: its own hash does not fit its content: it was edited; {REMEDY}")
    state = _parsed(value, path)
    if checkpoint_name(state.step) != folder.name:
        raise DataError(f"{path} is of step {state.step}, its folder is {folder.name}; {REMEDY}")
    if run_sha256 is not None and state.run != run_sha256:
        raise DataError(
            f"{folder} belongs to another run ({state.run[:10]}, this is {run_sha256[:10]}); "
            "move it away"
        )
    return state


def file_damage(path: Path, saved: SavedFile, *, hashed: bool = True) -> str | None:
    """What is wrong with a file of a checkpoint, in words; without `hashed` only its size is looked
    at. None for one that is as it was saved.
    """
    if not path.is_file():
        return f"{path} is missing"
    try:
        size = path.stat().st_size
        if size != saved.bytes:
            return f"{path} is damaged: {size} bytes, {saved.bytes} were written"
        if hashed and file_sha256(path) != saved.sha256:
            return f"{path} is damaged: its SHA-256 is not the one recorded when it was written"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return None


def newest_whole(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole as far as a look at seals and sizes tells, if any."""
    for folder in reversed(checkpoints_in(checkpoints)):
        try:
            files = read_checkpoint(folder).files
        except DataError:
            continue
        if not any(file_damage(folder / name, files[name], hashed=False) for name in files):
            return folder
    return None


def with_step(saved: Sequence[Path], step: int, *, run: Path) -> Path:
    """The checkpoint of a step among `saved`. Raises UsageError where there is none."""
    for folder in saved:
        if step_of(folder) == step:
            return folder
    there = ", ".join(str(step_of(folder)) for folder in saved) or "none"
    raise UsageError(
        f"--from-checkpoint {step}: {run} has no checkpoint of that step; it has {there}"
    )


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(folder.name.removeprefix("step-"))


def _parsed(value: Mapping[str, Any], path: Path) -> CheckpointState:
    """The state that sealed JSON holds: no number is made of a string or of `true`."""
    try:
        return CheckpointState.model_validate_json(canonical_json(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = re.sub("^Value error, ", "", first["msg"])
        raise DataError(f"{path}: {f'{field}: ' if field else ''}{problem}; {REMEDY}") from None
