"""How the official TextVQA script finds the annotation of an answer: by image and by the question
that it reads back out of the stored prompt.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from densekit.errors import DataError

OCR_FIRST = "OCR tokens: "
OCR_BETWEEN = "Reference OCR token: "
BETWEEN = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)
ImageId = str | int
"""Images 1 and "1" are two."""


class Stored(NamedTuple):
    """One row of an official answer file, whose `question_id` is the image's."""

    image_id: ImageId
    prompt: str
    text: str


def asked_question(prompt: str) -> str:
    """The question of a stored prompt, in lower case.

    Raises DataError for a prompt of another shape: two lines, or three with the OCR tokens in one.
    """
    lines = prompt.split("\n")
    if prompt.startswith(OCR_FIRST):
        found = BETWEEN.search(prompt)
        question = found[1] if found else None
    elif OCR_BETWEEN in prompt and len(lines) == 3:
        question = lines[1] if prompt.startswith(OCR_BETWEEN.strip()) else lines[0]
    else:
        question = lines[0] if len(lines) == 2 else None
    if question is None:
        raise DataError(
            f'no question can be read out of the stored prompt "{prompt[:60]}": two lines are '
            f"needed (question, instruction), or three with `{OCR_BETWEEN.strip()} ...` between"
        )
    return question.lower()


def annotated(
    rows: Sequence[Stored], annotations: Mapping[tuple[ImageId, str], Sequence[str]]
) -> list[tuple[str, Sequence[str]]]:
    """Each row's answer with the ten answers to its question; `annotations` is by image and
    lower-case question.

    Raises DataError for a row whose question is not there.
    """
    pairs = []
    for row in rows:
        key = (row.image_id, asked_question(row.prompt))
        if key not in annotations:
            raise DataError(f'image {key[0]} has no annotated question "{key[1][:60]}"')
        pairs.append((row.text, annotations[key]))
    return pairs
