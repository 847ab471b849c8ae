"""The letter that an answer to a multiple-choice question names, by rules that guess nothing."""

import re
import string
from collections.abc import Sequence

AROUND = "()[]{}.,:;!*'\"` \t\r\n"
"""What may stand around a letter that is a whole answer."""
LEADING = re.compile(r"[(\[]?([A-Z])(?:[)\].:,]|$)")
STATED = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*[(\[]?([A-Z])\b", re.IGNORECASE)


def letter_of(text: str, options: Sequence[str]) -> str | None:
    """The letter of one of `options`, or None.

    In this order: the letter alone, whatever signs are around it; a letter that begins the answer
    and is set off by a sign; a letter stated to be the answer; the text of exactly one option.
    """
    letters = string.ascii_uppercase[: len(options)]
    bare = text.strip(AROUND)
    if len(bare) == 1 and bare.upper() in letters:
        return bare.upper()
    for rule in (LEADING.match(text.strip()), STATED.search(text)):
        if rule and rule[1] in letters:
            return rule[1]
    said = bare.casefold()
    same = [
        index for index, option in enumerate(options) if option.strip(AROUND).casefold() == said
    ]
    return letters[same[0]] if len(same) == 1 and said else None
