"""A benchmark's questions, and the join with a model's answers: by id, every id once."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StrictInt

from densekit.errors import DataError
from densekit.runs.benchmarks import Answer, Protocol

AnswerType = Literal["text", "integer", "float", "list"]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
SHOWN = 3
"""Ids that a message names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question. A scorer reads the fields that its benchmark has."""

    id: str
    text: str
    """As asked of the model, without suffix; POPE's and MME's too."""
    image: str | None
    """Id of the image, the unit of the statistics; None: a question without one."""
    gold: tuple[str, ...] = ()
    """The right answers: one, ten people's (VQAv2, VizWiz, TextVQA), or any of several (MMMU); a
    letter where `options` are asked, except MathVista's, whose gold is the option's text.
    """
    category: str = ""
    options: tuple[str, ...] = ()
    hint: str | None = None
    """Of MMBench: shown above the question."""
    ocr_tokens: tuple[str, ...] = ()
    """Of TextVQA."""
    answer_type: AnswerType = "text"
    """Of MathVista's questions without options."""
    precision: StrictInt | Finite | None = None
    """Decimal places of an answer of type float; 1 and 1.0 are two (MathVista's quirk)."""
    unit: str | None = None
    """Of MathVista: shown behind the question."""
    rotation_of: str | None = None
    """Of MMBench: the question whose options this one rotates."""


class Answered(NamedTuple):
    """A question with what the model said."""

    question: Question
    text: str


def join(questions: Sequence[Question], answers: Iterable[Answer]) -> list[Answered]:
    """Every question with its answer, in the questions' order; the answers' order does not matter.

    Raises DataError, with counts and the first ids, for ids that come twice on either side, for
    answers to questions that are not there, and for questions without an answer.
    """
    refuse_twice("questions", [question.id for question in questions])
    given = list(answers)
    refuse_twice("answers", [answer.question_id for answer in given])
    texts = {answer.question_id: answer.text for answer in given}
    missing = [question.id for question in questions if question.id not in texts]
    unknown = sorted(texts.keys() - {question.id for question in questions})
    if missing or unknown:
        problems = []
        if missing:
            problems.append(f"{_count(missing, 'question')} without an answer {_first(missing)}")
        if unknown:
            problems.append(f"{_count(unknown, 'answer')} to no question {_first(unknown)}")
        raise DataError(
            f"{_count(given, 'answer')} for {_count(questions, 'question')}: "
            f"{' and '.join(problems)}; score answers against the questions they were given to"
        )
    return [Answered(question, texts[question.id]) for question in questions]


def check_counts(protocol: Protocol, questions: Sequence[Question]) -> None:
    """Raises DataError, which names both counts, for another version of a benchmark's data, and for
    rotations of which every question has one alone: a figure over rotations needs them.
    """
    rotated = [question.rotation_of for question in questions if question.rotation_of is not None]
    if rotated and len(set(rotated)) == len(rotated):
        raise DataError(
            f"{protocol.title} asks a question again with its options rotated, and this data has "
            f"{_count(rotated, 'question')} in one order alone; take the file with the rotations"
        )
    expected = protocol.expected
    if expected is None:
        return
    total = len({question.rotation_of or question.id for question in questions})
    found = Counter(question.category for question in questions)
    named = {name: found[name] for name in expected.categories}
    images = len({question.image for question in questions} - {None}) if expected.images else None
    stated = (expected.questions, expected.images, dict(expected.categories))
    if (total, images, named) == stated:
        return
    raise DataError(
        f"{protocol.title} has {_counts(*stated)} ({expected.source}), and this data has "
        f"{_counts(total, images, named)}: it is another version; "
        "put the version in place that the protocol names"
    )


def _counts(total: int, images: int | None, categories: Mapping[str, int]) -> str:
    text = f"{total:,} question{'' if total == 1 else 's'}"
    if images is not None:
        text += f" on {images:,} image{'' if images == 1 else 's'}"
    if not categories:
        return text
    return f"{text} ({', '.join(f'{count:,} {name}' for name, count in categories.items())})"


def refuse_twice(what: str, ids: Sequence[str]) -> None:
    """Raises DataError, with counts and the first ids, for ids that come more than once."""
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(
            f"{len(ids):,} {what}, and {_count(twice, 'id')} more than once {_first(twice)}; "
            "keep one of each"
        )


def _count(values: Sequence[object], what: str) -> str:
    return f"{len(values):,} {what}{'' if len(values) == 1 else 's'}"


def _first(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > SHOWN else ""
    return f"({', '.join(ids[:SHOWN])}{more})"
