"""MathVista: the nearest choice, or equality of a rounded number's text.

Values are taken as JSON holds them: a precision of 1.0 is not one of 1, and a right answer 5 is not
the text "5".
"""

import re
import string
from collections.abc import Sequence
from typing import TypeVar

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.mathvista_extract import by_rule, extract
from densekit.evaluate.scorers.scorer import Scorer, accuracy, each, one_gold, score_of
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

Choice = TypeVar("Choice")
BRACKETED = re.compile(r"\(([a-zA-Z])\)")
JUDGE = "judge"
"""Note of an answer that the official judge would have read."""


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: insertions, deletions and substitutions, each 1."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j - 1] + 1, row[j] + 1, diagonal + (left != other))
    return row[-1]


def nearest(text: str, choices: Sequence[Choice]) -> Choice:
    """The choice at the smallest edit distance, the first of several. Raises DataError for none."""
    if not choices:
        raise DataError("a multiple-choice question without choices has no nearest one")
    return min(choices, key=lambda choice: edit_distance(text, str(choice)))


def prediction(
    extraction: object,
    *,
    choices: Sequence[object] | None,
    answer_type: str,
    precision: object = None,
) -> object:
    """What an extraction is taken for; None: no number can be read, or it cannot be rounded.

    `choices` None: a free-form question. Raises DataError for a question without choices.
    """
    if choices is not None:
        text = extraction.strip() if isinstance(extraction, str) else str(extraction)
        bracketed = BRACKETED.search(text)
        if bracketed:
            text = bracketed[1].upper()
        index = string.ascii_uppercase.find(text) if len(text) == 1 else -1
        return choices[index] if 0 <= index < len(choices) else nearest(text, choices)
    try:
        if answer_type == "integer":
            return str(int(float(extraction)))  # type: ignore[arg-type]
        if answer_type == "float":
            return str(round(float(extraction), precision))  # type: ignore[arg-type,call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return str(extraction) if answer_type == "list" else extraction


def score(question: Question, text: str, semantics: Semantics) -> Score:
    """1 where the prediction is the right answer. Fixed: a precision stored as 1.0 is 1."""
    gold = one_gold(question)
    choices = list(question.options) or None
    said = extract(text, choices=choices, answer_type=question.answer_type)
    note = "" if said is not None else JUDGE
    if said is None:
        said = by_rule(text, choices=choices, answer_type=question.answer_type)
    precision: object = question.precision
    if semantics == "fixed" and question.precision is not None:
        precision = int(question.precision)
    found = prediction(said, choices=choices, answer_type=question.answer_type, precision=precision)
    parsed = None if found is None else str(found)
    return score_of(question, parsed, gold=gold, score=float(found == gold), note=note)


SCORER = Scorer(score=each(score), figures=accuracy)
