"""Some predictions of an evaluation beside their pictures, small enough for a page."""

import base64
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

from densekit.audit.report.facts import Prediction, Predictions, Problem
from densekit.audit.run_reader import RecordedRun
from densekit.errors import DensekitError
from densekit.files.json_files import read_file
from densekit.runs.answers import read_answers
from densekit.runs.benchmarks import Score
from densekit.runs.evaluations import (
    EvaluationFolder,
    PlannedQuestion,
    newest_results,
    read_plan,
    read_scores,
)
from densekit.spec.roots import Roots

SHOWN = 8
"""Predictions of a benchmark."""
MOST = 40
"""Of a page: at about 20 KB a picture it stays far below 5 MB."""
EDGE = 320
"""Pixels of a picture's longer side."""
LONGEST = 1500
"""Characters of a question or an answer."""
MAX_IMAGE_BYTES = 50 << 20


def predictions_of(run: RecordedRun, problems: list[Problem]) -> Iterator[Predictions]:
    """Wrong and right answers of every benchmark that was asked; what cannot be read goes to
    `problems`.
    """
    roots = run.execution.roots if run.execution else Roots()
    left = MOST
    try:
        results = newest_results(run.path)
    except DensekitError:
        return  # said by the scores
    for benchmark, (folder, result) in results.items():
        try:
            found = _predictions(folder, benchmark, roots, min(SHOWN, left))
        except (DensekitError, OSError) as error:
            problems.append(Problem(level="bad", message=str(error)))
            continue
        left -= len(found)
        if found:
            yield Predictions(
                title=result.title,
                shown=tuple(found),
                asked=result.questions,
                file=folder.answers(benchmark).relative_to(run.path).as_posix(),
            )


def _predictions(
    folder: EvaluationFolder, benchmark: str, roots: Roots, most: int
) -> list[Prediction]:
    evaluation = folder.evaluation
    asked = evaluation.asked(benchmark)
    plan = read_plan(folder, asked)
    answers = read_answers(folder.answers(benchmark), evaluation.key(benchmark), plan)
    texts = {line.question_id: line.text for line in answers.lines}
    planned = {each.question_id: each for each in plan if each.question_id in texts}
    scores: dict[str, Score] = {}
    if folder.scores(benchmark, "faithful").is_file():
        scores = {score.question_id: score for score in read_scores(folder, benchmark)}
    return [
        _prediction(
            planned[name],
            texts[name],
            scores.get(name),
            ("", "asked about a video") if asked.protocol.video else _picture(planned[name], roots),
        )
        for name in chosen(list(planned), scores, most)
    ]


def chosen(names: list[str], scores: dict[str, Score], most: int) -> list[str]:
    """Which questions are shown: half of them answered wrongly where there are so many, drawn by
    the hash of their ids, so that nobody picks them.
    """
    drawn = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    wrong = [name for name in drawn if name in scores and scores[name].score < 1]
    right = [name for name in drawn if name not in wrong]
    few_wrong = wrong[: max(most // 2, most - len(right))]
    return [*few_wrong, *right[: most - len(few_wrong)]]


def _prediction(
    planned: PlannedQuestion, answer: str, score: Score | None, shown: tuple[str, str]
) -> Prediction:
    """`shown`: the picture as a data: URI, and why there is none."""
    reference = score.gold if score is not None and score.gold else ""
    image, note = shown
    return Prediction(
        question=_cut(planned.asked),
        answer=_cut(answer),
        reference=_cut(reference),
        score=score.score if score is not None else None,
        image=image,
        image_note=note,
    )


def _picture(planned: PlannedQuestion, roots: Roots) -> tuple[str, str]:
    """A small copy as a data: URI, and why there is none."""
    if planned.image is None:
        return "", "asked without a picture"
    path = roots.resolve(planned.image)
    if not path.is_file():
        return "", "the picture is not on this machine"
    try:
        data = read_file(path, limit=MAX_IMAGE_BYTES)
        if hashlib.sha256(data).hexdigest() != planned.image_sha256:
            return "", "the picture was changed since it was asked about"
        return _small(data, path), ""
    except (DensekitError, OSError) as error:
        return "", f"the picture cannot be read: {error}"


def _small(data: bytes, path: Path) -> str:
    from densekit.data.decoding import decode

    image, _ = decode(data, path)
    image.thumbnail((EDGE, EDGE))
    small = io.BytesIO()
    image.save(small, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
