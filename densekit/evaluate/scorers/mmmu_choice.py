"""MMMU's letters: brackets before bare letters before option texts, the last one wins, and where
nothing is found a letter is drawn.
"""

import random
import string
from collections.abc import Sequence

from densekit.errors import DataError

STRIPPED = ",.!?;:'"
"""Signs that are stripped from both ends, one kind after the other."""
WORDS = 5
"""An answer of more words than this may name an option by its text."""
SEED = 42
"""Of the official draws."""


def letters_of(options: Sequence[str]) -> str:
    """The letters of so many options. Raises DataError for none, or more than there are letters."""
    if not 0 < len(options) <= len(string.ascii_uppercase):
        raise DataError(f"a question with {len(options)} options has no letters to choose from")
    return string.ascii_uppercase[: len(options)]


def parse(response: str, options: Sequence[str]) -> str | None:
    """The letter that a response names, None where it names none.

    Letters and brackets are looked for between blanks; of several found the one whose last
    occurrence is last wins. Raises DataError for a question without options.
    """
    letters = letters_of(options)
    for sign in STRIPPED:
        response = response.strip(sign)
    text = f" {response} "
    for pattern in ("({})", " {} "):
        places = {text.rfind(pattern.format(letter)): letter for letter in letters}
        if max(places) >= 0:
            return places[max(places)]
    if len(text.split()) <= WORDS:
        return None
    text = text.lower()
    named = [(text.rfind(option.lower()), -i) for i, option in enumerate(options)]
    place, index = max(named)
    return letters[-index] if place >= 0 else None


class Draws:
    """The letters drawn for responses that name none: one generator, in the questions' order."""

    def __init__(self, seed: int = SEED) -> None:
        self._random = random.Random(seed)

    def letter(self, options: Sequence[str]) -> str:
        """The next letter. Raises DataError for a question without options."""
        return self._random.choice(letters_of(options))
