"""Made-up questions, answers and scores."""

from densekit.evaluate.questions import Answered, Question
from densekit.evaluate.scorers import get_scorer
from densekit.runs.benchmarks import Answer, Score
from densekit.spec.types import Semantics


def question(
    number: int | str = 1, gold: str | tuple[str, ...] = "yes", **fields: object
) -> Question:
    """A question about image i1, unless `fields` says otherwise."""
    golds = (gold,) if isinstance(gold, str) else gold
    known = {"id": str(number), "text": "What is it?", "image": "i1", "gold": golds}
    return Question(**{**known, **fields})  # type: ignore[arg-type]


def answers(texts: dict[str, str]) -> list[Answer]:
    """One answer an id."""
    return [Answer(question_id=name, text=text) for name, text in texts.items()]


def scored(scorer: str, asked: Question, text: str, semantics: Semantics = "faithful") -> Score:
    """The score of one answer."""
    (score,) = get_scorer(scorer).score([Answered(asked, text)], semantics)
    return score


def score(
    number: int | str,
    value: float,
    *,
    category: str = "",
    gold: str = "",
    parsed: str = "",
    cluster: str = "i1",
    note: str = "",
) -> Score:
    """A score as a scorer would make it."""
    return Score(
        question_id=str(number),
        cluster=cluster,
        category=category,
        gold=gold,
        parsed=parsed,
        score=value,
        note=note,
    )
