"""Recorded answers of the official scorers, one file per scorer, against densekit's."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from densekit.errors import DataError
from densekit.evaluate.protocols.cells import shown_options
from densekit.evaluate.scorers import (
    gqa,
    mathvista,
    mathvista_extract,
    mme,
    mmmu_choice,
    mmmu_open,
    pope,
    sqa,
    ten_answers,
    textvqa_join,
)
from densekit.files.json_files import read_object
from densekit.parity import evaluation_prompts, evaluation_totals
from densekit.parity.compare import Quantities

EXACT = 1e-12
"""Tolerance of figures: the recordings hold every digit."""
PROMPTS = "prompts"
CheckInput = Callable[[Quantities, Any, Any], None]
"""One recorded input and output, compared."""


def check_recording(path: Path, quantities: Quantities) -> None:
    """Every case of one file."""
    cases = read_object(path, "cases")["cases"]
    if not isinstance(cases, list):
        raise DataError(f"{path}: `cases` must be a list")
    check = evaluation_prompts.check_of(path) if path.stem == PROMPTS else CHECKS[path.stem]
    for case in cases:
        check(quantities, case["input"], case["output"])


def _text(rule: Callable[[str], str]) -> CheckInput:
    """An answer's text that becomes another."""

    def check(quantities: Quantities, given: Any, recorded: Any) -> None:
        quantities.exact("output", rule(given), recorded)

    return check


def _soft_accuracy(quantities: Quantities, given: Any, recorded: Any) -> None:
    worth = quantities.refused(
        f"{len(given['answers'])} answers",
        recorded.get("error"),
        lambda: ten_answers.soft_accuracies(given["answers"]),
    )
    if worth is None:
        return
    expected = recorded["per_answer"]
    quantities.exact("answers", sorted(worth), sorted(expected))
    quantities.close("per_answer", [worth[a] for a in expected], list(expected.values()), EXACT)
    score = worth.get(ten_answers.normalise(given["prediction"]), 0.0)
    quantities.close("score", score, recorded["score"], EXACT)


def _question(quantities: Quantities, given: Any, recorded: Any) -> None:
    question = quantities.refused(
        repr(given), recorded.get("error"), lambda: textvqa_join.asked_question(given)
    )
    if question is not None:
        quantities.exact("question", question, recorded["question"])


def _sqa(quantities: Quantities, given: Any, recorded: Any) -> None:
    parsed = sqa.parse(given["text"])
    index = sqa.choice(parsed, given["choices"])
    quantities.exact("parsed", parsed or "FAILED", recorded["parsed"])
    quantities.exact("index", str(index), str(recorded["index"]))
    quantities.exact("right", str(index == given["gold"]), str(recorded["right"]))


def _choice(quantities: Quantities, given: Any, recorded: Any) -> None:
    options = given["options"]

    def letter() -> tuple[str, bool]:
        parsed = mmmu_choice.parse(given["response"], options)
        return parsed or mmmu_choice.Draws().letter(options), parsed is None

    found = quantities.refused(given["response"], recorded.get("error"), letter)
    if found is not None:
        quantities.exact("letter", found[0], recorded["letter"])
        quantities.exact("random", str(found[1]), str(recorded["random"]))


def _choice_sequence(quantities: Quantities, given: Any, recorded: Any) -> None:
    draws = mmmu_choice.Draws()
    letters = [
        mmmu_choice.parse(case["response"], case["options"]) or draws.letter(case["options"])
        for case in given
    ]
    quantities.exact("letters", letters, recorded)


def _open(quantities: Quantities, given: Any, recorded: Any) -> None:
    parsed = mmmu_open.parse(given["response"])
    numbers = [_spelled(value) for value in parsed if not isinstance(value, str)]
    texts = [value for value in parsed if isinstance(value, str)]
    expected = [_spelled(float(value)) for value in recorded["parsed_numbers"]]
    quantities.exact("parsed_numbers", sorted(numbers), sorted(expected))
    quantities.exact("parsed_texts", sorted(texts), sorted(recorded["parsed_texts"]))
    gold = given["gold"] if isinstance(given["gold"], list) else [given["gold"]]
    right = quantities.refused(
        repr(gold), recorded.get("error"), lambda: mmmu_open.right(gold, parsed)
    )
    if right is not None:
        quantities.exact("right", str(right), str(recorded["right"]))


def _spelled(value: float) -> str:
    return "nan" if math.isnan(value) else repr(value)


def _mathvista(quantities: Quantities, given: Any, recorded: Any) -> None:
    choices = given["choices"] if given["question_type"] == "multi_choice" else None

    def predict() -> tuple[object]:
        return (
            mathvista.prediction(
                given["extraction"],
                choices=choices,
                answer_type=given["answer_type"],
                precision=given["precision"],
            ),
        )

    found = quantities.refused(repr(given), recorded.get("error"), predict)
    if found is not None:
        quantities.exact("prediction", [found[0]], [recorded["prediction"]])
        quantities.exact("right", str(found[0] == given["answer"]), str(recorded["right"]))


def _similar(quantities: Quantities, given: Any, recorded: Any) -> None:
    choice = quantities.refused(
        repr(given),
        recorded.get("error"),
        lambda: mathvista.nearest(given["prediction"], given["choices"]),
    )
    if choice is not None:
        quantities.exact("choice", choice, recorded["choice"])


def _extract(quantities: Quantities, given: Any, recorded: Any) -> None:
    found = mathvista_extract.extract(
        given["response"],
        choices=given["choices"] if given["question_type"] == "multi_choice" else None,
        answer_type=given["answer_type"],
        quick=given["quick_extract"],
    )
    quantities.exact("judge", str(found is None), str(recorded["judge"]))
    quantities.exact("extraction", found, recorded.get("extraction"))


def _options(quantities: Quantities, given: Any, recorded: Any) -> None:
    quantities.exact("options", list(shown_options(given)), recorded)


CHECKS: dict[str, CheckInput] = {
    "gqa_answer": _text(gqa.prediction),
    "mathvista": _mathvista,
    "mathvista_extract": _extract,
    "mathvista_similar": _similar,
    "mme_answer": _text(mme.said),
    "mmbench_options": _options,
    "mmmu_choice": _choice,
    "mmmu_choice_sequence": _choice_sequence,
    "mmmu_open": _open,
    "pope_answer": _text(lambda text: pope.said(text) or ""),
    "sqa_answer": _sqa,
    "textvqa_question": _question,
    "vqa_normalise": _text(ten_answers.normalise),
    "vqa_soft_accuracy": _soft_accuracy,
    **evaluation_totals.CHECKS,
}
"""By the name of the recorded file."""
RECORDINGS = (*CHECKS, PROMPTS)
"""Names of the files that are understood."""
