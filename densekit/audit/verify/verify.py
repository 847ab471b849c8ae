"""Verifying a run directory: every hash it holds is computed again from the files it stands for."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from densekit.audit.run_reader import section
from densekit.audit.verify.checks import Subject, check_file, summed
from densekit.audit.verify.inputs import (
    check_annotations,
    check_connector,
    check_models,
    check_start,
)
from densekit.audit.verify.steps import REMEDY, check_certificate, check_metrics_file, check_steps
from densekit.errors import DataError, DensekitError
from densekit.files.hashing import json_sha256
from densekit.files.json_files import optional_object
from densekit.runs.layout import INIT_FILE, RunDir, checkpoint_name, checkpoints_in
from densekit.runs.manifest import MANIFEST_FILE, check_seal
from densekit.spec.check import Check

STATES = ("created", "running", "failed", "preempted", "complete")
CHECKPOINT_REMEDY = "remove the folder: an earlier checkpoint is then resumed from"


def verify_run(path: Path) -> list[Check]:
    """Recheck every hash of a run directory, and of its inputs where they still are; reads all
    their bytes.

    Of an unfinished run, what exists is checked, and a `warn` says so. Raises DataError when `path`
    is no run directory; whatever is damaged inside one is a `fail`.
    """
    subject = Subject.read(path)
    checks: list[Check] = []
    for name, check in CHECKS.items():
        try:
            checks += check(subject)
        except (DensekitError, OSError, ValueError) as error:
            checks.append(Check(name=name, state="fail", message=f"{error}; {REMEDY}"))
    return checks


def _check_math(subject: Subject) -> Iterator[Check]:
    path = subject.path / "math.json"
    digest = json_sha256(RunDir(subject.path).math)
    named = re.search(r"-([0-9a-f]{10})(\.(old|replay)\d+)*$", subject.path.resolve().name)
    if (recorded := subject.manifest.get("run")) not in (None, digest):
        problem = f"its hash is {digest[:10]}, the manifest says {str(recorded)[:10]}"
    elif named and named[1] != digest[:10]:
        problem = f"its hash is {digest[:10]}, the folder's name says {named[1]}"
    elif not named:
        message = f"the folder's name does not end in the run's hash {digest[:10]}: it was renamed"
        yield Check(name="math", state="warn", message=message)
        return
    else:
        yield Check(name="math", state="ok", message=f"math.json is run {digest[:10]}")
        return
    message = (
        f"{path}: {problem}; it was edited, or moved in from another run: put the original back"
    )
    yield Check(name="math", state="fail", message=message)


def _check_status(subject: Subject) -> Iterator[Check]:
    status = RunDir(subject.path).status
    state = status.state
    if state not in STATES:
        message = f"{subject.path / 'status.json'}: state {state!r} is none of {', '.join(STATES)}; {REMEDY}"
        yield Check(name="status", state="fail", message=message)
    elif state != "complete":
        message = f"the run is {state}, not complete: only what exists so far is checked"
        yield Check(name="status", state="warn", message=message)
    else:
        yield Check(name="status", state="ok", message="the run is complete")


def _check_manifest(subject: Subject) -> Iterator[Check]:
    path = subject.path / MANIFEST_FILE
    if not path.exists():
        if subject.complete:
            message = (
                f"{path} is missing though the run is complete, so nothing says what ran; {REMEDY}"
            )
            yield Check(name="manifest", state="fail", message=message)
        return
    manifest = optional_object(path)
    if not check_seal(manifest):
        message = f"{path}: its own hash does not fit its content: it was edited; {REMEDY}"
        yield Check(name="manifest", state="fail", message=message)
    elif subject.status.get("state") == "complete" and manifest.get("state") != "complete":
        message = f"{path} is that of an unfinished attempt though the run is complete; {REMEDY}"
        yield Check(name="manifest", state="fail", message=message)
    else:
        yield Check(name="manifest", state="ok", message="the manifest is as it was sealed")


def _check_attempt(subject: Subject) -> Iterator[Check]:
    """The last attempt's files against the manifest's copy, where the manifest is that attempt's."""
    recorded, attempt = subject.manifest.get("attempts"), subject.status.get("attempt")
    if recorded != attempt:
        if subject.complete and subject.manifest and subject.status:
            message = f"{subject.path / 'status.json'} counts {attempt} attempts, the manifest {recorded}; {REMEDY}"
            yield Check(name="attempt", state="fail", message=message)
        return  # else a new attempt is open that has not written its manifest yet
    for name in ("execution", "environment"):
        path = subject.attempt / f"{name}.json"
        if not path.exists():
            message = f"{path} is missing; the manifest holds its content"
            yield Check(name=name, state="warn", message=message)
        elif optional_object(path) != subject.of_manifest(name):
            message = f"{path} is not what the manifest says; one of them was edited: {REMEDY}"
            yield Check(name=name, state="fail", message=message)
        else:
            yield Check(name=name, state="ok", message=f"{path.name} is what the manifest says")


def _check_init(subject: Subject) -> Iterator[Check]:
    if (digest := subject.manifest.get("init_sha256")) is not None:
        yield check_file(
            "init", subject.path / INIT_FILE, digest, source="the manifest", remedy=REMEDY
        )


def _check_outputs(subject: Subject) -> Iterator[Check]:
    outputs = subject.of_manifest("outputs")
    if outputs:
        checks = (
            check_file("outputs", subject.path / name, digest, source="the manifest", remedy=REMEDY)
            for name, digest in outputs.items()
        )
        yield from summed("outputs", checks, f"{len(outputs)} trained files have their hashes")


def _check_checkpoints(subject: Subject) -> Iterator[Check]:
    """Folders that begin with a dot are saves that never became visible."""
    for folder in checkpoints_in(RunDir(subject.path).checkpoints):
        try:
            yield from summed("checkpoints", _checkpoint(folder), f"{folder.name} is whole")
        except DataError as error:
            yield Check(name="checkpoints", state="fail", message=f"{error}; {CHECKPOINT_REMEDY}")


def _checkpoint(folder: Path) -> Iterator[Check]:
    path = folder / "checkpoint.json"
    found = optional_object(path)
    files = section(found, "files", path)
    if not files:
        message = f"{path} is missing or names no files, so the checkpoint cannot be read; {CHECKPOINT_REMEDY}"
        yield Check(name="checkpoints", state="fail", message=message)
    elif not isinstance(step := found.get("step"), int) or checkpoint_name(step) != folder.name:
        message = f"{path} is of step {step}, its folder is {folder.name}; {CHECKPOINT_REMEDY}"
        yield Check(name="checkpoints", state="fail", message=message)
    for name in files:
        facts: dict[str, Any] = section(files, name, path)
        yield check_file(
            "checkpoints",
            folder / name,
            facts.get("sha256"),
            source=str(path),
            remedy=CHECKPOINT_REMEDY,
        )


CHECKS: dict[str, Callable[[Subject], Iterator[Check]]] = {
    "math": _check_math,
    "status": _check_status,
    "manifest": _check_manifest,
    "attempt": _check_attempt,
    "steps": check_steps,
    "certificate": check_certificate,
    "metrics": check_metrics_file,
    "init": _check_init,
    "outputs": _check_outputs,
    "annotations": check_annotations,
    "models": check_models,
    "connector": check_connector,
    "starts_from": check_start,
    "checkpoints": _check_checkpoints,
}
