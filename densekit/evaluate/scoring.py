"""A benchmark's result from its questions and a model's answers."""

from collections.abc import Iterable, Sequence
from typing import get_args

from densekit.errors import DataError, UsageError
from densekit.evaluate.questions import Answered, Question, check_counts, join
from densekit.evaluate.scorers import get_scorer
from densekit.evaluate.scorers.scorer import notes_of
from densekit.runs.benchmarks import Answer, Protocol, Result
from densekit.spec.types import Semantics

SEMANTICS: tuple[Semantics, ...] = get_args(Semantics)


def score_answers(
    protocol: Protocol,
    questions: Sequence[Question],
    answers: Iterable[Answer],
    *,
    semantics: Semantics = "faithful",
    whole: bool = True,
) -> Result:
    """Score answers by id; `whole` False admits a part of the benchmark's questions.

    Raises UsageError for a benchmark that only a judge scores, DataError for another version of the
    data, for ids that do not meet, and where the metric has no value.
    """
    if protocol.scorer is None:
        raise UsageError(
            f"{protocol.title} is scored by a judge: {protocol.other_protocol}; its answers can be "
            "written, not scored"
        )
    if whole:
        check_counts(protocol, questions)
    scorer = get_scorer(protocol.scorer)
    scores = tuple(scorer.score(join(questions, answers), semantics))
    try:
        figures = dict(scorer.figures(scores, semantics))
    except DataError as error:
        raise DataError(f"{protocol.title} ({semantics}) has no value: {error}") from None
    return Result(
        benchmark=protocol.name,
        semantics=semantics,
        value=figures[protocol.figure],
        questions=len(scores),
        figures=figures,
        scores=scores,
        notes=notes_of(scores),
    )


def check_scorable(protocol: Protocol, questions: Sequence[Question], *, whole: bool) -> None:
    """Raises DataError where even right answers would have no score, or no figure if these are the
    `whole` benchmark's questions: before anything is asked, which may take hours.
    """
    if protocol.scorer is None:
        return
    scorer = get_scorer(protocol.scorer)
    answered = [
        Answered(question, question.gold[0] if question.gold else "") for question in questions
    ]
    try:
        for semantics in SEMANTICS:
            scores = scorer.score(answered, semantics)
            if whole:
                scorer.figures(scores, semantics)
    except DataError as error:
        raise DataError(
            f"{protocol.title}: no answers to these questions could be scored ({error}); give the "
            "benchmark's file with right answers"
        ) from None
