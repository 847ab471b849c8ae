"""Scores and results of an evaluation, from its answers alone: no model is needed, so that a mended
scorer never asks for a GPU.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from densekit.errors import DataError
from densekit.evaluate.labels import QUESTION
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers import scorer_sources
from densekit.evaluate.scoring import SEMANTICS, score_answers
from densekit.files.durable import fsync
from densekit.files.hashing import check_seal, file_sha256, json_sha256, sealed
from densekit.files.json_files import open_file, read_object, write_json
from densekit.files.whole import written_whole
from densekit.runs.answers import AnswerLine, read_answers
from densekit.runs.benchmarks import Answer, Result, Score
from densekit.runs.evaluations import (
    RESULTS_FILE,
    AskedBenchmark,
    Evaluation,
    EvaluationFolder,
    FlipRate,
    StoredResult,
    read_plan,
    read_results,
)
from densekit.spec.types import Semantics

BLOCK = 1 << 20
"""Bytes of a file of answers that are read at a time."""


def finish(
    folder: EvaluationFolder, flips: dict[str, FlipRate] | None = None
) -> tuple[StoredResult, ...]:
    """Score all answers under both semantics; writes the scores and, last, results.json.

    `flips`: what larger batches changed, by benchmark. Nothing is scored again where results.json
    has it: of these answers, by these scorers. Raises DataError where an answer is missing or was
    edited.
    """
    evaluation = folder.evaluation
    flips = flips or {}
    if (stored := _stored_before(folder, evaluation, flips)) is not None:
        return stored
    results: list[StoredResult] = []
    files: list[Path] = []
    for asked in evaluation.benchmarks:
        name = asked.protocol.name
        plan = read_plan(folder, asked)
        read = read_answers(folder.answers(name), evaluation.key(name), plan)
        if len(read.lines) < len(plan):
            raise DataError(
                f"{folder.answers(name)} has {len(read.lines)} of {len(plan)} answers: "
                f"{folder.again} asks for the rest"
            )
        questions = [QUESTION.validate_python(planned.question) for planned in plan]
        files += [folder.questions(name), folder.answers(name)]
        for semantics in SEMANTICS:
            result, problem = _score(asked, questions, read.lines, semantics)
            path = folder.scores(name, semantics)
            if result is not None:
                _write_scores(path, result.scores)
                files.append(path)
            results.append(
                _stored(
                    evaluation,
                    asked,
                    semantics,
                    result,
                    problem,
                    answers_sha256=file_sha256(folder.answers(name)),
                    scores_sha256=None if result is None else file_sha256(path),
                    flips=flips.get(name),
                )
            )
    value = {
        "schema": 1,
        "evaluation": evaluation.sha256,
        "scorers": json_sha256(scorer_sources()),
        "results": [result.model_dump(mode="json") for result in results],
        "files": {path.relative_to(folder.path).as_posix(): file_sha256(path) for path in files},
    }
    _write_results(folder, value, tuple(results))
    return tuple(results)


def lacks_answers(folder: EvaluationFolder) -> bool:
    """Whether a file of answers has fewer lines than were asked: one was cut or removed."""
    for asked in folder.evaluation.benchmarks:
        path = folder.answers(asked.protocol.name)
        if not path.is_file():
            return True
        with open_file(path) as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(BLOCK), b""))
        if lines < asked.questions:
            return True
    return False


def _stored_before(
    folder: EvaluationFolder, evaluation: Evaluation, flips: Mapping[str, FlipRate]
) -> tuple[StoredResult, ...] | None:
    """What results.json says, where all that it follows from is unchanged: questions, answers,
    scores and the scorers' code.
    """
    path = folder.path / RESULTS_FILE
    try:
        value = read_object(path, "evaluation", "scorers", "files")
        results = read_results(folder)
        same = (
            check_seal(value)
            and value["evaluation"] == evaluation.sha256
            and value["scorers"] == json_sha256(scorer_sources())
            and all(file_sha256(folder.path / name) == old for name, old in value["files"].items())
        )
    except (DataError, OSError):
        return None
    same = same and all(result.flip_rate == flips.get(result.benchmark) for result in results)
    return results if same else None


def _write_results(
    folder: EvaluationFolder, value: Mapping[str, object], results: tuple[StoredResult, ...]
) -> None:
    """Write results.json; its time, which tells how new it is, stays where the results do."""
    path = folder.path / RESULTS_FILE
    try:
        before = path.stat() if read_results(folder) == results else None
    except (DataError, OSError):
        before = None
    write_json(path, sealed(value))
    if before is not None:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    fsync(path)


def _score(
    asked: AskedBenchmark,
    questions: Sequence[Question],
    lines: Sequence[AnswerLine],
    semantics: Semantics,
) -> tuple[Result | None, str | None]:
    """The result, or why there is none."""
    protocol = asked.protocol
    if protocol.scorer is None:
        return None, protocol.other_protocol or "only a judge scores these answers"
    answers = [Answer(question_id=line.question_id, text=line.text) for line in lines]
    whole = asked.questions == asked.available
    try:
        return (
            score_answers(protocol, questions, answers, semantics=semantics, whole=whole),
            None,
        )
    except DataError as error:
        return None, str(error)


def _stored(
    evaluation: Evaluation,
    asked: AskedBenchmark,
    semantics: Semantics,
    result: Result | None,
    problem: str | None,
    *,
    answers_sha256: str,
    scores_sha256: str | None,
    flips: FlipRate | None,
) -> StoredResult:
    protocol = asked.protocol
    return StoredResult(
        benchmark=protocol.name,
        title=protocol.title,
        split=protocol.split,
        semantics=semantics,
        value=None if result is None else result.value,
        problem=problem,
        figures={} if result is None else dict(result.figures),
        notes={} if result is None else dict(result.notes),
        questions=asked.questions,
        available=asked.available,
        other_protocol=protocol.other_protocol,
        official_dtype=protocol.decoding.dtype,
        dtype=evaluation.dtype,
        batch_size=asked.batch_size,
        flip_rate=flips,
        seed=evaluation.seed,
        prompt_sha256=asked.prompt_sha256,
        data_sha256=asked.data_sha256,
        plan_sha256=asked.plan_sha256,
        answers_sha256=answers_sha256,
        scores_sha256=scores_sha256,
    )


def _write_scores(path: Path, scores: Sequence[Score]) -> None:
    path.parent.mkdir(exist_ok=True)
    with written_whole(path, flush=True) as temporary:
        lines = (json.dumps(asdict(score), ensure_ascii=False) + "\n" for score in scores)
        temporary.write_text("".join(lines), encoding="utf-8")
