"""Stored evaluations without a model: what `densekit evaluate` leaves, written by hand."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from densekit.files.json_files import write_json
from densekit.runs.benchmarks import Decoding, Protocol, Score
from densekit.runs.evaluations import (
    EVALUATION_FILE,
    EVALUATIONS,
    RESULTS_FILE,
    AskedBenchmark,
    EvaluatedModel,
    Evaluation,
    EvaluationFolder,
    StoredResult,
)

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
