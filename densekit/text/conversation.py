"""Checks a conversation of a data file and normalises its turns."""

from collections.abc import Sequence

from densekit.errors import DataError
from densekit.spec.types import IMAGE_TOKEN, Semantics

Turn = tuple[str, str]
"""A role ("human" or "gpt") and its text."""

_ROLES = ("human", "gpt")


def turn_values(conversations: object) -> list[tuple[object, str]]:
    """Return (from, value) of every turn.

    Raises:
        DataError: the conversation is empty or no list, or a turn has no text in "value".
    """
    if (
        not isinstance(conversations, Sequence)
        or isinstance(conversations, str)
        or not conversations
    ):
        raise DataError("conversations must be a list with at least one turn")
    turns = []
    for index, turn in enumerate(conversations):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise DataError(f'turn {index}: expected an object with a text in "value"')
        try:
            turn["value"].encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"turn {index}: character {error.start} is half a surrogate pair; remove it"
            ) from None
        turns.append((turn.get("from"), turn["value"]))
    return turns


def alternating_turns(conversations: object) -> tuple[list[Turn], bool]:
    """Return the turns, beginning with the human, and whether a first turn from gpt was dropped
    (docs/upstream.md, Q7).

    Raises:
        DataError: as `turn_values`, for an unknown "from", and for turns that do not alternate.
    """
    values = turn_values(conversations)
    dropped = values[0][0] == "gpt"
    turns: list[Turn] = []
    for index, (role, value) in enumerate(values):
        if role not in _ROLES:
            raise DataError(f"turn {index}: \"from\" is {role!r}, expected 'human' or 'gpt'")
        if dropped and index == 0:
            continue
        expected = _ROLES[len(turns) % 2]
        if role != expected:
            raise DataError(
                f'turn {index}: "from" is {role!r}, expected {expected!r}: turns must alternate'
            )
        turns.append((expected, value))
    return turns, dropped


def collapse_tags(value: str) -> str:
    """Put one image tag and a newline before a text that holds any number of tags
    (docs/upstream.md, Q6).
    """
    if IMAGE_TOKEN not in value:
        return value
    return f"{IMAGE_TOKEN}\n{value.replace(IMAGE_TOKEN, '').strip()}".strip()


def with_tags_in_front(turns: Sequence[Turn], semantics: Semantics) -> list[Turn]:
    """Turns of a sample with an image, their tags collapsed; officially those of answers too."""
    return [
        (role, collapse_tags(value) if semantics == "faithful" or role == "human" else value)
        for role, value in turns
    ]
