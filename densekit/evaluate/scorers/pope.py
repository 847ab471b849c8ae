"""POPE: yes or no by the first sentence's words; reported is the mean of three F1 of "yes"."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.evaluate.scorers.scorer import Scorer, each, one_gold, percent, score_of
from densekit.runs.benchmarks import Score
from densekit.spec.types import Semantics

NO = {"No", "not", "no"}
WORD = re.compile(r"[a-z]+")


def said(text: str, semantics: Semantics = "faithful") -> str | None:
    """`yes` unless a word of the first sentence is No, not or no; only a blank parts words.

    Fixed: the first of the words yes and no in any case, else `no` for a not; None: neither.
    """
    if semantics == "fixed":
        words = WORD.findall(text.lower())
        named = [word for word in words if word in ("yes", "no")]
        return named[0] if named else "no" if "not" in words else None
    sentence = text.split(".")[0].replace(",", "")
    return "no" if NO & set(sentence.split(" ")) else "yes"


def label(text: str) -> str:
    """`no` is no, and anything else is yes, as the official code takes labels."""
    return "no" if text == "no" else "yes"


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of one category, and the figures that they have."""

    tp: int
    fp: int
    tn: int
    fn: int
    said_yes: int
    """Of all answers."""
    answers: int

    @classmethod
    def of(cls, answers: Sequence[str], labels: Sequence[str]) -> "Confusion":
        """From parsed answers and labels, by position; what is longer is cut off."""
        pairs = list(zip(answers, labels, strict=False))
        return cls(
            tp=pairs.count(("yes", "yes")),
            fp=pairs.count(("yes", "no")),
            tn=pairs.count(("no", "no")),
            fn=pairs.count(("no", "yes")),
            said_yes=list(answers).count("yes"),
            answers=len(answers),
        )

    @property
    def precision(self) -> float:
        """Raises DataError where nothing was answered with yes."""
        return _divide(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Raises DataError where no right answer is yes."""
        return _divide(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Raises DataError without a true positive: the official code has no F1 of 0."""
        return _divide(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def accuracy(self) -> float:
        """Share of right answers among those counted."""
        return _divide(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def yes_ratio(self) -> float:
        """Share of yes among all answers."""
        return _divide(self.said_yes, self.answers)


def _divide(part: float, whole: float) -> float:
    if not whole:
        raise DataError("no true positive: the F1 of yes has no value here")
    return part / whole


def score(question: Question, text: str, semantics: Semantics) -> Score:
    """1 where yes or no is the label."""
    gold = label(one_gold(question))
    parsed = said(text, semantics)
    return score_of(question, parsed, gold=gold, score=float(parsed == gold))


def confusion(scores: Iterable[Score]) -> Confusion:
    """The counts of some scores; an answer that is neither yes nor no counts as the wrong one."""
    listed = list(scores)
    wrong = {"yes": "no", "no": "yes"}
    answers = [score.parsed or wrong[score.gold] for score in listed]
    return Confusion.of(answers, [score.gold for score in listed])


def figures(scores: Sequence[Score], semantics: Semantics = "faithful") -> dict[str, float]:
    """`f1`: the mean of the categories', in percent; each category's; `f1_pooled` and `yes_ratio`
    over all answers, `accuracy` as the mean of the categories'.

    Raises DataError for a category without a true positive; fixed: its F1 is 0.
    """
    if not scores:
        raise DataError("no question to take an F1 of")
    names = sorted({score.category for score in scores})
    of = {name: confusion(s for s in scores if s.category == name) for name in names}
    every = confusion(scores)
    each_f1 = {name: 100 * f1_of(counts, semantics) for name, counts in of.items()}
    return {
        "f1": sum(each_f1.values()) / len(each_f1),
        **{f"f1/{name}": value for name, value in each_f1.items()},
        "f1_pooled": 100 * f1_of(every, semantics),
        "accuracy": percent(counts.accuracy for counts in of.values()),
        "yes_ratio": 100 * every.yes_ratio,
    }


def f1_of(counts: Confusion, semantics: Semantics) -> float:
    """The F1 of yes, 0 to 1. Raises DataError without a true positive, except fixed: 0."""
    return 0.0 if semantics == "fixed" and not counts.tp else counts.f1


SCORER = Scorer(score=each(score), figures=figures)
