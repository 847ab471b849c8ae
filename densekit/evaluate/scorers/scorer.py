"""What a scorer is: a rule per answer, and the figures that a benchmark's scores make."""

import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from densekit.errors import DataError
from densekit.evaluate.questions import Answered, Question
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

ScoreAll = Callable[[Sequence[Answered], Semantics], list[Score]]
Figures = Callable[[Sequence[Score], Semantics], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """One metric family; a module of this folder that defines SCORER."""

    score: ScoreAll
    """The scores of all answers, in their order."""
    figures: Figures
    """Everything that is computed from the scores alone, on the scale of the paper's tables.

    Raises DataError where the metric has no value.
    """


def each(rule: Callable[[Question, str, Semantics], Score]) -> ScoreAll:
    """Score answers one by one."""

    def score_all(answered: Sequence[Answered], semantics: Semantics) -> list[Score]:
        return [rule(question, text, semantics) for question, text in answered]

    return score_all


def score_of(
    question: Question, parsed: str | None, *, gold: str, score: float, note: str = ""
) -> Score:
    """A question's score; `parsed` None is an answer that nothing was read out of."""
    return Score(
        question_id=question.id,
        cluster=question.id if question.image is None else question.image,
        category=question.category,
        gold=gold,
        parsed=parsed or "",
        score=score,
        note="unparsed" if parsed is None and not note else note,
    )


def one_gold(question: Question) -> str:
    """The one right answer. Raises DataError for a question with another number of them."""
    if len(question.gold) != 1:
        raise DataError(
            f"question {question.id} has {len(question.gold)} right answers, and one is needed"
        )
    return question.gold[0]


def right_letter(question: Question) -> str:
    """The letter of the right option. Raises DataError where the right answer is no letter."""
    gold = one_gold(question)
    if len(gold) != 1 or gold not in string.ascii_uppercase:
        raise DataError(
            f"question {question.id}: the right answer `{gold[:60]}` is no option's letter "
            "(A, B, ...)"
        )
    return gold


def options_of(question: Question) -> tuple[str, ...]:
    """The options that an answer chooses from. Raises DataError for a question without any."""
    if not question.options:
        raise DataError(
            f"question {question.id} has no `options`, and an answer to it is one of their letters"
        )
    return question.options


def yes_or_no(question: Question) -> str:
    """The right answer, in lower case. Raises DataError for one that is neither yes nor no."""
    gold = one_gold(question).lower()
    if gold not in ("yes", "no"):
        raise DataError(
            f"question {question.id}: the right answer `{gold[:60]}` is neither yes nor no"
        )
    return gold


def percent(values: Iterable[float]) -> float:
    """100 times the mean. Raises DataError for no values: a mean of nothing is no figure."""
    listed = list(values)
    if not listed:
        raise DataError("no question to take an accuracy of")
    return 100 * sum(listed) / len(listed)


def accuracy(scores: Sequence[Score], _: Semantics = "faithful") -> dict[str, float]:
    """`accuracy` over all questions, and `accuracy/CATEGORY` where there is more than one."""
    return {"accuracy": percent(score.score for score in scores), **by_category(scores)}


def by_category(scores: Sequence[Score]) -> dict[str, float]:
    """`accuracy/CATEGORY` of each category, sorted; nothing for a single one."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for score in scores:
        found[score.category].append(score.score)
    if len(found) == 1:
        return {}
    return {f"accuracy/{name}": percent(found[name]) for name in sorted(found)}


def notes_of(scores: Iterable[Score]) -> dict[str, int]:
    """How many scores carry each note."""
    return dict(sorted(Counter(score.note for score in scores if score.note).items()))
