"""How the official TextVQA script finds the annotation of an answer: by image and by the question
that it reads back out of the stored prompt.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from densekit.errors import DataError

OCR_FIRST = "OCR tokens: "
OCR_BETWEEN = "Reference OCR token: "
BETWEEN = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)
ImageId = str | int
"""Images 1 and "1" are two."""
Key = tuple[ImageId | None, str]
Annotation = TypeVar("Annotation")


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


def annotation_of(image: ImageId, prompt: str, known: Mapping[Key, Annotation]) -> Annotation:
    """What is `known` of the question of a stored prompt, by image and lower-case question.

    Raises DataError for a prompt of another shape, or a question that is not known.
    """
    asked = asked_question(prompt)
    if (image, asked) not in known:
        raise DataError(
            f'image {image} has no question "{asked[:60]}"; score answers against the questions '
            "they were given to"
        )
    return known[image, asked]
