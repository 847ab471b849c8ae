"""GQA: equality with the one right answer, after trailing periods and case are gone."""

from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.scorer import Scorer, accuracy, each, one_gold, score_of
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics


def prediction(text: str, semantics: Semantics = "faithful") -> str:
    """What the official converter writes for the evaluator. Fixed: blanks at the ends go too."""
    if semantics == "fixed":
        return text.strip().rstrip(". ").lower()
    return text.rstrip(".").lower()


def score(question: Question, text: str, semantics: Semantics) -> Score:
    """1 where the prediction is the right answer, as it stands in the data."""
    gold = one_gold(question)
    parsed = prediction(text, semantics)
    return score_of(question, parsed, gold=gold, score=float(parsed == gold))


SCORER = Scorer(score=each(score), figures=accuracy)
