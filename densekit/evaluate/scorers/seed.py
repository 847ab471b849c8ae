"""SEED-Bench: equality with the letter, nothing parsed."""

from collections.abc import Iterator, Sequence

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

SEPARATOR = "/"
"""Between data type and question type in a category: `image/3`."""

MISSING = "missing"
"""Note of a question without an answer, in an official file that lacks some."""


def score(question: Question, text: str, semantics: Semantics) -> Score:
    """1 where the answer is the letter. Fixed: letters as rules find them.

    Raises DataError where the right answer is no letter; fixed: for a question without options.
    """
    gold = right_letter(question)
    parsed = text if semantics == "faithful" else letter_of(text, options_of(question))
    return score_of(question, parsed, gold=gold, score=float(parsed == gold))


def printed(
    scores: Sequence[Score], semantics: Semantics, kinds: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """The figures in the official order: of each question type, of all, of each of `kinds`.

    Raises DataError when it comes to a type whose questions are all answered and all wrong, for
    which the official script has no figure (fixed: 0), and to a kind without questions.
    """
    types = sorted({int(_type_of(score)) for score in scores})
    for name in types:
        of_type = [score for score in scores if _type_of(score) == str(name)]
        answered = all(score.note != MISSING for score in of_type)
        if semantics == "faithful" and answered and not any(score.score for score in of_type):
            raise DataError(
                f"no answer to question type {name} is right: the official script ends there"
            )
        yield f"type {name}", percent(score.score for score in of_type)
    yield "accuracy", percent(score.score for score in scores)
    for kind in kinds:
        yield f"{kind} accuracy", percent(s.score for s in scores if _kind_of(s) == kind)


def figures(scores: Sequence[Score], semantics: Semantics = "faithful") -> dict[str, float]:
    """`accuracy`, and that of each question type and of each kind of data there is.

    Raises DataError as `printed`.
    """
    return dict(printed(scores, semantics, sorted({_kind_of(score) for score in scores})))


def _kind_of(score: Score) -> str:
    return score.category.split(SEPARATOR)[0]


def _type_of(score: Score) -> str:
    _, separator, name = score.category.partition(SEPARATOR)
    if not separator or not name.isdecimal():
        raise DataError(
            f"question {score.question_id}: SEED's categories are like image/3, not "
            f"`{score.category}`"
        )
    return name


SCORER = Scorer(score=each(score), figures=figures)
