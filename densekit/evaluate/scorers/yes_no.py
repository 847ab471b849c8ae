"""F1 of yes, for questions that are answered with yes or no alone; any other answer is wrong."""

from collections.abc import Sequence

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.pope import confusion, f1_of
from densekit.evaluate.scorers.scorer import Scorer, each, score_of, yes_or_no
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

SAID = ("yes", "no")


def score(question: Question, text: str, _: Semantics) -> Score:
    """1 where yes or no is right. Raises DataError for another right answer."""
    gold = yes_or_no(question)
    said = text.strip().lower()
    parsed = said if said in SAID else None
    return score_of(question, parsed, gold=gold, score=float(parsed == gold))


def figures(scores: Sequence[Score], _: Semantics = "faithful") -> dict[str, float]:
    """`f1`, 0 without a true positive; `accuracy` and `yes_ratio`, in percent."""
    if not scores:
        raise DataError("no question to take an F1 of")
    counts = confusion(scores)
    return {
        "f1": 100 * f1_of(counts, "fixed"),
        "accuracy": 100 * counts.accuracy,
        "yes_ratio": 100 * counts.yes_ratio,
    }


SCORER = Scorer(score=each(score), figures=figures)
