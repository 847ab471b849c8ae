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


def check_tags(tags: int, *, has_image: bool) -> None:
    """Raises DataError where a prompt has another number of image tags than of images."""
    if tags != int(has_image):
        raise DataError(
            f"{tags} image tag{'s' * (tags != 1)} ({IMAGE_TOKEN}) in the prompt and "
            f"{'one image: write one tag, or none' if has_image else 'no image'}"
            f"{'' if has_image else ': give an image, or remove the tag'}"
        )


def with_tag(question: str, *, has_image: bool) -> str:
    """A single question with the tag of its image in front, as in the data that models are trained
    on, unless it says itself where the image goes. Raises DataError as `check_tags`.
    """
    if has_image and IMAGE_TOKEN not in question:
        return f"{IMAGE_TOKEN}\n{question}"
    check_tags(question.count(IMAGE_TOKEN), has_image=has_image)
    return question


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
