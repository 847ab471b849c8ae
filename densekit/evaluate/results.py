"""Scores and results of an evaluation, from its answers alone: no model is needed, so that a mended
scorer never asks for a GPU.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from densekit.errors import DataError
from densekit.evaluate.labels import QUESTION
from densekit.evaluate.questions import Question
from densekit.evaluate.scoring import score_answers
from densekit.files.durable import fsync
from densekit.files.hashing import file_sha256, sealed
from densekit.files.json_files import read_json, write_json
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
)
from densekit.spec.types import Semantics

SEMANTICS: tuple[Semantics, ...] = get_args(Semantics)


def finish(
    folder: EvaluationFolder, flips: dict[str, FlipRate] | None = None
) -> tuple[StoredResult, ...]:
    """Score all answers under both semantics; writes the scores and, last, results.json.

    `flips`: what larger batches changed, by benchmark. Raises DataError where an answer is missing
    or was edited.
    """
    evaluation = folder.evaluation
    results: list[StoredResult] = []
    files: list[Path] = []
    for asked in evaluation.benchmarks:
        name = asked.protocol.name
        plan = read_plan(folder, asked)
        read = read_answers(folder.answers(name), evaluation.key(name), plan)
        if len(read.lines) < len(plan) or read.cut:
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
                    flips=(flips or {}).get(name),
                )
            )
    value = {
        "schema": 1,
        "evaluation": evaluation.sha256,
        "results": [result.model_dump(mode="json") for result in results],
        "files": {path.relative_to(folder.path).as_posix(): file_sha256(path) for path in files},
    }
    path = folder.path / RESULTS_FILE
    if not path.is_file() or read_json(path) != sealed(value):  # its time tells how new it is
        write_json(path, sealed(value))
        fsync(path)
    return tuple(results)


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
