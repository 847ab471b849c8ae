"""What an entry of an annotation file must be: what would train on the wrong thing is refused, with
the reason in words.

What is legal follows the official code (docs/upstream.md); what is legal there but nearly always a
mistake is refused here.
"""

from typing import Any

from densekit.errors import DataError
from densekit.spec.types import IMAGE_TOKEN

SYNONYMS = {"user": "human", "assistant": "gpt", "chatgpt": "gpt", "bing": "gpt", "model": "gpt"}
"""Who else speaks in files of ShareGPT and its relatives."""


def image_of(entry: dict[str, Any]) -> str | None:
    """The image of a checked entry, None without one; some programs write a list of one."""
    image: str | list[str] | None = entry.get("image")
    return image[0] if isinstance(image, list) else image


def check_entry(entry: Any) -> bool:
    """Check one entry; return whether an image tag occurs in it. Raises DataError without the
    place.

    In an entry without image a tag inside a sentence is ordinary text, as in the official code; a
    tag that opens or ends a human turn is a lost image and refused.
    """
    if not isinstance(entry, dict):
        raise DataError(
            f"is a JSON {type(entry).__name__}; an object with 'conversations' is needed"
        )
    image = entry.get("image")
    if isinstance(image, list) and len(image) != 1:
        raise DataError(
            f"'image' is a list of {len(image)}; one image per sample is supported: split the "
            "entry, one image each"
        )
    if "image" in entry and not _names_a_file(image[0] if isinstance(image, list) else image):
        raise DataError(
            "'image' is not a file name; write a relative path, or leave the field out for text "
            "only"
        )
    if "video" in entry:
        raise DataError(
            "'video' is not supported (the official code cannot train on it either); remove the "
            "entry"
        )
    turns = entry.get("conversations")
    if not isinstance(turns, list) or not turns:
        if "messages" in entry:
            raise DataError(
                "'messages' is another format (OpenAI's: role and content); write 'conversations', "
                'a list of {"from": "human" or "gpt", "value": text}'
            )
        raise DataError("no 'conversations'; give a list of turns, human first")

    tagged_turns = sum(_check_turn(number, turn) for number, turn in enumerate(turns))
    if tagged_turns > 1 and "image" in entry:
        raise DataError(
            f"{IMAGE_TOKEN} in {tagged_turns} turns but only one image; keep the tag in one turn"
        )
    # The official code drops a leading gpt turn (ShareGPT has them), so the count starts behind it.
    speakers = [turn["from"] for turn in turns]
    first = int(speakers[0] == "gpt")
    if first == len(speakers):
        raise DataError(
            "a single gpt turn, which is dropped as a leading one; add the human turn it answers"
        )
    for number, speaker in enumerate(speakers[first:], start=first):
        expected = "human" if (number - first) % 2 == 0 else "gpt"
        if speaker != expected:
            raise DataError(
                f"turn {number} is from {speaker!r} where {expected!r} is due; turns must alternate"
            )
    texts = [turn["value"].strip() for turn in turns if turn["from"] == "human"]
    placeholder = any(text.startswith(IMAGE_TOKEN) or text.endswith(IMAGE_TOKEN) for text in texts)
    if "image" not in entry and placeholder:
        raise DataError(
            f"tag without an image: a human turn opens or ends with {IMAGE_TOKEN} but there is no "
            "'image' field; add the field, or take the tag out"
        )
    return tagged_turns > 0


def _names_a_file(image: object) -> bool:
    return isinstance(image, str) and bool(image) and "\0" not in image


def _check_turn(number: int, turn: Any) -> bool:
    """Check one turn and return whether it holds an image tag."""
    if isinstance(turn, dict) and "role" in turn and "from" not in turn:
        raise DataError(
            f"turn {number} has 'role' and 'content', as OpenAI's messages have; write 'from' "
            "('human' or 'gpt') and 'value'"
        )
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str):
        raise DataError(f'turn {number} has no \'from\'; write "from": "human" or "gpt"')
    if not isinstance(turn.get("value"), str):
        raise DataError(f"turn {number} has no 'value'; write the text of the turn as a string")
    speaker = turn["from"]
    if speaker == "system":
        raise DataError(
            f"turn {number} is from 'system': the template has its system prompt; remove the turn, "
            "or put its text into the first human turn"
        )
    if speaker in SYNONYMS:
        raise DataError(f"turn {number} is from {speaker!r}; write {SYNONYMS[speaker]!r}")
    if speaker not in ("human", "gpt"):
        raise DataError(f"turn {number} is from {speaker[:40]!r}; only 'human' and 'gpt' are known")
    return IMAGE_TOKEN in turn["value"]
