"""How values and counts are spelled in the sentences of diff and verify."""

import json

LONGEST = 80


def shown(value: object) -> str:
    """A number in full, a hash by its first 16 digits, None as `null`."""
    if value is None:
        return "null"
    text = repr(value) if isinstance(value, float) else str(value)
    return f"{text[:16]}..." if len(text) == 64 and " " not in text else text


def as_json(value: object) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def count_of(count: int, noun: str, plural: str = "") -> str:
    """`1 step`, `2 steps`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
