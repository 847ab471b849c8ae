"""MMMU's open questions: what a response says behind `is`, `so`, `=` ..., and its numbers."""

import re
from collections.abc import Sequence

from densekit.errors import DataError

Parsed = tuple[float | str, ...]
INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
LAST_INDICATOR = "="
"""An indicator in the last sentence only."""
SIGNS = {":", ",", ".", "!", "?", ";", "'"}
WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
SIMPLE = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")
PLACES = 2
"""Decimals that numbers are rounded to."""


def parse(response: str) -> Parsed:
    """The numbers and texts that a response is taken for, each once."""
    said = _said(response)
    numbers = [found for text in said for found in _numbers(text)]
    return tuple(dict.fromkeys(value for text in (*said, *numbers) for value in normalise(text)))


def normalise(text: str) -> Parsed:
    """A number, commas dropped, rounded; else the text in lower case, a single letter with a blank
    before or after it.
    """
    text = text.strip()
    try:
        return (round(float(text.replace(",", "")), PLACES),)
    except ValueError:
        text = text.lower()
    return (f" {text}", f"{text} ") if len(text) == 1 else (text,)


def right(gold: Sequence[str], parsed: Parsed) -> bool:
    """Whether a number is one of the right answers, or a right text is part of a text.

    Raises DataError for a right answer that is no text.
    """
    if not all(isinstance(answer, str) for answer in gold):
        raise DataError("the right answers to an open question are texts")
    answers = [value for answer in gold for value in normalise(answer)]
    texts = [answer for answer in answers if isinstance(answer, str)]
    return any(
        any(answer in value for answer in texts) if isinstance(value, str) else value in answers
        for value in parsed
    )


def _said(response: str) -> list[str]:
    """The shortest piece behind an indicator in each sentence; the whole where no sentence has
    one.
    """
    text = response.strip().strip(".").lower()
    sentences = text.split("\n")  # the official cut before a capital never meets one
    found = []
    for number, sentence in enumerate(sentences, 1):
        last = number == len(sentences)
        pieces = [
            sentence.rpartition(indicator)[2].strip()
            for indicator in (*INDICATORS, *([LAST_INDICATOR] if last else []))
            if indicator in sentence
        ]
        shortest = _shortest(pieces)
        if shortest and shortest not in SIGNS:
            found.append(shortest)
    return found or [text]


def _shortest(pieces: Sequence[str]) -> str:
    """The first of the shortest pieces; an empty one is replaced by whatever comes next."""
    shortest = ""
    for piece in pieces:
        if not shortest or len(piece) < len(shortest):
            shortest = piece
    return shortest


def _numbers(text: str) -> list[str]:
    return [found for rule in (WITH_COMMAS, SCIENTIFIC, SIMPLE) for found in rule.findall(text)]
