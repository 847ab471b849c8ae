"""ScienceQA: strict letters; the reported figure is the accuracy of the questions with an image."""

import re
from collections.abc import Sequence

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.letters import letter_of
from densekit.evaluate.scorers.scorer import (
    Scorer,
    each,
    options_of,
    percent,
    right_letter,
    score_of,
)
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

LETTERS = "ABCDE"
STATED = re.compile(r"The answer is ([A-Z]).")
"""One character more, any but a newline, must follow; capital words count by their first letter."""
IMAGE, TEXT = "image", "text"
"""The categories of its questions."""


def parse(text: str) -> str | None:
    """A letter alone, a letter before `. `, or that of the one sentence `The answer is X.`."""
    if len(text) == 1 and text in LETTERS:
        return text
    if text[1:3] == ". " and text[0] in LETTERS:
        return text[0]
    stated = STATED.findall(text)
    return stated[0] if len(stated) == 1 else None


def choice(letter: str | None, choices: int) -> int:
    """The index of a letter among so many choices; -1: none of them."""
    return LETTERS[:choices].find(letter) if letter else -1


def score(question: Question, text: str, semantics: Semantics) -> Score:
    """1 for the letter of the right choice. Fixed: letters as rules find them.

    Raises DataError where the right choice has no letter, and for a question without options.
    """
    gold, options = right_letter(question), options_of(question)
    if gold not in LETTERS:
        raise DataError(f"question {question.id}: the right choice {gold} is none of {LETTERS}")
    parsed = parse(text) if semantics == "faithful" else letter_of(text, options)
    index = choice(parsed, len(options))
    return score_of(question, parsed, gold=gold, score=float(index == LETTERS.index(gold)))


def figures(scores: Sequence[Score], _: Semantics = "faithful") -> dict[str, float]:
    """`image_accuracy`, which is reported, and `accuracy` of all questions.

    Raises DataError where no question has an image.
    """
    return {
        "image_accuracy": percent(score.score for score in scores if score.category == IMAGE),
        "accuracy": percent(score.score for score in scores),
    }


SCORER = Scorer(score=each(score), figures=figures)
