"""Measures a sample for grouping by modality: its words, negative when it has no image."""

from densekit.errors import DataError
from densekit.text.conversation import turn_values


def modality_length(conversations: list[dict[str, str]], has_image: bool) -> int:
    """Return the number of words over all turns, negated for a text-only sample (docs/upstream.md,
    U10).

    Raises:
        DataError: a turn is malformed, or there is no word at all, which would hide the modality.
    """
    words = sum(len(value.split()) for _, value in turn_values(conversations))
    if words == 0:
        raise DataError("the conversation has no words, so it has no length to group by")
    return words if has_image else -words
