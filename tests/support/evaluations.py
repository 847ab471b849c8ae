"""Stored evaluations without a model: what `densekit evaluate` leaves, written by hand."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from densekit.evaluate.questions import Question
from densekit.evaluate.results import finish
from densekit.files.hashing import file_sha256
from densekit.files.json_files import write_json
from densekit.runs.answers import AnswerFile, AnswerLine, ReadAnswers, answer_key
from densekit.runs.benchmarks import Decoding, Protocol, Score
from densekit.runs.evaluations import (
    EVALUATION_FILE,
    EVALUATIONS,
    RESULTS_FILE,
    AskedBenchmark,
    EvaluatedModel,
    Evaluation,
    EvaluationFolder,
    PlannedQuestion,
    StoredResult,
    plan_sha256,
)
from densekit.runs.layout import RunDir

PROTOCOL = Protocol(
    name="gqa",
    title="GQA",
    split="made up",
    expected=None,
    layout="question",
    suffix="",
    decoding=Decoding(max_new_tokens=4),
    scorer="gqa",
    figure="accuracy",
    source="made up",
)


def asked(**changed: Any) -> AskedBenchmark:
    """A benchmark of two questions."""
    values: dict[str, Any] = {
        "protocol": PROTOCOL,
        "prompt_sha256": "1" * 64,
        "data_sha256": "2" * 64,
        "plan_sha256": "3" * 64,
        "questions": 2,
        "available": 2,
        "batch_size": 1,
    }
    return AskedBenchmark(**{**values, **changed})


def evaluation(**changed: Any) -> Evaluation:
    """An evaluation of the benchmark above on a CPU."""
    values: dict[str, Any] = {
        "model": EvaluatedModel(files={"model: w": "4" * 64}, template="v1", math="5" * 64),
        "benchmarks": (asked(),),
        "limit": None,
        "seed": 42,
        "dtype": "fp32",
        "device": "cpu",
        "kernel": "sdpa",
        "environment": None,
    }
    return Evaluation(**{**values, **changed})


def result(**changed: Any) -> StoredResult:
    """Its result."""
    values: dict[str, Any] = {
        "benchmark": "gqa",
        "title": "GQA",
        "split": "made up",
        "semantics": "faithful",
        "value": 50.0,
        "questions": 2,
        "available": 2,
        "official_dtype": "fp16",
        "dtype": "fp32",
        "batch_size": 1,
        "seed": 42,
        "prompt_sha256": "1" * 64,
        "data_sha256": "2" * 64,
        "plan_sha256": "3" * 64,
        "answers_sha256": "6" * 64,
        "scores_sha256": "7" * 64,
    }
    return StoredResult(**{**values, **changed})


def score(number: int, value: float, **changed: Any) -> Score:
    """The score of one question."""
    values: dict[str, Any] = {
        "question_id": str(number),
        "cluster": str(number),
        "category": "",
        "gold": "yes",
        "parsed": "yes" if value else "no",
        "score": value,
    }
    return Score(**{**values, **changed})


def store(
    run: Path,
    results: Sequence[StoredResult] = (),
    scores: Sequence[Score] = (),
    *,
    made: Evaluation | None = None,
    age: float = 0,
) -> EvaluationFolder:
    """Write an evaluation with its results and the scores of each; `age` in seconds."""
    made = made or evaluation()
    folder = EvaluationFolder(run / EVALUATIONS / made.sha256[:10])
    folder.path.mkdir(parents=True)
    write_json(folder.path / EVALUATION_FILE, made.as_json())
    path = folder.path / EVALUATION_FILE
    if results:
        path = folder.path / RESULTS_FILE
        write_json(path, {"results": [each.model_dump(mode="json") for each in results]})
        for each in results:
            file = folder.scores(each.benchmark, each.semantics)
            file.parent.mkdir(exist_ok=True)
            lines = (json.dumps(asdict(score)) + "\n" for score in scores)
            file.write_text("".join(lines), encoding="utf-8")
    os.utime(path, (1e9 - age, 1e9 - age))
    return folder


def answered(
    run: Path, asked_here: Sequence[tuple[str, str, Path | None, str]]
) -> EvaluationFolder:
    """A whole evaluation of GQA, with chained answers and a sealed results.json: what was asked,
    the right answer, the image (a file of the data root, or none), what the model said.
    """
    plan = [
        PlannedQuestion(
            batch=number,
            question_id=str(number),
            asked=text,
            image=None if image is None else f"data:{image.name}",
            image_sha256=None if image is None else file_sha256(image),
            question=asdict(
                Question(
                    id=str(number),
                    text=text,
                    image=None if image is None else image.name,
                    gold=(gold,),
                )
            ),
        )
        for number, (text, gold, image, _) in enumerate(asked_here)
    ]
    here = asked(plan_sha256=plan_sha256(plan), questions=len(plan), available=len(plan))
    model = EvaluatedModel(files={"model: w": "4" * 64}, template="v1", math=RunDir(run).sha256)
    made = evaluation(model=model, benchmarks=(here,))
    folder = EvaluationFolder(run / EVALUATIONS / made.sha256[:10])
    for path in (folder.path, folder.questions("gqa").parent, folder.answers("gqa").parent):
        path.mkdir(parents=True)
    write_json(folder.path / EVALUATION_FILE, made.as_json())
    lines = (json.dumps(asdict(each)) + "\n" for each in plan)
    folder.questions("gqa").write_text("".join(lines), encoding="utf-8")
    key = made.key("gqa")
    none = ReadAnswers(lines=[], size=0, cut=False)
    with AnswerFile(folder.answers("gqa"), none, key) as file:
        for planned, (_, _, _, said) in zip(plan, asked_here, strict=True):
            line = AnswerLine(
                batch=planned.batch,
                question_id=planned.question_id,
                text=said,
                ids=[1],
                ended="end",
                prompt_sha256="8" * 64,
                key=answer_key(key, planned, "8" * 64),
            )
            file.append([line])
    finish(folder)
    return folder
