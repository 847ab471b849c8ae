"""The files that a page's figures are from, with their hashes as they are and as recorded."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from densekit.audit.report.facts import Evidence, FileState, Problem
from densekit.audit.run_reader import RecordedRun
from densekit.audit.verify.evaluations import check_evaluations
from densekit.batching.certificate import CertificateBuilder
from densekit.errors import DataError, DensekitError
from densekit.files.hashing import check_seal, file_sha256, json_sha256
from densekit.files.json_files import optional_object, read_object
from densekit.runs.environment import ENVIRONMENT_FILE
from densekit.runs.evaluations import EVALUATIONS
from densekit.runs.layout import (
    CERTIFICATE_FILE,
    EXECUTION_FILE,
    LOG_FILE,
    MATH_FILE,
    MISSING_FILE,
    STATUS_FILE,
)
from densekit.runs.manifest import MANIFEST_FILE
from densekit.runs.process_handle import LAUNCH_FILE
from densekit.runs.record_check import first_problem
from densekit.runs.records import FEED_FILE, METRICS_FILE
from densekit.runs.results import RESULTS_FILE
from densekit.runs.verdicts import VERDICT_FILE

READ = (
    *(MATH_FILE, STATUS_FILE, MANIFEST_FILE, METRICS_FILE, FEED_FILE, CERTIFICATE_FILE),
    *(MISSING_FILE, RESULTS_FILE),
)
"""Files of a run that pages read."""


def evidence_of(run: RecordedRun) -> tuple[Evidence, ...]:
    """Every file that a page about the run may cite, and every one that the run recorded.

    The weights are not read again: `densekit verify` does that.
    """
    recorded = _recorded(run)
    names = [name for name in READ if (run.path / name).is_file()]
    names += [name for name in sorted(recorded) if name not in names]
    names += [path.relative_to(run.path).as_posix() for path in _attempt_files(run.path)]
    names += [path.relative_to(run.path).as_posix() for path in _evaluation_files(run.path)]
    return tuple(_evidence(run.path, name, recorded.get(name, "")) for name in names)


def record_problems(run: RecordedRun, evidence: Sequence[Evidence]) -> Iterator[Problem]:
    """Everything that shows that a run was damaged or edited, as far as its small files tell."""
    for error in run.damage.values():
        yield Problem(level="bad", message=str(error))
    try:
        yield from _contradictions(run, evidence)
    except (DensekitError, OSError, ValueError) as error:
        yield Problem(level="bad", message=str(error))


def _contradictions(run: RecordedRun, evidence: Sequence[Evidence]) -> Iterator[Problem]:
    manifest_path = run.path / MANIFEST_FILE
    if manifest_path.exists() and not check_seal(read_object(manifest_path)):
        yield Problem(level="bad", message=f"{manifest_path} was edited: its hash does not fit")
    if run.math is not None:
        digest = json_sha256(read_object(run.path / MATH_FILE))
        if run.manifest is not None and run.manifest.run != digest:
            message = f"{run.path / MATH_FILE} is not the math that {manifest_path} names"
            yield Problem(level="bad", message=message)
        if METRICS_FILE not in run.damage and FEED_FILE not in run.damage:
            problem = first_problem(run.math.sha256, run.steps, run.feed, run=run.path)
            if problem is not None:
                yield Problem(level="bad", message=problem)
    yield from _feed_problems(run)
    for check in check_evaluations(run):
        if check.state == "fail":
            yield Problem(level="bad", message=check.message)
    for file in evidence:
        if file.state == "changed":
            message = f"{file.path} is not the file that the run recorded: it was changed"
            yield Problem(level="bad", message=message)
        elif file.state == "missing":
            message = f"{file.path} is missing, and the run recorded its hash"
            yield Problem(level="bad", message=message)
    if run.complete and run.manifest is None and MANIFEST_FILE not in run.damage:
        message = (
            f"the run is complete by its status and has no {MANIFEST_FILE}: what ran is unknown"
        )
        yield Problem(level="bad", message=message)


def _feed_problems(run: RecordedRun) -> Iterator[Problem]:
    """Whether a complete run fed what was certified."""
    certified = optional_object(run.path / CERTIFICATE_FILE).get("sha256")
    if not run.complete or certified is None or not run.steps:
        return
    fed = CertificateBuilder()
    try:
        for step in run.steps:
            fed.add(step.ids)
    except DataError as error:
        yield Problem(level="bad", message=str(error))
        return
    if fed.sha256 != certified:
        message = f"{METRICS_FILE} records other samples than {CERTIFICATE_FILE} certifies"
        yield Problem(level="bad", message=message)


def _recorded(run: RecordedRun) -> dict[str, str]:
    """The hashes in the manifest of a complete run, by path inside it."""
    manifest = run.manifest
    if manifest is None or manifest.state != "complete":
        return {}
    metrics = {METRICS_FILE: manifest.metrics_sha256} if manifest.metrics_sha256 else {}
    return {**metrics, **manifest.outputs}


def _evidence(run: Path, name: str, recorded: str) -> Evidence:
    path = run / name
    if recorded and name not in READ and path.is_file():
        return Evidence(path=name, sha256=recorded, state="recorded", recorded=recorded)
    try:
        digest = file_sha256(path)
    except OSError:
        return Evidence(path=name, sha256="", state="missing", recorded=recorded)
    state: FileState = "unrecorded"
    if recorded:
        state = "recorded" if digest == recorded else "changed"
    return Evidence(path=name, sha256=digest, state=state, recorded=recorded)


def _attempt_files(run: Path) -> list[Path]:
    files = (EXECUTION_FILE, ENVIRONMENT_FILE, LOG_FILE)
    attempts = sorted((run / "attempts").glob("[0-9][0-9][0-9][0-9]"))
    return [folder / name for folder in attempts for name in files if (folder / name).is_file()]


def _evaluation_files(run: Path) -> list[Path]:
    found = [
        path
        for path in (run / EVALUATIONS).rglob("*.json*")
        if path.is_file() and path.name != LAUNCH_FILE
    ]
    verdict = run / VERDICT_FILE
    return [*sorted(found), *([verdict] if verdict.is_file() else [])]
