"""What a complete run left: whether it is all there, and the checkpoints that it needs no more."""

import shutil

from densekit.errors import DataError
from densekit.files import durable
from densekit.files.hashing import check_seal, file_sha256
from densekit.files.json_files import read_object
from densekit.runs.layout import CONNECTOR_FILE, RunDir
from densekit.runs.manifest import MANIFEST_FILE

DONE = ".checkpoints.done"
"""What a run's checkpoints are called while they are removed."""


def check_complete(run: RunDir) -> None:
    """Raise DataError unless what the complete run `run` trained is what it recorded: a sealed
    manifest of a complete attempt, every file that it names, and the connector's hash, which the
    next stage starts from. `densekit verify` reads the other files too.
    """
    path = run.path / MANIFEST_FILE
    remedy = f"put back a copy of the file, or retrain it (`densekit run {run.name} --force`)"
    said = f"{run.path} is complete by its status.json, but"
    manifest = read_object(path, remedy=remedy)
    if not check_seal(manifest):
        raise DataError(f"{said} {path} was edited: its hash does not fit; {remedy}")
    outputs = manifest.get("outputs")
    if manifest.get("state") != "complete" or not isinstance(outputs, dict):
        raise DataError(f"{said} {path} is of an unfinished attempt; {remedy}")
    for name in (CONNECTOR_FILE, *outputs):
        if not (run.path / name).is_file():
            raise DataError(f"{said} {run.path / name} is missing; {remedy}")
    connector = run.path / CONNECTOR_FILE
    if file_sha256(connector) != outputs.get(CONNECTOR_FILE):
        raise DataError(
            f"{said} {connector} was changed: its SHA-256 is not the one in {MANIFEST_FILE}; "
            f"{remedy}"
        )


def drop_checkpoints(run: RunDir) -> None:
    """Remove the checkpoints of a run whose results are written. They go out of sight by one rename
    first: a kill in between leaves nothing that looks like a damaged checkpoint.
    """
    hidden = run.path / DONE
    shutil.rmtree(hidden, ignore_errors=True)
    if run.checkpoints.is_dir():
        durable.rename(run.checkpoints, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def tidy(run: RunDir) -> None:
    """Finish what a killed trainer left to do in a complete run; a run that only says it is
    complete, and one that cannot be written, are left alone.
    """
    if not run.complete or not ((run.path / DONE).exists() or run.checkpoints.exists()):
        return
    try:
        check_complete(run)
        drop_checkpoints(run)
    except (DataError, OSError):
        return
