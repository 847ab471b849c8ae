"""Equality with the right answer, case and outer blanks aside."""

from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.scorer import Scorer, accuracy, each, one_gold, score_of
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics


def score(question: Question, text: str, _: Semantics) -> Score:
    """1 where the answer is the right one."""
    gold = one_gold(question)
    parsed = text.strip().lower()
    return score_of(question, parsed, gold=gold, score=float(parsed == gold.strip().lower()))


SCORER = Scorer(score=each(score), figures=accuracy)
