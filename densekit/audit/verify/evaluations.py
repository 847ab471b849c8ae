"""Verifying the evaluations of a run: what was asked, the hash chain of the answers, and every file
that the results name.
"""

from collections.abc import Iterator

from densekit.audit.run_reader import RecordedRun
from densekit.audit.verify.file_hashes import check_folder
from densekit.audit.wording import count_of
from densekit.errors import DataError
from densekit.files.hashing import check_seal, json_sha256
from densekit.files.json_files import read_object
from densekit.runs.answers import read_answers
from densekit.runs.evaluations import (
    EVALUATION_FILE,
    REMEDY,
    RESULTS_FILE,
    EvaluationFolder,
    evaluations,
    read_plan,
    read_results,
)
from densekit.spec.check import Check

NAME = "evaluations"


def check_evaluations(run: RecordedRun) -> Iterator[Check]:
    """Every evaluation, the oldest first."""
    for folder in evaluations(run.path):
        try:
            yield from _check(run, folder)
        except DataError as error:
            yield Check(name=NAME, state="fail", message=str(error))


def _check(run: RecordedRun, folder: EvaluationFolder) -> Iterator[Check]:
    path = folder.path / EVALUATION_FILE
    digest = json_sha256(read_object(path, remedy=REMEDY))  # of the file, whatever the types made
    if not digest.startswith(folder.path.name):
        raise DataError(
            f"{path}: its hash is {digest[:10]}, the folder's name says {folder.path.name}; it was "
            f"edited, or the folder renamed; {REMEDY}"
        )
    evaluation = folder.evaluation
    if run.math is not None and evaluation.model.math != run.math.sha256:
        raise DataError(f"{path} is of another run's model; {REMEDY}")
    answered = planned = 0
    for asked in evaluation.benchmarks:
        name = asked.protocol.name
        plan = read_plan(folder, asked)
        read = read_answers(folder.answers(name), evaluation.key(name), plan)
        answered, planned = answered + len(read.lines), planned + len(plan)
    if not folder.has_results:
        message = f"{folder.path.name} has {answered} of {planned} answers and no results yet"
        yield Check(name=NAME, state="warn", message=message)
        return
    value = read_object(folder.path / RESULTS_FILE, "evaluation", "files", remedy=REMEDY)
    if not check_seal(value) or value["evaluation"] != evaluation.sha256:
        raise DataError(
            f"{folder.path / RESULTS_FILE}: its own hash does not fit its content, or it is of "
            f"another evaluation: it was edited; {REMEDY}"
        )
    results = read_results(folder)
    yield from check_folder(
        NAME,
        folder.path,
        value["files"],
        source=f"{folder.path.name}/{RESULTS_FILE}",
        remedy=REMEDY,
        ok=f"{folder.path.name}: {count_of(answered, 'answer')} follow from what was asked; "
        f"{count_of(len(results), 'result')} from them",
    )
