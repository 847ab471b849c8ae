"""Runs and imported folders with evaluations that nobody answered: scores are drawn, and stored in
the real formats.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from densekit.evaluate.protocols import get_protocol
from densekit.evaluate.scorers import get_scorer
from densekit.files.json_files import write_json
from densekit.recipes.load import load_recipe
from densekit.runs.benchmarks import Protocol, Score
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
from densekit.runs.layout import open_run
from densekit.spec.math import RunMath

QUESTIONS, IMAGES = 600, 60


def drawn(
    share: float, *, seed: int = 0, questions: int = QUESTIONS, images: int = IMAGES
) -> list[Score]:
    """Right or wrong with probability `share`, several questions an image, alike difficult for
    every seed.
    """
    difficulty = np.random.default_rng(0).random(questions)
    noise = np.random.default_rng(seed + 1).normal(0, 0.1, questions)
    right = difficulty + noise < share
    return [
        Score(
            question_id=f"q{number}",
            cluster=f"i{number % images}",
            category="query",
            gold="yes",
            parsed="yes" if right[number] else "no",
            score=float(right[number]),
        )
        for number in range(questions)
    ]


def made_run(
    runs_dir: Path,
    recipe: str = "vicuna7b_clip_stage2",
    *,
    seed: int = 42,
    settings: Sequence[str] = (),
) -> Path:
    """A complete run of a recipe that ships, without weights."""
    math = load_recipe(recipe, [f"seed={seed}", *settings]).math()
    run = open_run(runs_dir, RunMath(recipe=math, starts_from=f"{seed:064d}"))
    run.set_status("complete")
    return run.path


def evaluated(
    folder: Path,
    scores: Sequence[Score],
    benchmark: str = "gqa",
    *,
    available: int | None = None,
    name: str = "0" * 16,
    image_sha256: str = "3" * 64,
    **fields: Any,
) -> EvaluationFolder:
    """An evaluation of one benchmark in a run or folder; `fields` replace those of its result."""
    protocol = get_protocol(benchmark)
    place = EvaluationFolder(folder / EVALUATIONS / name)
    place.path.mkdir(parents=True)
    questions = {"questions": len(scores), "available": available or len(scores)}
    plan = [
        PlannedQuestion(
            batch=batch,
            question_id=score.question_id,
            asked="What is it?",
            image=f"data:{score.cluster}.jpg",
            image_sha256=image_sha256,
            question={},
        )
        for batch, score in enumerate(scores)
    ]
    value = figure(protocol, scores)
    result = StoredResult.model_validate(
        {
            "benchmark": benchmark,
            "title": protocol.title,
            "split": protocol.split,
            "semantics": "faithful",
            "value": value,
            **questions,
            "other_protocol": protocol.other_protocol,
            "official_dtype": "fp16",
            "dtype": "fp16",
            "batch_size": 1,
            "seed": 42,
            **dict.fromkeys(("prompt_sha256", "data_sha256"), "0" * 64),
            "plan_sha256": plan_sha256(plan),
            "answers_sha256": "1" * 64,
            "scores_sha256": "2" * 64,
            **fields,
        }
    )
    asked = AskedBenchmark(
        protocol=protocol,
        prompt_sha256=result.prompt_sha256,
        data_sha256=result.data_sha256,
        plan_sha256=result.plan_sha256,
        batch_size=result.batch_size,
        **questions,
    )
    evaluation = Evaluation(
        model=EvaluatedModel(files={}, template="v1", math=None),
        benchmarks=(asked,),
        limit=None,
        seed=42,
        dtype=result.dtype,
        device="cpu",
        kernel="sdpa",
        environment="made",
    )
    write_json(place.path / EVALUATION_FILE, evaluation.as_json())
    planned = place.questions(benchmark)
    planned.parent.mkdir()
    planned.write_text("".join(json.dumps(asdict(question)) + "\n" for question in plan))
    stored = place.scores(benchmark, result.semantics)
    stored.parent.mkdir()
    stored.write_text("".join(json.dumps(asdict(score)) + "\n" for score in scores))
    write_json(place.path / RESULTS_FILE, {"results": [result.model_dump(mode="json")]})
    return place


def figure(protocol: Protocol, scores: Sequence[Score]) -> float | None:
    """The reported figure; None where only a judge has one."""
    if protocol.scorer is None:
        return None
    return get_scorer(protocol.scorer).figures(scores, "faithful")[protocol.figure]
