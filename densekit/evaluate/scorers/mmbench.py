"""MMBench: a question counts only if the letter is right in every rotation of its options.

The service that scored it is closed, and its judge for stray answers retired: letters come from
rules (letters.py), and an answer that none of them reads is wrong.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

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

ROTATION = 1_000_000
"""Rotation r of question i has the index r * 1,000,000 + i."""
DROPPED = ("hint", "category", "source", "image", "comment", "l2-category")
PREDICTION = 6
"""The column of the official sheet that answers go into."""


def score(question: Question, text: str, _: Semantics) -> Score:
    """1 where the answer names the right letter. Raises DataError for a question without options,
    or whose right answer is no letter.
    """
    gold = right_letter(question)
    parsed = letter_of(text, options_of(question))
    return score_of(question, parsed, gold=gold, score=float(parsed == gold))


def base_index(index: str) -> int:
    """The question that a row rotates. Raises DataError for an index that is no number."""
    if not index.isdecimal():
        raise DataError(f"MMBench's rows have numbers as their index, and one has `{index}`")
    return int(index) % ROTATION


def figures(scores: Sequence[Score], _: Semantics = "faithful") -> dict[str, float]:
    """`circular_accuracy`, which is reported, and `first_pass_accuracy`, of the rows as they are.

    Raises DataError for a question without its first row.
    """
    passes: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for entry in scores:
        passes[base_index(entry.question_id)][int(entry.question_id) // ROTATION] = entry.score
    if without := [index for index, found in passes.items() if 0 not in found]:
        raise DataError(
            f"{len(without)} of {len(passes)} questions lack their first row (index {without[0]}): "
            "rows of a question belong together"
        )
    return {
        "circular_accuracy": percent(min(found.values()) for found in passes.values()),
        "first_pass_accuracy": percent(found[0] for found in passes.values()),
    }


def sheet_columns(columns: Iterable[str]) -> list[str]:
    """The columns of the sheet that the official script wrote for the service."""
    kept = [name for name in columns if name not in DROPPED]
    return [*kept[:PREDICTION], "prediction", *kept[PREDICTION:]]


def sheet_answers(
    indices: Iterable[int], answers: Iterable[tuple[int, str]]
) -> list[tuple[int, str | None]]:
    """Each row's answer in that sheet: the last one to its index, None for an empty cell."""
    last: Mapping[int, str] = dict(answers)
    return [(index, last.get(index) or None) for index in indices]


SCORER = Scorer(score=each(score), figures=figures)
