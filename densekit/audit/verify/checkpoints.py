"""Verifying the checkpoints of an unfinished run: each of their files has its recorded hash."""

from collections.abc import Iterator
from pathlib import Path

from densekit.audit.run_reader import RecordedRun
from densekit.audit.verify.file_hashes import check_folder
from densekit.errors import DataError
from densekit.files.json_files import read_object
from densekit.runs.layout import RunDir, checkpoint_name, checkpoints_in
from densekit.spec.check import Check

REMEDY = "remove the folder: the run then resumes from an earlier checkpoint"
STATE_FILE = "checkpoint.json"


def check_checkpoints(run: RecordedRun) -> Iterator[Check]:
    """Every visible checkpoint; a folder that begins with a dot is a save that never finished."""
    for folder in checkpoints_in(RunDir(run.path).checkpoints):
        try:
            files = _recorded_hashes(folder)
        except DataError as error:
            yield Check(name="checkpoints", state="fail", message=str(error))
            continue
        yield from check_folder(
            "checkpoints",
            folder,
            files,
            source=str(folder / STATE_FILE),
            remedy=REMEDY,
            ok=f"{folder.name} is complete",
        )


def _recorded_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, from a checkpoint.json that fits its folder."""
    path = folder / STATE_FILE
    state = read_object(path, "step", "files", remedy=REMEDY)
    step, files = state["step"], state["files"]
    if not isinstance(step, int) or checkpoint_name(step) != folder.name:
        raise DataError(f"{path} is of step {step}, its folder is {folder.name}; {REMEDY}")
    if not isinstance(files, dict) or not files:
        raise DataError(f"{path}: `files` must name the checkpoint's files; {REMEDY}")
    hashes: dict[str, str] = {}
    for name, facts in files.items():
        sha256 = facts.get("sha256") if isinstance(facts, dict) else None
        if not isinstance(sha256, str):
            raise DataError(f"{path}: files.{name} has no sha256; {REMEDY}")
        hashes[name] = sha256
    return hashes
