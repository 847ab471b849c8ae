"""The 10-answer rule of VQAv2, VizWiz and TextVQA: an answer is worth what ten people make of it.

Source: the recorded outputs of the official evaluator (facts: a look-behind misspelt, so it has no
effect, and a flag taken for a count, so at most 32 periods go).
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.contractions import CONTRACTIONS
from densekit.evaluate.scorers.scorer import Scorer, accuracy, each, score_of
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

PEOPLE = 10
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
MAX_PERIODS = 32
"""Of one answer that the official code deletes, the first ones."""
PERIOD = re.compile(r"\.(?!\d)")
_COUNTED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0", "zero": "0"} | {word: str(n) for n, word in enumerate(_COUNTED, 1)}
ARTICLES = ("a", "an", "the")


@lru_cache(maxsize=1 << 17)
def normalise(text: str, semantics: Semantics = "faithful") -> str:
    """An answer as it is compared.

    Fixed: a comma or question mark separates words unless it stands between digits, `'s` stays
    where it is, and every period that ends something goes.
    """
    text = text.lower()
    if semantics == "faithful":
        text = text.replace(",", "").replace("?", "").replace("'s", " 's")
    else:
        text = re.sub(r"[,?]", " ", re.sub(r"(?<=\d),(?=\d)", "", text))
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    text = PERIOD.sub("", _without_punctuation(text), MAX_PERIODS if semantics == "faithful" else 0)
    words = (NUMBERS.get(word, word) for word in text.split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _without_punctuation(text: str) -> str:
    """A sign that touches a blank anywhere is deleted everywhere; any other becomes a blank."""
    out = text
    for sign in PUNCTUATION:
        if sign in text:
            touches = f"{sign} " in text or f" {sign}" in text
            out = out.replace(sign, "" if touches else " ")
    return out


def soft_accuracies(answers: Sequence[str], semantics: Semantics = "faithful") -> dict[str, float]:
    """What each normalised answer of ten people is worth; any other answer is worth 0.

    The mean over the ten sets of nine of min(1, matches / 3): 0.3, 0.6, 0.9 and, from four people
    on, 1. Raises DataError for another number of answers.
    """
    if len(answers) != PEOPLE:
        raise DataError(
            f"the rule needs {PEOPLE} people's answers, and this question has {len(answers)}"
        )
    counts = Counter(normalise(answer, semantics) for answer in answers)
    return {answer: _share(count) for answer, count in counts.items()}


def _share(count: int) -> float:
    """The score of an answer that `count` of ten people gave."""
    thirds = count * min(3, count - 1) + (PEOPLE - count) * min(3, count)
    return thirds / (3 * PEOPLE)


def score(question: Question, text: str, semantics: Semantics) -> Score:
    """The score of an answer, with the commonest of the ten as its gold."""
    try:
        worth = soft_accuracies(question.gold, semantics)
    except DataError as error:
        raise DataError(f"question {question.id}: {error}") from None
    parsed = normalise(text, semantics)
    commonest = max(worth, key=lambda answer: worth[answer])
    return score_of(question, parsed, gold=commonest, score=worth.get(parsed, 0.0))


SCORER = Scorer(score=each(score), figures=accuracy)
