"""The text that is asked: a question's fields, laid out, and the suffix that the benchmark adds.

A newline, a blank or a period more is another protocol: each layout is compared with recorded
prompts of the official runners.
"""

import string
from collections.abc import Callable, Iterator, Sequence

from densekit.errors import DataError
from densekit.evaluate.questions import Question
from densekit.files.hashing import json_sha256
from densekit.runs.benchmarks import Layout, Protocol
from densekit.spec.types import IMAGE_TOKEN

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
LETTER_CN = "\n请直接回答选项字母。"
OCR = "\nReference OCR token: "
_HINTS = {
    "letter": "and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": (
        "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end."
    ),
    "float 1": (
        "requiring a floating-point number with one decimal place and provide the final value, "
        "e.g., 1.2, 1.3, 1.4, at the end."
    ),
    "float 2": (
        "requiring a floating-point number with two decimal places and provide the final value, "
        "e.g., 1.23, 1.34, 1.45, at the end."
    ),
    "list": (
        "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], "
        "[1.2, 1.3, 1.4], at the end."
    ),
}


def text_asked(protocol: Protocol, question: Question) -> str:
    """A question's text with the protocol's suffix, without the image's tag.

    Raises DataError where the layout has no text for this question.
    """
    return _LAYOUTS[protocol.layout](question, protocol.suffix)


def human_turn(text: str, *, has_image: bool, tag: str = IMAGE_TOKEN) -> str:
    """The human turn: the image's tag, a newline, the text; the bare text without an image."""
    return f"{tag}\n{text}" if has_image else text


def prompt_sha256(protocol: Protocol) -> str:
    """What identifies how a protocol asks: over the texts of made-up questions of every kind."""
    return json_sha256([text_asked(protocol, question) for question in _SAMPLES])


def _question(question: Question, suffix: str) -> str:
    return question.text + suffix


def _ocr(question: Question, suffix: str) -> str:
    return question.text + OCR + ", ".join(question.ocr_tokens) + suffix


def _tagged(question: Question, suffix: str) -> str:
    """The text holds its own tag, which moves to the front."""
    return question.text.replace(IMAGE_TOKEN, "").strip() + suffix


def _options(question: Question, suffix: str) -> str:
    hint = [] if question.hint is None else [question.hint]
    return "\n".join([*hint, question.text, *_lines(question.options, "{}. {}")]) + suffix


def _lettered(question: Question, suffix: str) -> str:
    """The question without options is asked for a word or a phrase."""
    if not question.options:
        return question.text + SHORT
    return "\n".join([question.text, *_lines(question.options, "({}) {}")]) + "\n" + suffix


def _hinted(question: Question, suffix: str) -> str:
    unit = f" (Unit: {question.unit})" if question.unit else ""
    choices = ["Choices:", *_lines(question.options, "({}) {}")] if question.options else []
    hint = f"Hint: Please answer the question {_HINTS[_hint_of(question)]}"
    return "\n".join([hint, f"Question: {question.text}{unit}", *choices]) + suffix


def _hint_of(question: Question) -> str:
    kind: str = question.answer_type
    if question.options:
        kind = "letter"
    elif kind == "float" and question.precision is not None:
        kind = f"float {question.precision:g}"
    if kind not in _HINTS:
        raise DataError(
            f"question {question.id}: no hint is defined for an answer of type "
            f"{question.answer_type} with precision {question.precision}"
        )
    return kind


def _lines(options: Sequence[str], line: str) -> Iterator[str]:
    if len(options) > len(string.ascii_uppercase):
        raise DataError(
            f"{len(options)} options, and there are {len(string.ascii_uppercase)} letters"
        )
    for letter, option in zip(string.ascii_uppercase, options, strict=False):
        yield line.format(letter, option)


_LAYOUTS: dict[Layout, Callable[[Question, str], str]] = {
    "question": _question,
    "ocr": _ocr,
    "tagged": _tagged,
    "options": _options,
    "lettered": _lettered,
    "hinted": _hinted,
}

_OPTIONS = ("red", "green", "blue")
_SAMPLES = (
    Question(id="1", image="1", text="Which?", options=_OPTIONS, ocr_tokens=("a", "b")),
    Question(id="2", image="1", text="Which?", options=_OPTIONS, hint="Look closely."),
    Question(id="3", image="1", text="How many?", answer_type="integer"),
    Question(id="4", image="1", text="How long?", answer_type="float", precision=1, unit="m"),
    Question(id="5", image="1", text="How long?", answer_type="float", precision=2),
    Question(id="6", image="1", text=f"{IMAGE_TOKEN}\nWhich ones?", answer_type="list"),
)
"""One for each way that a layout can go."""
