"""A closed set of short answers: equality, trailing periods and case aside, beside what always
giving the commonest answer would get.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.scorer import Scorer, each, one_gold, percent, score_of
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

Z = 1.959964
"""Of a two-sided interval of 95 %."""


def score(question: Question, text: str, _: Semantics) -> Score:
    """1 where the answer is the right one."""
    gold, parsed = (part.rstrip(".").lower() for part in (one_gold(question), text))
    return score_of(question, parsed, gold=gold, score=float(parsed == gold))


def figures(scores: Sequence[Score], _: Semantics) -> dict[str, float]:
    """How many are `right`; in percent, `accuracy`, the lower end of its 95 % Wilson score
    interval, and `majority_class`, the accuracy of the commonest answer of each category.
    """
    accuracy = percent(score.score for score in scores)
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for score in scores:
        answers[score.category][score.gold] += 1
    commonest = sum(max(counts.values()) for counts in answers.values())
    return {
        "accuracy": accuracy,
        "right": sum(score.score for score in scores),
        "wilson_lower": 100 * wilson_lower(accuracy / 100, len(scores)),
        "majority_class": 100 * commonest / len(scores),
    }


def wilson_lower(share: float, total: int) -> float:
    """Lower end of the 95 % Wilson score interval of a proportion (Wilson 1927)."""
    centre = share + Z * Z / (2 * total)
    spread = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    return (centre - spread) / (1 + Z * Z / total)


SCORER = Scorer(score=each(score), figures=figures)
