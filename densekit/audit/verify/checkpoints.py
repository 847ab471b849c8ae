"""Verifying the checkpoints of an unfinished run: each is sealed, and each of its files has its
recorded hash.
"""

from collections.abc import Iterator

from densekit.audit.run_reader import RecordedRun
from densekit.errors import DataError
from densekit.runs.checkpoint import REMEDY, file_damage, read_checkpoint
from densekit.runs.layout import RunDir, checkpoints_in
from densekit.runs.record_check import check_up_to
from densekit.spec.check import Check


def check_checkpoints(run: RecordedRun) -> Iterator[Check]:
    """Every visible checkpoint; a folder that begins with a dot is a save that never finished."""
    run_sha256 = run.math.sha256 if run.math is not None else None
    for folder in checkpoints_in(RunDir(run.path).checkpoints):
        try:
            state = read_checkpoint(folder, run_sha256=run_sha256)
            if run_sha256 is not None:
                check_up_to(state.records, run=run.path, run_sha256=run_sha256)
        except DataError as error:
            yield Check(name="checkpoints", state="fail", message=str(error))
            continue
        damaged = [file_damage(folder / name, saved) for name, saved in state.files.items()]
        failures = [f"{damage}; {REMEDY}" for damage in damaged if damage]
        for failure in failures:
            yield Check(name="checkpoints", state="fail", message=failure)
        if not failures:
            yield Check(name="checkpoints", state="ok", message=f"{folder.name} is complete")
