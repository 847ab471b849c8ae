"""Evaluations on disk: opened once for what they ask, and never handed another one's answers."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from densekit.errors import DataError, UsageError
from densekit.files.durable import fsync
from densekit.files.json_files import write_json
from densekit.files.permissions import follow_umask
from densekit.files.whole import written_whole
from densekit.runs.answers import read_answers
from densekit.runs.evaluations import (
    EVALUATION_FILE,
    EVALUATIONS,
    Evaluation,
    EvaluationFolder,
    PlannedQuestion,
    evaluations,
    read_plan,
)
from densekit.runs.layout import STATUS_FILE

Plans = Mapping[str, Sequence[PlannedQuestion]]
DIGITS = 10
"""Of an evaluation's hash, which name its folder."""


def open_evaluation(source: Path, evaluation: Evaluation, plans: Plans) -> EvaluationFolder:
    """The evaluation of a run or an import, made if it does not exist; answers that another one of
    them has to the same questions, under everything that decides them, are taken over.

    Raises DataError where an evaluation of the same benchmarks was begun with other inputs, naming
    what changed; UsageError where the folder cannot be written.
    """
    folder = EvaluationFolder(source / EVALUATIONS / evaluation.sha256[:DIGITS])
    if not folder.path.exists():
        _refuse_changed(source, evaluation, plans)
        _create(folder, evaluation, plans)
    if folder.evaluation.sha256 != evaluation.sha256:
        raise UsageError(f"{folder.path} exists but is not this evaluation: move it away")
    _take_over(source, folder, evaluation)
    return folder


def _create(folder: EvaluationFolder, evaluation: Evaluation, plans: Plans) -> None:
    """Make the folder: it appears whole, by one rename."""
    try:
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.path.parent))
    except OSError as error:
        raise UsageError(f"{folder.path.parent} cannot be written: {error.strerror}") from None
    try:
        follow_umask(temporary)
        made = EvaluationFolder(temporary)
        write_json(temporary / EVALUATION_FILE, evaluation.as_json())
        write_json(temporary / STATUS_FILE, {"state": "created", "attempt": 0})
        for name, plan in plans.items():
            path = made.questions(name)
            path.parent.mkdir(exist_ok=True)
            lines = (json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in plan)
            path.write_text("".join(lines), encoding="utf-8")
            fsync(path)
        with suppress(OSError):  # another process was first
            temporary.rename(folder.path)
    except OSError as error:
        raise UsageError(f"{folder.path} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_over(source: Path, folder: EvaluationFolder, evaluation: Evaluation) -> None:
    """Copy whole files of answers whose key is the same."""
    for asked in evaluation.benchmarks:
        name = asked.protocol.name
        target = folder.answers(name)
        if target.exists():
            continue
        for other in evaluations(source):
            if other == folder or not other.answers(name).is_file():
                continue
            theirs = other.evaluation
            if not theirs.asks(name) or theirs.key(name) != evaluation.key(name):
                continue
            plan = read_plan(folder, asked)
            found = read_answers(other.answers(name), evaluation.key(name), plan)
            if len(found.lines) == len(plan):
                target.parent.mkdir(exist_ok=True)
                with written_whole(target, flush=True) as temporary:
                    shutil.copyfile(other.answers(name), temporary)
                break


def _refuse_changed(source: Path, evaluation: Evaluation, plans: Plans) -> None:
    """Raises DataError where an unfinished evaluation of the same benchmarks has other inputs."""
    names = [asked.protocol.name for asked in evaluation.benchmarks]
    for other in evaluations(source):
        theirs = other.evaluation
        same = (
            [asked.protocol.name for asked in theirs.benchmarks] == names
            and (theirs.limit, theirs.seed) == (evaluation.limit, evaluation.seed)
            and (theirs.dtype, theirs.device) == (evaluation.dtype, evaluation.device)
            and [asked.batch_size for asked in theirs.benchmarks]
            == [asked.batch_size for asked in evaluation.benchmarks]
        )
        begun = any(other.answers(name).is_file() for name in names)
        if same and begun and not other.complete:
            raise DataError(
                f"{other.path} is not finished and was begun with other inputs: "
                f"{_what_changed(other, theirs, evaluation, plans)} changed since; put the "
                "original back to go on, or remove that folder to ask everything anew"
            )


def _what_changed(
    other: EvaluationFolder, theirs: Evaluation, ours: Evaluation, plans: Plans
) -> str:
    before, now = theirs.model.files, ours.model.files
    odd = sorted(name for name in before | now if before.get(name) != now.get(name))
    if odd:
        return f"the model's file {odd[0]}" + (f" and {len(odd) - 1} more" if odd[1:] else "")
    if theirs.environment != ours.environment:
        return f"the packages ({theirs.environment}; now {ours.environment})"
    for old, new in zip(theirs.benchmarks, ours.benchmarks, strict=True):
        name = old.protocol.name
        if old.data_sha256 != new.data_sha256:
            return f"the questions of {old.protocol.title}"
        if old.protocol != new.protocol or old.prompt_sha256 != new.prompt_sha256:
            return f"the protocol of {old.protocol.title}"
        if old.plan_sha256 != new.plan_sha256:
            digests = {line.question_id: line.image_sha256 for line in read_plan(other, old)}
            for line in plans[name]:
                if digests.get(line.question_id) != line.image_sha256:
                    return f"the image {line.image} of {old.protocol.title}"
    return "what it asks"
