"""How many answers a larger batch changes: the same questions asked both ways."""

from collections.abc import Sequence

from densekit.evaluate.questions import Question
from densekit.runs.answers import read_answers
from densekit.runs.evaluations import EvaluationFolder, FlipRate, read_plan

SAMPLE = 500
"""Questions that are asked both ways."""


def sample_images(questions: Sequence[Question], wanted: int) -> int:
    """Of how many images so many questions are, about."""
    units = len({question.image or question.id for question in questions})
    return max(1, min(units, round(units * wanted / len(questions))))


def compare(one: EvaluationFolder, other: EvaluationFolder, benchmark: str) -> FlipRate:
    """The answers of two evaluations to the same questions. Raises DataError where they were
    edited.
    """
    first, second = (_texts(folder, benchmark) for folder in (one, other))
    assert first.keys() == second.keys(), "one plan, two batch sizes"
    return FlipRate(questions=len(first), flips=sum(first[name] != second[name] for name in first))


def _texts(folder: EvaluationFolder, benchmark: str) -> dict[str, str]:
    evaluation = folder.evaluation
    plan = read_plan(folder, evaluation.asked(benchmark))
    read = read_answers(folder.answers(benchmark), evaluation.key(benchmark), plan)
    return {line.question_id: line.text for line in read.lines}
