"""Verifying a run directory: every hash it holds is computed again from the files it stands for."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from densekit.audit.run_reader import RecordedRun, read_run
from densekit.audit.verify.checkpoints import check_checkpoints
from densekit.audit.verify.evaluations import check_evaluations
from densekit.audit.verify.file_hashes import check_file, check_folder
from densekit.audit.verify.inputs import (
    check_annotations,
    check_connector,
    check_missing,
    check_models,
    check_start,
)
from densekit.audit.verify.steps import check_certificate, check_metrics_file, check_steps
from densekit.errors import DataError, DensekitError
from densekit.files.hashing import check_seal, json_sha256
from densekit.files.json_files import read_object
from densekit.runs.environment import ENVIRONMENT_FILE
from densekit.runs.layout import EXECUTION_FILE, INIT_FILE, MATH_FILE, STATUS_FILE, RunDir
from densekit.runs.manifest import MANIFEST_FILE
from densekit.runs.records import METRICS_FILE, REMEDY
from densekit.spec.check import Check


def verify_run(path: Path) -> list[Check]:
    """Recheck every hash of a run directory, and of its inputs where they still are; reads all
    their bytes.

    Of an unfinished run, what exists is checked, and a `warn` says so. Raises DataError when `path`
    is no run directory; whatever is damaged inside one is a `fail`.
    """
    run = read_run(path)
    checks: list[Check] = []
    for name, check in CHECKS.items():
        try:
            checks += check(run)
        except DataError as error:
            checks.append(Check(name=name, state="fail", message=str(error)))
        except (DensekitError, OSError, ValueError) as error:
            checks.append(Check(name=name, state="fail", message=f"{error}; {REMEDY}"))
    return checks


def _check_math(run: RecordedRun) -> Iterator[Check]:
    run.require(MATH_FILE)
    path = run.path / MATH_FILE
    digest = json_sha256(read_object(path))  # of the file, whatever the types made of it
    named = re.search(r"-([0-9a-f]{10})(\.(old|replay)\d+)*$", run.path.resolve().name)
    if run.manifest is not None and run.manifest.run != digest:
        problem = f"its hash is {digest[:10]}, the manifest says {run.manifest.run[:10]}"
    elif named and named[1] != digest[:10]:
        problem = f"its hash is {digest[:10]}, the folder's name says {named[1]}"
    elif not named:
        message = f"the folder's name does not end in the run's hash {digest[:10]}: it was renamed"
        yield Check(name="math", state="warn", message=message)
        return
    else:
        yield Check(name="math", state="ok", message=f"math.json is run {digest[:10]}")
        return
    message = f"{path}: {problem}; it was edited, or copied from another run: put the original back"
    yield Check(name="math", state="fail", message=message)


def _check_status(run: RecordedRun) -> Iterator[Check]:
    run.require(STATUS_FILE)
    assert run.status is not None
    if run.status.state != "complete":
        message = f"the run is {run.status.state}, not complete: only what exists so far is checked"
        yield Check(name="status", state="warn", message=message)
    else:
        yield Check(name="status", state="ok", message="the run is complete")


def _check_manifest(run: RecordedRun) -> Iterator[Check]:
    path = run.path / MANIFEST_FILE
    if not path.exists():
        if run.complete:
            message = (
                f"{path} is missing although the run is complete: nothing else says which code and "
                f"packages ran; {REMEDY}"
            )
            yield Check(name="manifest", state="fail", message=message)
        elif (run.path / METRICS_FILE).exists():
            message = f"{path} is missing although steps were trained; {REMEDY}"
            yield Check(name="manifest", state="fail", message=message)
        return
    if not check_seal(read_object(path)):
        message = f"{path}: its own hash does not fit its content: it was edited; {REMEDY}"
        yield Check(name="manifest", state="fail", message=message)
        return
    run.require(MANIFEST_FILE)
    assert run.manifest is not None
    ended = run.status is not None and run.status.state == "complete"
    if ended and run.manifest.state != "complete":
        message = f"{path} is of an unfinished attempt although the run is complete; {REMEDY}"
        yield Check(name="manifest", state="fail", message=message)
    else:
        yield Check(name="manifest", state="ok", message="the manifest matches its own hash")


def _check_attempt(run: RecordedRun) -> Iterator[Check]:
    """The last attempt's files against the manifest's copies, where the manifest is of that
    attempt.
    """
    if run.manifest is None or run.status is None:
        return
    recorded, attempt = run.manifest.attempts, run.status.attempt
    if recorded != attempt:
        if run.complete:
            message = (
                f"{run.path / STATUS_FILE} counts {attempt} attempts, the manifest {recorded}; "
                f"{REMEDY}"
            )
            yield Check(name="attempt", state="fail", message=message)
        return  # else a new attempt is open that has not written its manifest yet
    manifest = read_object(run.path / MANIFEST_FILE)  # its values as they were written
    for file in (EXECUTION_FILE, ENVIRONMENT_FILE):
        path = RunDir(run.path).attempt_folder(attempt) / file
        name = path.stem
        if not path.exists():
            message = f"{path} is missing; the manifest holds its content"
            yield Check(name=name, state="warn", message=message)
        elif read_object(path, remedy=REMEDY) != manifest[name]:
            message = f"{path} differs from the manifest's copy: one of them was edited; {REMEDY}"
            yield Check(name=name, state="fail", message=message)
        else:
            yield Check(name=name, state="ok", message=f"{file} matches the manifest's copy")


def _check_attempts(run: RecordedRun) -> Iterator[Check]:
    """Files of attempts that cannot be read."""
    for file, error in run.damage.items():
        if file.startswith("attempts/"):
            yield Check(name="attempts", state="fail", message=str(error))


def _check_init(run: RecordedRun) -> Iterator[Check]:
    if run.manifest is not None and (digest := run.manifest.init_sha256) is not None:
        yield check_file("init", run.path / INIT_FILE, digest, source="the manifest", remedy=REMEDY)


def _check_outputs(run: RecordedRun) -> Iterator[Check]:
    outputs = run.manifest.outputs if run.manifest is not None else {}
    if outputs:
        yield from check_folder(
            "outputs",
            run.path,
            outputs,
            source="the manifest",
            remedy=REMEDY,
            ok=f"{len(outputs)} trained files have their recorded hashes",
        )


CHECKS: dict[str, Callable[[RecordedRun], Iterator[Check]]] = {
    "math": _check_math,
    "status": _check_status,
    "manifest": _check_manifest,
    "attempt": _check_attempt,
    "attempts": _check_attempts,
    "steps": check_steps,
    "certificate": check_certificate,
    "metrics": check_metrics_file,
    "init": _check_init,
    "outputs": _check_outputs,
    "annotations": check_annotations,
    "missing": check_missing,
    "models": check_models,
    "connector": check_connector,
    "starts_from": check_start,
    "checkpoints": check_checkpoints,
    "evaluations": check_evaluations,
}
